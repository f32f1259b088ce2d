"""A segment: neighbouring stages of a chain that run in one process, as one operator of Ray Data.

The first segment reads work items; a later one takes the pieces of the segment before. The last segment writes parts
and yields a row of `pieces.WRITTEN` for each piece; any other yields packed pieces. Within a segment rows move in small
chunks and are never packed.

Ray retries the task of a worker that died from its start, and matches what the task yields with what it yielded before
by position alone. So a segment yields the same pieces in the same order each time. One that reads and writes yields an
empty row for each shard that was committed meanwhile, and computes only the others.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from genre_ray.errors import GenreRayError
from genre_ray.outcomes import Outcome, rejections
from genre_ray.runs.allocation import keep_freed_memory
from genre_ray.runs.attempts import attempts_folder, begin_attempt
from genre_ray.runs.child import OUT_OF_MEMORY
from genre_ray.runs.isolation import Isolation, concatenated
from genre_ray.runs.ledger import Ledger, shard_name
from genre_ray.runs.pieces import Piece, Place, committed_row, failure, pack, unpack, written_row
from genre_ray.runs.plan import RemainingWork
from genre_ray.runs.reading import Reading
from genre_ray.runs.stages import Compute, Resources, ShardSize, Source, Stage, open_stages
from genre_ray.runs.watchdog import Limits, Watchdog
from genre_ray.storage import objects, tables
from genre_ray.storage.schemas import REJECTED
from genre_ray.storage.tables import Part

logger = logging.getLogger(__name__)

PIECE_BYTES = 64 * 2**20
"""A piece ends with the rows that reach so many bytes as they are read: several are in the object store at once."""

UNLIMITED = 2**62

_opened: dict[str, dict[int, list[Compute]]] = {}
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
            # Before any watchdog: to load a model takes as long as it takes.
            self._open()
            if self.source is None:
                for piece in unpack(batch):
                    yield self._run_piece(piece) if isinstance(piece, Piece) else piece
            else:
                for values in batch.to_pylist():
                    yield from self._run_item(RemainingWork(**values), self.source)
        except GenreRayError as error:
            yield failure(error)
        except MemoryError:
            # As any other death: the next attempt finds the row.
            os._exit(OUT_OF_MEMORY)

    def _run_item(self, work: RemainingWork, source: Source) -> Iterator[pa.Table]:
        attempt = begin_attempt(self.attempts_uri, work.item, work.first_shard)
        first, position = work.first_shard, 0
        if attempt.is_retry:
            ledger = Ledger(*self.session.ledger)
            committed, is_complete = ledger.progress(work.item)
            if self.writes:
                # What was yielded before is asked for again, by position.
                for shard in range(first, committed):
                    yield committed_row(Place(work.item, shard, 0, True, False))
                if is_complete:
                    return
                first = max(first, committed)
            position = sum(ledger.rows_in(work.item, shard) or 0 for shard in range(first))
        item = work.read_item(self.session.name)
        piece_bytes = UNLIMITED if self.writes else PIECE_BYTES
        watchdog = Watchdog(self._stall_s(remote=item.is_remote) + item.walk_s)
        reading = Reading(
            source,
            item,
            ShardSize(work.rows_per_shard, work.bytes_per_shard, piece_bytes),
            self.stages,
            self.schema,
            lambda outcomes: self._flow(outcomes, watchdog),
            attempt,
            position,
            self.session.limits,
            watchdog,
            prefetches=self.session.prefetches or self.resources.cpus > 1 or item.is_remote,
        )
        with watchdog:
            for piece in reading.pieces(first):
                row = self._finished(piece)
                # Before it is handed on: whoever takes it may be slow, and a death meanwhile is not this shard's.
                watchdog.pause()
                if piece.place.ends_item:
                    attempt.finish()
                elif piece.place.ends_shard:
                    attempt.begin(piece.place.shard + 1)
                yield row
                watchdog.progress()

    def _run_piece(self, piece: Piece) -> pa.Table:
        """A piece of the segment before, through the stages of this one."""
        place, rows = piece.place, piece.outcome.accepted
        name = f"{shard_name(place.item, place.shard)}-{place.piece:03d}"
        attempt = begin_attempt(self.attempts_uri, name)
        with Watchdog(self._stall_s(remote=False)) as watchdog:
            if attempt.deaths:
                logger.warning("%s: a worker died over this piece; its rows are computed one at a time", name)
                isolation = Isolation(None, self.stages, self.schema, self.session.limits)
                with watchdog.suspended(), isolation:
                    computed = isolation.compute(rows)
                    isolation.refuse_alike(f"{place.item}/{place.shard}")
            else:
                whole = [Outcome(rows, rejections([]))]
                computed = concatenated(list(self._flow(whole, watchdog)), self.schema)
            rejected = pa.concat_tables([piece.outcome.rejected, computed.rejected])
            row = self._finished(Piece(place, Outcome(computed.accepted, rejected)))
        attempt.finish()
        return row

    def _stall_s(self, *, remote: bool) -> float:
        return self.session.limits.stall_s(remote=remote or objects.is_remote(self.session.ledger[0]))

    def _open(self) -> list[Compute]:
        if self.session.name not in _opened:
            _opened.clear()
        opened = _opened.setdefault(self.session.name, {})
        if self.index not in opened:
            opened[self.index] = open_stages(self.stages)
        return opened[self.index]

    def _flow(self, outcomes: Iterable[Outcome], watchdog: Watchdog) -> Iterator[Outcome]:
        """The outcomes of a piece through all stages, each of which gets as many rows at once as it asks for."""
        flowing = iter(outcomes)
        for stage, opened in zip(self.stages, self._open(), strict=True):
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
        return written_row(place, piece.outcome.num_rows, parts, rejected_parts)


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
