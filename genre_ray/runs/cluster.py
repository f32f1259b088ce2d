"""Connect to the Ray cluster: the one that the job was submitted to or `RAY_ADDRESS` names, or a new one here."""

import atexit
import logging
import os

import ray

logger = logging.getLogger(__name__)

_started: set[str] = set()
"""Addresses of the clusters that this process started."""


def connect() -> None:
    """Join the cluster that `RAY_ADDRESS` names, or start one on this machine. Do nothing if connected already.

    A cluster on this machine requires a token unless `RAY_AUTH_MODE` says otherwise, because anyone who can reach its
    ports could run code.
    """
    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING, log_to_driver=False)
    else:
        ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        # This runs before Ray's own shutdown, which first waits half a second for logs of workers.
        atexit.register(ray.shutdown)
        _started.add(ray.get_runtime_context().gcs_address)
    logger.info("using Ray %s with %.0f CPUs and %.0f GPUs", ray.__version__, *_cpus_and_gpus())


def started_here() -> bool:
    """Whether `connect` started the cluster, which then consists of this machine and never grows."""
    return ray.is_initialized() and ray.get_runtime_context().gcs_address in _started


def _cpus_and_gpus() -> tuple[float, float]:
    resources = ray.cluster_resources()
    return resources.get("CPU", 0), resources.get("GPU", 0)
