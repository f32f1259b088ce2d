"""Process rows one at a time in child processes, to find and reject rows that crash their process.

Normally no child is started. If a worker died while it processed a shard, the next attempt reads the shard in one child
and computes its rows in another. If a child dies at a row, the row is retried in a new child. If that child dies too,
the row is rejected. All other rows are processed as usual.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import Pipe
from typing import Any

import pyarrow as pa
import ray.cloudpickle

from genre_ray import errors
from genre_ray.errors import GenreRayError
from genre_ray.outcomes import Outcome, Reason, Rejection, rejections
from genre_ray.runs.child import END, FAULT, OUT_OF_MEMORY, VALUE, Serve
from genre_ray.runs.plan import WorkItem
from genre_ray.runs.stages import Chunk, ShardSize, Source, Stage, compute, open_stages
from genre_ray.runs.watchdog import Limits

START_TIMEOUT_S = 300.0
POLL_S = 0.02
ALIKE = 8
"""If at least this many rows, and all rows of a shard, fail for the same reason, the rows are not the cause."""


class Isolation:
    """Reads and computes the rows of one shard in child processes, which are started on demand.

    Args:
        source: the source of rows; None if rows are only computed.
        stages: the stages.
        schema: the schema of the computed rows.
        limits: the limits per row.
        failed: the rows that cannot be read, by their position in the item. More rows are added when they are found.
    """

    def __init__(
        self,
        source: Source | None,
        stages: Sequence[Stage],
        schema: pa.Schema,
        limits: Limits,
        failed: dict[int, Rejection] | None = None,
    ) -> None:
        self.schema, self.limits, self.failed = schema, limits, {} if failed is None else failed
        self._source = source
        self._make_computer = partial(_serve_outcomes, stages)
        self._computer: _Child | None = None
        self._rows, self._deaths, self._died = 0, Counter[Reason](), False

    @property
    def found_deaths(self) -> bool:
        """Whether a child died at least once."""
        return self._died

    def __enter__(self) -> "Isolation":
        return self

    def __exit__(self, *_: object) -> None:
        if self._computer:
            self._computer.end()
            self._computer = None

    def read(self, item: WorkItem, size: ShardSize, shard: int, position: int) -> Iterator[Chunk]:
        """Yield the rows of `shard` as computed chunks of one row, then one chunk of the next shard, if there is one.

        Args:
            item: the item to read.
            size: the size of shards.
            shard: the shard.
            position: number of rows of the item before the shard.

        Raises:
            GenreRayError: the source or a stage raised it, or a child does not start.
        """
        remote = item.is_remote
        limit_s = self.limits.stall_s(remote=True) if remote else self.limits.item_timeout_s
        walk_s = self.limits.stall_s(remote=remote) + item.walk_s
        read, died_at = 0, -1
        while True:
            reader = _Child(partial(_serve_rows, self._source), self.limits.memory_mib)
            try:
                values = reader.call((item, size, shard, self.failed), limit_s, walk_s)
                for number, chunk in enumerate(values):
                    if number >= read:
                        read += 1
                        # A chunk of the next shard only shows that there is one.
                        if chunk.shard != shard:
                            yield chunk
                            return
                        yield chunk._replace(outcome=self._computed(chunk.outcome))
                return
            except _Died as died:
                self._died = True
                if died_at == position + read:
                    self._deaths[died.reason] += 1
                    self._rows += 1
                    self.failed[died_at] = Rejection(died.reason, _detail("read", died))
                died_at = position + read
            finally:
                reader.end()

    def compute(self, rows: pa.Table) -> Outcome:
        """Compute rows one at a time, and reject those that crash their child process twice.

        Raises:
            GenreRayError: a stage raised it, or a child does not start.
        """
        return concatenated([self._row(rows.slice(place, 1)) for place in range(rows.num_rows)], self.schema)

    def refuse_alike(self, shard: str) -> None:
        """Raise an error if all rows of the shard failed for the same reason, since then the rows are not the cause.

        Raises:
            GenreRayError: all rows failed for the same reason.
        """
        (reason, count), *_ = self._deaths.most_common(1) or [(Reason.CRASHED, 0)]
        if count == self._rows >= ALIKE:
            do = {
                Reason.TIMED_OUT: f"raise execution.item_timeout_s (now {self.limits.item_timeout_s:g})",
                Reason.OUT_OF_MEMORY: f"raise execution.item_memory_mib (now {self.limits.memory_mib})",
            }.get(reason, "check the workers' logs")
            raise GenreRayError(
                f"{shard}: all {count} rows failed for the same reason ({reason}), so the rows are not the cause; {do}"
            )

    def _computed(self, read: Outcome) -> Outcome:
        computed = self.compute(read.accepted)
        return Outcome(computed.accepted, pa.concat_tables([read.rejected, computed.rejected]))

    def _row(self, row: pa.Table) -> Outcome:
        self._rows += 1
        for _ in range(2):
            self._computer = self._computer or _Child(self._make_computer, self.limits.memory_mib)
            try:
                (outcome,) = self._computer.call(row, self.limits.item_timeout_s)
            except _Died as died:
                self._computer, last, self._died = None, died, True
                continue
            # Each response has its own schema object. Using one schema saves memory.
            return Outcome(pa.Table.from_arrays(outcome.accepted.columns, schema=self.schema), outcome.rejected)
        self._deaths[last.reason] += 1
        return Outcome(self.schema.empty_table(), _rejected(row, Rejection(last.reason, _detail("computed", last))))


def concatenated(outcomes: Sequence[Outcome], schema: pa.Schema) -> Outcome:
    """Concatenate outcomes. The accepted rows have the schema `schema`."""
    accepted = pa.concat_tables([schema.empty_table(), *(outcome.accepted for outcome in outcomes)])
    return Outcome(accepted, pa.concat_tables([rejections([]), *(outcome.rejected for outcome in outcomes)]))


def _serve_rows(source: Source | None) -> Serve:
    assert source is not None

    def serve(request: tuple[WorkItem, ShardSize, int, dict[int, Rejection]]) -> Iterator[Chunk]:
        return source.read(*request, singly=True)

    return serve


def _serve_outcomes(stages: Sequence[Stage]) -> Serve:
    opened = open_stages(stages)

    def serve(rows: pa.Table) -> Iterator[Outcome]:
        yield compute(opened, rows)

    return serve


class _Died(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class _Child:
    """A child process that runs the function that `make` returns.

    It may use `memory_mib` more memory than it uses after its start.
    """

    def __init__(self, make: Callable[[], Serve], memory_mib: int) -> None:
        self.connection, theirs = Pipe()
        # multiprocessing would run the main module again, which is Ray's in a worker.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "genre_ray.runs.child", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
        )
        theirs.close()
        self.memory_mib = sys.maxsize
        try:
            self._send(make)
            self._answer(START_TIMEOUT_S)
        except _Died as died:
            self.end()
            raise GenreRayError(f"cannot start a child process to isolate rows: it {died.detail}") from None
        self.memory_mib = _resident_mib(self.process.pid) + memory_mib

    def call(self, request: Any, timeout_s: float, first_timeout_s: float | None = None) -> Iterator[Any]:
        """Send a request and yield the values of the response; raise `_Died` if the child ends or exceeds a limit."""
        self._send(request)
        kind, value = self._answer(timeout_s if first_timeout_s is None else first_timeout_s)
        while kind != END:
            yield value
            kind, value = self._answer(timeout_s)

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.wait()
        self.connection.close()

    def _send(self, message: Any) -> None:
        try:
            self.connection.send_bytes(ray.cloudpickle.dumps(message))
        except OSError:
            raise self._death() from None

    def _answer(self, timeout_s: float) -> tuple[str, Any]:
        # Unpickling is safe: the child was started here and runs the same code.
        kind, value = ray.cloudpickle.loads(self._receive(timeout_s))
        if kind == FAULT:
            raise RuntimeError(value)
        if kind not in (VALUE, END):
            raise getattr(errors, kind, GenreRayError)(value)
        return kind, value

    def _receive(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        while not self.connection.poll(POLL_S):
            if time.monotonic() > deadline:
                self.end()
                raise _Died(Reason.TIMED_OUT, f"took more than {timeout_s:g} s")
            if (held := _resident_mib(self.process.pid)) > self.memory_mib:
                self.end()
                found = f"used {held} MiB of memory, more than {self.memory_mib}"
                raise _Died(Reason.OUT_OF_MEMORY, found)
        try:
            return self.connection.recv_bytes()
        except (EOFError, OSError):
            raise self._death() from None

    def _death(self) -> _Died:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=START_TIMEOUT_S)
        code = self.process.poll()
        self.end()
        if code == OUT_OF_MEMORY:
            return _Died(Reason.OUT_OF_MEMORY, "ran out of memory")
        if code is not None and code < 0:
            return _Died(Reason.CRASHED, f"was killed by {signal.Signals(-code).name}")
        return _Died(Reason.CRASHED, f"crashed (exit code {code})")


def _resident_mib(pid: int) -> int:
    """The resident memory of a process; 0 on a system without /proc, where memory is not limited."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
    except (OSError, IndexError):
        return 0


def _detail(done: str, died: _Died) -> str:
    return f"the process that {done} this row {died.detail}, twice"


def _rejected(row: pa.Table, why: Rejection) -> pa.Table:
    """Make the rejected row for a table of one row."""
    (values,) = row.select([name for name in ("source_uri", "recording_id") if name in row.column_names]).to_pylist()
    why = Rejection(why.reason, why.detail, values.get("recording_id"))
    return rejections([(values.get("source_uri") or "", why)])
