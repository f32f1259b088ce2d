"""Guards that requests which no cluster can ever satisfy are refused with the numbers, and only these."""

import os
import subprocess
import sys

import pytest
import yaml

from genre_ray.errors import ConfigurationError
from genre_ray.runs import capacity, cluster
from genre_ray.runs.capacity import Capacity, Nodes, refuse_impossible
from genre_ray.runs.stages import Resources

HERE = Capacity((Nodes(Resources(2, 0, 8192), 1),), True, "this machine")
POOLS = Capacity(
    (Nodes(Resources(0), 1), Nodes(Resources(16), 12), Nodes(Resources(8, 1), 4)), True, "the cluster", max_nodes=9
)
PRESENT = Capacity((Nodes(Resources(2), 1),), False, "the cluster")


@pytest.fixture
def known_as(monkeypatch):
    """`known_as(value)`: what `possible` returns, without a cluster."""
    monkeypatch.setattr(capacity.ray, "is_initialized", lambda: False)
    return lambda value: monkeypatch.setattr(capacity, "possible", lambda: value)


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


def test_what_no_node_can_have_is_refused(known_as):
    known_as(HERE)
    refuse_impossible(Resources(2, 0, 4096), "execution.cpus_per_worker")
    with pytest.raises(ConfigurationError) as caught:
        refuse_impossible(Resources(100), "execution.cpus_per_worker", name="a worker of `parse`")
    assert str(caught.value) == (
        "a worker of `parse` reserves 100 CPU, but no node of this machine has that much: the nodes have 2 CPU, "
        "8192 MiB. Lower execution.cpus_per_worker, or use a cluster with larger nodes"
    )
    for impossible in (Resources(1, 1), Resources(1, 0.1), Resources(1, 0, 9000)):
        with pytest.raises(ConfigurationError, match="no node of this machine"):
            refuse_impossible(impossible, "execution.gpus_per_worker")


def test_so_many_that_must_run_together_are_refused(known_as):
    known_as(HERE)
    with pytest.raises(ConfigurationError, match=r"^50 workers with 1 CPU each .* can run only 2\. Lower execution\.l"):
        refuse_impossible(Resources(1), "execution.learners", workers=50)
    known_as(POOLS)
    refuse_impossible(Resources(1, 1), "execution.learners", workers=4)
    with pytest.raises(ConfigurationError, match="can run only 4"):
        refuse_impossible(Resources(1, 1), "execution.learners", workers=5)


def test_nothing_is_refused_where_the_maximum_is_unknown(known_as):
    known_as(PRESENT)
    refuse_impossible(Resources(100, 8), "execution.cpus_per_worker", workers=1000)


def test_a_machine_without_ray_is_its_own_cores(monkeypatch):
    monkeypatch.setattr(capacity.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(capacity.os, "cpu_count", lambda: 8)
    assert capacity.possible() == Capacity((Nodes(Resources(8.0), 1),), True, "this machine")


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
    found = capacity._read_configuration(configuration)
    assert found.nodes == (Nodes(Resources(0), 1), Nodes(Resources(16), 10), Nodes(Resources(8, 1, 1024), 10))
    assert (found.is_maximum, found.max_nodes) == (True, 11)
    # Ray finds out what such a node has when it starts.
    configuration["available_node_types"]["cpu"]["resources"] = {}
    assert capacity._read_configuration(configuration) is None


def test_the_repositorys_own_cluster_has_a_known_maximum():
    from tests.test_cluster import FILE

    found = capacity._read_configuration(yaml.safe_load(FILE.read_text()))
    assert found.workers(Resources(1), spare_gpus=True) == 192
    assert found.workers(Resources(1, 1)) == 4


@pytest.mark.parametrize(
    ("known", "limit", "items", "workers"),
    [(PRESENT, None, 5000, 1000), (PRESENT, None, 7, 7), (PRESENT, 64, 5000, 64), (HERE, None, 9, 2), (HERE, 5, 9, 5)],
)
def test_a_pool_is_as_large_as_the_setting_the_cluster_and_the_work_allow(known_as, known, limit, items, workers):
    known_as(known)
    assert capacity.most_workers(Resources(1), limit, items) == workers


@pytest.mark.slow
def test_a_cluster_that_was_started_here_never_grows():
    program = """
from genre_ray.runs import capacity, cluster, resources
from genre_ray.runs.stages import Resources
cluster.connect()
found = capacity.possible()
assert cluster.started_here() and found.is_maximum and found.origin == "this machine", found
print(resources.describe_cluster())
try:
    capacity.refuse_impossible(Resources(1000), "execution.cpus_per_worker")
except capacity.ConfigurationError as error:
    print(error)
"""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "it will not grow" in done.stdout
    assert "a worker reserves 1000 CPU, but no node of this machine has that much" in done.stdout


def test_a_cluster_that_was_joined_may_grow(ray_cluster):
    cluster.connect()
    assert not cluster.started_here()
    found = capacity.possible()
    assert (found.is_maximum, found.total.cpus, found.total.gpus) == (False, 2, 1)
    refuse_impossible(Resources(1000), "execution.cpus_per_worker")
