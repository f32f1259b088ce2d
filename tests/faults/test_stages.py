"""Guards a chain whose stages run in different pools: workers of either pool are killed or hang, and no row is lost."""

import os
import random
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest
import ray.cloudpickle

from genre_ray.config import Execution
from genre_ray.outcomes import Outcome, Rejection, rejections
from genre_ray.runs import cluster, execute
from genre_ray.runs.dataflow import Chain
from genre_ray.runs.identity import make_identity
from genre_ray.runs.inventory import Inventory
from genre_ray.runs.ledger import Ledger
from genre_ray.runs.plan import WorkItem, settle_plans
from genre_ray.runs.stages import Chunk, Resources, ShardCounter, ShardSize
from genre_ray.runs.verify import verify
from genre_ray.storage import tables
from genre_ray.storage.files import StoredFile

# Workers cannot import a test.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

ITEMS, ROWS, SHARD = 4, 90, 10
READING, SCORING = b"ray::MapBatches(read rows -> parse)", b"score -> write"
ROW = pa.schema([("source_uri", pa.string()), ("recording_id", pa.string())])


@dataclass(frozen=True)
class Rows:
    """Items of `ROWS` rows, read a few at a time and slowly enough for something to happen meanwhile."""

    name = "read rows"
    schema = ROW

    def list_inputs(self):
        return [StoredFile(f"rows://{item}", str(item), ROWS, "1") for item in range(ITEMS)]

    def cut(self, files, rows_per_shard):
        return [WorkItem(f"r{file.name}", "rows", (file,)) for file in files]

    def read(self, item, size: ShardSize, first_shard=0, failed=None, *, singly=False):
        counter = ShardCounter(size)
        for row in range(ROWS):
            if (shard := counter.add(1)) >= first_shard:
                time.sleep(0.003)
                uri = f"{item.files[0].name}/{row}"
                rows = pa.table({"source_uri": [uri], "recording_id": [None]}, ROW)
                yield Chunk(shard, Outcome(rows, rejections([])), counter.piece)


@dataclass
class Slow:
    """Keeps all rows but every seventh, in a pool of its own; hangs once at `hangs`, holding the interpreter's lock."""

    name: str
    resources: Resources | None
    hangs: str = ""
    once: str = ""
    schema: pa.Schema = field(default_factory=lambda: ROW)
    rows_per_call: int | None = None

    def open(self):
        return self.keep

    def keep(self, rows):
        time.sleep(0.01)
        uris = rows["source_uri"].to_pylist()
        if self.hangs in uris and not os.path.exists(self.once):
            Path(self.once).touch()
            import ctypes

            ctypes.PyDLL(None).sleep(1000)
        bad = [int(uri.rpartition("/")[2]) % 7 == 3 and self.name == "parse" for uri in uris]
        kept = rows.filter(pa.array([not is_bad for is_bad in bad]))
        gone = [(uri, Rejection("seventh", "")) for uri, is_bad in zip(uris, bad, strict=True) if is_bad]
        return Outcome(kept, rejections(gone))


def workers(title: bytes) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(b"ray::") and title in command:
            found.append(int(folder.name))
    return found


def killing(title: bytes, deaths: int, killed: list[int]) -> threading.Thread:
    """Kill so many workers of a pool, one after another, while the run goes on."""

    def work():
        draw, deadline = random.Random(1), time.monotonic() + 60
        while len(killed) < deaths and time.monotonic() < deadline:
            time.sleep(draw.uniform(0.3, 0.8))
            for pid in workers(title)[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def run(ray_cluster, tmp_path):
    """`run(parse, score)`: the chain, and that its tables hold every row once."""
    cluster.connect()

    def run(parse: Slow, score: Slow) -> None:
        source, chain = Rows(), Chain(Rows(), (parse, score))
        settings = Execution(cpus_per_worker=0.5, rows_per_shard=SHARD, item_timeout_s=0.5)
        ledger = Ledger.claim(str(tmp_path / "out"), "data", ROW, make_identity("job", {}), resume=True)
        plans = settle_plans(str(tmp_path / "out"), Inventory(source.list_inputs()), source.cut, SHARD)
        assert execute.execute(ledger, ledger.remaining(plans), chain, settings) == ITEMS * ROWS // SHARD
        data, rejected = (
            [
                uri
                for batch in tables.read_batches(str(tmp_path / "out" / name), ["source_uri"])
                for uri in batch.column("source_uri").to_pylist()
            ]
            for name in ("data", "rejected")
        )
        assert sorted(data + rejected) == sorted(f"{item}/{row}" for item in range(ITEMS) for row in range(ROWS))
        assert sorted(rejected) == sorted(f"{item}/{row}" for item in range(ITEMS) for row in range(3, ROWS, 7))
        assert [finding.damage for finding in verify(str(tmp_path / "out"))] == [[]] * 3

    return run


def chain_of(tmp_path, hangs="", pool=None):
    once = str(tmp_path / "once")
    parse = Slow("parse", None, hangs if pool == "parse" else "", once)
    return parse, Slow("score", Resources(0.5, 0.5), hangs if pool == "score" else "", once)


@pytest.mark.slow
@pytest.mark.parametrize("title", [READING, SCORING], ids=["readers", "scorers"])
def test_workers_of_either_pool_may_be_killed(run, tmp_path, title):
    killed: list[int] = []
    thread = killing(title, 3, killed)
    run(*chain_of(tmp_path))
    thread.join(0)
    assert killed


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["parse", "score"])
def test_a_stage_of_either_pool_may_hang(run, tmp_path, pool):
    run(*chain_of(tmp_path, "2/40", pool))
    assert (tmp_path / "once").exists()
