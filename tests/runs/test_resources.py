"""Requests that can never be satisfied are refused with the numbers; others are waited for, and the log says so."""

import logging
import os
import subprocess
import sys
import time

import pytest
import yaml

from genre_ray.errors import ConfigurationError
from genre_ray.runs import cluster, resources
from genre_ray.runs.resources import Capacity, Nodes, describe, heartbeat, refuse_impossible, requested
from genre_ray.runs.stages import Resources

HERE = Capacity((Nodes(Resources(2, 0, 8192), 1),), True, "this machine")
POOLS = Capacity(
    (Nodes(Resources(0), 1), Nodes(Resources(16), 12), Nodes(Resources(8, 1), 4)), True, "the cluster", max_nodes=9
)
PRESENT = Capacity((Nodes(Resources(2), 1),), False, "the cluster")


@pytest.fixture
def capacity(monkeypatch):
    """`capacity(value)`: what `possible` returns, without a cluster."""
    monkeypatch.setattr(resources.ray, "is_initialized", lambda: False)
    return lambda value: monkeypatch.setattr(resources, "possible", lambda: value)


@pytest.mark.parametrize(
    ("worker", "workers"),
    [
        (Resources(1), 9 * 16),
        (Resources(16), 9),
        (Resources(17), 0),
        (Resources(1, 1), 4),
        (Resources(1, 0.5), 8),
        (Resources(0.1, 1), 4),
        (Resources(9, 1), 0),
        (Resources(3), 9 * 5),
    ],
)
def test_workers_are_counted_node_by_node(worker, workers):
    assert POOLS.workers(worker) == workers


def test_not_all_nodes_can_be_there_at_once():
    assert POOLS.total == Resources(9 * 16)
    assert Capacity(POOLS.nodes, True, "the cluster").total == Resources(12 * 16 + 4 * 8, 4)


def test_workers_without_a_gpu_leave_nodes_with_gpus_alone():
    everything = Capacity(POOLS.nodes, True, "the cluster")
    assert everything.workers(Resources(1)) == 12 * 16 + 4 * 8
    assert everything.workers(Resources(1), spare_gpus=True) == 12 * 16
    only = Capacity((Nodes(Resources(8, 1), 4),), True, "the cluster")
    assert only.workers(Resources(1), spare_gpus=True) == 32


def test_what_no_node_can_have_is_refused(capacity):
    capacity(HERE)
    refuse_impossible(Resources(2, 0, 4096), "execution.cpus_per_worker")
    with pytest.raises(ConfigurationError) as caught:
        refuse_impossible(Resources(100), "execution.cpus_per_worker", name="a worker of `parse`")
    assert str(caught.value) == (
        "a worker of `parse` reserves 100 CPU, but no node of this machine can have that: the nodes have 2 CPU, "
        "8192 MiB each. Lower execution.cpus_per_worker, or use a cluster with larger nodes"
    )
    for impossible in (Resources(1, 1), Resources(1, 0.1), Resources(1, 0, 9000)):
        with pytest.raises(ConfigurationError, match="no node of this machine"):
            refuse_impossible(impossible, "execution.gpus_per_worker")


def test_so_many_that_must_run_together_are_refused(capacity):
    capacity(HERE)
    with pytest.raises(ConfigurationError, match=r"^50 workers with 1 CPU each .* has room for 2\. Lower execution\.l"):
        refuse_impossible(Resources(1), "execution.learners", workers=50)
    capacity(POOLS)
    refuse_impossible(Resources(1, 1), "execution.learners", workers=4)
    with pytest.raises(ConfigurationError, match="room for 4"):
        refuse_impossible(Resources(1, 1), "execution.learners", workers=5)


def test_nothing_is_refused_where_the_maximum_is_unknown(capacity):
    capacity(PRESENT)
    refuse_impossible(Resources(100, 8), "execution.cpus_per_worker", workers=1000)


def test_a_machine_without_ray_is_its_own_cores(monkeypatch):
    monkeypatch.setattr(resources.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(resources.os, "cpu_count", lambda: 8)
    assert resources.possible() == Capacity((Nodes(Resources(8.0), 1),), True, "this machine")


def test_the_autoscaling_configuration_is_the_maximum():
    configuration = yaml.safe_load(
        """
        max_workers: 10
        head_node_type: head
        available_node_types:
          head: {resources: {CPU: 0}}
          cpu: {resources: {CPU: 16}, max_workers: 12}
          gpu: {resources: {CPU: 8, GPU: 1, memory: 1073741824}}
        """
    )
    found = resources._read_configuration(configuration)
    assert found.nodes == (Nodes(Resources(0), 1), Nodes(Resources(16), 10), Nodes(Resources(8, 1, 1024), 10))
    assert (found.is_maximum, found.max_nodes) == (True, 11)
    # Ray finds out what such a node has when it starts.
    configuration["available_node_types"]["cpu"]["resources"] = {}
    assert resources._read_configuration(configuration) is None


def test_the_repositorys_own_cluster_has_a_known_maximum():
    from tests.test_cluster import FILE

    found = resources._read_configuration(yaml.safe_load(FILE.read_text()))
    assert found.workers(Resources(1), spare_gpus=True) == 192
    assert found.workers(Resources(1, 1)) == 4


@pytest.mark.parametrize(
    ("known", "limit", "items", "workers"),
    [(PRESENT, None, 5000, 1000), (PRESENT, None, 7, 7), (PRESENT, 64, 5000, 64), (HERE, None, 9, 2), (HERE, 5, 9, 5)],
)
def test_a_pool_is_as_large_as_the_setting_the_cluster_and_the_work_allow(capacity, known, limit, items, workers):
    capacity(known)
    assert resources.most_workers(Resources(1), limit, items) == workers


@pytest.mark.slow
def test_a_cluster_that_was_started_here_never_grows():
    program = """
from genre_ray.runs import cluster, resources
from genre_ray.runs.stages import Resources
cluster.connect()
found = resources.possible()
assert cluster.started_here() and found.is_maximum and found.origin == "this machine", found
print(resources.describe_cluster())
try:
    resources.refuse_impossible(Resources(1000), "execution.cpus_per_worker")
except resources.ConfigurationError as error:
    print(error)
"""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "no more will come" in done.stdout
    assert "a worker reserves 1000 CPU, but no node of this machine can have that" in done.stdout


def test_a_cluster_that_was_joined_may_grow(ray_cluster):
    cluster.connect()
    assert not cluster.started_here()
    found = resources.possible()
    assert (found.is_maximum, found.total.cpus, found.total.gpus) == (False, 2, 1)
    refuse_impossible(Resources(1000), "execution.cpus_per_worker")


def test_a_request_names_amounts_and_whose_it_is():
    assert describe(Resources(1, 1), "`score`") == "1 CPU and 1 GPU for `score`"
    assert describe(Resources(0, 0.5), "`score`") == "0.5 GPU for `score`"
    assert describe(Resources(2, 0, 512), "8 learners", 8) == "16 CPUs and 4096 MiB for 8 learners"


def test_a_heartbeat_says_what_is_waited_for_and_only_while_it_is(monkeypatch, caplog, until):
    monkeypatch.setattr(resources, "FIRST_LINE_S", 0.05)
    monkeypatch.setattr(resources, "LINE_EVERY_S", 0.05)
    monkeypatch.setattr(resources.cluster, "started_here", lambda: False)
    monkeypatch.setattr(resources, "_configured", lambda: None)
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
        "waiting for 1 GPU for `score`: the cluster has 4 CPUs (3 free) and no GPU now; an autoscaler, if it has one, "
        "may bring more"
    )


def test_a_heartbeat_outlives_a_cluster_that_does_not_answer(monkeypatch, caplog, until):
    monkeypatch.setattr(resources, "FIRST_LINE_S", 0.01)
    monkeypatch.setattr(resources, "LINE_EVERY_S", 0.01)
    monkeypatch.setattr(resources.ray, "cluster_resources", lambda: 1 / 0)
    with heartbeat(lambda: "1 GPU"):
        until(lambda: len(caplog.records) >= 2)
    assert "did not answer" in caplog.text


@pytest.mark.parametrize(
    ("known", "cpus", "gpus"),
    [(PRESENT, 1000, 2), (Capacity(POOLS.nodes, True, "the cluster"), 192, 2), (HERE, 2, 0)],
)
def test_workers_are_requested_again_and_again_up_to_what_can_come(monkeypatch, until, capacity, known, cpus, gpus):
    capacity(known)
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
