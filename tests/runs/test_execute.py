"""Guards the work on a real cluster: summaries come while others compute, and a worker's error keeps its words."""

import pytest

from genre_ray.config import Execution
from genre_ray.errors import InputError
from genre_ray.runs import cluster, execute
from genre_ray.runs.identity import make_identity
from genre_ray.runs.inventory import Inventory
from genre_ray.runs.ledger import Ledger
from genre_ray.runs.plan import settle_plans
from genre_ray.storage import tables

TWO_WORKERS = Execution(workers=2, rows_per_shard=4)


@pytest.fixture
def go(ray_cluster, tmp_path):
    """`go(source, step)`: claim or resume, do what remains; gives the number of shards made durable."""
    cluster.connect()

    def go(source, step, output=tmp_path):
        ledger = Ledger.claim(str(output), "data", step.schema, make_identity("job", {}), resume=True)
        plans = settle_plans(str(output), Inventory(source.list_inputs()), source.cut, TWO_WORKERS.rows_per_shard)
        return execute.execute(ledger, ledger.remaining(plans), source, step, TWO_WORKERS)

    return go


def test_two_workers_do_all_items_and_commits_do_not_wait_for_the_last(
    go, numbers_of, keep, contents, tmp_path, monkeypatch
):
    monkeypatch.setattr(execute, "COMMIT_SHARDS", 3)
    source = numbers_of(21, 0, 9, 33)

    assert go(source, keep(slow_s=0.05)) == 6 + 1 + 3 + 9

    rows = [f"{file.name}/{row}" for file in source.files for row in range(file.size)]
    kept, rejected = contents(tmp_path)
    assert sorted(kept + rejected) == sorted(rows)
    assert rejected == sorted(row for row in rows if int(row[5:]) % 3 == 2)
    assert tables.open_table(str(tmp_path / "data")).version() >= 4
    first_commit = (tmp_path / "data" / "_delta_log" / f"{1:020}.json").stat().st_mtime
    assert first_commit < max(part.stat().st_mtime for part in (tmp_path / "data").glob("*.parquet"))
    assert go(source, keep()) == 0


def test_a_workers_error_reaches_the_driver_in_its_own_words(
    go, numbers_of, keep, contents, tmp_path, monkeypatch, capfd
):
    """Ray adds advice on its settings to a message, and a traceback to the log, unless the error travels as a value."""
    monkeypatch.setattr(execute, "COMMIT_SHARDS", 1)
    source = numbers_of(5, 30)

    with pytest.raises(InputError) as refused:
        go(source, keep(broken="f001/17"))

    assert type(refused.value) is InputError
    assert str(refused.value) == "f001/17: expected a row, found this; take it out"
    assert "Traceback" not in capfd.readouterr().err
    assert tables.open_table(str(tmp_path / "data")).version() >= 1


def test_the_pool_is_as_large_as_the_work_the_settings_and_the_cluster_allow(monkeypatch):
    monkeypatch.setattr(execute.ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": 2.0})
    assert execute._pool_size(100, Execution(), 0) == 8
    assert execute._pool_size(3, Execution(), 0) == 3
    assert execute._pool_size(100, Execution(workers=5), 0) == 5
    assert execute._pool_size(100, Execution(cpus_per_worker=3), 0) == 2
    assert execute._pool_size(100, Execution(), 0.5) == 4
    assert execute._pool_size(100, Execution(cpus_per_worker=16), 0) == 1


def test_a_step_that_gains_from_gpus_gets_one_where_there_are_any(monkeypatch, keep):
    step, gaining = keep(), keep(gains_from_gpu=True)
    monkeypatch.setattr(execute.ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": 2.0})
    assert [execute._gpus_per_worker(one, Execution()) for one in (step, gaining)] == [0, 1]
    assert [execute._gpus_per_worker(one, Execution(gpus_per_worker=0.5)) for one in (step, gaining)] == [0.5, 0.5]
    monkeypatch.setattr(execute.ray, "cluster_resources", lambda: {"CPU": 8.0})
    assert execute._gpus_per_worker(gaining, Execution()) == 0
