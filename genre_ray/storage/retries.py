"""Retry operations on a store, with exponential back-off and jitter.

boto3, Arrow and delta-rs retry single requests themselves, with the settings below. This module retries what they do
not: responses that end early, and commits that failed with an error.
"""

import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

REQUEST_ATTEMPTS = 8
"""How often a library sends a request at most."""

OPERATION_ATTEMPTS = 4
"""How often a whole operation is tried at most."""

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0


def attempts(count: int = OPERATION_ATTEMPTS, longest_s: float | None = None) -> Iterator[int]:
    """Yield 0 to `count` - 1, with increasing pauses between them: 0.1 s, 0.2 s, … with jitter.

    Args:
        count: number of attempts.
        longest_s: longest pause in seconds; `LONGEST_PAUSE_S` if None.
    """
    longest_s = LONGEST_PAUSE_S if longest_s is None else longest_s
    for attempt in range(count):
        if attempt:
            time.sleep(min(FIRST_PAUSE_S * 2 ** (attempt - 1), longest_s) * random.uniform(0.5, 1.5))
        yield attempt


def retried(operation: Callable[[], T], is_transient: Callable[[Exception], bool]) -> T:
    """Run `operation`, which must be safe to repeat, until it succeeds.

    Raises:
        Exception: that of the last attempt, if it is not transient or all attempts failed.
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
