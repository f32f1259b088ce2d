"""An object store that fails by a script."""

import json
import re
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from genre_ray.storage import retries
from genre_ray.storage.s3 import _REQUESTS, client, filesystem

FAULT = ("kind", "method", "path")


@dataclass(frozen=True)
class Proxy:
    """The running proxy of `faulty_proxy.py`."""

    endpoint: str

    def script(self, *faults, **common):
        """Fail by these faults from now on, each (kind, method, path), with what is common to them."""
        script = [{**dict(zip(FAULT, fault, strict=False)), **common} for fault in faults]
        self._ask("PUT", "script", json.dumps(script).encode())

    def count(self, method=".", path=""):
        """How many requests of that method and path came since the latest script."""
        asked = json.loads(self._ask("GET", "requests"))
        return sum(bool(re.match(method, one) and re.search(path, other)) for one, other in asked)

    def _ask(self, method, name, body=None):
        request = urllib.request.Request(f"{self.endpoint}/-/{name}", data=body, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read()


@pytest.fixture(scope="session")
def proxy(s3_server):
    program = [sys.executable, Path(__file__).with_name("faulty_proxy.py"), s3_server.endpoint]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        yield Proxy(process.stdout.readline().strip())
        process.kill()


def forget_clients():
    for cached in (client, filesystem):
        cached.cache_clear()


@pytest.fixture
def faulty(proxy, s3, monkeypatch):
    """`faulty(("slow_down", "PUT", "key"), …, times=2)`: the script; all clients go through the proxy."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    # Nobody is better off after a pause here.
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(retries, "LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setitem(_REQUESTS, "backoff_config.init_backoff", "1ms")
    monkeypatch.setitem(_REQUESTS, "backoff_config.max_backoff", "10ms")
    forget_clients()

    def fail(*faults, **common):
        proxy.script(*faults, **common)
        return proxy

    yield fail
    proxy.script()
    forget_clients()
