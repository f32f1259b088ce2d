"""A catalog of small rows, made up, with a stage that rejects some of them: what a run does shows in single numbers."""

import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

import pyarrow as pa
import pytest
import ray.cloudpickle

from genre_ray.config import Execution
from genre_ray.errors import InputError
from genre_ray.outcomes import Outcome, Rejection, rejections
from genre_ray.runs.dataflow import Chain, segments
from genre_ray.runs.identity import make_identity
from genre_ray.runs.inventory import Inventory
from genre_ray.runs.ledger import Ledger
from genre_ray.runs.pieces import summaries
from genre_ray.runs.plan import WorkItem, settle_plans
from genre_ray.runs.segment import Session
from genre_ray.runs.stages import Chunk, ShardCounter, ShardSize
from genre_ray.runs.watchdog import Limits
from genre_ray.storage import tables
from genre_ray.storage.files import StoredFile

CHUNK_ROWS = 5

# Workers cannot import a conftest.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def numbers_file(name: str, rows: int, version: str = "1") -> StoredFile:
    return StoredFile(f"numbers://{name}", name, rows, version)


@dataclass(frozen=True)
class Numbers:
    """Files whose size is their number of rows; a row is `name/position`.

    `harm` is done at the positions of an item that it names, when they are read; a row of `rejected` is not accepted.
    """

    files: tuple[StoredFile, ...] = ()
    group: int = 1
    row_bytes: int = 1
    harm: dict = field(default_factory=dict)
    rejected: tuple[str, ...] = ()
    name: str = "read numbers"
    schema: pa.Schema = field(
        default_factory=lambda: pa.schema([("source_uri", pa.string()), ("recording_id", pa.string())])
    )

    def list_inputs(self) -> list[StoredFile]:
        return list(self.files)

    def cut(self, files, rows_per_shard) -> list[WorkItem]:
        files = list(files)
        groups = [tuple(files[start : start + self.group]) for start in range(0, len(files), self.group)]
        return [WorkItem(f"n{n:03d}", "numbers", group) for n, group in enumerate(groups)]

    def read(
        self, item: WorkItem, size: ShardSize, first_shard: int = 0, failed=None, *, singly=False
    ) -> Iterator[Chunk]:
        rows = [f"{file.name}/{row}" for file in item.files for row in range(file.size)]
        counter, held, at = ShardCounter(size), [], (0, 0)
        for position, row in enumerate(rows):
            shard = counter.add(self.row_bytes)
            if shard < first_shard:
                continue
            place = (shard, counter.piece)
            if held and (place != at or len(held) == (1 if singly else CHUNK_ROWS)):
                yield self._chunk(*at, held)
                held = []
            at = place
            why = (failed or {}).get(position)
            if why is None and row in self.harm:
                self.harm[row]()
            held.append((row, why or (Rejection("unread", "") if row in self.rejected else None)))
        if held:
            yield self._chunk(*at, held)

    def _chunk(self, shard: int, piece: int, rows) -> Chunk:
        accepted = [row for row, why in rows if why is None]
        table = pa.table({"source_uri": accepted, "recording_id": [None] * len(accepted)}, self.schema)
        return Chunk(shard, Outcome(table, rejections((row, why) for row, why in rows if why is not None)), piece)


@dataclass
class Keep:
    """Every third row is rejected; `broken` ends the work, `slow_s` delays every chunk."""

    broken: str | None = None
    slow_s: float = 0.0
    name: str = "keep"
    schema: pa.Schema = field(default_factory=lambda: pa.schema([("row", pa.string())]))
    resources: object = None
    rows_per_call: int | None = None

    def open(self):
        return self.keep

    def keep(self, rows: pa.Table) -> Outcome:
        time.sleep(self.slow_s)
        names = rows["source_uri"].to_pylist()
        if self.broken in names:
            raise InputError(f"{self.broken}: expected a row, found this; take it out")
        kept = [row for row in names if int(row.rpartition("/")[2]) % 3 != 2]
        gone = [(row, Rejection("third", "")) for row in names if row not in kept]
        return Outcome(pa.table({"row": kept}, self.schema), rejections(gone))


@pytest.fixture(scope="session")
def keep():
    """`keep(broken=..., slow_s=...)`: the stage."""
    return Keep


@pytest.fixture(scope="session")
def numbers_of():
    """`numbers_of(7, 3, group=2)`: a source of files with so many rows."""

    def make(*sizes: int, **settings) -> Numbers:
        return Numbers(tuple(numbers_file(f"f{n:03d}", rows) for n, rows in enumerate(sizes)), **settings)

    return make


def rows_inline(parts, work, taken=None):
    """The rows of `WRITTEN` for one work item, without Ray; `taken` bounds how many of them are asked for."""
    blocks = iter([pa.Table.from_pylist([work._asdict()])])
    for segment in parts:
        blocks = chain.from_iterable(map(segment, blocks))
    for block in islice(blocks, taken):
        yield from block.to_pylist()


@pytest.fixture(scope="session")
def run_inline():
    """`run_inline(output, source, stages, rows_per_shard)`: a run without Ray, item after item; (ledger, summaries).

    At most `stop_after` shards are committed; each item is worked on in `attempts` sessions.
    """

    def run(
        output,
        source,
        stages,
        rows_per_shard,
        *,
        resume=True,
        stop_after=None,
        attempts=1,
        session="",
        limits=None,
        bytes_per_shard=2**29,
    ):
        flow = Chain(source, tuple(stages))
        ledger = Ledger.claim(str(output), "data", flow.schema, make_identity("job", {}), resume=resume)
        with Inventory(source.list_inputs()) as inventory:
            plans = settle_plans(str(output), inventory, source.cut, rows_per_shard, bytes_per_shard)
        found = []
        for left in ledger.remaining(plans):
            for attempt in range(attempts):
                shared = Session(f"{session or uuid.uuid4().hex}-{attempt}", ledger.arguments, limits or Limits())
                parts = segments(flow, shared, Execution())
                for summary in summaries(rows_inline(parts, left)):
                    if stop_after is not None and len(found) >= stop_after:
                        break
                    found.append(summary)
        ledger.commit(found)
        return ledger, found

    return run


@pytest.fixture(scope="session")
def contents():
    """`contents(output)`: the sorted rows of the data and the rejected table."""

    def read(output: str, table: str = "data") -> tuple[list[str], list[str]]:
        columns = ((table, "row"), ("rejected", "source_uri"))
        return tuple(
            sorted(
                value
                for batch in tables.read_batches(f"{output}/{name}", [column])
                for value in batch.column(column).to_pylist()
            )
            for name, column in columns
        )

    return read
