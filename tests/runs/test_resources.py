"""Guards that workers are requested early, and that the log says what a job waits for."""

import logging
import time

import pytest

from genre_ray.runs import capacity, resources
from genre_ray.runs.capacity import Capacity, Nodes
from genre_ray.runs.resources import describe, heartbeat, requested
from genre_ray.runs.stages import Resources

HERE = Capacity((Nodes(Resources(2, 0, 8192), 1),), True, "this machine")
POOLS = Capacity((Nodes(Resources(0), 1), Nodes(Resources(16), 12), Nodes(Resources(8, 1), 4)), True, "the cluster")
PRESENT = Capacity((Nodes(Resources(2), 1),), False, "the cluster")


def test_a_request_names_amounts_and_whose_it_is():
    assert describe(Resources(1, 1), "`score`") == "1 CPU and 1 GPU for `score`"
    assert describe(Resources(0, 0.5), "`score`") == "0.5 GPU for `score`"
    assert describe(Resources(2, 0, 512), "8 learners", 8) == "16 CPUs and 4096 MiB for 8 learners"


def test_a_heartbeat_says_what_is_waited_for_and_only_while_it_is(monkeypatch, caplog, until):
    monkeypatch.setattr(resources, "FIRST_LINE_S", 0.05)
    monkeypatch.setattr(resources, "LINE_EVERY_S", 0.05)
    monkeypatch.setattr(resources.cluster, "started_here", lambda: False)
    monkeypatch.setattr(capacity, "configured", lambda: None)
    monkeypatch.setattr(resources.ray, "cluster_resources", lambda: {"CPU": 4.0})
    monkeypatch.setattr(resources.ray, "available_resources", lambda: {"CPU": 3.0})
    awaited = ["1 GPU for `score`"]
    with caplog.at_level(logging.INFO, "genre_ray"), heartbeat(lambda: awaited[0] if awaited else None):
        until(lambda: len(caplog.records) >= 2)
        awaited.clear()
        count = len(caplog.records)
        time.sleep(0.2)
    assert len(caplog.records) <= count + 1
    assert caplog.records[0].message == (
        "waiting for 1 GPU for `score`: the cluster has 4 CPUs (3 free) and no GPU now; it may grow if it has an "
        "autoscaler"
    )


def test_a_heartbeat_outlives_a_cluster_that_does_not_answer(monkeypatch, caplog, until):
    monkeypatch.setattr(resources, "FIRST_LINE_S", 0.01)
    monkeypatch.setattr(resources, "LINE_EVERY_S", 0.01)
    monkeypatch.setattr(resources.ray, "cluster_resources", lambda: 1 / 0)
    with heartbeat(lambda: "1 GPU"):
        until(lambda: len(caplog.records) >= 2)
    assert "querying the cluster's resources failed" in caplog.text


@pytest.mark.parametrize(
    ("known", "cpus", "gpus"),
    [(PRESENT, 1000, 2), (POOLS, 192, 2), (HERE, 2, 0)],
)
def test_workers_are_requested_again_and_again_up_to_what_can_come(monkeypatch, until, known, cpus, gpus):
    monkeypatch.setattr(capacity, "possible", lambda: known)
    sent = []
    monkeypatch.setattr(resources, "REQUEST_EVERY_S", 0.02)
    monkeypatch.setattr(resources.cluster, "started_here", lambda: False)
    monkeypatch.setattr(resources, "request_resources", lambda bundles: sent.append(bundles))
    wanted = {Resources(1): 5000, Resources(0, 1): 2}
    with requested(lambda: wanted):
        until(lambda: len(sent) > 2)
        wanted = {Resources(2): 1}
        until(lambda: sent[-1] == [{"CPU": 2}])
    assert sent[0] == [{"CPU": 1}] * cpus + [{"GPU": 1}] * gpus
    assert sent[1] == sent[0]
    assert sent[-2:] == [[{"CPU": 2}], []]
