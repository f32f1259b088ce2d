"""Limits per row, and a watchdog that kills a worker that makes no progress."""

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

STALL_FACTOR = 10
"""A worker processes many rows at once, so it is killed after this many times the limit per row without progress."""

STORE_STALL_S = 900.0
"""The minimum seconds without progress if a store is involved. All retries of a request take less."""

_STDERR = 2


@dataclass(frozen=True)
class Limits:
    """The limits per row, in addition to what an idle worker needs.

    Attributes:
        item_timeout_s: time limit in seconds.
        memory_mib: memory limit in MiB.
    """

    item_timeout_s: float = 60.0
    memory_mib: int = 4096

    def stall_s(self, *, remote: bool = False) -> float:
        """Return the seconds without progress after which a worker is killed."""
        return max(STALL_FACTOR * self.item_timeout_s, STORE_STALL_S if remote else 0.0)


class Watchdog:
    """Kills this process if it makes no progress for `stall_s` seconds, even if native code blocks Python.

    If it kills a process wrongly, the only cost is that one shard is processed in child processes.
    """

    def __init__(self, stall_s: float) -> None:
        self.stall_s, self._is_suspended = stall_s, False

    def progress(self) -> None:
        """Record progress: restart the timer."""
        if not self._is_suspended:
            faulthandler.dump_traceback_later(self.stall_s, exit=True, file=_STDERR)

    def pause(self) -> None:
        """Stop the timer, for example while the receiver of results works."""
        faulthandler.cancel_dump_traceback_later()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Stop the timer while the block runs, and restart it afterwards."""
        self.pause()
        self._is_suspended = True
        try:
            yield
        finally:
            self._is_suspended = False
            self.progress()

    def __enter__(self) -> "Watchdog":
        self.progress()
        return self

    def __exit__(self, *_: object) -> None:
        self.pause()
