"""A catalog of small rows, made up, with a step that rejects some of them: what a run does shows in single numbers."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pytest
import ray.cloudpickle

from genre_ray.errors import InputError
from genre_ray.runs.plan import WorkItem
from genre_ray.storage import tables
from genre_ray.storage.objects import StoredFile

CHUNK_ROWS = 5

# Workers cannot import a conftest.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def numbers_file(name: str, rows: int, version: str = "1") -> StoredFile:
    return StoredFile(f"numbers://{name}", name, rows, version)


@dataclass(frozen=True)
class Numbers:
    """Files whose size is their number of rows; a row is `name/position`."""

    files: tuple[StoredFile, ...] = ()
    group: int = 1

    def list_inputs(self) -> list[StoredFile]:
        return list(self.files)

    def cut(self, files, rows_per_shard) -> list[WorkItem]:
        files = list(files)
        groups = [tuple(files[start : start + self.group]) for start in range(0, len(files), self.group)]
        return [WorkItem(f"n{n:03d}", "numbers", group) for n, group in enumerate(groups)]

    def read(self, item: WorkItem, rows_per_shard: int, first_shard: int) -> Iterator[tuple[int, list[str]]]:
        rows = [f"{file.name}/{row}" for file in item.files for row in range(file.size)]
        for start in range(first_shard * rows_per_shard, len(rows), rows_per_shard):
            shard = rows[start : start + rows_per_shard]
            for begin in range(0, len(shard), CHUNK_ROWS):
                yield start // rows_per_shard, shard[begin : begin + CHUNK_ROWS]


@dataclass
class Keep:
    """Every third row is rejected; `broken` ends the work, `slow_s` delays every chunk."""

    broken: str | None = None
    slow_s: float = 0.0
    schema: pa.Schema = field(default_factory=lambda: pa.schema([("row", pa.string())]))
    gains_from_gpu: bool = False

    def __call__(self, rows: list[str]) -> tuple[pa.Table, pa.Table]:
        time.sleep(self.slow_s)
        if self.broken in rows:
            raise InputError(f"{self.broken}: expected a row, found this; take it out")
        kept = [row for row in rows if int(row.rpartition("/")[2]) % 3 != 2]
        gone = [row for row in rows if row not in kept]
        reasons = {"recording_id": [None] * len(gone), "reason": ["third"] * len(gone), "detail": [""] * len(gone)}
        schema = pa.schema([(name, pa.string()) for name in ("source_uri", "recording_id", "reason", "detail")])
        return pa.table({"row": kept}, self.schema), pa.table({"source_uri": gone} | reasons, schema)


@pytest.fixture(scope="session")
def keep():
    """`keep(broken=..., slow_s=...)`: the step."""
    return Keep


@pytest.fixture(scope="session")
def numbers_of():
    """`numbers_of(7, 3, group=2)`: a source of files with so many rows."""

    def make(*sizes: int, group: int = 1) -> Numbers:
        return Numbers(tuple(numbers_file(f"f{n:03d}", rows) for n, rows in enumerate(sizes)), group)

    return make


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
