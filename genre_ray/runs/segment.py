"""A segment: consecutive stages of a chain that run in one process, as one operator of Ray Data.

The first segment reads work items; later ones receive pieces from the segment before. The last segment writes parts and
yields a row with the schema `pieces.WRITTEN` for each piece; the others yield packed pieces. Within a segment, rows are
passed in small chunks and never packed.

If a worker dies, Ray retries its task from the start, and matches its results with earlier ones by position. So a
segment yields the same pieces in the same order each time. A segment that reads and writes yields an empty row for each
shard that was committed in the meantime, and computes only the other shards.
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
"""A piece ends when its rows reach this many bytes. Several pieces are in the object store at a time."""

UNLIMITED = 2**62

_opened: dict[str, dict[int, list[Compute]]] = {}
"""The opened stages of this process, by session and segment. They are kept, because models load slowly."""


@dataclass(frozen=True)
class Session:
    """The values that all workers of one driver share.

    Attributes:
        name: name of the session, unique per driver.
        ledger: the arguments of the run's `Ledger`.
        limits: the limits per row.
        prefetches: whether to prefetch rows in a thread. This helps if there are fewer items than cores, so that a core
            is free. Otherwise the thread would only take turns with the computation.
    """

    name: str
    ledger: tuple[str, str, pa.Schema, str]
    limits: Limits
    prefetches: bool = False


@dataclass(frozen=True)
class Segment:
    """Consecutive stages with the same resources.

    Attributes:
        session: the session.
        index: its position among the segments of the run.
        source: the source of rows; None except for the first segment.
        stages: the stages.
        schema: the schema of the computed rows.
        writes: whether it is the last segment, which writes parts.
        resources: the resources that one worker reserves.
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
        """The name that Ray shows in its dashboard and logs. It is ASCII, because Ray's metrics require that."""
        names = [self.source.name] if self.source else []
        return " -> ".join([*names, *(stage.name for stage in self.stages), *(["write"] if self.writes else [])])

    @property
    def attempts_uri(self) -> str:
        """The folder of its attempt markers, which is empty until its first worker starts."""
        return attempts_folder(self.session.ledger[0], self.session.name, self.index)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Process a batch of work items or of packed pieces, and yield rows. An error is yielded as a row too."""
        keep_freed_memory()
        try:
            # Before the watchdog starts, because loading a model may take any time.
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
            # Die like after a crash, so that the next attempt isolates the row.
            os._exit(OUT_OF_MEMORY)

    def _run_item(self, work: RemainingWork, source: Source) -> Iterator[pa.Table]:
        attempt = begin_attempt(self.attempts_uri, work.item, work.first_shard)
        first, position = work.first_shard, 0
        if attempt.is_retry:
            ledger = Ledger(*self.session.ledger)
            committed, is_complete = ledger.progress(work.item)
            if self.writes:
                # Ray skips as many results as the earlier attempt yielded, so committed shards need a row too.
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
                # Before yielding, because the receiver may be slow, and a death during that is not due to this shard.
                watchdog.pause()
                if piece.place.ends_item:
                    attempt.finish()
                elif piece.place.ends_shard:
                    attempt.begin(piece.place.shard + 1)
                yield row
                watchdog.progress()

    def _run_piece(self, piece: Piece) -> pa.Table:
        """Compute a piece from the segment before."""
        place, rows = piece.place, piece.outcome.accepted
        name = f"{shard_name(place.item, place.shard)}-{place.piece:03d}"
        attempt = begin_attempt(self.attempts_uri, name)
        with Watchdog(self._stall_s(remote=False)) as watchdog:
            if attempt.deaths:
                logger.warning("%s: a worker died during this piece; processing its rows one at a time", name)
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
        """Pass the outcomes of a piece through all stages, with the number of rows per call that each stage wants."""
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
    """Pass outcomes through one stage, collecting up to `rows_per_call` rows for each call."""
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
