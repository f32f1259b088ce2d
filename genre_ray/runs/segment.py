"""A segment: neighbouring stages of a chain that run in one process, as one operator of Ray Data.

The first segment reads work items; a later one takes the pieces of the segment before. The last segment writes parts
and yields a row of `pieces.WRITTEN` for each piece; any other yields packed pieces. Within a segment rows move in small
chunks and are never packed.

Ray retries the task of a worker that died from its start, and matches what the task yields with what it yielded before
by position alone. So a segment yields the same pieces in the same order each time. One that reads and writes yields an
empty row for each shard that was committed meanwhile, and computes only the others.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain

import pyarrow as pa

from genre_ray.errors import GenreRayError, InputError
from genre_ray.outcomes import Outcome, Rejection, rejections
from genre_ray.runs.ahead import read_ahead
from genre_ray.runs.allocation import keep_freed_memory
from genre_ray.runs.attempts import Attempt, begin_attempt, session_folder
from genre_ray.runs.isolation import Isolation, concatenated
from genre_ray.runs.ledger import Ledger
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
    """

    name: str
    ledger: tuple[str, str, pa.Schema, str]
    limits: Limits


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
        output = self.session.ledger[0]
        attempt = begin_attempt(session_folder(output, self.session.name), work.item, work.first_shard)
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
            position = sum(ledger.rows_in(work.item, shard) for shard in range(first))
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
        name = f"{place.item}-{place.shard:05d}-{place.piece:03d}-{self.index}"
        attempt = begin_attempt(session_folder(self.session.ledger[0], self.session.name), name)
        if attempt.deaths:
            logger.warning("%s: a worker died over this piece; its rows are computed one at a time", name)
            with Isolation(None, self.stages, self.schema, self.session.limits) as isolation:
                computed = isolation.compute(rows)
                isolation.refuse_alike(f"{place.item}/{place.shard}")
        else:
            with Watchdog(self.session.limits.stall_s()) as watchdog:
                whole = [Chunk(place.shard, Outcome(rows, rejections([])))]
                computed = concatenated([chunk.outcome for chunk in self.flow(whole, watchdog)], self.schema)
        rejected = pa.concat_tables([piece.outcome.rejected, computed.rejected])
        return Piece(place, Outcome(computed.accepted, rejected))

    def flow(self, chunks: Iterable[Chunk], watchdog: Watchdog) -> Iterator[Chunk]:
        """The chunks through all stages, each of which gets as many rows at once as it asks for."""
        key = (self.session.name, self.index)
        if key not in _opened:
            _opened.clear()
            _opened[key] = open_stages(self.stages)
        flowing = iter(chunks)
        for stage, opened in zip(self.stages, _opened[key], strict=True):
            flowing = _through(flowing, opened, stage.rows_per_call, watchdog)
        return flowing

    def _finished(self, piece: Piece) -> pa.Table:
        if not self.writes:
            return pack(piece)
        output, name, *_ = self.session.ledger
        place, (accepted, rejected) = piece
        part = f"{place.item}-{place.shard:05d}"
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
        limits = segment.session.limits
        self.watchdog = Watchdog(limits.stall_s(remote=item.is_remote) + item.walk_s)

    def pieces(self) -> Iterator[Piece]:
        """Yield the item's pieces, in order; the last one of the item is known when reading has ended."""
        shard, number, last = self.first, 0, False
        held: list[Outcome] = []
        chunks = self._chunks()
        while not last:
            chunk = next(chunks, None)
            last = chunk is None
            ends_shard = chunk is None or chunk.shard != shard
            if ends_shard or self._is_full(held):
                place = Place(self.item.name, shard, number, ends_shard, last)
                # The whole is dropped here before it is taken on.
                yield Piece(place, concatenated(held, self.segment.schema))
                held, number = [], number + 1
            if chunk is not None and ends_shard:
                shard, number = chunk.shard, 0
                self.attempt.advance(shard)
            held += [chunk.outcome] if chunk is not None else []

    def _is_full(self, held: list[Outcome]) -> bool:
        return not self.segment.writes and sum(outcome.accepted.nbytes for outcome in held) >= PIECE_BYTES

    def _chunks(self) -> Iterator[Chunk]:
        """The computed chunks from the first shard on; a shard over which a worker died goes through children."""
        suspect = self.attempt.shard
        if not self.attempt.deaths or suspect < self.first:
            yield from self._plain(self.first)
            return
        if suspect > self.first:
            for chunk in self._plain(self.first):
                if chunk.shard >= suspect:
                    break
                self.position += chunk.outcome.num_rows
                yield chunk
        logger.warning(
            "%s/%d: a worker died over this shard; its rows are read and computed one at a time, in child processes",
            self.item.name,
            suspect,
        )
        limits, stages, schema = self.segment.session.limits, self.segment.stages, self.segment.schema
        isolation = Isolation(self.source, stages, schema, limits, self.failed)
        # The children have limits of their own.
        with isolation, self.watchdog.suspended():
            ended = True
            for chunk in isolation.read(self.item, self.size, suspect, self.position):
                if chunk.shard != suspect:
                    ended = False
                    break
                yield chunk
            isolation.refuse_alike(f"{self.item.name}/{suspect}")
        if not ended:
            yield from self._plain(suspect + 1)

    def _plain(self, first: int) -> Iterator[Chunk]:
        chunks = self.source.read(self.item, self.size, first, self.failed)
        with ExitStack() as stack:
            # What kills in reading must not do so ahead, before the shards that came earlier are written.
            if not self.attempt.deaths and (self.segment.resources.cpus > 1 or self.item.is_remote):
                chunks = stack.enter_context(read_ahead(chunks))
            found = None
            for chunk in self.segment.flow(chunks, self.watchdog):
                self.watchdog.progress()
                found = found or chunk
                yield chunk
        if first and (found is None or found.shard != first):
            raise InputError(
                f"{self.item.files[0].uri}: no rows of shard {first} are there, although the shards before it were "
                "committed; the input is not the one that this run was planned for. Restore it, then --resume"
            )


def _through(
    chunks: Iterator[Chunk], opened: Compute, rows_per_call: int | None, watchdog: Watchdog
) -> Iterator[Chunk]:
    """The chunks after one stage; up to `rows_per_call` rows of a shard are gathered for each call of it."""
    held: list[pa.Table] = []
    rejected: list[pa.Table] = []
    count, shard = 0, 0

    def computed() -> Chunk:
        rows = held[0] if len(held) == 1 else pa.concat_tables(held)
        watchdog.progress()
        outcome = opened(rows)
        return Chunk(shard, Outcome(outcome.accepted, pa.concat_tables([*rejected, outcome.rejected])))

    for chunk in chain(chunks, [None]):
        if held and (chunk is None or chunk.shard != shard or rows_per_call is None or count >= rows_per_call):
            yield computed()
            held, rejected, count = [], [], 0
        if chunk is not None:
            shard = chunk.shard
            held.append(chunk.outcome.accepted)
            rejected.append(chunk.outcome.rejected)
            count += chunk.outcome.accepted.num_rows


def _part(uri: str, name: str, rows: pa.Table) -> tuple[Part, ...]:
    return (tables.write_part(uri, name, rows),) if rows.num_rows else ()


def _with_shard(rejected: pa.Table, shard: str) -> pa.Table:
    column = pa.array([shard] * rejected.num_rows, pa.string())
    return rejected.append_column("shard", column).select(REJECTED.names).cast(REJECTED)
