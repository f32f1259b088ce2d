"""Guards the work on a real cluster: commits do not wait for the last shard, and a worker's error keeps its words."""

import os
import signal
import sys
import threading
import time
import warnings
from dataclasses import dataclass

import pyarrow as pa
import pytest
import ray.cloudpickle
from ray.util.annotations import RayDeprecationWarning

from genre_ray.config import Execution
from genre_ray.errors import GenreRayError, InputError, StorageError
from genre_ray.outcomes import Outcome, rejections
from genre_ray.runs import cluster, execute
from genre_ray.runs.dataflow import Chain
from genre_ray.runs.identity import make_identity
from genre_ray.runs.inventory import Inventory
from genre_ray.runs.ledger import Ledger, ShardSummary
from genre_ray.runs.plan import load_or_extend_plans
from genre_ray.runs.stages import Resources
from genre_ray.storage import tables

# Workers cannot import a test.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

TWO_WORKERS = Execution(workers=2, rows_per_shard=4)


@pytest.fixture
def go(ray_cluster, tmp_path):
    """`go(source, *stages)`: claim or resume, do what remains; gives the number of shards committed."""
    cluster.connect()

    def go(source, *stages, output=tmp_path):
        chain = Chain(source, stages)
        ledger = Ledger.claim(str(output), "data", chain.schema, make_identity("job", {}), resume=True)
        plans = load_or_extend_plans(
            str(output), Inventory(source.list_inputs()), source.make_work_items, TWO_WORKERS.rows_per_shard
        )
        with warnings.catch_warnings():
            # What Ray deprecates is gone some releases later.
            warnings.filterwarnings("error", category=RayDeprecationWarning)
            warnings.filterwarnings("error", module="genre_ray", category=DeprecationWarning)
            return execute.execute(ledger, ledger.remaining(plans), chain, TWO_WORKERS)

    return go


def rows_of(source):
    return sorted(f"{file.name}/{row}" for file in source.files for row in range(file.size))


def test_two_workers_do_all_items_and_commits_do_not_wait_for_the_last(
    go, numbers_of, keep, contents, tmp_path, monkeypatch
):
    monkeypatch.setattr(execute, "COMMIT_SHARDS", 3)
    source = numbers_of(21, 0, 9, 33)

    assert go(source, keep(slow_s=0.05)) == 6 + 1 + 3 + 9

    kept, rejected = contents(tmp_path)
    assert sorted(kept + rejected) == rows_of(source)
    assert rejected == [row for row in rows_of(source) if int(row[5:]) % 3 == 2]
    assert tables.open_table(str(tmp_path / "data")).version() >= 4
    first_commit = (tmp_path / "data" / "_delta_log" / f"{1:020}.json").stat().st_mtime
    assert first_commit < max(part.stat().st_mtime for part in (tmp_path / "data").glob("*.parquet"))
    assert go(source, keep()) == 0
    assert not (tmp_path / "_run" / "attempts").exists()


def test_a_workers_error_reaches_the_driver_in_its_own_words(
    go, numbers_of, keep, contents, tmp_path, monkeypatch, capfd
):
    """Ray adds advice on its settings to a message, and a traceback to the log, unless the error travels as a value."""
    source = numbers_of(5, 30)

    with pytest.raises(InputError) as refused:
        go(source, keep(broken="f001/17"))

    assert type(refused.value) is InputError
    assert str(refused.value) == "f001/17: expected a row, found this; take it out"
    assert "Traceback" not in capfd.readouterr().err
    # What was written before is committed on the way out.
    assert tables.open_table(str(tmp_path / "data")).version() >= 1


@dataclass
class Pass:
    """A stage on a worker of its own kind; `once` is a file that it makes before it dies at `fatal`."""

    resources: Resources
    fatal: str = ""
    once: str = ""
    name: str = "pass"
    schema: pa.Schema = None
    rows_per_call: int | None = None

    def open(self):
        return self.on

    def on(self, rows):
        if self.fatal in rows["source_uri"].to_pylist() and not os.path.exists(self.once):
            open(self.once, "w").close()
            os._exit(1)
        return Outcome(rows, rejections([]))


@pytest.mark.parametrize("fatal", ["", "f000/6", "f001/0"])
def test_stages_with_other_resources_stream_through_the_object_store(go, numbers_of, keep, contents, tmp_path, fatal):
    source = numbers_of(21, 9, 0, rejected=("f000/1",))
    passing = Pass(Resources(0.5), fatal, str(tmp_path / "once"), schema=source.schema)
    assert go(source, passing, keep()) == 6 + 3 + 1
    kept, rejected = contents(tmp_path)
    assert sorted(kept + rejected) == rows_of(source)
    assert (tmp_path / "once").exists() == bool(fatal)


class Logged:
    """A ledger that remembers its commits."""

    def __init__(self, error=None):
        self.commits, self.error = [], error

    def commit(self, shards):
        self.commits.append([shard.index for shard in shards])
        if self.error:
            raise self.error
        return len(shards)


def shard(index):
    return ShardSummary("a", index, False, 1, (), ())


def test_a_finished_shard_is_committed_while_the_next_takes_long(monkeypatch, until):
    monkeypatch.setattr(execute, "COMMIT_EVERY_S", 0.1)
    monkeypatch.setattr(execute, "TICK_S", 0.01)
    ledger = Logged()
    committer = execute.Committer(ledger)
    with committer.in_background():
        committer.add(shard(0))
        until(lambda: ledger.commits == [[0]])
        committer.add(shard(1))
    assert ledger.commits == [[0], [1]]
    assert committer.committed == 2


@pytest.mark.parametrize("end", [InputError, KeyboardInterrupt, SystemExit])
def test_what_was_written_is_committed_on_the_way_out(end):
    ledger = Logged()
    committer = execute.Committer(ledger)

    def work():
        with committer.in_background():
            committer.add(shard(0))
            raise end

    with pytest.raises(end):
        work()
    assert ledger.commits == [[0]]


def test_a_signal_does_not_interrupt_a_commit(monkeypatch, request):
    class Slow(Logged):
        def commit(self, shards):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
            assert threading.current_thread() is not threading.main_thread()
            return super().commit(shards)

    ledger = Slow()
    committer = execute.Committer(ledger)
    # A shell that starts the tests in the background lets them ignore this signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    monkeypatch.setattr(execute, "COMMIT_EVERY_S", 0.0)
    monkeypatch.setattr(execute, "TICK_S", 0.01)

    def work():
        with committer.in_background():
            committer.add(shard(0))
            while True:
                time.sleep(0.05)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert ledger.commits == [[0]]


def test_a_commit_that_fails_ends_the_run_and_is_not_repeated(monkeypatch, until):
    monkeypatch.setattr(execute, "COMMIT_EVERY_S", 0.0)
    monkeypatch.setattr(execute, "TICK_S", 0.01)
    ledger = Logged(StorageError("the disk is full"))
    committer = execute.Committer(ledger)

    def work():
        with committer.in_background():
            committer.add(shard(0))
            until(lambda: ledger.commits)
            time.sleep(0.1)
            committer.add(shard(1))

    with pytest.raises(StorageError, match="the disk is full"):
        work()
    assert ledger.commits == [[0]]


def test_items_that_stay_incomplete_are_an_error(tmp_path, numbers_of, keep):
    source = numbers_of(4)
    ledger = Ledger.claim(str(tmp_path), "data", keep().schema, make_identity("job", {}), resume=True)
    remaining = ledger.remaining(
        load_or_extend_plans(str(tmp_path), Inventory(source.list_inputs()), source.make_work_items, 4)
    )
    with pytest.raises(GenreRayError, match="1 of 1 work items are not complete, the first is 0000-n000"):
        execute.require_complete(ledger, remaining)
