"""A segment: neighbouring stages of a chain that run in one process, as one operator of Ray Data.

The first segment reads work items; a later one takes the pieces of the segment before. The last segment writes parts
and yields a row of `pieces.WRITTEN` for each piece; any other yields packed pieces. Within a segment rows move in small
chunks and are never packed.

Ray retries the task of a worker that died from its start, and matches what the task yields with what it yielded before
by position alone. So a segment yields the same pieces in the same order each time. One that reads and writes yields an
empty row for each shard that was committed meanwhile, and computes only the others.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pyarrow as pa

from genre_ray.errors import GenreRayError, InputError
from genre_ray.outcomes import Outcome, Rejection, rejections
from genre_ray.runs.ahead import read_ahead
from genre_ray.runs.allocation import keep_freed_memory
from genre_ray.runs.attempts import Attempt, attempts_folder, begin_attempt
from genre_ray.runs.isolation import Isolation, concatenated
from genre_ray.runs.ledger import Ledger, shard_name
from genre_ray.runs.pieces import Piece, Place, failure, pack, unpack, written
from genre_ray.runs.plan import RemainingWork, WorkItem
from genre_ray.runs.stages import Chunk, Compute, Resources, ShardSize, Source, Stage, open_stages
from genre_ray.runs.watchdog import Limits, Watchdog
from genre_ray.storage import objects, tables
from genre_ray.storage.schemas import REJECTED
from genre_ray.storage.tables import Part

logger = logging.getLogger(__name__)

PIECE_BYTES = 64 * 2**20
"""A packed piece ends with the rows that reach so many bytes: several are held in the object store at once."""

_opened: dict[tuple[str, int], list[Compute]] = {}
"""The opened stages of this process, by session and segment: a process serves many tasks, and models load slowly."""


@dataclass(frozen=True)
class Session:
    """What all workers of one driver's run share.

    Attributes:
        name: unique to the driver.
        ledger: the arguments of `Ledger`: where the run is recorded.
        limits: what one row may take.
        prefetches: whether rows are read in a thread while others are computed: where there are fewer items than
            cores, so that a core is to spare. Otherwise the thread would only take turns with the computing.
    """

    name: str
    ledger: tuple[str, str, pa.Schema, str]
    limits: Limits
    prefetches: bool = False


@dataclass(frozen=True)
class Segment:
    """Neighbouring stages with the same resources.

    Attributes:
        session: what it shares with all others.
        index: its place among the segments of the run.
        source: where rows come from; None for all but the first segment.
        stages: what is done with them.
        schema: the columns of the rows that come out.
        writes: whether it is the last.
        resources: what one worker reserves.
    """

    session: Session
    index: int
    source: Source | None
    stages: tuple[Stage, ...]
    schema: pa.Schema
    writes: bool
    resources: Resources = field(default_factory=Resources)

    @property
    def name(self) -> str:
        """What it does, as Ray shows it in its dashboard and logs; its metrics take ASCII alone."""
        names = [self.source.name] if self.source else []
        return " -> ".join([*names, *(stage.name for stage in self.stages), *(["write"] if self.writes else [])])

    @property
    def attempts_uri(self) -> str:
        """The folder of its attempt markers: empty until its first worker begins."""
        return attempts_folder(self.session.ledger[0], self.session.name, self.index)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yield what comes of a batch of work items, or of packed pieces; an error is a row as well."""
        keep_freed_memory()
        try:
            if self.source is None:
                for piece in unpack(batch):
                    yield self._finished(self._computed(piece)) if isinstance(piece, Piece) else piece
            else:
                for values in batch.to_pylist():
                    yield from self._worked(RemainingWork(**values))
        except GenreRayError as error:
            yield failure(error)

    def _worked(self, work: RemainingWork) -> Iterator[pa.Table]:
        assert self.source is not None
        attempt = begin_attempt(self.attempts_uri, work.item, work.first_shard)
        first, position = work.first_shard, 0
        if attempt.deaths:
            ledger = Ledger(*self.session.ledger)
            committed, is_complete = ledger.progress(work.item)
            if self.writes:
                # What was yielded before is asked for again, by position.
                for shard in range(first, committed):
                    yield written(Place(work.item, shard, 0, True, False), None)
                if is_complete:
                    return
                first = max(first, committed)
            position = sum(ledger.rows_in(work.item, shard) or 0 for shard in range(first))
        reading = _Reading(self, work.read_item(self.session.name), work, first, position, attempt)
        with reading.watchdog:
            for piece in reading.pieces():
                row = self._finished(piece)
                reading.watchdog.pause()
                yield row
                reading.watchdog.progress()

    def _computed(self, piece: Piece) -> Piece:
        """A piece of the segment before, through the stages of this one."""
        place, rows = piece.place, piece.outcome.accepted
        name = f"{shard_name(place.item, place.shard)}-{place.piece:03d}"
        attempt = begin_attempt(self.attempts_uri, name)
        if attempt.deaths:
            logger.warning("%s: a worker died over this piece; its rows are computed one at a time", name)
            with Isolation(None, self.stages, self.schema, self.session.limits) as isolation:
                computed = isolation.compute(rows)
                isolation.refuse_alike(f"{place.item}/{place.shard}")
        else:
            with Watchdog(self.session.limits.stall_s()) as watchdog:
                computed = concatenated(list(self.flow([Outcome(rows, rejections([]))], watchdog)), self.schema)
        rejected = pa.concat_tables([piece.outcome.rejected, computed.rejected])
        return Piece(place, Outcome(computed.accepted, rejected))

    def flow(self, outcomes: Iterable[Outcome], watchdog: Watchdog) -> Iterator[Outcome]:
        """The outcomes of a shard through all stages, each of which gets as many rows at once as it asks for."""
        key = (self.session.name, self.index)
        if key not in _opened:
            _opened.clear()
            _opened[key] = open_stages(self.stages)
        flowing = iter(outcomes)
        for stage, opened in zip(self.stages, _opened[key], strict=True):
            flowing = _through(flowing, opened, stage.rows_per_call, watchdog)
        return flowing

    def _finished(self, piece: Piece) -> pa.Table:
        if not self.writes:
            return pack(piece)
        output, name, *_ = self.session.ledger
        place, (accepted, rejected) = piece
        part = shard_name(place.item, place.shard)
        parts = _part(objects.join(output, name), part, accepted)
        rejected_parts = _part(
            objects.join(output, "rejected"), part, _with_shard(rejected, f"{place.item}/{place.shard}")
        )
        return written(place, piece.outcome.num_rows, parts, rejected_parts)


class _Reading:
    """One attempt at a work item, read by the segment `segment` from its shard `first` on."""

    def __init__(
        self, segment: Segment, item: WorkItem, work: RemainingWork, first: int, position: int, attempt: Attempt
    ) -> None:
        assert segment.source is not None
        self.segment, self.source, self.item = segment, segment.source, item
        self.size = ShardSize(work.rows_per_shard, work.bytes_per_shard)
        self.first, self.position, self.attempt = first, position, attempt
        self.failed: dict[int, Rejection] = {}
        self.ended = False
        """Whether the item ends with the shard that was read last."""
        limits = segment.session.limits
        self.watchdog = Watchdog(limits.stall_s(remote=item.is_remote) + item.walk_s)

    def pieces(self) -> Iterator[Piece]:
        """Yield the item's pieces, in order."""
        shard = self.first
        with ExitStack() as stack:
            chunks: _Chunks | None = None
            while not self.ended:
                if self.attempt.deaths and self.attempt.shard == shard:
                    chunks, outcomes = None, self._isolated(shard)
                else:
                    chunks = chunks or stack.enter_context(self._reader(shard))
                    outcomes = self._plain(chunks, shard)
                held: list[Outcome] = []
                number = 0
                for outcome in outcomes:
                    if self._is_full(held):
                        yield self._piece(shard, number, held, ends_shard=False)
                        held, number = [], number + 1
                    held.append(outcome)
                    self.position += outcome.num_rows
                yield self._piece(shard, number, held, ends_shard=True)
                shard += 1
                self.attempt.advance(shard)

    def _piece(self, shard: int, number: int, held: Sequence[Outcome], *, ends_shard: bool) -> Piece:
        place = Place(self.item.name, shard, number, ends_shard, ends_shard and self.ended)
        return Piece(place, concatenated(held, self.segment.schema))

    def _is_full(self, held: Sequence[Outcome]) -> bool:
        return not self.segment.writes and sum(outcome.accepted.nbytes for outcome in held) >= PIECE_BYTES

    @contextmanager
    def _reader(self, first: int) -> Iterator["_Chunks"]:
        chunks = self.source.read(self.item, self.size, first, self.failed)
        with ExitStack() as stack:
            # What kills in reading must not do so ahead, before the shards that came earlier are written.
            gains = self.segment.session.prefetches or self.segment.resources.cpus > 1 or self.item.is_remote
            if gains and not self.attempt.deaths:
                chunks = stack.enter_context(read_ahead(chunks))
            yield _Chunks(chunks)

    def _plain(self, chunks: "_Chunks", shard: int) -> Iterator[Outcome]:
        if shard and (chunks.next is None or chunks.next.shard != shard):
            raise InputError(
                f"{self.item.files[0].uri}: no rows of shard {shard} are there, although the shards before it are; "
                "the input is not the one that this run was planned for. Restore it, then --resume"
            )
        for outcome in self.segment.flow(chunks.of_shard(shard), self.watchdog):
            self.watchdog.progress()
            yield outcome
        self.ended = chunks.next is None

    def _isolated(self, shard: int) -> Iterator[Outcome]:
        """The outcomes of a shard over which a worker died, through child processes."""
        logger.warning(
            "%s/%d: a worker died over this shard; its rows are read and computed one at a time, in child processes",
            self.item.name,
            shard,
        )
        limits, stages, schema = self.segment.session.limits, self.segment.stages, self.segment.schema
        isolation = Isolation(self.source, stages, schema, limits, self.failed)
        # The children have limits of their own.
        with isolation, self.watchdog.suspended():
            self.ended = True
            for chunk in isolation.read(self.item, self.size, shard, self.position):
                if chunk.shard != shard:
                    self.ended = False
                    break
                yield chunk.outcome
            isolation.refuse_alike(f"{self.item.name}/{shard}")


class _Chunks:
    """The chunks of an item; the next one is read before it is asked for, which tells whether its shard goes on."""

    def __init__(self, chunks: Iterator[Chunk]) -> None:
        self._chunks = chunks
        self.next = next(chunks, None)

    def of_shard(self, shard: int) -> Iterator[Outcome]:
        """The outcomes of one shard, the next one that has any."""
        while self.next is not None and self.next.shard == shard:
            yield self.next.outcome
            self.next = next(self._chunks, None)


def _through(
    outcomes: Iterator[Outcome], stage: Compute, rows_per_call: int | None, watchdog: Watchdog
) -> Iterator[Outcome]:
    """The outcomes of a shard after one more stage; up to `rows_per_call` rows are gathered for each call of it."""
    held: list[Outcome] = []
    count = 0

    def computed() -> Outcome:
        rows = held[0].accepted if len(held) == 1 else pa.concat_tables(outcome.accepted for outcome in held)
        watchdog.progress()
        accepted, rejected = stage(rows)
        return Outcome(accepted, pa.concat_tables([*(outcome.rejected for outcome in held), rejected]))

    for outcome in outcomes:
        if held and (rows_per_call is None or count >= rows_per_call):
            yield computed()
            held, count = [], 0
        held.append(outcome)
        count += outcome.accepted.num_rows
    if held:
        yield computed()


def _part(uri: str, name: str, rows: pa.Table) -> tuple[Part, ...]:
    return (tables.write_part(uri, name, rows),) if rows.num_rows else ()


def _with_shard(rejected: pa.Table, shard: str) -> pa.Table:
    column = pa.array([shard] * rejected.num_rows, pa.string())
    return rejected.append_column("shard", column).select(REJECTED.names).cast(REJECTED)
