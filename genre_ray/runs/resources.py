"""Request resources from the cluster.

A job states the resources of a worker, and Ray and its autoscaler provide them. This module requests all workers early
from the autoscaler, and logs what a job waits for. `genre_ray.runs.capacity` refuses requests that no node can ever
satisfy.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import ray
from ray.autoscaler.sdk import request_resources

from genre_ray.runs import capacity, cluster
from genre_ray.runs.background import repeated
from genre_ray.runs.stages import Resources

logger = logging.getLogger(__name__)

FIRST_LINE_S, LINE_EVERY_S = 10.0, 60.0
"""Seconds until a waiting job logs what it waits for, and between further lines."""

REQUEST_EVERY_S = 2.0
"""Seconds between requests. The autoscaler's period is 5 s, so it sees our request between Ray Data's."""


@contextmanager
def requested(wanted: Callable[[], Mapping[Resources, int]]) -> Iterator[None]:
    """Request workers from the cluster's autoscaler while the block runs.

    By itself, Ray Data starts only as many tasks as the present nodes can run. Nodes would then start one after
    another, which takes half a minute each. `request_resources` starts all of them at once. There is one such request
    per cluster, and Ray Data's coordinator replaces it at least every 20 s, so it is sent repeatedly. If the driver is
    killed, the coordinator's next request releases the nodes.

    Args:
        wanted: returns how many workers of each kind are needed now. It is called every `REQUEST_EVERY_S` seconds in a
            thread, so the number can decrease as the work ends.
    """
    if cluster.started_here():
        yield
        return
    maximum = capacity.possible()

    def request() -> None:
        bundles: list[dict[str, float]] = []
        for worker, count in wanted().items():
            room = maximum.workers(worker, spare_gpus=True) if maximum.is_maximum else capacity.MAX_REQUESTED
            bundles += [_bundle(worker)] * min(count, room)
        request_resources(bundles=bundles)

    try:
        with repeated(request, REQUEST_EVERY_S, first_s=0.0, name="the request for workers"):
            yield
    finally:
        try:
            request_resources(bundles=[])
        except Exception as error:
            # The cluster may have stopped, and this error must not hide the reason.
            logger.warning("cannot withdraw the request for workers: %s", error)


@contextmanager
def heartbeat(waits_for: Callable[[], str | None]) -> Iterator[None]:
    """Log what the job waits for, after `FIRST_LINE_S` and then every `LINE_EVERY_S` seconds, while the block runs.

    Args:
        waits_for: returns what the job waits for, e.g. `1 GPU for score` (see `describe`), or None if it does not wait.
            It is called in a thread.
    """

    def line() -> None:
        awaited = waits_for()
        if awaited is not None:
            logger.info("waiting for %s: %s", awaited, describe_cluster())

    with repeated(line, LINE_EVERY_S, first_s=FIRST_LINE_S, name="querying the cluster's resources"):
        yield


def describe(worker: Resources, name: str, workers: int = 1) -> str:
    """Describe what some workers reserve together, e.g. `2 CPUs and 1 GPU for score`."""
    parts = [_counted(worker.cpus * workers, "CPU")] if worker.cpus or not worker.gpus else []
    parts += [_counted(worker.gpus * workers, "GPU")] if worker.gpus else []
    parts += [f"{worker.memory_mib * workers} MiB"] if worker.memory_mib else []
    return f"{' and '.join(parts)} for {name}"


def describe_cluster() -> str:
    """Describe the cluster's current resources, and whether it may grow."""
    total, free = ray.cluster_resources(), ray.available_resources()
    parts = [
        f"{_counted(total.get(kind, 0), kind)}{f' ({free.get(kind, 0):g} free)' if total.get(kind) else ''}"
        for kind in ("CPU", "GPU")
    ]
    if cluster.started_here():
        more = "it will not grow"
    elif capacity.configured():
        more = "its autoscaler may add nodes"
    else:
        more = "it may grow if it has an autoscaler"
    return f"the cluster has {' and '.join(parts)} now; {more}"


def _counted(amount: float, kind: str) -> str:
    return f"no {kind}" if not amount else f"{amount:g} {kind}{'s' if amount > 1 else ''}"


def _bundle(worker: Resources) -> dict[str, float]:
    bundle = {"CPU": worker.cpus, "GPU": worker.gpus, "memory": float(worker.memory_mib * 2**20)}
    return {kind: amount for kind, amount in bundle.items() if amount}
