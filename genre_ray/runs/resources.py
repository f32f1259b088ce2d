"""What a job asks the cluster for: requested, never detected.

A job names what one worker reserves. Ray, and the cluster's autoscaler where there is one, bring it. Three things are
left to do here: refuse a request that no node can ever satisfy, ask the autoscaler early enough for all workers, and
say in the log what a job waits for.

Ray 2.60 has no public way to ask a cluster whether it has an autoscaler and how far it grows. Two cases are certain: a
cluster that `cluster.connect` started here never grows, and the head of a cluster that `ray up` started holds the
autoscaling configuration. Everywhere else (KubeRay, a driver that runs on another machine) the maximum is unknown, and
nothing is refused.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.autoscaler.sdk import request_resources

from genre_ray.errors import ConfigurationError
from genre_ray.runs import cluster
from genre_ray.runs.stages import Resources

logger = logging.getLogger(__name__)

FIRST_LINE_S, LINE_EVERY_S = 10.0, 60.0
"""When a job that waits says so in the log: for the first time, and then again."""

REQUEST_EVERY_S = 2.0
"""Shorter than the autoscaler's own period of 5 s, so that it sees our request between Ray Data's."""

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
    configured = _configured()
    return configured or Capacity(present, False, "the cluster")


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


@contextmanager
def requested(wanted: Callable[[], Mapping[Resources, int]]) -> Iterator[None]:
    """Ask the cluster's autoscaler for workers for as long as the block runs.

    Ray Data starts no more tasks than the present nodes have room for, so that by itself it brings one node after
    another, half a minute each. `request_resources` brings all of them at once. It holds one request for the whole
    cluster, which Ray Data's coordinator replaces by its own at least every 20 s. So this sends the request again and
    again; if the driver is killed, the coordinator's next one releases the nodes.

    Args:
        wanted: returns how many workers of each kind are wanted now. It is called every `REQUEST_EVERY_S` seconds, in
            a thread, so the number can fall as the work ends.
    """
    if cluster.started_here():
        yield
        return
    capacity = possible()

    def request() -> None:
        bundles: list[dict[str, float]] = []
        for worker, count in wanted().items():
            room = capacity.workers(worker, spare_gpus=True) if capacity.is_maximum else MAX_REQUESTED
            bundles += [_bundle(worker)] * min(count, room)
        request_resources(bundles=bundles)

    try:
        with _every(request, REQUEST_EVERY_S, first_s=0.0):
            yield
    finally:
        try:
            request_resources(bundles=[])
        except Exception as error:
            # The cluster may be gone, which must not hide why.
            logger.warning("the cluster did not take back the request for workers: %s", error)


@contextmanager
def heartbeat(waits_for: Callable[[], str | None]) -> Iterator[None]:
    """Log what is waited for, after `FIRST_LINE_S` and then every `LINE_EVERY_S` seconds, while the block runs.

    Args:
        waits_for: returns what the job waits for, e.g. `1 GPU for score` (see `describe`), or None if it does not
            wait. It is called in a thread.
    """

    def line() -> None:
        awaited = waits_for()
        if awaited is not None:
            logger.info("waiting for %s: %s", awaited, describe_cluster())

    with _every(line, LINE_EVERY_S, first_s=FIRST_LINE_S):
        yield


def describe(worker: Resources, name: str, workers: int = 1) -> str:
    """Return what `workers` workers reserve together and for whom, e.g. `2 CPUs and 1 GPU for score`."""
    parts = [_counted(worker.cpus * workers, "CPU")] if worker.cpus or not worker.gpus else []
    parts += [_counted(worker.gpus * workers, "GPU")] if worker.gpus else []
    parts += [f"{worker.memory_mib * workers} MiB"] if worker.memory_mib else []
    return f"{' and '.join(parts)} for {name}"


def describe_cluster() -> str:
    """Return what the cluster has now, and whether more may come."""
    total, free = ray.cluster_resources(), ray.available_resources()
    parts = [
        f"{_counted(total.get(kind, 0), kind)}{f' ({free.get(kind, 0):g} free)' if total.get(kind) else ''}"
        for kind in ("CPU", "GPU")
    ]
    if cluster.started_here():
        more = "no more will come"
    elif _configured():
        more = "its autoscaler may bring more"
    else:
        more = "an autoscaler, if it has one, may bring more"
    return f"the cluster has {' and '.join(parts)} now; {more}"


def _counted(amount: float, kind: str) -> str:
    return f"no {kind}" if not amount else f"{amount:g} {kind}{'s' if amount > 1 else ''}"


def _bundle(worker: Resources) -> dict[str, float]:
    bundle = {"CPU": worker.cpus, "GPU": worker.gpus, "memory": float(worker.memory_mib * 2**20)}
    return {kind: amount for kind, amount in bundle.items() if amount}


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _resources(amounts: Mapping[str, Any]) -> Resources:
    memory_mib = int(float(amounts.get("memory", 0)) / 2**20)
    return Resources(float(amounts.get("CPU", 0)), float(amounts.get("GPU", 0)), memory_mib)


def _configured() -> Capacity | None:
    """The maximum by the autoscaling configuration, or None where there is none to read, or it leaves it open."""
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


@contextmanager
def _every(call: Callable[[], None], seconds: float, *, first_s: float) -> Iterator[None]:
    """Call `call` in a thread, first after `first_s` seconds; what it raises is logged and does not end the block."""
    ended = threading.Event()

    def run() -> None:
        pause = first_s
        while not ended.wait(pause):
            pause = seconds
            try:
                call()
            except Exception as error:
                logger.warning("the cluster did not answer: %s", error)

    thread = threading.Thread(target=run, name="resources", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
