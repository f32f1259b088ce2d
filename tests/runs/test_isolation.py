"""Guards that a row that crashes, hangs or exhausts memory is one rejected row: no run ends, no neighbour is lost."""

import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pytest
import ray.cloudpickle

from genre_ray.catalog.archives import RawDocument
from genre_ray.config import Execution
from genre_ray.errors import GenreRayError, InputError
from genre_ray.features.table import FeaturesStep
from genre_ray.outcomes import Reason
from genre_ray.runs import cluster, execute
from genre_ray.runs.attempts import MAX_DEATHS, Attempts
from genre_ray.runs.identity import make_identity
from genre_ray.runs.inventory import Inventory
from genre_ray.runs.isolation import Death, Isolation, Limits, watchdog
from genre_ray.runs.ledger import Ledger
from genre_ray.runs.plan import settle_plans
from genre_ray.runs.worker import ShardWorker
from genre_ray.storage import tables

# Neither workers nor children can import a test module.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

LIMITS = Limits(item_timeout_s=30, memory_mib=768)
SOON = Limits(item_timeout_s=0.3, memory_mib=768)
OUTCOME = pa.schema([(name, pa.string()) for name in ("source_uri", "recording_id", "reason", "detail")])


def segfault():
    ctypes.string_at(0)


def hang():
    # Through PyDLL the call keeps the interpreter's lock: no thread of Python's could end it.
    ctypes.PyDLL(None).sleep(1000)


def leave():
    os._exit(3)


def allocate():
    held = []
    while True:
        held.append(b"x" * 2**26)


def refuse_memory():
    raise MemoryError


def refuse_input():
    raise InputError("expected another row; take it out")


def fail():
    raise ZeroDivisionError("a fault")


DEADLY = {
    segfault: (Death.CRASHED, "was ended by SIGSEGV"),
    hang: (Death.TIMED_OUT, "took more than 3 s"),
    leave: (Death.CRASHED, "ended with exit code 3"),
    allocate: (Death.OUT_OF_MEMORY, "MiB of memory, more than 768"),
    refuse_memory: (Death.OUT_OF_MEMORY, "found no more memory"),
}


@dataclass
class Poisoned:
    """Keeps every row, with the process that computed it; some rows do harm, `once` only as long as a file is there."""

    poison: dict
    once: str = ""
    gains_from_gpu: bool = False
    schema: pa.Schema = field(default_factory=lambda: pa.schema([("row", pa.string()), ("pid", pa.int64())]))

    def __call__(self, rows):
        for row in rows:
            if row in self.poison and not (self.once and Path(self.once).exists()):
                if self.once:
                    Path(self.once).touch()
                self.poison[row]()
        return pa.table({"row": rows, "pid": [os.getpid()] * len(rows)}, self.schema), OUTCOME.empty_table()


def shard_of(numbers_of, tmp_path, step, rows=7, **more):
    """One item with `rows` rows in one shard, over which a worker has died."""
    source = numbers_of(rows)
    (item,) = source.cut(source.list_inputs(), rows)
    worker = ShardWorker(
        str(tmp_path / "data"),
        str(tmp_path / "rejected"),
        source,
        step,
        limits=LIMITS,
        attempts_uri=str(tmp_path / "attempts"),
    )
    return worker, (item, more.get("rows_per_shard", rows))


def died(worker, item, index):
    """What a worker leaves that dies over a shard."""
    marks = Path(worker.attempts.uri)
    marks.mkdir(exist_ok=True)
    (marks / f"{item.name}-{index:05d}.json").write_text('{"deaths": 1}')


def read(folder, column):
    return [
        value for path in sorted(folder.glob("*.parquet")) for value in pa.parquet.read_table(path)[column].to_pylist()
    ]


@pytest.mark.parametrize("harm", DEADLY)
def test_a_deadly_row_is_rejected_with_its_reason_and_its_neighbours_come_out(numbers_of, tmp_path, harm):
    death, detail = DEADLY[harm]
    rows = [f"f000/{row}" for row in range(7)]
    with Isolation(Poisoned({"f000/3": harm}), SOON if harm is hang else LIMITS) as isolation:
        accepted, rejected = isolation(rows)
        later, _ = isolation(rows[:2])
    assert accepted["row"].to_pylist() == rows[:3] + rows[4:]
    assert os.getpid() not in accepted["pid"].to_pylist()
    (row,) = rejected.to_pylist()
    assert (row["source_uri"], row["recording_id"], row["reason"]) == ("f000/3", None, str(death))
    assert row["detail"].startswith("expected to be computed, found twice that the process ")
    assert detail in row["detail"]
    # One child for the rows before, one for the row alone, one for those after.
    assert len(set(accepted["pid"].to_pylist())) == 2
    assert set(later["pid"].to_pylist()) == {accepted["pid"].to_pylist()[-1]}


def test_several_deadly_rows_and_nothing_else():
    with Isolation(Poisoned({"a": leave, "b": segfault, "d": leave}), LIMITS) as isolation:
        accepted, rejected = isolation(["a", "b", "c", "d"])
    assert accepted["row"].to_pylist() == ["c"]
    assert rejected["source_uri"].to_pylist() == ["a", "b", "d"]
    with Isolation(Poisoned({"a": leave}), LIMITS) as isolation:
        accepted, rejected = isolation(["a"])
    assert (accepted.num_rows, accepted.schema, rejected.num_rows) == (0, Poisoned({}).schema, 1)


def test_a_row_that_is_well_when_it_is_alone_is_kept(tmp_path):
    """Rows before it may have used up what it needs: one death proves nothing."""
    with Isolation(Poisoned({"b": leave}, once=str(tmp_path / "once")), LIMITS) as isolation:
        accepted, rejected = isolation(["a", "b", "c"])
    assert accepted["row"].to_pylist() == ["a", "b", "c"]
    assert rejected.num_rows == 0


def test_errors_of_the_step_are_no_deaths():
    expected = pytest.raises(InputError, match=r"^expected another row; take it out$")
    with Isolation(Poisoned({"b": refuse_input}), LIMITS) as isolation, expected:
        isolation(["a", "b"])
    with Isolation(Poisoned({"b": fail}), LIMITS) as isolation, pytest.raises(RuntimeError, match="ZeroDivisionError"):
        isolation(["a", "b"])


def test_a_child_that_does_not_start_is_an_error():
    class Unloadable(Poisoned):
        def __reduce__(self):
            return leave, ()

    with Isolation(Unloadable({}), LIMITS) as isolation, pytest.raises(GenreRayError, match="ended with exit code 3"):
        isolation(["a"])


def test_rejected_rows_name_documents_and_arrow_rows():
    class Deadly(Poisoned):
        def __call__(self, rows):
            os._exit(3)

    documents = [RawDocument("some/song.json", "a.tar#some/song.json", b"{}")]
    batch = pa.RecordBatch.from_pylist([{"source_uri": "a", "recording_id": "r"}] * 2).slice(1)
    with Isolation(Deadly({}), LIMITS) as isolation:
        (row,) = isolation(documents)[1].to_pylist()
        (other,) = isolation(batch)[1].to_pylist()
    assert (row["source_uri"], row["recording_id"]) == ("a.tar#some/song.json", "song")
    assert (other["source_uri"], other["recording_id"]) == ("a", "r")


def test_real_documents_through_a_child_are_the_same_rows(sample):
    documents = [RawDocument(path.name, str(path), path.read_bytes()) for path in (sample / "acousticbrainz").iterdir()]
    documents.insert(2, RawDocument("bad.json", "bad.json", b"{"))
    step = FeaturesStep()
    with Isolation(step, Limits()) as isolation:
        found = isolation(documents)
    for mine, expected in zip(found, step(documents), strict=True):
        assert mine.equals(expected)
        assert mine.schema.equals(expected.schema, check_metadata=True)


def test_a_child_ends_with_its_parent(tmp_path):
    """A worker that is killed while its child hangs must not leave the child behind."""
    script = (
        "import sys, ctypes\nfrom genre_ray.runs.isolation import Isolation, Limits\n"
        "class Step:\n def __call__(self, rows):\n  import os, ctypes\n"
        "  open(sys.argv[1] + '.new', 'w').write(str(os.getpid())); os.rename(sys.argv[1] + '.new', sys.argv[1])\n"
        "  ctypes.PyDLL(None).sleep(1000)\nIsolation(Step(), Limits())(['a'])\n"
    ).replace("sys.argv[1]", repr(str(tmp_path / "pid")))
    parent = subprocess.Popen([sys.executable, "-c", script])
    try:
        while not (tmp_path / "pid").exists():
            assert parent.poll() is None
            time.sleep(0.05)
    finally:
        parent.kill()
        parent.wait()
    child = Path("/proc") / (tmp_path / "pid").read_text()
    for _ in range(200):
        if not child.exists() or ") Z " in (child / "stat").read_text():
            return
        time.sleep(0.05)
    pytest.fail("the child is still there")


def test_the_watchdog_ends_what_keeps_the_interpreter():
    script = (
        "import ctypes\nfrom genre_ray.runs.isolation import Limits, watchdog\n"
        "with watchdog(Limits(item_timeout_s=0.02)): pass\n"
        "print('in time', flush=True)\n"
        "with watchdog(Limits(item_timeout_s=0.02)): ctypes.PyDLL(None).sleep(1000)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout, ended.returncode) == ("in time\n", 1)
    assert "Timeout (0:00:00.200000)!" in ended.stderr


def test_the_watchdog_costs_next_to_nothing():
    started = time.monotonic()
    for _ in range(1000):
        with watchdog(Limits()):
            pass
    assert time.monotonic() - started < 2.0


def test_the_ordinary_path_starts_no_child(numbers_of, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    worker, shard = shard_of(numbers_of, tmp_path, Poisoned({}), 12, rows_per_shard=5)
    assert [summary.rows_in for summary in worker.shards(*shard)] == [5, 5, 2]
    assert set(read(tmp_path / "data", "pid")) == {os.getpid()}


def test_only_the_shard_over_which_a_worker_died_goes_through_a_child(numbers_of, tmp_path):
    worker, shard = shard_of(numbers_of, tmp_path, Poisoned({"f000/6": segfault}), 12, rows_per_shard=5)
    died(worker, shard[0], 1)
    summaries = list(worker.shards(*shard))
    assert [(summary.index, summary.rows_in, summary.last) for summary in summaries] == [
        (0, 5, False),
        (1, 5, False),
        (2, 2, True),
    ]
    by_row = dict(zip(read(tmp_path / "data", "row"), read(tmp_path / "data", "pid"), strict=True))
    here = {row for row, pid in by_row.items() if pid == os.getpid()}
    assert here == {f"f000/{row}" for row in (0, 1, 2, 3, 4, 10, 11)}
    assert sorted(read(tmp_path / "data", "row")) == sorted(f"f000/{row}" for row in range(12) if row != 6)
    assert (read(tmp_path / "rejected", "reason"), read(tmp_path / "rejected", "shard")) == (["crashed"], ["n000/1"])


def test_rows_are_read_ahead_where_that_gains_but_not_where_a_worker_died(numbers_of, tmp_path):
    """What kills in reading must find the shards before it done."""
    worker, shard = shard_of(numbers_of, tmp_path, Poisoned({}), 12, rows_per_shard=5)
    readers = []

    class Told(type(worker.source)):
        def read(self, *arguments):
            for chunk in super().read(*arguments):
                readers.append(threading.current_thread().name)
                yield chunk

    worker.source = Told(worker.source.files)
    assert len(list(worker.shards(*shard))) == 3
    worker.has_spare_core = False
    (file,) = shard[0].files
    remote = replace(shard[0], files=(replace(file, uri=f"s3://bucket/{file.name}"),))
    for item in (shard[0], remote):
        assert len(list(worker.shards(item, *shard[1:]))) == 3
    worker.has_spare_core = True
    died(worker, shard[0], 0)
    assert len(list(worker.shards(*shard))) == 3
    here = threading.current_thread().name
    assert readers == [name for name in ("read-ahead", here, "read-ahead", here) for _ in range(3)]


def test_the_mark_of_an_attempt_is_there_before_anything_is_read(numbers_of, tmp_path):
    worker, shard = shard_of(numbers_of, tmp_path, Poisoned({}), 7)
    found = []

    class Looking(type(worker.source)):
        def read(self, *arguments):
            found.extend(path.read_text() for path in Path(worker.attempts.uri).glob("*"))
            yield from super().read(*arguments)

    worker.source = Looking(worker.source.files)
    list(worker.shards(*shard))
    assert found == ['{"deaths": 1}']


def test_an_error_leaves_no_mark_of_a_death(numbers_of, tmp_path):
    worker, shard = shard_of(numbers_of, tmp_path, Poisoned({"f000/3": refuse_input}))
    with pytest.raises(InputError):
        list(worker.shards(*shard))
    worker.step = Poisoned({})
    list(worker.shards(*shard))
    assert set(read(tmp_path / "data", "pid")) == {os.getpid()}


def test_workers_that_die_over_a_shard_whatever_is_done_end_the_run_with_a_message(tmp_path):
    """What kills outside of the step, as reading might, is not tried for ever."""
    attempts, mark = Attempts(str(tmp_path)), tmp_path / "a000-00003.json"
    for count in range(MAX_DEATHS):
        with attempts.attempt("a000", 3) as deaths:
            left = mark.read_text()
        assert (deaths, json.loads(left)) == (count, {"deaths": count + 1})
        mark.write_text(left)  # as a worker that died leaves it
    refused = pytest.raises(GenreRayError, match="a000/3: expected the shard to be written, found that 10 workers died")
    with refused, attempts.attempt("a000", 3):
        pass


def test_deaths_are_reasons():
    assert all(Reason(str(death)).meaning for death in Death)


@pytest.mark.slow
def test_deadly_rows_on_a_cluster(ray_cluster, numbers_of, contents, tmp_path):
    """A worker segfaults, another hangs without letting go of the interpreter; Ray starts both again."""
    cluster.connect()
    source = numbers_of(23, 9, 30)
    poison = {"f000/7": segfault, "f000/8": allocate, "f000/9": leave, "f001/3": hang}
    settings = Execution(workers=2, rows_per_shard=8, item_timeout_s=0.5, item_memory_mib=768)
    step = Poisoned(poison)
    ledger = Ledger.claim(str(tmp_path), "data", step.schema, make_identity("job", {}), resume=True)
    plans = settle_plans(str(tmp_path), Inventory(source.list_inputs()), source.cut, settings.rows_per_shard)
    assert execute.execute(ledger, ledger.remaining(plans), source, step, settings) == 3 + 2 + 4
    rows = {f"{file.name}/{row}" for file in source.files for row in range(file.size)}
    assert contents(tmp_path) == (sorted(rows - poison.keys()), sorted(poison))
    assert ledger.totals().reasons == {"crashed": 2, "out_of_memory": 1, "timed_out": 1}
    assert not list((tmp_path / "_run" / "attempts").glob("*"))
    pids = {}
    for batch in tables.read_batches(ledger.data_uri, ["row", "pid"]):
        pids |= dict(zip(batch["row"].to_pylist(), batch["pid"].to_pylist(), strict=True))
    # f000 began again after its second shard's worker died, and f002 never needed a child.
    assert len({pids[f"f002/{row}"] for row in range(30)}) <= 2
