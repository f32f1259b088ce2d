"""Read and compute the rows of a work item, shard by shard, and yield them as pieces.

Guarantees: every attempt yields the same pieces in the same order, because their boundaries follow from the rows of the
source. A shard during which a worker died is processed in child processes. All other shards are not.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pyarrow as pa

from genre_ray.errors import InputError
from genre_ray.outcomes import Outcome
from genre_ray.runs.ahead import read_ahead
from genre_ray.runs.attempts import Attempt
from genre_ray.runs.isolation import Isolation, concatenated
from genre_ray.runs.pieces import Piece, Place
from genre_ray.runs.plan import WorkItem
from genre_ray.runs.stages import Chunk, ShardSize, Source, Stage
from genre_ray.runs.watchdog import Limits, Watchdog

logger = logging.getLogger(__name__)

Flow = Callable[[Iterable[Outcome]], Iterator[Outcome]]


@dataclass
class Reading:
    """One attempt at a work item.

    Attributes:
        source: the source of rows.
        item: the work item.
        size: the sizes of shards and pieces.
        stages: the stages.
        schema: the schema of the computed rows.
        flow: passes outcomes through the opened stages.
        attempt: the attempt marker.
        position: number of rows of the item before the first shard to read.
        limits: the limits per row.
        watchdog: kills this process if it makes no progress.
        prefetches: whether to prefetch chunks in a thread.
    """

    source: Source
    item: WorkItem
    size: ShardSize
    stages: Sequence[Stage]
    schema: pa.Schema
    flow: Flow
    attempt: Attempt
    position: int
    limits: Limits
    watchdog: Watchdog
    prefetches: bool = False

    _ended = False
    """Whether the last shard that was read is the last of the item."""

    def pieces(self, first: int) -> Iterator[Piece]:
        """Yield the pieces of the item from shard `first` on."""
        shard = first
        with ExitStack() as stack:
            chunks: _Chunks | None = None
            while not self._ended:
                if shard in self.attempt.deaths:
                    chunks, outcomes = None, self._isolated(shard)
                else:
                    chunks = chunks or stack.enter_context(self._reader(shard))
                    outcomes = self._plain(chunks, shard)
                held: list[Outcome] = []
                number = 0
                for piece, outcome in outcomes:
                    if piece != number:
                        yield self._piece(shard, number, held, ends_shard=False)
                        held, number = [], piece
                    held.append(outcome)
                    self.position += outcome.num_rows
                yield self._piece(shard, number, held, ends_shard=True)
                shard += 1

    def _piece(self, shard: int, number: int, held: Sequence[Outcome], *, ends_shard: bool) -> Piece:
        place = Place(self.item.name, shard, number, ends_shard, ends_shard and self._ended)
        return Piece(place, concatenated(held, self.schema))

    @contextmanager
    def _reader(self, first: int) -> Iterator["_Chunks"]:
        chunks = self.source.read(self.item, self.size, first, self.attempt.failed)
        with ExitStack() as stack:
            # No prefetching after a death: a row must not crash the reader before earlier shards are written.
            if self.prefetches and not self.attempt.deaths:
                chunks = stack.enter_context(read_ahead(chunks))
            yield _Chunks(chunks)

    def _plain(self, chunks: "_Chunks", shard: int) -> Iterator[tuple[int, Outcome]]:
        if shard and (chunks.next is None or chunks.next.shard != shard):
            raise InputError(
                f"{self.item.files[0].uri}: the input ends before shard {shard}, so it changed since this run was "
                "planned. Restore it and run again with --resume"
            )
        while chunks.next is not None and chunks.next.shard == shard:
            piece = chunks.next.piece
            for outcome in self.flow(chunks.of_piece(shard, piece)):
                self.watchdog.progress()
                yield piece, outcome
        self._ended = chunks.next is None

    def _isolated(self, shard: int) -> Iterator[tuple[int, Outcome]]:
        """Yield the outcomes of a shard during which a worker died, computed in child processes."""
        logger.warning(
            "%s/%d: a worker died during this shard; processing its rows one at a time in child processes",
            self.item.name,
            shard,
        )
        isolation = Isolation(self.source, self.stages, self.schema, self.limits, self.attempt.failed)
        # The watchdog is suspended, because the children have their own limits.
        with isolation, self.watchdog.suspended():
            self._ended = True
            for chunk in isolation.read(self.item, self.size, shard, self.position):
                if chunk.shard != shard:
                    self._ended = False
                    break
                yield chunk.piece, chunk.outcome
            isolation.refuse_alike(f"{self.item.name}/{shard}")
            if not isolation.found_deaths:
                self.attempt.clear(shard)


class _Chunks:
    """The chunks of an item, with a look at the next one, which shows where pieces and shards end."""

    def __init__(self, chunks: Iterator[Chunk]) -> None:
        self._chunks = chunks
        self.next = next(chunks, None)

    def of_piece(self, shard: int, piece: int) -> Iterator[Outcome]:
        """Yield the outcomes of a piece, which must be the next one."""
        while self.next is not None and (self.next.shard, self.next.piece) == (shard, piece):
            yield self.next.outcome
            self.next = next(self._chunks, None)
