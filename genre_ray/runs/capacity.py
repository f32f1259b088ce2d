"""What the cluster can have at most, and what can therefore be refused before a job waits for it.

Ray 2.60 has no public way to ask a cluster whether it has an autoscaler and how far it grows. Two cases are certain: a
cluster that `cluster.connect` started here never grows, and the head of a cluster that `ray up` started holds the
autoscaling configuration. Everywhere else (KubeRay, a driver that runs on another machine) the maximum is unknown, and
nothing is refused.
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
"""Workers to request at once where the cluster's maximum is unknown."""

AUTOSCALING_FILE = "~/ray_bootstrap_config.yaml"
"""Where `ray up` puts the autoscaling configuration on the head."""


@dataclass(frozen=True)
class Nodes:
    """Nodes of one shape.

    Attributes:
        each: what workers can reserve on one of them. A memory of 0 is an unknown one.
        count: how many there are, or can be.
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
    """What workers can reserve, node by node.

    Attributes:
        nodes: by shape; more than one entry may have the same one.
        is_maximum: whether this is all that the cluster can ever have. If not, it is what is there now.
        origin: whose capacity it is, as a message names it.
        max_nodes: how many nodes, of whatever shape, there can be; None where only the counts of `nodes` limit them.
    """

    nodes: tuple[Nodes, ...]
    is_maximum: bool
    origin: str
    max_nodes: int | None = None

    @property
    def total(self) -> Resources:
        """The sum over all nodes; over the largest ones if not all of them can be there at the same time."""
        largest = self._take(lambda nodes: nodes.each.cpus + nodes.each.gpus, self.nodes)
        return Resources(
            sum(each.cpus * count for each, count in largest),
            sum(each.gpus * count for each, count in largest),
            sum(each.memory_mib * count for each, count in largest),
        )

    def workers(self, worker: Resources, *, spare_gpus: bool = False) -> int:
        """Return how many workers fit at the same time.

        Args:
            worker: what one worker reserves.
            spare_gpus: put workers without a GPU on nodes without one, as far as there are such nodes.
        """
        nodes = [shape for shape in self.nodes if shape.workers(worker)]
        if spare_gpus and not worker.gpus:
            nodes = [shape for shape in nodes if not shape.each.gpus] or nodes
        taken = self._take(lambda shape: shape.workers(worker), nodes)
        return sum(Nodes(each, count).workers(worker) * count for each, count in taken)

    def _take(self, size: Callable[[Nodes], float], nodes: Iterable[Nodes]) -> list[tuple[Resources, int]]:
        """The nodes that can be there at the same time, the largest by `size` first."""
        left = self.max_nodes if self.max_nodes is not None else sum(shape.count for shape in nodes)
        taken = []
        for shape in sorted(nodes, key=size, reverse=True):
            count = min(shape.count, left)
            left -= count
            taken.append((shape.each, count))
        return taken


def possible() -> Capacity:
    """Return what the cluster can have at most if that is known, else what it has now.

    Without a connection to Ray it is this machine's, where a job without `RAY_ADDRESS` starts a cluster of its own.
    """
    if not ray.is_initialized():
        return Capacity((Nodes(Resources(float(os.cpu_count() or 1)), 1),), True, "this machine")
    present = tuple(Nodes(_resources(node["Resources"]), 1) for node in _alive())
    if cluster.started_here():
        return Capacity(present, True, "this machine")
    return configured() or Capacity(present, False, "the cluster")


def most_workers(worker: Resources, limit: int | None, items: int) -> int:
    """Return how many workers to have at the same time: the size of a pool, and what to pass to `requested`.

    Args:
        worker: what one worker reserves.
        limit: `execution.workers`.
        items: how many work items there are; more workers would have nothing to do.
    """
    if limit is None:
        capacity = possible()
        limit = capacity.workers(worker, spare_gpus=True) if capacity.is_maximum else MAX_REQUESTED
    return max(1, min(limit, items))


def refuse_impossible(worker: Resources, setting: str, *, workers: int = 1, name: str = "a worker") -> None:
    """Refuse a request that the cluster can never satisfy; do nothing where its maximum is unknown.

    Args:
        worker: what one worker reserves.
        setting: what the user can change, e.g. `execution.cpus_per_worker`.
        workers: how many must run at the same time.
        name: whose request it is, as the message names it.

    Raises:
        ConfigurationError: no node has that much, or all nodes together have no room for so many workers.
    """
    capacity = possible()
    if not capacity.is_maximum:
        return
    # Nodes may also join by hand, and be larger than the configured ones.
    present = [Nodes(_resources(node["Resources"]), 1) for node in _alive()] if ray.is_initialized() else []
    if not any(shape.workers(worker) for shape in (*capacity.nodes, *present)):
        shapes = sorted({str(shape.each) for shape in capacity.nodes if shape.count})
        raise ConfigurationError(
            f"{name} reserves {worker}, but no node of {capacity.origin} can have that: the nodes have "
            f"{'; '.join(shapes) or 'nothing'} each. Lower {setting}, or use a cluster with larger nodes"
        )
    room = max(capacity.workers(worker), sum(shape.workers(worker) for shape in present))
    if room < workers:
        raise ConfigurationError(
            f"{workers} workers with {worker} each must run at the same time, but {capacity.origin} has room for "
            f"{room}. Lower {setting}, or use a larger cluster"
        )


def refuse_shortage(workers: Sequence[Resources], setting: str) -> None:
    """Refuse stages that must run at the same time and cannot; do nothing where the cluster's maximum is unknown.

    Args:
        workers: what one worker of each stage reserves.
        setting: what the user can change.

    Raises:
        ConfigurationError: the cluster has no room for one worker of each.
    """
    capacity = possible()
    cpus = sum(worker.cpus for worker in workers)
    if capacity.is_maximum and capacity.total.cpus < cpus:
        raise ConfigurationError(
            f"{len(workers)} stages run at the same time and reserve {cpus:g} CPUs together, but {capacity.origin} has "
            f"{capacity.total.cpus:g}. Lower {setting}, e.g. to {capacity.total.cpus / len(workers):g}"
        )


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _resources(amounts: Mapping[str, Any]) -> Resources:
    memory_mib = int(float(amounts.get("memory", 0)) / 2**20)
    return Resources(float(amounts.get("CPU", 0)), float(amounts.get("GPU", 0)), memory_mib)


def configured() -> Capacity | None:
    """Return the maximum by the autoscaling configuration; None where none can be read, or it leaves that open."""
    file = Path(AUTOSCALING_FILE).expanduser()
    here = ray.get_runtime_context().get_node_id()
    heads = [node["NodeID"] for node in _alive() if "node:__internal_head__" in node["Resources"]]
    if here not in heads or not file.is_file():
        return None
    try:
        return _read_configuration(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        logger.warning("%s: cannot be read as an autoscaling configuration: %r", file, error)
        return None


def _read_configuration(configuration: Mapping[str, Any]) -> Capacity | None:
    # Ray's own defaults: `max_workers` is 2, that of a node type the cluster's, but 0 of the head's type.
    most, head = int(configuration.get("max_workers", 2)), configuration["head_node_type"]
    nodes = []
    for name, kind in configuration["available_node_types"].items():
        if not kind.get("resources"):
            return None  # found out when such a node starts
        is_head = name == head
        workers = min(most, int(kind.get("max_workers", 0 if is_head else most)))
        nodes.append(Nodes(_resources(kind["resources"]), workers + is_head))
    return Capacity(tuple(nodes), True, "the cluster", most + 1)
