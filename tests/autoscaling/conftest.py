"""A cluster that is scaled to zero, on this machine: Ray's fake provider starts each node as processes here.

It runs beside the test run's own cluster, since it has its own folder and no test connects to it: jobs are programs of
their own, with its address in `RAY_ADDRESS`.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]

PORT = 6379
"""The fake provider connects its nodes to this one, whatever the head's is."""

START_TIMEOUT_S, IDLE_TIMEOUT_S = 60.0, 6.0

# `ray.cluster_utils.AutoscalingCluster` needs a file that the wheel lacks, and begins with `ray stop --force`.
CONFIGURATION: dict[str, Any] = {
    "cluster_name": "fake",
    "max_workers": 4,
    "upscaling_speed": 100.0,
    "idle_timeout_minutes": IDLE_TIMEOUT_S / 60,
    "provider": {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
        "head_node_id": "f" * 51 + "00000",
    },
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "cpu": {
            "resources": {"CPU": 2, "object_store_memory": 300_000_000},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 3,
        },
        "gpu": {
            "resources": {"CPU": 2, "GPU": 1, "object_store_memory": 300_000_000},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 1,
        },
    },
    **{name: {} for name in ("auth", "docker", "head_node", "worker_nodes", "file_mounts")},
    **{
        name: []
        for name in (
            *("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands", "setup_commands"),
            *("head_setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"),
        )
    },
    "file_mounts_sync_continuously": False,
}

# Prints how many nodes without and with a GPU there are, twice a second. The head counts as neither.
WATCH = """
import json, logging, time, ray
ray.init(logging_level=logging.ERROR, log_to_driver=False)
while True:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    gpus = sum("GPU" in node for node in nodes)
    print(json.dumps([len(nodes) - gpus, gpus]), flush=True)
    time.sleep(0.5)
"""


@dataclass(frozen=True)
class AutoscalingCluster:
    """A running head without CPUs; three nodes with 2 CPUs and one with 2 CPUs and a GPU can come."""

    environment: dict[str, str]
    history: Path

    def run(self, job: str, *arguments: str, timeout_s: float = 180.0) -> tuple[int, str]:
        """Run a job as a program on this cluster; return its exit code and its log."""
        done = subprocess.run(
            [sys.executable, str(REPOSITORY / "jobs" / f"{job}.py"), *arguments],
            env=self.environment,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return done.returncode, done.stdout

    def nodes(self) -> list[tuple[int, int]]:
        """Return how many nodes without and with a GPU there were, twice a second from the start to now."""
        lines = self.history.read_text().split("\n")[:-1]
        return [tuple(json.loads(line)) for line in lines if line.startswith("[")]

    def wait_until_empty(self, timeout_s: float = 60.0) -> float:
        """Wait until all nodes but the head are gone; return the seconds that it took."""
        started = time.monotonic()
        while self.nodes()[-1] != (0, 0):
            assert time.monotonic() - started < timeout_s, f"nodes are still there: {self.nodes()[-1]}"
            time.sleep(0.5)
        return time.monotonic() - started


@contextlib.contextmanager
def _in_group(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program and end its process group, so that `ray stop`, which ends every Ray here, is not needed."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        yield process
    finally:
        for end in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, end)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=15)


@pytest.fixture(scope="session")
def autoscaling_cluster() -> Iterator[AutoscalingCluster]:
    """The one autoscaling cluster of the test run, with no nodes but its head."""
    folder = Path(tempfile.mkdtemp(prefix="gr-a-"))
    # Where `ray up` would put it on the head: jobs read the cluster's maximum there.
    configuration = folder / "ray_bootstrap_config.yaml"
    configuration.write_text(yaml.safe_dump(CONFIGURATION))
    environment = {
        **os.environ,
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_ADDRESS": f"127.0.0.1:{PORT}",
        "HOME": str(folder),
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
    }
    command = [
        *(shutil.which("ray") or "ray", "start", "--head", "--block", "--num-cpus=0", f"--port={PORT}"),
        *("--include-dashboard=false", "--disable-usage-stats", f"--object-store-memory={3 * 10**8}"),
        *(f"--temp-dir={folder / 'ray'}", f"--autoscaling-config={configuration}"),
    ]
    log, history = folder / "head.log", folder / "history.log"
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        head = stack.enter_context(_in_group(command, log, environment))
        _wait(lambda: b"--block" in log.read_bytes(), head, log)
        watch = stack.enter_context(_in_group([sys.executable, "-c", WATCH], history, environment))
        _wait(lambda: b"[0, 0]" in history.read_bytes(), watch, history)
        yield AutoscalingCluster(environment, history)


def _wait(ready: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    started = time.monotonic()
    while not ready():
        if process.poll() is not None or time.monotonic() - started > START_TIMEOUT_S:
            pytest.fail(f"not ready (exit code {process.poll()}):\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.2)
