"""Call a function repeatedly in a thread while a block runs."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


@contextmanager
def repeated(
    call: Callable[[], object],
    every_s: float,
    *,
    name: str,
    first_s: float | None = None,
    at_end: Callable[[], object] | None = None,
) -> Iterator[None]:
    """Call `call` every `every_s` seconds in a thread until the block ends. Exceptions are logged.

    Args:
        call: the function to call. The end of the block waits until a running call returns.
        every_s: seconds between two calls.
        name: name of the thread, and of the call in the log.
        first_s: seconds before the first call; `every_s` if None.
        at_end: called at the end in the same thread, where signals do not interrupt it.
    """
    ended = threading.Event()

    def guarded(call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:
            logger.warning("%s failed: %s", name, error)

    def work() -> None:
        pause_s = every_s if first_s is None else first_s
        while not ended.wait(pause_s):
            pause_s = every_s
            guarded(call)
        if at_end is not None:
            guarded(at_end)

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
