"""Find out the maximum size of the cluster, and refuse requests that it can never satisfy.

Ray 2.60 has no public API for the limits of an autoscaler. Two cases are known: a cluster that `cluster.connect`
started on this machine never grows, and the head of a cluster that `ray up` started has the autoscaling configuration.
In all other cases (KubeRay, a driver on another machine) the maximum is unknown, and nothing is refused.
"""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml

from genre_ray.errors import ConfigurationError
from genre_ray.runs import cluster
from genre_ray.runs.stages import Resources

logger = logging.getLogger(__name__)

MAX_REQUESTED = 1000
"""Maximum number of workers to request if the cluster's maximum is unknown."""

AUTOSCALING_FILE = "~/ray_bootstrap_config.yaml"
"""The file on the head node to which `ray up` writes the autoscaling configuration."""


@dataclass(frozen=True)
class Nodes:
    """Nodes with the same resources.

    Attributes:
        each: the resources that workers can reserve on one of them. A memory of 0 means unknown.
        count: the number of such nodes, or its maximum.
    """

    each: Resources
    count: int

    def workers(self, worker: Resources) -> int:
        """Return how many workers fit on one node."""
        pairs = [(self.each.cpus, worker.cpus), (self.each.gpus, worker.gpus)]
        pairs += [(self.each.memory_mib, worker.memory_mib)] if self.each.memory_mib else []
        limits = [int(has / needs + 1e-9) for has, needs in pairs if needs]
        return min(limits, default=MAX_REQUESTED)


@dataclass(frozen=True)
class Capacity:
    """The resources that workers can reserve, node by node.

    Attributes:
        nodes: the kinds of nodes. Several entries may have the same resources.
        is_maximum: whether this is the cluster's maximum. Otherwise it is what the cluster has now.
        origin: name of the cluster or machine in messages.
        max_nodes: maximum number of nodes of all kinds together; None if only the counts of `nodes` limit it.
    """

    nodes: tuple[Nodes, ...]
    is_maximum: bool
    origin: str
    max_nodes: int | None = None

    @property
    def total(self) -> Resources:
        """The resources of all nodes together; of the largest ones if not all can run at the same time."""
        largest = self._take(lambda nodes: nodes.each.cpus + nodes.each.gpus, self.nodes)
        return Resources(
            sum(each.cpus * count for each, count in largest),
            sum(each.gpus * count for each, count in largest),
            sum(each.memory_mib * count for each, count in largest),
        )

    def workers(self, worker: Resources, *, spare_gpus: bool = False) -> int:
        """Return how many workers can run at the same time.

        Args:
            worker: the resources that one worker reserves.
            spare_gpus: run workers without a GPU on nodes without GPUs, if there are any.
        """
        nodes = [shape for shape in self.nodes if shape.workers(worker)]
        if spare_gpus and not worker.gpus:
            nodes = [shape for shape in nodes if not shape.each.gpus] or nodes
        taken = self._take(lambda shape: shape.workers(worker), nodes)
        return sum(Nodes(each, count).workers(worker) * count for each, count in taken)

    def _take(self, size: Callable[[Nodes], float], nodes: Iterable[Nodes]) -> list[tuple[Resources, int]]:
        """The nodes that can run at the same time, the largest by `size` first."""
        left = self.max_nodes if self.max_nodes is not None else sum(shape.count for shape in nodes)
        taken = []
        for shape in sorted(nodes, key=size, reverse=True):
            count = min(shape.count, left)
            left -= count
            taken.append((shape.each, count))
        return taken


def possible() -> Capacity:
    """Return the cluster's maximum capacity if it is known, otherwise its current capacity.

    Without a connection to Ray it is that of this machine, on which a job without `RAY_ADDRESS` starts a cluster.
    """
    if not ray.is_initialized():
        return Capacity((Nodes(Resources(float(os.cpu_count() or 1)), 1),), True, "this machine")
    present = tuple(Nodes(_resources(node["Resources"]), 1) for node in _alive())
    if cluster.started_here():
        return Capacity(present, True, "this machine")
    return configured() or Capacity(present, False, "the cluster")


def most_workers(worker: Resources, limit: int | None, items: int) -> int:
    """Return the maximum number of workers: the size of their pool, and the number to request from the autoscaler.

    Args:
        worker: the resources that one worker reserves.
        limit: `execution.workers`.
        items: number of work items; more workers would have no work.
    """
    if limit is None:
        capacity = possible()
        limit = capacity.workers(worker, spare_gpus=True) if capacity.is_maximum else MAX_REQUESTED
    return max(1, min(limit, items))


def refuse_impossible(worker: Resources, setting: str, *, workers: int = 1, name: str = "a worker") -> None:
    """Refuse a request that the cluster can never satisfy. Do nothing if its maximum is unknown.

    Args:
        worker: the resources that one worker reserves.
        setting: the setting to change, e.g. `execution.cpus_per_worker`.
        workers: the number of workers that must run at the same time.
        name: name of the worker in the message.

    Raises:
        ConfigurationError: no node has these resources, or the cluster cannot run so many workers.
    """
    capacity = possible()
    if not capacity.is_maximum:
        return
    # Nodes can also be added manually, and be larger than the configured ones.
    present = [Nodes(_resources(node["Resources"]), 1) for node in _alive()] if ray.is_initialized() else []
    if not any(shape.workers(worker) for shape in (*capacity.nodes, *present)):
        shapes = sorted({str(shape.each) for shape in capacity.nodes if shape.count})
        raise ConfigurationError(
            f"{name} reserves {worker}, but no node of {capacity.origin} has that much: the nodes have "
            f"{'; '.join(shapes) or 'nothing'}. Lower {setting}, or use a cluster with larger nodes"
        )
    room = max(capacity.workers(worker), sum(shape.workers(worker) for shape in present))
    if room < workers:
        raise ConfigurationError(
            f"{workers} workers with {worker} each must run at the same time, but {capacity.origin} can run only "
            f"{room}. Lower {setting}, or use a larger cluster"
        )


def refuse_shortage(workers: Sequence[Resources], setting: str) -> None:
    """Refuse stages that must run at the same time but cannot. Do nothing if the cluster's maximum is unknown.

    Args:
        workers: the resources that one worker of each stage reserves.
        setting: the setting to change.

    Raises:
        ConfigurationError: the cluster cannot run one worker of each stage at the same time.
    """
    capacity = possible()
    cpus = sum(worker.cpus for worker in workers)
    if capacity.is_maximum and capacity.total.cpus < cpus:
        raise ConfigurationError(
            f"{len(workers)} stages run at the same time and together reserve {cpus:g} CPUs, but {capacity.origin} has "
            f"{capacity.total.cpus:g}. Lower {setting}, e.g. to {capacity.total.cpus / len(workers):g}"
        )


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _resources(amounts: Mapping[str, Any]) -> Resources:
    memory_mib = int(float(amounts.get("memory", 0)) / 2**20)
    return Resources(float(amounts.get("CPU", 0)), float(amounts.get("GPU", 0)), memory_mib)


def configured() -> Capacity | None:
    """Return the maximum in the autoscaling configuration; None if it cannot be read or does not state it."""
    file = Path(AUTOSCALING_FILE).expanduser()
    here = ray.get_runtime_context().get_node_id()
    heads = [node["NodeID"] for node in _alive() if "node:__internal_head__" in node["Resources"]]
    if here not in heads or not file.is_file():
        return None
    try:
        return _read_configuration(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        logger.warning("%s: cannot read this file as an autoscaling configuration: %r", file, error)
        return None


def _read_configuration(configuration: Mapping[str, Any]) -> Capacity | None:
    # Ray's defaults: `max_workers` of the cluster is 2. That of a node type is the cluster's, or 0 for the head's type.
    most, head = int(configuration.get("max_workers", 2)), configuration["head_node_type"]
    nodes = []
    for name, kind in configuration["available_node_types"].items():
        if not kind.get("resources"):
            return None  # Ray detects the resources when such a node starts
        is_head = name == head
        workers = min(most, int(kind.get("max_workers", 0 if is_head else most)))
        nodes.append(Nodes(_resources(kind["resources"]), workers + is_head))
    return Capacity(tuple(nodes), True, "the cluster", most + 1)
