"""Resident memory: a worker's over few and over a million documents made on the fly, a driver's over many shards."""

import logging
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from documents import jittered_documents
from harness import Result, figure

from genre_ray.config import JobConfiguration
from genre_ray.features.essentia.documents import ParseDocuments
from genre_ray.outcomes import REJECTED_ROW, Outcome, Rejection
from genre_ray.runs.batch import run_batch
from genre_ray.runs.plan import WorkItem
from genre_ray.runs.stages import Chunk, Compute, Resources, ShardSize
from genre_ray.sources.documents.raw import RawDocument
from genre_ray.sources.documents.table import DOCUMENTS, documents_outcome
from genre_ray.storage.files import StoredFile

FEW, MANY, SHARDS = 20_000, 1_000_000, 10_000
CHUNK, MODELS = 64, 512


def benchmarks(scratch: Path) -> Iterator[Result]:
    """Each run in a process of its own, whose memory nothing else has touched."""
    held = {documents: _run("worker", documents, scratch / str(documents)) for documents in (FEW, MANY)}
    for documents, mib in held.items():
        name = f"resident memory of an ingest worker, {documents} documents"
        yield figure(name, lambda mib=mib: mib, unit="MiB", at_most=1500, repetitions=1)
    grown = held[MANY] / held[FEW]
    yield figure("the second over the first", lambda: grown, unit="×", at_most=1.1, repetitions=1)
    driver = _run("driver", SHARDS, scratch / "driver")
    name = f"resident memory of a driver, {SHARDS} shards"
    yield figure(name, lambda: driver, unit="MiB", at_most=1000, repetitions=1)


@dataclass(frozen=True)
class Made:
    """Items of `rows` rows each."""

    name = "make documents"
    schema = DOCUMENTS

    items: int
    rows: int

    def list_inputs(self) -> list[StoredFile]:
        return [StoredFile(f"made://{number}", str(number), self.rows, "1") for number in range(self.items)]

    def cut(self, files: Sequence[StoredFile], rows_per_shard: int) -> list[WorkItem]:
        return [WorkItem(f"m{number:06d}", "made", (file,)) for number, file in enumerate(files)]

    def read(
        self,
        item: WorkItem,
        size: ShardSize,
        first_shard: int = 0,
        failed: Mapping[int, Rejection] | None = None,
        *,
        singly: bool = False,
    ) -> Iterator[Chunk]:
        """Real documents in turn: jittering them would take longer than reading them."""
        models, rows_per_shard = _models(), size.rows
        for start in range(first_shard * rows_per_shard, self.rows, rows_per_shard):
            stop = min(start + rows_per_shard, self.rows)
            for begin in range(start, stop, CHUNK):
                rows = range(begin, min(begin + CHUNK, stop))
                yield Chunk(start // rows_per_shard, documents_outcome([models[row % MODELS] for row in rows]))


@cache
def _models() -> list[RawDocument]:
    return [RawDocument(name, name, content) for name, content in jittered_documents(MODELS)]


@dataclass
class Watched(ParseDocuments):
    """A stage that notes in `folder` the most memory that its process has held."""

    folder: str = ""

    def open(self) -> Compute:
        """See `genre_ray.runs.stages.Stage`."""
        parse = super().open()

        def watched(documents: pa.Table) -> Outcome:
            outcome = parse(documents)
            Path(self.folder, f"peak-{os.getpid()}").write_text(str(_peak_mib()))
            return outcome

        return watched


@dataclass
class Nothing:
    """A stage that does nothing with a row."""

    name = "nothing"
    schema = pa.schema([("name", pa.string())])
    resources: Resources | None = None
    rows_per_call: int | None = None

    def open(self) -> Compute:
        """See `genre_ray.runs.stages.Stage`."""
        return _names


def _names(documents: pa.Table) -> Outcome:
    return Outcome(documents.select(["name"]), REJECTED_ROW.empty_table())


def _run(role: str, amount: int, folder: Path) -> float:
    """The most memory in MiB that a worker or the driver of such a run held."""
    folder.mkdir()
    command = [sys.executable, __file__, role, str(amount), str(folder)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def _main(role: str, amount: int, folder: Path) -> float:
    logging.basicConfig(level=logging.WARNING)
    source, stage = (
        (Made(2, amount // 2), Watched(folder=str(folder)))
        if role == "worker"
        else (Made(amount // 10, 100), Nothing())
    )
    settings: dict[str, Any] = {"output": str(folder / "output")}
    if role == "driver":
        settings["execution"] = {"rows_per_shard": 10}
    configuration = JobConfiguration.from_mapping(settings)
    assert run_batch(configuration, job="memory", table="rows", source=source, stages=[stage]) == 0
    return max(float(file.read_text()) for file in folder.glob("peak-*")) if role == "worker" else _peak_mib()


def _peak_mib() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


if __name__ == "__main__":
    import memory  # by its name, so that workers can import what they unpickle

    print(memory._main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
