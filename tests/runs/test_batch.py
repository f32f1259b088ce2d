"""Guards a batch job as its user meets it: what it writes, what it refuses, and the code it ends with."""

import logging
from pathlib import Path

import pytest

from genre_ray.config import JobConfiguration
from genre_ray.errors import ConfigurationError, InputError, OutputTakenError
from genre_ray.runs.batch import run_batch
from genre_ray.runs.ledger import Ledger


class Example(JobConfiguration):
    """Settings of the job under test."""

    seed: int = 0


@pytest.fixture
def job(numbers_of, keep, tmp_path, monkeypatch, caplog):
    """`job(source, step, **settings)`: its exit code; the output is named relative to the test's folder."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, logger="genre_ray")

    def run(source, stage=None, **settings):
        caplog.clear()
        settings = {"output": "out", "execution": {"workers": 2, "rows_per_shard": 4}} | settings
        example = Example.from_mapping(settings)
        return run_batch(example, job="example", table="data", source=source, stages=[stage or keep()], model="m1")

    return run


def test_a_dry_run_writes_nothing_and_says_what_it_measured(job, numbers_of, tmp_path, caplog):
    assert job(numbers_of(5, 600), dry_run=True) == 0
    assert list(tmp_path.iterdir()) == []
    assert "2 work items, 2 inputs" in caplog.messages[0]
    assert "measured on 265 rows on this machine" in caplog.text


def test_a_run_its_resume_and_its_refusals(ray_cluster, job, numbers_of, keep, contents, tmp_path, monkeypatch, caplog):
    source = numbers_of(9, 12)
    with pytest.raises(InputError, match="f001/5"):
        job(source, keep(broken="f001/5"))

    with pytest.raises(OutputTakenError, match="pass --resume"):
        job(source)
    with pytest.raises(OutputTakenError, match=r"settings\.seed: 0 there, 1 here"):
        job(source, seed=1, resume=True)

    assert job(source, resume=True) == 0
    assert "shards: 14 rows, 7 rejected (third 7)" in caplog.messages[-1]
    assert contents(tmp_path / "out") == (
        sorted(f"f{n:03d}/{row}" for n, size in enumerate((9, 12)) for row in range(size) if row % 3 != 2),
        sorted(f"f{n:03d}/{row}" for n, size in enumerate((9, 12)) for row in range(size) if row % 3 == 2),
    )

    def refuse(*_):
        raise AssertionError("a completed run was executed again")

    monkeypatch.setattr("genre_ray.runs.batch.execute", refuse)
    assert job(source, resume=True, max_rejected=7) == 0
    assert "is already complete" in caplog.messages[-1]
    assert job(source, resume=True, max_rejected=6, execution={"workers": 1, "rows_per_shard": 99}) == 3
    assert "7 rows were rejected, but --max-rejected allows 6" in caplog.messages[-1]


@pytest.mark.server
def test_resources_that_cannot_come_are_refused_before_the_output_is_claimed(ray_cluster, job, numbers_of, monkeypatch):
    """So that a corrected setting needs neither --resume nor another output."""
    monkeypatch.setattr("genre_ray.runs.cluster.started_here", lambda: True)
    execution = {"workers": 1, "rows_per_shard": 4}
    with pytest.raises(ConfigurationError, match=r"execution\.cpus_per_worker"):
        job(numbers_of(3), execution={**execution, "cpus_per_worker": 1000})
    assert not Path("out").exists()
    assert job(numbers_of(3), execution=execution) == 0


def test_a_claim_that_did_nothing_yet_is_resumed(job, numbers_of, keep, monkeypatch, caplog):
    """Also without a row: an item that has none is done with an empty shard, and then there is nothing to do."""
    done = []

    def inline(ledger: Ledger, remaining, chain, execution):
        done.append(remaining)
        return 0

    monkeypatch.setattr("genre_ray.runs.batch.execute", inline)
    monkeypatch.setattr("genre_ray.runs.batch.cluster.connect", lambda: None)
    assert job(numbers_of(3)) == 0
    assert job(numbers_of(3), resume=True) == 0
    assert done[0] == done[1]
    assert job(numbers_of(), output="empty") == 0
    assert "is already complete" in caplog.messages[-1]
