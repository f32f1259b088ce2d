"""Guards the claim of an output and the exactly-once commit of a shard, whoever races or dies in between."""

import concurrent.futures
import json
import os
import threading

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from genre_ray.errors import OutputTakenError
from genre_ray.runs.identity import make_identity, run_id
from genre_ray.runs.inventory import Inventory
from genre_ray.runs.ledger import Ledger, ShardSummary
from genre_ray.runs.plan import RemainingWork, WorkItem, load_or_extend_plans
from genre_ray.storage import tables
from genre_ray.storage.schemas import REJECTED

SCHEMA = pa.schema([("row", pa.string())])
IDENTITY = make_identity("job", {"inputs": ["a", "ü"], "limit": 1})
ITEM = WorkItem("0000-a", "kind", ())


def claim(output, identity=IDENTITY, *, resume=False, name="data"):
    return Ledger.claim(str(output), name, SCHEMA, identity, resume=resume)


def write(ledger, index, *, last=False, rows=2, rejected=1, item=ITEM):
    """One attempt of a shard: parts written, nothing committed."""
    reasons = [{"source_uri": f"{index}/{n}", "reason": "bad" if n else "worse"} for n in range(rejected)]
    parts = [tables.write_part(ledger.data_uri, "s", pa.table({"row": [f"{index}"] * rows}, SCHEMA))] if rows else []
    bad = [tables.write_part(ledger.rejected_uri, "s", pa.Table.from_pylist(reasons, REJECTED))] if rejected else []
    return ShardSummary(item.name, index, last, rows + rejected, tuple(parts), tuple(bad))


def test_a_claim_states_what_its_data_are_and_refuses_other_statements(tmp_path):
    def take(labels):
        stated = {"labels": labels}
        return Ledger.claim(str(tmp_path), "data", SCHEMA, IDENTITY, resume=True, properties=stated)

    ledger = take("jazz")
    assert tables.properties(ledger.data_uri)["labels"] == "jazz"
    assert "labels" not in tables.properties(ledger.rejected_uri)
    assert take("jazz").run == ledger.run
    with pytest.raises(OutputTakenError, match="another program changed the table's properties labels"):
        take("rock")


def test_a_claim_makes_two_tables_that_say_whose_they_are(tmp_path):
    ledger = claim(tmp_path)
    assert ledger.run == run_id(IDENTITY)
    for name in ("data", "rejected"):
        properties = tables.open_table(str(tmp_path / name)).metadata().configuration
        assert properties["genre_ray.run_id"] == run_id(IDENTITY)
        assert json.loads(properties["genre_ray.identity"]) == IDENTITY
    assert str(ledger.totals()) == "0 rows, 0 rejected"


def test_the_same_run_joins_only_when_it_resumes(tmp_path):
    claim(tmp_path)
    with pytest.raises(OutputTakenError, match="pass --resume"):
        claim(tmp_path)
    assert claim(tmp_path, resume=True).run == run_id(IDENTITY)


def test_another_run_is_refused_with_every_difference(tmp_path):
    claim(tmp_path)
    other = make_identity("job", {"inputs": ["b"], "limit": 1, "seed": 3})
    with pytest.raises(OutputTakenError, match=r'inputs: \["a", "ü"\] there, \["b"\] here; .*seed: nothing there, 3'):
        claim(tmp_path, other, resume=True)


@pytest.mark.parametrize("name", ["data", "rejected"])
def test_a_table_of_someone_else_is_refused_and_nothing_is_put_beside_it(tmp_path, name):
    tables.create_table(str(tmp_path / name), SCHEMA, {})
    with pytest.raises(OutputTakenError, match="a table that genre_ray did not write"):
        claim(tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_another_job_does_not_move_into_an_output(tmp_path):
    """A prediction into the folder of an ingest: the rejected table is taken."""
    claim(tmp_path)
    with pytest.raises(OutputTakenError, match='job: "job" there, "predict" here'):
        claim(tmp_path, make_identity("predict", {}), resume=True, name="predictions")
    assert not (tmp_path / "predictions").exists()


@pytest.mark.parametrize("first", ["data", "rejected"])
def test_a_claim_that_was_cut_short_is_completed_by_a_resume(tmp_path, first):
    claim(tmp_path / "whole")
    (tmp_path / "half").mkdir()
    (tmp_path / "whole" / first).rename(tmp_path / "half" / first)
    with pytest.raises(OutputTakenError, match="pass --resume"):
        claim(tmp_path / "half")
    ledger = claim(tmp_path / "half", resume=True)
    assert ledger.commit([write(ledger, 0)]) == 1


def test_of_racing_runs_one_gets_the_output(tmp_path):
    start = threading.Barrier(6)

    def drive(number):
        start.wait()
        try:
            return claim(tmp_path, make_identity("job", {"seed": number}), resume=True).run
        except OutputTakenError:
            return None

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        winners = [run for run in pool.map(drive, range(6)) if run]
    assert len(winners) == 1
    for name in ("data", "rejected"):
        assert tables.open_table(str(tmp_path / name)).metadata().configuration["genre_ray.run_id"] == winners[0]


def test_shards_that_are_in_are_known(tmp_path):
    ledger, output = claim(tmp_path), str(tmp_path)
    plans = load_or_extend_plans(
        output, Inventory(()), lambda *_: [WorkItem("a", "kind", ()), WorkItem("b", "kind", ())], 7
    )
    (chunk,) = plans[0].chunks
    assert (ledger.shards_done("0000-a"), ledger.shards_done("0000-b")) == (0, 0)
    ledger.commit([write(ledger, 0), write(ledger, 1, rows=0)])
    assert (ledger.shards_done("0000-a"), ledger.shards_done("0000-b")) == (2, 0)
    assert ledger.remaining(plans) == [
        RemainingWork("0000-a", chunk, 7, 2**29, 2, os.getcwd()),
        RemainingWork("0000-b", chunk, 7, 2**29, 0, os.getcwd()),
    ]
    ledger.commit([write(ledger, 2, last=True)])
    assert ledger.shards_done("0000-a") is None
    resumed = claim(tmp_path, resume=True)
    assert resumed.remaining(plans) == [RemainingWork("0000-b", chunk, 7, 2**29, 0, os.getcwd())]


def test_an_attempt_that_comes_second_changes_nothing(tmp_path):
    ledger = claim(tmp_path)
    assert ledger.commit([]) == 0
    assert ledger.commit([write(ledger, 0), write(ledger, 0), write(ledger, 1)]) == 2
    assert claim(tmp_path, resume=True).commit([write(ledger, 1), write(ledger, 2)]) == 1
    assert ledger.commit([write(ledger, 2)]) == 0
    assert str(ledger.totals()) == "6 rows, 3 rejected (worse 3)"


def test_no_shard_costs_a_replay_of_the_log(tmp_path, monkeypatch):
    """delta-rs replays it for each transaction that it is asked for: minutes in a run of 10,000 shards."""

    def replay(table, transaction):
        raise AssertionError(transaction)

    monkeypatch.setattr(DeltaTable, "transaction_version", replay)
    ledger = claim(tmp_path)
    assert ledger.commit([write(ledger, index) for index in range(3)]) == 3
    resumed = claim(tmp_path, resume=True)
    assert resumed.shards_done(ITEM.name) == 3
    assert resumed.commit([write(resumed, 2), write(resumed, 3, last=True)]) == 1
    assert ledger.commit([write(ledger, 3, last=True)]) == 0
    assert ledger.shards_done(ITEM.name) is resumed.shards_done(ITEM.name) is None
    assert ledger.erased(f"{ITEM.name}-00000") == 0


def test_a_driver_that_died_between_the_two_commits_is_made_good(tmp_path):
    """Its rejected rows are in, its data are not: the shard is done again, and counted once."""
    dying = claim(tmp_path)
    dying._data = None
    with pytest.raises(AttributeError):
        dying.commit([write(dying, 0, rows=3, rejected=2)])

    ledger = claim(tmp_path, resume=True)
    assert ledger.shards_done(ITEM) == 0
    assert ledger.commit([write(ledger, 0, rows=3, rejected=2)]) == 1
    totals = ledger.totals()
    assert (totals.rows, totals.rejected, totals.reasons) == (3, 2, {"worse": 1, "bad": 1})


def test_racing_drivers_bring_every_shard_once(tmp_path):
    claim(tmp_path)
    ledgers = [claim(tmp_path, resume=True) for _ in range(3)]
    start = threading.Barrier(3)

    def drive(ledger):
        start.wait()
        return sum(ledger.commit([write(ledger, index)]) for index in range(4))

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(drive, ledgers)) == 4
    totals = claim(tmp_path, resume=True).totals()
    assert (totals.rows, totals.rejected) == (8, 4)
