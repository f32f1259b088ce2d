"""Rows that may kill the process that computes them: watched in a worker, and done in a child once a worker died.

On the ordinary path there is a watchdog and no child. In the child rows are computed one at a time; the row at which it
dies is tried once more, alone in a fresh child, and is rejected with the reason when it dies again. All others come out
as usual.
"""

import faulthandler
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing import Pipe
from typing import Any

import pyarrow as pa
import ray.cloudpickle

from genre_ray import errors
from genre_ray.errors import GenreRayError
from genre_ray.runs.child import OUT_OF_MEMORY, one_row

STALL_FACTOR = 10
"""How many times one row's time a worker may take for a chunk, and a child for its first row: it loads the model then.
A watchdog that errs costs one shard done in a child."""
START_TIMEOUT_S = 300.0
POLL_S = 0.02
_STDERR = 2

Outcome = tuple[pa.Table, pa.Table]


class Death(StrEnum):
    """How a row ended a child: reasons as in `genre_ray.outcomes.Reason`."""

    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"


@dataclass(frozen=True)
class Limits:
    """What one row may take: `memory_mib` is all that its process holds, libraries and model included."""

    item_timeout_s: float = 60.0
    memory_mib: int = 4096

    @property
    def stall_s(self) -> float:
        """Seconds after which a process that shows no progress is ended."""
        return STALL_FACTOR * self.item_timeout_s


@contextmanager
def watchdog(limits: Limits) -> Iterator[None]:
    """End this process when the block takes too long, even where native code keeps Python from running."""
    faulthandler.dump_traceback_later(limits.stall_s, exit=True, file=_STDERR)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


class Isolation:
    """Computes chunks in a child, which is started when it is needed and again when it has died.

    Args:
        step: as in `genre_ray.runs.worker.Step`.
        limits: what a row may take.
    """

    def __init__(self, step: Any, limits: Limits) -> None:
        self.step, self.limits = step, limits
        self._child: _Child | None = None

    def __enter__(self) -> "Isolation":
        return self

    def __exit__(self, *_: object) -> None:
        if self._child:
            self._child.end()
            self._child = None

    def __call__(self, rows: Any) -> Outcome:
        """The step's answer, with the rows that killed their child twice among the rejected.

        Raises:
            GenreRayError: the step's own, or that a child does not start.
        """
        outcomes: list[Outcome] = []
        while len(outcomes) < len(rows):
            death = self._run(rows, range(len(outcomes), len(rows)), outcomes)
            if death and (again := self._run(rows, [len(outcomes)], outcomes)):
                outcomes.append((self.step.schema.empty_table(), _rejection(one_row(rows, len(outcomes)), *again)))
        accepted, rejected = zip(*outcomes, strict=True)
        return pa.concat_tables(accepted), pa.concat_tables(rejected)

    def _run(self, rows: Any, positions: Sequence[int], outcomes: list[Outcome]) -> tuple[Death, str] | None:
        """Add the outcomes of `positions` until the child dies; tell how it did."""
        self._child = self._child or _Child(self.step, self.limits)
        try:
            for kind, answer in self._child.compute(rows, positions):
                outcomes.append(self._read(kind, answer))
        except _Died as died:
            self._child = None
            return died.death, died.detail
        return None

    def _read(self, kind: str, answer: Any) -> Outcome:
        if kind == "fault":
            raise RuntimeError(answer)
        if kind != "done":
            raise getattr(errors, kind, GenreRayError)(answer)
        accepted, rejected = answer
        # Every table came with a schema of its own, of which thousands would be kept.
        return pa.Table.from_arrays(accepted.columns, schema=self.step.schema), rejected


class _Died(Exception):
    def __init__(self, death: Death, detail: str) -> None:
        super().__init__(detail)
        self.death, self.detail = death, detail


class _Child:
    """A process with the step loaded."""

    def __init__(self, step: Any, limits: Limits) -> None:
        self.limits = limits
        self.connection, theirs = Pipe()
        # Not by multiprocessing: it would run the main module again, which is Ray's in a worker.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "genre_ray.runs.child", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
        )
        theirs.close()
        self.fresh = True
        try:
            self._send(ray.cloudpickle.dumps(step))
            self._receive(START_TIMEOUT_S)
        except _Died as died:
            raise GenreRayError(f"expected a child process to start, found that it {died.detail}") from None

    def compute(self, rows: Any, positions: Sequence[int]) -> Iterator[tuple[str, Any]]:
        """The answers to single rows, in order; raises `_Died` at the row that ended the child."""
        self._send(ray.cloudpickle.dumps((rows, list(positions))))
        for _ in positions:
            answer = self._receive(self.limits.stall_s if self.fresh else self.limits.item_timeout_s)
            self.fresh = False
            # Pickled by the child, which was started here and runs the same code.
            yield ray.cloudpickle.loads(answer)

    def end(self) -> None:
        """End the process, whatever it is at."""
        self.process.kill()
        self.process.wait()
        self.connection.close()

    def _send(self, message: bytes) -> None:
        try:
            self.connection.send_bytes(message)
        except OSError:
            raise self._death() from None

    def _receive(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        while not self.connection.poll(POLL_S):
            if time.monotonic() > deadline:
                self.end()
                raise _Died(Death.TIMED_OUT, f"took more than {timeout_s:g} s")
            if (held := _resident_mib(self.process.pid)) > self.limits.memory_mib:
                self.end()
                found = f"held {held} MiB of memory, more than {self.limits.memory_mib}"
                raise _Died(Death.OUT_OF_MEMORY, found)
        try:
            return self.connection.recv_bytes()
        except (EOFError, OSError):
            raise self._death() from None

    def _death(self) -> _Died:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=self.limits.item_timeout_s)
        code = self.process.poll()
        self.end()
        if code == OUT_OF_MEMORY:
            return _Died(Death.OUT_OF_MEMORY, "found no more memory")
        if code is not None and code < 0:
            return _Died(Death.CRASHED, f"was ended by {signal.Signals(-code).name}")
        return _Died(Death.CRASHED, f"ended with exit code {code}")


def _resident_mib(pid: int) -> int:
    """Memory that a process holds; 0 where the system has no /proc, and memory is not limited."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
    except (OSError, IndexError):
        return 0


def _rejection(row: Any, death: Death, detail: str) -> pa.Table:
    """The row of `genre_ray.runs.worker.Step`'s second table for a chunk of one row."""
    if hasattr(row, "column_names") or hasattr(row, "schema"):
        (values,) = row.to_pylist()
        uri, recording_id = values.get("source_uri"), values.get("recording_id")
    else:
        # A row without an address is its own.
        uri, recording_id = getattr(row[0], "uri", str(row[0])), getattr(row[0], "recording_id", None)
    outcome = {
        "source_uri": uri,
        "recording_id": recording_id,
        "reason": str(death),
        "detail": f"expected to be computed, found twice that the process {detail}",
    }
    return pa.table({name: pa.array([value], pa.string()) for name, value in outcome.items()})
