"""Trying again what a store could not do just now: exponential back-off, jitter, an end.

The libraries under the storage retry throttling, timeouts and resets of single requests themselves, with the settings
below. What they leave open comes here: answers that break off while they are read, and commits, whose outcome an
error can leave unknown.
"""

import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

REQUEST_ATTEMPTS = 8
"""How often a library sends one request."""

OPERATION_ATTEMPTS = 4
"""How often an operation is begun anew, when its library gave up or its answer broke off."""

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0


def attempts(count: int = OPERATION_ATTEMPTS, longest_s: float | None = None) -> Iterator[int]:
    """Count from 0 to `count` - 1, with a longer pause before each but the first: 0.1 s, 0.2 s, … with jitter."""
    longest_s = LONGEST_PAUSE_S if longest_s is None else longest_s
    for attempt in range(count):
        if attempt:
            time.sleep(min(FIRST_PAUSE_S * 2 ** (attempt - 1), longest_s) * random.uniform(0.5, 1.5))
        yield attempt


def retried(operation: Callable[[], T], is_transient: Callable[[Exception], bool]) -> T:
    """The result of `operation`, which may be repeated without harm.

    Raises:
        Exception: the operation's last, when it is not transient or all attempts failed.
    """
    last: Exception | None = None
    for _ in attempts():
        try:
            return operation()
        except Exception as error:
            if not is_transient(error):
                raise
            last = error
    assert last is not None
    raise last
