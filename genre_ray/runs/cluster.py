"""The Ray cluster a job runs on: the one it was submitted to or is pointed at, or else one of its own here."""

import atexit
import logging
import os

import ray

logger = logging.getLogger(__name__)

_started: set[str] = set()
"""Addresses of the clusters that this process started."""


def connect() -> None:
    """Join the cluster that `RAY_ADDRESS` names, or start one on this machine; do nothing when connected already.

    A cluster that Ray starts here asks for a token, unless `RAY_AUTH_MODE` says otherwise: whoever can reach its ports
    could run code.
    """
    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING, log_to_driver=False)
    else:
        ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        # Before Ray's own end of it, which first waits half a second for workers' logs to be printed here.
        atexit.register(ray.shutdown)
        _started.add(ray.get_runtime_context().gcs_address)
    logger.info("on Ray %s with %.0f CPUs and %.0f GPUs", ray.__version__, *_cpus_and_gpus())


def started_here() -> bool:
    """Whether the cluster is one that `connect` started: it is this machine alone and never grows."""
    return ray.is_initialized() and ray.get_runtime_context().gcs_address in _started


def _cpus_and_gpus() -> tuple[float, float]:
    resources = ray.cluster_resources()
    return resources.get("CPU", 0), resources.get("GPU", 0)
