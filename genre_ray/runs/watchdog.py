"""Limits on what one row may take, and the timer that ends a worker which makes no progress."""

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

STALL_FACTOR = 10
"""How many times one row's time a worker may go without progress: it works on many rows at once."""

STORE_STALL_S = 900.0
"""The same where rows come from a store: longer than all retries of a request take."""

_STDERR = 2


@dataclass(frozen=True)
class Limits:
    """What one row may take, in addition to what a worker takes before its first row.

    Attributes:
        item_timeout_s: seconds.
        memory_mib: MiB of memory.
    """

    item_timeout_s: float = 60.0
    memory_mib: int = 4096

    def stall_s(self, *, remote: bool = False) -> float:
        """Seconds without progress after which a worker is ended."""
        return max(STALL_FACTOR * self.item_timeout_s, STORE_STALL_S if remote else 0.0)


class Watchdog:
    """Ends this process when it makes no progress for `stall_s`, even where native code keeps Python from running.

    A watchdog that errs costs one shard computed in a child.
    """

    def __init__(self, stall_s: float) -> None:
        self.stall_s, self._is_suspended = stall_s, False

    def progress(self) -> None:
        """Begin to wait anew."""
        if not self._is_suspended:
            faulthandler.dump_traceback_later(self.stall_s, exit=True, file=_STDERR)

    def pause(self) -> None:
        """Wait for nothing: whoever takes the results may be slow."""
        faulthandler.cancel_dump_traceback_later()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Wait for nothing while the block runs."""
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
