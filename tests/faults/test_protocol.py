"""Guards the law of a run, rows out + rows rejected = rows in, each once, at every step of its protocol.

Drivers run as they are, over a storage that fails, loses answers and kills whoever uses it, and over a stand-in for
Ray that repeats the tasks of dead workers as Ray does. Who runs next, what fails and who looks is drawn from a seed:
every operation on the storage is a point where it can happen, and nothing else decides.
"""

import functools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from genre_ray.config import Execution, JobConfiguration
from genre_ray.errors import GenreRayError, OutputTakenError, StorageError
from genre_ray.outcomes import Outcome, Rejection, rejections
from genre_ray.runs import execute
from genre_ray.runs.batch import run_batch
from genre_ray.runs.dataflow import Chain, segments
from genre_ray.runs.identity import make_identity
from genre_ray.runs.inventory import Inventory
from genre_ray.runs.ledger import Ledger
from genre_ray.runs.pieces import summaries
from genre_ray.runs.plan import RemainingWork, WorkItem, settle_plans
from genre_ray.runs.segment import Segment, Session
from genre_ray.runs.stages import Chunk, Resources, ShardCounter, ShardSize, compute, open_stages
from genre_ray.runs.watchdog import Limits
from genre_ray.storage import history, objects, tables, transactions
from genre_ray.storage.files import StoredFile

ROWS_PER_SHARD, COMMIT_SHARDS, DELAYED = 3, 3, 2
IN_FLIGHT = COMMIT_SHARDS + 2 * (DELAYED + 1)
"""Shards that a fault can cost: those not committed yet, and for two workers those delayed and the one at work."""
OBJECT_OPERATIONS = ("put_if_absent", "exists", "read_bytes", "write_bytes")
TABLE_OPERATIONS = ("create table", "open table", "read log", "append rejected", "append data")
SEEDS, SEEDS_AT_ONCE = 240, 40


class DriverKilled(BaseException):
    """SIGKILL to a driver: nothing in it gets to answer."""


class WorkerKilled(BaseException):
    """SIGKILL to a worker."""


@dataclass
class Numbers:
    """Files whose size is their number of rows; a row is `name/position`."""

    files: list[StoredFile]
    name = "read numbers"
    schema = pa.schema([("source_uri", pa.string()), ("recording_id", pa.string())])

    @classmethod
    def of(cls, *sizes: int) -> "Numbers":
        return cls([StoredFile(f"numbers://f{n}", f"f{n}", size, "1") for n, size in enumerate(sizes)])

    def list_inputs(self) -> list[StoredFile]:
        return list(self.files)

    def cut(self, files, rows_per_shard) -> list[WorkItem]:
        return [WorkItem(f"n{n}", "numbers", (file,)) for n, file in enumerate(files)]

    def read(
        self, item: WorkItem, size: ShardSize, first_shard: int = 0, failed: object = None, *, singly: bool = False
    ) -> Iterator[Chunk]:
        (file,) = item.files
        counter, places = ShardCounter(size), []
        for _ in range(file.size):
            counter.add(1)
            places.append((counter.shard, counter.piece))
        for shard, piece in sorted(set(places)):
            names = [f"{file.name}/{row}" for row, place in enumerate(places) if place == (shard, piece)]
            if shard >= first_shard:
                rows = pa.table({"source_uri": names, "recording_id": [None] * len(names)}, self.schema)
                yield Chunk(shard, Outcome(rows, rejections([])), piece)

    def shards(self) -> list[list[str]]:
        items = [WorkItem("", "", (file,)) for file in self.files]
        chunks = [chunk for item in items for chunk in self.read(item, ShardSize(ROWS_PER_SHARD))]
        return [chunk.outcome.accepted["source_uri"].to_pylist() for chunk in chunks]


@dataclass
class Judge:
    """Rejects every fourth row, and where `wavers` any other row in one attempt and not in another."""

    random: random.Random
    wavers: bool = False
    computed: Counter[str] = field(default_factory=Counter)
    name = "judge"
    schema = pa.schema([("row", pa.string())])
    resources: Resources | None = None
    rows_per_call = None

    def open(self) -> Callable[[pa.Table], Outcome]:
        return self.judge

    def judge(self, table: pa.Table) -> Outcome:
        rows = table["source_uri"].to_pylist()
        self.computed[rows[0]] += 1
        gone = [row for row in rows if _bad(row) or (self.wavers and self.random.random() < 0.4)]
        kept = pa.table({"row": [row for row in rows if row not in gone]}, self.schema)
        return Outcome(kept, rejections((row, Rejection("bad", "")) for row in gone))


class SameProcess:
    """Stands in for `Isolation`, whose children no schedule could kill: nothing here kills by its rows."""

    def __init__(self, source, stages, schema, limits, failed=None) -> None:
        self.source, self.opened = source, open_stages(stages)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, item: WorkItem, size: ShardSize, shard: int, position: int) -> Iterator[Chunk]:
        for chunk in self.source.read(item, size, shard):
            # The one row that tells that the next shard begins is not computed here.
            computed = self.compute(chunk.outcome.accepted) if chunk.shard == shard else chunk.outcome
            yield chunk._replace(outcome=computed)

    def compute(self, rows: pa.Table) -> Outcome:
        return compute(self.opened, rows)

    def refuse_alike(self, shard: str) -> None:
        pass

    found_deaths = False


def _bad(row: str) -> bool:
    return int(row.rpartition("/")[2]) % 4 == 1


class Example(JobConfiguration):
    """Settings of the run under test."""

    seed: int = 0


@dataclass
class Chance:
    """What a schedule may do at an operation, each with its probability."""

    faults: int = 0
    fault: float = 0.0
    switch: float = 0.0
    look: float = 0.0
    twice: float = 0.0
    exactly: tuple[int, str] | None = None
    """Do this at the operation of this number, and nothing else."""


class Stage:
    """Lets processes take turns at their operations on the storage, and does to them what the schedule says."""

    def __init__(self, output: str, source: Numbers, judge: Judge, chance: Chance, seed: int) -> None:
        self.output, self.source, self.judge, self.chance = output, source, judge, chance
        self.random = random.Random(seed)
        self.turns: dict[str, threading.Semaphore] = {}
        self.current: str | None = None
        self.in_worker = False
        self.faults, self.operations = 0, 0
        self.sessions = count()
        self.hit: str | None = None
        self.failures: list[BaseException] = []

    def run(self, plays: dict[str, Callable[[], None]]) -> None:
        """Every play in a thread of its own, one at a time."""

        def act(name: str, play: Callable[[], None]) -> None:
            self.turns[name].acquire()
            self.in_worker = False
            try:
                play()
            except BaseException as error:
                self.failures.append(error)
            finally:
                del self.turns[name]
                self._give_turn(self.random.choice(sorted(self.turns)) if self.turns else None)

        self.turns = {name: threading.Semaphore(0) for name in plays}
        threads = [threading.Thread(target=act, args=play) for play in plays.items()]
        for thread in threads:
            thread.start()
        self._give_turn(self.random.choice(sorted(self.turns)))
        for thread in threads:
            thread.join()
        if self.failures:
            raise self.failures[0]

    def operate(self, name: str, operation: Callable[[], Any], error: Callable[[], Exception]) -> Any:
        """One operation on the storage and what happens around it."""
        if self.current is None:
            return operation()
        self.operations += 1
        fault = self._draw()
        self._pass_turn()
        if fault is not None:
            self.faults += 1
            self.hit = name
        if fault == "killed before":
            raise self._death()
        if fault == "failed":
            raise error()
        result = operation()
        if fault == "killed after":
            raise self._death()
        if fault == "answer lost":
            raise error()
        self._pass_turn()
        return result

    def _draw(self) -> str | None:
        if self.chance.exactly is not None:
            number, fault = self.chance.exactly
            return fault if self.operations == number else None
        if self.faults < self.chance.faults and self.random.random() < self.chance.fault:
            return self.random.choice(FAULTS)
        return None

    def _death(self) -> BaseException:
        return WorkerKilled() if self.in_worker and self.random.random() < 0.7 else DriverKilled()

    def _pass_turn(self) -> None:
        if self.random.random() < self.chance.look:
            self.look()
        others = sorted(name for name in self.turns if name != self.current)
        if others and self.random.random() < self.chance.switch:
            me, in_worker = self.current, self.in_worker
            assert me is not None
            self._give_turn(self.random.choice(others))
            self.turns[me].acquire()
            self.in_worker = in_worker

    def _give_turn(self, name: str | None) -> None:
        self.current = name
        if name is not None:
            self.turns[name].release()

    def look(self) -> None:
        """What a reader finds at this moment, and what a different run is told."""
        me, self.current = self.current, None
        try:
            if tables.is_table(f"{self.output}/data") and tables.is_table(f"{self.output}/rejected"):
                check_whole_shards(self.source, *contents(self.output))
                other = make_identity("example", {"seed": 99})
                with pytest.raises(OutputTakenError):
                    Ledger.claim(self.output, "data", self.judge.schema, other, resume=True)
        finally:
            self.current = me

    def rows(self, parts: list[Segment], remaining: list[RemainingWork]) -> Iterator[dict[str, Any]]:
        """What Ray gives a driver: two workers, rows that are late, tasks of dead workers from their start."""
        waiting = [work for work in remaining for _ in range(1 + (self.random.random() < self.chance.twice))]
        at_work: list[tuple[Iterator[pa.Table], list[dict[str, Any]]]] = []
        while waiting or at_work:
            while waiting and len(at_work) < 2:
                blocks = iter([pa.Table.from_pylist([waiting.pop(0)._asdict()])])
                for segment in parts:
                    blocks = chain.from_iterable(map(functools.partial(self._lives, segment), blocks))
                at_work.append((blocks, []))
            place = self.random.randrange(len(at_work))
            task, late = at_work[place]
            block = self._work(task)
            if block is not None:
                late += block.to_pylist()
            if block is None or len(late) > self.random.randint(0, DELAYED):
                yield from late
                late.clear()
            if block is None:
                at_work.pop(place)

    def _work(self, task: Iterator[pa.Table]) -> pa.Table | None:
        self.in_worker = True
        try:
            return next(task, None)
        finally:
            self.in_worker = False

    def _lives(self, segment: Segment, batch: pa.Table) -> Iterator[pa.Table]:
        """What one task yields, whose worker may die; of a retry, what comes after what was yielded before."""
        yielded = 0
        while True:
            try:
                for place, block in enumerate(segment(batch)):
                    if place >= yielded:
                        yielded += 1
                        yield block
            except WorkerKilled:
                continue
            return


FAULTS = ("killed before", "killed after", "failed", "answer lost")


@pytest.fixture
def stage_of(tmp_path, monkeypatch):
    """`stage_of(source, judge, chance, seed)`: a stage with an output of its own, under the product's storage."""
    stages: list[Stage] = []
    numbers = count()

    class Table(transactions.Table):
        def __init__(self, *args, **settings):
            stages[-1].operate("open table", lambda: super(Table, self).__init__(*args, **settings), _reset)

        @classmethod
        def create(cls, *args, **settings):
            return stages[-1].operate("create table", lambda: DeltaTable.create(*args, **settings), _reset)

        def update_incremental(self):
            return stages[-1].operate("read log", super().update_incremental, _reset)

        def create_write_transaction(self, *args, **settings):
            commit = super().create_write_transaction
            return stages[-1].operate("append " + self._name(), lambda: commit(*args, **settings), _reset)

        def history(self, *args):
            return stages[-1].operate("read notes", lambda: super(Table, self).history(*args), _reset)

        def _name(self):
            return self.table_uri.rstrip("/").rpartition("/")[2]

    def wrapped(name, operation):
        return lambda *args: stages[-1].operate(name, lambda: operation(*args), lambda: StorageError(f"{name}: reset"))

    monkeypatch.setattr(tables, "Table", Table)
    for name in OBJECT_OPERATIONS:
        monkeypatch.setattr(objects, name, wrapped(name, getattr(objects, name)))
    monkeypatch.setattr(execute, "COMMIT_SHARDS", COMMIT_SHARDS)
    for module in ("segment", "reading"):
        monkeypatch.setattr(f"genre_ray.runs.{module}.Isolation", SameProcess)
    # Shards of three rows are three pieces.
    monkeypatch.setattr("genre_ray.runs.segment.PIECE_BYTES", 1)
    monkeypatch.setattr("genre_ray.runs.batch.cluster.connect", lambda: None)
    monkeypatch.setattr("genre_ray.runs.batch.execute", lambda *args: _execute(stages[-1], *args))
    # Waiting for others would be waiting for oneself: they run when this one gives the turn.
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)

    def make(source, judge, chance, seed=0):
        stages.append(Stage(str(tmp_path / f"{next(numbers):04d}"), source, judge, chance, seed))
        return stages[-1]

    return make


def _reset() -> OSError:
    return OSError("connection reset by peer")


def _execute(stage: Stage, ledger, remaining, chain, execution) -> int:
    shared = Session(f"{stage.output}-{next(stage.sessions)}".replace("/", "-"), ledger.arguments, Limits())
    parts = segments(chain, shared, execution)
    committer = execute.Committer(ledger)
    try:
        for summary in summaries(stage.rows(parts, remaining)):
            committer.add(summary)
            committer.commit(all_pending=False)
    except GenreRayError:
        committer.commit(all_pending=True)
        raise
    committer.commit(all_pending=True)
    execute.require_complete(ledger, remaining)
    return committer.committed


def drive(stage: Stage, seed: int, ends: list[str]) -> None:
    """A driver until it has done all, fails or dies; `ends` is told which."""
    settings = {"output": stage.output, "resume": True, "seed": seed, "execution": {"rows_per_shard": ROWS_PER_SHARD}}
    try:
        run_batch(
            Example.from_mapping(settings), job="example", table="data", source=stage.source, stages=[stage.judge]
        )
        ends.append("done")
    except OutputTakenError:
        ends.append("refused")
    except (GenreRayError, DriverKilled) as error:
        ends.append(type(error).__name__)


def contents(output: str) -> tuple[list[str], list[str]]:
    """The rows of the data table, then those of the rejected table."""
    return tuple(
        [value for batch in tables.read_batches(f"{output}/{name}", [key]) for value in batch.column(key).to_pylist()]
        for name, key in (("data", "row"), ("rejected", "source_uri"))
    )


def check_whole_shards(source: Numbers, data: list[str], rejected: list[str]) -> None:
    """No row twice, and of every shard that shows data all rows, in one table or the other."""
    assert len({*data, *rejected}) == len(data) + len(rejected)
    for shard in source.shards():
        if not set(shard).isdisjoint(data):
            assert {*shard} <= {*data, *rejected}


def check_done(stage: Stage) -> None:
    """Every row once; each version of the data table names what the one before did, and whole shards."""
    data, rejected = contents(stage.output)
    assert sorted(data + rejected) == sorted(row for shard in stage.source.shards() for row in shard)
    if not stage.judge.wavers:
        assert all(map(_bad, rejected))
        assert not any(map(_bad, data))
    named: list[tables.Part] = []
    uri = f"{stage.output}/data"
    for version in range(tables.open_table(uri).version() + 1):
        parts = tables.list_parts(uri, version)
        assert set(named) <= set(parts)
        named = parts
    shards = [len(set(shard) & set(data)) for shard in stage.source.shards()]
    # Each shard is in the parts of its pieces.
    rows = Counter[str]()
    for part in named:
        rows[history.shard_of(part.path)] += part.rows
    assert sorted(rows.values()) == sorted(rows for rows in shards if rows)


def test_an_undisturbed_run_computes_every_shard_once(stage_of):
    stage = stage_of(Numbers.of(7, 0, 6), Judge(random.Random(0)), Chance(look=1.0))
    stage.run({"driver": lambda: drive(stage, 0, [])})
    check_done(stage)
    assert set(stage.judge.computed.values()) == {1}
    stage.run({"driver": lambda: drive(stage, 0, [])})
    assert set(stage.judge.computed.values()) == {1}


@pytest.mark.parametrize("fault", FAULTS)
def test_any_single_operation_may_fail(stage_of, fault):
    """Each operation of a run in turn; then a resume, which does at most again what was in flight."""
    hit: set[str] = set()
    for number in count(1):
        stage = stage_of(Numbers.of(7, 4), Judge(random.Random(number)), Chance(exactly=(number, fault)), number)
        ends: list[str] = []
        stage.run({"driver": functools.partial(drive, stage, 0, ends)})
        if stage.hit is None:
            break
        hit.add(stage.hit)
        if ends != ["done"]:
            stage.run({"driver": functools.partial(drive, stage, 0, ends)})
        assert ends[-1] == "done"
        check_done(stage)
        assert stage.judge.computed.total() <= len(stage.source.shards()) + IN_FLIGHT
    assert hit == {*OBJECT_OPERATIONS, *TABLE_OPERATIONS}


@pytest.mark.parametrize("killed", range(15, 60, 4))
def test_a_worker_that_dies_late_in_a_long_item_costs_what_was_in_flight(stage_of, monkeypatch, killed):
    """Ray begins its task from the start; the driver neither fails nor takes one shard for another."""
    monkeypatch.setattr(Stage, "_death", lambda stage: WorkerKilled() if stage.in_worker else DriverKilled())
    stage = stage_of(Numbers.of(60), Judge(random.Random(0)), Chance(exactly=(killed, "killed before")), killed)
    ends: list[str] = []
    stage.run({"driver": functools.partial(drive, stage, 0, ends)})
    if stage.hit != "write_bytes":
        assert ends == ["DriverKilled"]
        stage.run({"driver": functools.partial(drive, stage, 0, ends)})
    assert ends[-1] == "done"
    check_done(stage)
    assert stage.judge.computed.total() <= len(stage.source.shards()) + IN_FLIGHT


def test_an_item_that_stays_short_is_not_taken_for_done(stage_of):
    """A repeated task that fails before where it was repeated from says so at a place that is taken: unheard."""
    stage = stage_of(Numbers.of(12), Judge(random.Random(0)), Chance())
    ledger = Ledger.claim(stage.output, "data", stage.judge.schema, make_identity("job", {}), resume=True)
    remaining = ledger.remaining(
        settle_plans(stage.output, Inventory(stage.source.files), stage.source.cut, ROWS_PER_SHARD)
    )
    parts = segments(Chain(stage.source, (stage.judge,)), Session("one", ledger.arguments, Limits()), Execution())
    shards = list(summaries(stage.rows(parts, remaining)))
    ledger.commit(shards[:2])
    with pytest.raises(GenreRayError, match="1 of 1 work items are not complete, the first is 0000-n0"):
        execute.require_complete(ledger, remaining)
    assert ledger.commit(shards) == 2
    execute.require_complete(ledger, remaining)
    check_done(stage)


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_AT_ONCE))
def test_any_schedule_of_faults_leaves_every_row_once(stage_of, first):
    for seed in range(first, first + SEEDS_AT_ONCE):
        _play(stage_of, seed)


def _play(stage_of, seed: int) -> None:
    """One schedule: drivers of a run, now and then two at once or one of a different run, until one has done all."""
    chosen = random.Random(seed)
    source = Numbers.of(*(chosen.randrange(14) for _ in range(chosen.randint(1, 4))))
    alone = chosen.random() < 0.4
    chance = Chance(
        faults=chosen.randint(1, 10),
        fault=chosen.choice((0.02, 0.06, 0.2)),
        switch=chosen.choice((0.05, 0.3, 0.8)),
        look=0.05,
        twice=0.0 if alone else 0.3,
    )
    stage = stage_of(source, Judge(random.Random(seed), wavers=chosen.random() < 0.4), chance, seed)
    if seed % 3 == 0:
        stage.judge.resources = Resources(0.5)  # a segment of its own
    drivers = {"one": 0, "stranger": 1} if not alone and chosen.random() < 0.3 else {"one": 0}
    owners: set[int] = set()
    for turn in count():
        assert turn < 50, f"schedule {seed} does not end"
        if not alone and chosen.random() < 0.6:
            drivers["two"] = 0
        ends: dict[str, list[str]] = {name: [] for name in drivers}
        stage.run({name: functools.partial(drive, stage, drivers[name], ends[name]) for name in drivers})
        done = {drivers[name] for name, end in ends.items() if end == ["done"]}
        owners |= done
        if turn == 0 and chosen.random() < 0.3:
            source.files.append(StoredFile("numbers://late", "late", 8, "1"))
        elif done:
            break
        drivers.pop("two", None)
    assert len(owners) == 1
    check_done(stage)
    if alone:
        pieces = ROWS_PER_SHARD if stage.judge.resources else 1
        assert stage.judge.computed.total() <= pieces * (len(source.shards()) + stage.faults * IN_FLIGHT)
