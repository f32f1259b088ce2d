"""What a job asks the cluster for: requested, never detected.

A job names what one worker reserves. Ray, and the cluster's autoscaler where there is one, bring it. Two things are
left to do here: ask the autoscaler early enough for all workers, and say in the log what a job waits for.
`genre_ray.runs.capacity` refuses what no node can ever satisfy.
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
"""When a job that waits says so in the log: for the first time, and then again."""

REQUEST_EVERY_S = 2.0
"""Shorter than the autoscaler's own period of 5 s, so that it sees our request between Ray Data's."""


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

    with repeated(line, LINE_EVERY_S, first_s=FIRST_LINE_S, name="asking what the cluster has"):
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
    elif capacity.configured():
        more = "its autoscaler may bring more"
    else:
        more = "an autoscaler, if it has one, may bring more"
    return f"the cluster has {' and '.join(parts)} now; {more}"


def _counted(amount: float, kind: str) -> str:
    return f"no {kind}" if not amount else f"{amount:g} {kind}{'s' if amount > 1 else ''}"


def _bundle(worker: Resources) -> dict[str, float]:
    bundle = {"CPU": worker.cpus, "GPU": worker.gpus, "memory": float(worker.memory_mib * 2**20)}
    return {kind: amount for kind, amount in bundle.items() if amount}
