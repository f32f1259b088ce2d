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

from genre_ray.config import Execution
from genre_ray.errors import GenreRayError, InputError
from genre_ray.features.essentia.documents import ParseDocuments
from genre_ray.outcomes import Outcome, Reason, Rejection, rejections
from genre_ray.runs import cluster, execute
from genre_ray.runs.attempts import MAX_DEATHS, attempts_folder, begin_attempt
from genre_ray.runs.dataflow import Chain, segments
from genre_ray.runs.identity import make_identity
from genre_ray.runs.inventory import Inventory
from genre_ray.runs.isolation import Isolation
from genre_ray.runs.ledger import Ledger
from genre_ray.runs.pieces import summaries
from genre_ray.runs.plan import load_or_extend_plans
from genre_ray.runs.segment import Session
from genre_ray.runs.stages import Resources, ShardSize
from genre_ray.runs.watchdog import Limits
from genre_ray.sources.documents.source import DocumentSource

# Neither workers nor children can import a test module.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

LIMITS = Limits(item_timeout_s=30, memory_mib=512)
SOON = Limits(item_timeout_s=1.0, memory_mib=512)
ROWS = pa.schema([("source_uri", pa.string()), ("recording_id", pa.string())])


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
    segfault: (Reason.CRASHED, "was killed by SIGSEGV"),
    hang: (Reason.TIMED_OUT, "took more than 1 s"),
    leave: (Reason.CRASHED, "crashed (exit code 3)"),
    allocate: (Reason.OUT_OF_MEMORY, "MiB of memory, more than"),
    refuse_memory: (Reason.OUT_OF_MEMORY, "ran out of memory"),
}


@dataclass
class Poisoned:
    """Keeps every row, with the process that computed it; some rows do harm, `once` only as long as a file is there."""

    poison: dict
    once: str = ""
    name: str = "poisoned"
    schema: pa.Schema = field(default_factory=lambda: pa.schema([("row", pa.string()), ("pid", pa.int64())]))
    resources: Resources | None = None
    rows_per_call: int | None = None

    def open(self):
        return self.keep

    def keep(self, rows):
        names = rows["source_uri"].to_pylist()
        self.harm(names)
        return Outcome(pa.table({"row": names, "pid": [os.getpid()] * len(names)}, self.schema), rejections([]))

    def harm(self, names):
        for row in names:
            if row in self.poison and not (self.once and Path(self.once).exists()):
                if self.once:
                    Path(self.once).touch()
                self.poison[row]()


def rows_of(*names, **columns):
    return pa.table({"source_uri": list(names), "recording_id": [None] * len(names), **columns}, ROWS)


def isolation_of(stage, limits=LIMITS, source=None):
    return Isolation(source, [stage], stage.schema, limits)


@pytest.mark.parametrize("harm", DEADLY)
def test_a_deadly_row_is_rejected_with_its_reason_and_its_neighbours_come_out(harm):
    reason, detail = DEADLY[harm]
    names = [f"f000/{row}" for row in range(7)]
    with isolation_of(Poisoned({"f000/3": harm}), SOON if harm is hang else LIMITS) as isolation:
        accepted, rejected = isolation.compute(rows_of(*names))
        later, _ = isolation.compute(rows_of(*names[:2]))
        isolation.refuse_alike("a shard")
    assert accepted["row"].to_pylist() == names[:3] + names[4:]
    assert os.getpid() not in accepted["pid"].to_pylist()
    (row,) = rejected.to_pylist()
    assert (row["source_uri"], row["recording_id"], row["reason"]) == ("f000/3", None, str(reason))
    assert row["detail"].startswith("the process that computed this row ")
    assert row["detail"].endswith(", twice")
    assert detail in row["detail"]
    # One child for the rows before, one for the row alone, one for those after.
    assert len(set(accepted["pid"].to_pylist())) == 2
    assert set(later["pid"].to_pylist()) == {accepted["pid"].to_pylist()[-1]}


def test_several_deadly_rows_and_nothing_else():
    with isolation_of(Poisoned({"a": leave, "b": segfault, "d": leave})) as isolation:
        accepted, rejected = isolation.compute(rows_of("a", "b", "c", "d"))
    assert accepted["row"].to_pylist() == ["c"]
    assert rejected["source_uri"].to_pylist() == ["a", "b", "d"]
    with isolation_of(Poisoned({"a": leave})) as isolation:
        accepted, rejected = isolation.compute(rows_of("a"))
        isolation.refuse_alike("a shard of one row")
    assert (accepted.num_rows, accepted.schema, rejected.num_rows) == (0, Poisoned({}).schema, 1)


def test_a_row_that_is_well_when_it_is_alone_is_kept(tmp_path):
    """Rows before it may have used up what it needs: one death proves nothing."""
    with isolation_of(Poisoned({"b": leave}, once=str(tmp_path / "once"))) as isolation:
        accepted, rejected = isolation.compute(rows_of("a", "b", "c"))
    assert accepted["row"].to_pylist() == ["a", "b", "c"]
    assert rejected.num_rows == 0


@pytest.mark.parametrize(("harm", "count"), [(hang, 3), (leave, 4)])
def test_rows_that_all_fail_alike_are_an_error_and_not_as_many_rejections(harm, count, monkeypatch):
    """A limit that no row can keep, or a library that is broken, says nothing about the rows."""
    monkeypatch.setattr("genre_ray.runs.isolation.ALIKE", 3)
    names = [f"r{row}" for row in range(count)]
    limits = Limits(item_timeout_s=0.1) if harm is hang else LIMITS
    with isolation_of(Poisoned(dict.fromkeys(names, harm)), limits) as isolation:
        isolation.compute(rows_of(*names))
        with pytest.raises(GenreRayError, match=rf"^item/3: all {count} rows failed for the same reason"):
            isolation.refuse_alike("item/3")


class Heavy(Poisoned):
    """Takes 300 MiB before its first row."""

    def open(self):
        held = bytearray(300 * 2**20)
        return lambda rows: (len(held) and None) or self.keep(rows)


def test_memory_counts_from_what_the_process_takes_before_its_first_row():
    with isolation_of(Heavy({}), Limits(memory_mib=64)) as isolation:
        accepted, rejected = isolation.compute(rows_of("a", "b"))
    assert (accepted.num_rows, rejected.num_rows) == (2, 0)


def test_errors_of_a_stage_are_no_deaths():
    expected = pytest.raises(InputError, match=r"^expected another row; take it out$")
    with isolation_of(Poisoned({"b": refuse_input})) as isolation, expected:
        isolation.compute(rows_of("a", "b"))
    with isolation_of(Poisoned({"b": fail})) as isolation, pytest.raises(RuntimeError, match="ZeroDivisionError"):
        isolation.compute(rows_of("a", "b"))


def test_a_child_that_does_not_start_is_an_error():
    class Unloadable(Poisoned):
        def __reduce__(self):
            return leave, ()

    with isolation_of(Unloadable({})) as isolation, pytest.raises(GenreRayError, match=r"it crashed \(exit code 3\)"):
        isolation.compute(rows_of("a"))


def test_real_documents_through_children_are_the_same_rows(sample, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for path in (sample / "acousticbrainz").glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "bad.json").write_text("{")
    source, stage = DocumentSource((str(folder),)), ParseDocuments()
    (item,) = source.make_work_items(source.list_inputs(), 5000)
    (chunk,) = source.read(item, ShardSize(5000))
    expected = stage.open()(chunk.outcome.accepted)
    with Isolation(source, [stage], stage.schema, Limits()) as isolation:
        found = [chunk.outcome for chunk in isolation.read(item, ShardSize(5000), 0, 0)]
    assert len(found) == 7
    for mine, wanted in zip(map(pa.concat_tables, zip(*found, strict=True)), expected, strict=True):
        assert mine.equals(wanted)


@pytest.mark.parametrize(
    ("harm", "place"),
    [
        *((segfault, 0), (segfault, 4), (segfault, 6), (hang, 4)),
        # The first row of an item may take ten times as long, since the way to it may be long.
        *(pytest.param(hang, place, marks=pytest.mark.slow) for place in (0, 6)),
    ],
)
def test_a_row_that_kills_its_reader_is_rejected_too(numbers_of, harm, place):
    source = numbers_of(7, harm={f"f000/{place}": harm})
    (item,) = source.make_work_items(source.list_inputs(), 5)
    stage = Poisoned({"f000/2": leave})
    with isolation_of(stage, Limits(item_timeout_s=0.5) if harm is hang else LIMITS, source) as isolation:
        found = [
            chunk
            for shard, position in ((0, 0), (1, 5))
            for chunk in isolation.read(item, ShardSize(5), shard, position)
            if chunk.shard == shard  # the last one only shows that there is more
        ]
    names = [name for chunk in found for name in chunk.outcome.accepted["row"].to_pylist()]
    assert names == [f"f000/{row}" for row in range(7) if row not in (2, place)]
    rejected = [row for chunk in found for row in chunk.outcome.rejected.to_pylist()]
    assert {row["source_uri"]: row["reason"] for row in rejected} == {
        "f000/2": "crashed",
        f"f000/{place}": "crashed" if harm is segfault else "timed_out",
    }
    assert [chunk.shard for chunk in found] == [0] * 5 + [1] * 2
    assert list(isolation.failed) == [place]


def test_a_child_ends_with_its_parent(tmp_path):
    """A worker that is killed while its child hangs must not leave the child behind."""
    script = (
        "import sys, ctypes\nimport pyarrow as pa\n"
        "from genre_ray.runs.isolation import Isolation\nfrom genre_ray.runs.watchdog import Limits\n"
        "class Stage:\n name = 'hang'\n def open(self): return self.hang\n def hang(self, rows):\n"
        "  import os, ctypes\n"
        "  open(sys.argv[1] + '.new', 'w').write(str(os.getpid())); os.rename(sys.argv[1] + '.new', sys.argv[1])\n"
        "  ctypes.PyDLL(None).sleep(1000)\n"
        "Isolation(None, [Stage()], pa.schema([]), Limits()).compute(pa.table({'a': [1]}))\n"
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
        "import ctypes\nfrom genre_ray.runs.watchdog import Watchdog\n"
        "with Watchdog(0.2): pass\n"
        "with Watchdog(0.2) as watchdog, watchdog.suspended(): ctypes.PyDLL(None).usleep(400000); watchdog.progress()\n"
        "print('in time', flush=True)\n"
        "with Watchdog(0.2): ctypes.PyDLL(None).sleep(1000)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout, ended.returncode) == ("in time\n", 1)
    assert "Timeout (0:00:00.200000)!" in ended.stderr


def test_a_store_that_is_tried_again_for_minutes_is_no_hang():
    assert Limits(item_timeout_s=0.5).stall_s() == 5
    assert Limits(item_timeout_s=0.5).stall_s(remote=True) >= 8 * 70


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch):
    """Sessions of the same name are the same to a process, and every test here is a session of its own."""
    monkeypatch.setattr("genre_ray.runs.segment._opened", {})


@pytest.fixture
def started(numbers_of, tmp_path):
    """`started(source, stage, rows_per_shard)`: (ledger, the only segment, its only work), nothing done yet."""

    def start(source, stage, rows_per_shard, session="one", **settings):
        chain = Chain(source, (stage,))
        ledger = Ledger.claim(str(tmp_path), "data", chain.schema, make_identity("job", {}), resume=True)
        plans = load_or_extend_plans(
            str(tmp_path), Inventory(source.list_inputs()), source.make_work_items, rows_per_shard
        )
        shared = Session(session, ledger.arguments, LIMITS)
        (segment,) = segments(chain, shared, Execution(**settings))
        (work,) = ledger.remaining(plans)
        return ledger, segment, work

    return start


def written(segment, work):
    return [row for table in segment(pa.Table.from_pylist([work._asdict()])) for row in table.to_pylist()]


def died(tmp_path, shard, session="one"):
    """What a worker leaves that dies over a shard."""
    begin_attempt(attempts_folder(str(tmp_path), session, 0), "0000-n000").begin(shard)


def read(folder, column):
    return [
        value for path in sorted(folder.glob("*.parquet")) for value in pa.parquet.read_table(path)[column].to_pylist()
    ]


def test_the_ordinary_path_starts_no_child(started, numbers_of, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    _, segment, work = started(numbers_of(12), Poisoned({}), 5)
    assert [row["rows_in"] for row in written(segment, work)] == [5, 5, 2]
    assert set(read(tmp_path / "data", "pid")) == {os.getpid()}


def test_only_the_shard_over_which_a_worker_died_goes_through_children(started, numbers_of, tmp_path):
    source = numbers_of(16, harm={"f000/13": leave})
    _, segment, work = started(source, Poisoned({"f000/8": segfault}), 7)
    died(tmp_path, 1)
    rows = written(segment, work)
    assert [(row["shard"], row["rows_in"], row["ends_item"]) for row in rows] == [
        (0, 7, False),
        (1, 7, False),
        (2, 2, True),
    ]
    by_row = dict(zip(read(tmp_path / "data", "row"), read(tmp_path / "data", "pid"), strict=True))
    here = {row for row, pid in by_row.items() if pid == os.getpid()}
    assert here == {f"f000/{row}" for row in (*range(7), 14, 15)}
    assert sorted(by_row) == sorted(f"f000/{row}" for row in range(16) if row not in (8, 13))
    assert sorted(read(tmp_path / "rejected", "source_uri")) == ["f000/13", "f000/8"]
    assert set(read(tmp_path / "rejected", "shard")) == {"0000-n000/1"}


def test_a_death_while_the_next_shard_was_begun_is_found_there(started, numbers_of, tmp_path):
    """The first row of a shard is read before the one before it is written."""
    source = numbers_of(12, harm={"f000/5": leave})
    _, segment, work = started(source, Poisoned({}), 5)
    died(tmp_path, 0)
    assert [row["rows_in"] for row in written(segment, work)] == [5, 5, 2]
    assert (read(tmp_path / "rejected", "source_uri"), read(tmp_path / "rejected", "shard")) == (
        ["f000/5"],
        ["0000-n000/1"],
    )


def test_rows_are_prefetched_where_that_gains_but_not_those_of_a_shard_where_a_worker_died(
    started, numbers_of, tmp_path
):
    """What kills in reading must find the shards before it written."""
    readers = []

    class Watched(type(numbers_of())):
        def read(self, *arguments, **settings):
            for chunk in super().read(*arguments, **settings):
                readers.append(threading.current_thread().name)
                yield chunk

    here = threading.current_thread().name
    _, segment, work = started(Watched(numbers_of(12).files), Poisoned({}), 5)
    assert len(written(segment, work)) == 3
    assert set(readers) == {here}
    for session, deaths, chunks in (("two", (), 3), ("three", (0, 1), 1)):
        readers.clear()
        wide = replace(segment, session=replace(segment.session, name=session), resources=Resources(2))
        for shard in deaths:  # what workers leave that die
            begin_attempt(wide.attempts_uri, work.item).begin(shard)
        assert len(written(wide, work)) == 3
        # The shards at which workers died are read in children, and found harmless there.
        assert readers == ["read-ahead"] * chunks


def test_the_attempt_marker_is_there_before_anything_is_read(started, numbers_of, tmp_path):
    found = []

    class Looking(type(numbers_of())):
        def read(self, *arguments, **settings):
            found.extend(
                json.loads(path.read_text()) for path in (tmp_path / "_run" / "attempts" / "one" / "0").glob("*")
            )
            yield from super().read(*arguments, **settings)

    _, segment, work = started(Looking(numbers_of(7).files), Poisoned({}), 7)
    written(segment, work)
    assert found == [{"shard": 0, "deaths": {}, "failed": {}, "is_finished": False}]


def test_ten_orderly_stops_during_one_shard_do_not_lock_the_run(started, numbers_of, tmp_path):
    """A driver that stops takes its workers along, and what they were at says nothing about the rows."""
    _, segment, work = started(numbers_of(12), Poisoned({}), 5)
    for stop in range(2 * MAX_DEATHS):
        died(tmp_path, 1, session=f"stopped-{stop}")
    assert [row["rows_in"] for row in written(segment, work)] == [5, 5, 2]
    assert set(read(tmp_path / "data", "pid")) == {os.getpid()}


def test_workers_that_die_over_a_shard_whatever_is_done_end_the_run_with_a_message(tmp_path):
    """What kills outside of reading and computing is not tried for ever."""
    for count in range(MAX_DEATHS):
        assert begin_attempt(str(tmp_path), "a000").deaths == ({0: count} if count else {})
    with pytest.raises(GenreRayError, match="a000/0: 10 workers died while they processed this shard"):
        begin_attempt(str(tmp_path), "a000")


def test_deaths_are_those_of_each_shard_and_of_work_that_was_not_done(tmp_path):
    attempt = begin_attempt(str(tmp_path), "a", 2)
    attempt.begin(4)
    attempt = begin_attempt(str(tmp_path), "a", 2)
    assert (attempt.deaths, attempt.shard) == ({4: 1}, 2)
    attempt.failed[17] = Rejection(Reason.TIMED_OUT, "took long")
    attempt.begin(6)
    attempt = begin_attempt(str(tmp_path), "a", 2)
    assert (attempt.deaths, attempt.failed) == ({4: 1, 6: 1}, {17: Rejection(Reason.TIMED_OUT, "took long")})
    attempt.clear(4)
    attempt.finish()
    for _ in range(2 * MAX_DEATHS):
        attempt = begin_attempt(str(tmp_path), "a", 2)
        assert (attempt.deaths, attempt.is_retry) == ({6: 1}, True)
        attempt.finish()


class Passing(Poisoned):
    """Hands its rows on as they came."""

    def keep(self, rows):
        self.harm(rows["source_uri"].to_pylist())
        return Outcome(rows, rejections([]))


@pytest.mark.parametrize("piece_bytes", [3, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 1000))])
def test_a_reader_that_died_twice_yields_the_pieces_that_it_would_have(
    numbers_of, tmp_path, monkeypatch, contents, piece_bytes
):
    """Pieces were cut by what they hold, and an isolated attempt's were others: rows came twice, or never.

    And only the shard of the last death was isolated, so that two rows that kill stopped the run.
    """
    monkeypatch.setattr("genre_ray.runs.segment.PIECE_BYTES", piece_bytes)
    source = numbers_of(40, rejected=("f000/2", "f000/17"))
    first = Passing({}, name="first", schema=source.schema)
    chain = Chain(source, (first, Poisoned({}, resources=Resources(0.5))))
    ledger = Ledger.claim(str(tmp_path), "data", chain.schema, make_identity("job", {}), resume=True)
    plans = load_or_extend_plans(str(tmp_path), Inventory(source.list_inputs()), source.make_work_items, 8)
    (work,) = ledger.remaining(plans)
    reader, writer = segments(chain, Session("one", ledger.arguments, LIMITS), Execution())
    task = pa.Table.from_pylist([work._asdict()])
    undisturbed = list(reader(task))
    killing = Passing({"f000/3": leave, "f000/27": segfault}, name="first", schema=source.schema)
    deadly = replace(reader, stages=(killing,), session=replace(reader.session, name="two"))
    for shard in (0, 3):  # the deaths that both rows left
        begin_attempt(deadly.attempts_uri, work.item).begin(shard)
    retried = list(deadly(task))
    assert len(retried) == len(undisturbed)
    # Ray has taken two pieces before, and takes the others by their position.
    rows = [row for block in undisturbed[:2] + retried[2:] for out in writer(block) for row in out.to_pylist()]
    shards = list(summaries(rows))
    assert [shard.rows_in for shard in shards] == [8] * 5
    ledger.commit(shards)
    kept, rejected = contents(tmp_path)
    assert sorted(kept + rejected) == sorted(f"f000/{row}" for row in range(40))
    assert "f000/27" in rejected
    # A finished task that is repeated, since a node was lost with what it had yielded, is nobody's death.
    undying = replace(deadly, stages=(first,))
    for _ in range(MAX_DEATHS + 1):
        assert len(list(undying(task))) == len(undisturbed)


@pytest.mark.slow
def test_deadly_rows_on_a_cluster(ray_cluster, numbers_of, contents, tmp_path):
    """A worker segfaults, another hangs without letting go of the interpreter, in reading and in computing."""
    cluster.connect()
    source = numbers_of(23, 9, 30, harm={"f001/7": segfault, "f002/29": hang})
    poison = {"f000/7": segfault, "f000/8": allocate, "f000/9": leave, "f001/3": hang}
    settings = Execution(workers=2, rows_per_shard=8, item_timeout_s=4.0, item_memory_mib=256)
    chain = Chain(source, (Poisoned(poison),))
    ledger = Ledger.claim(str(tmp_path), "data", chain.schema, make_identity("job", {}), resume=True)
    plans = load_or_extend_plans(
        str(tmp_path), Inventory(source.list_inputs()), source.make_work_items, settings.rows_per_shard
    )
    assert execute.execute(ledger, ledger.remaining(plans), chain, settings) == 3 + 2 + 4
    rows = {f"{file.name}/{row}" for file in source.files for row in range(file.size)}
    deadly = {*poison, *source.harm}
    assert contents(tmp_path) == (sorted(rows - deadly), sorted(deadly))
    assert ledger.totals().reasons == {"crashed": 3, "out_of_memory": 1, "timed_out": 2}
    assert not (tmp_path / "_run" / "attempts").exists()
