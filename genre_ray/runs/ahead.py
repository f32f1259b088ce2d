"""Prefetch values in a thread.

Guarantees: values come in the same order, and an exception is raised at its place. Prefetching starts when the first
value is requested. At most `depth` values wait. The thread has ended when the block ends.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Generic, TypeVar

S = TypeVar("S")
T = TypeVar("T")

DEPTH = 4
"""Number of prefetched values. More than one, because the times to read and to process values vary."""


@contextmanager
def read_ahead(values: Iterator[T], depth: int = DEPTH) -> Iterator[Iterator[T]]:
    """Run the iterator `values` in a thread while the block runs; yield an iterator over its values.

    This helps if reading values releases the GIL, as decompression and waiting for a store do.
    """
    ahead = _Ahead(values, depth)
    try:
        yield ahead.values()
    finally:
        ahead.end()


def map_ahead(function: Callable[[S], T], values: Iterable[S], threads: int) -> Iterator[T]:
    """Apply `function` to `values` in several threads, and yield the results in order.

    At most twice as many results as `threads` are in progress or waiting.
    """
    held: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads, "map-ahead") as pool:
        try:
            for value in values:
                held.append(pool.submit(copy_context().run, function, value))
                if len(held) == 2 * threads:
                    yield held.popleft().result()
            while held:
                yield held.popleft().result()
        finally:
            for future in held:
                future.cancel()


class _Ahead(Generic[T]):
    def __init__(self, values: Iterator[T], depth: int) -> None:
        self._source, self._ended = values, False
        self._waiting: queue.SimpleQueue[tuple[list[T], BaseException | None]] = queue.SimpleQueue()
        self._room = threading.Semaphore(depth)
        # The context contains the meter that counts bytes of streams (`genre_ray.storage.streams.metered`).
        self._thread = threading.Thread(target=copy_context().run, args=(self._read,), name="read-ahead", daemon=True)

    def values(self) -> Iterator[T]:
        self._thread.start()
        while True:
            values, error = self._waiting.get()
            if error is not None:
                raise error
            if not values:
                return
            self._room.release()
            yield from values

    def end(self) -> None:
        self._ended = True
        self._room.release()
        if self._thread.ident is not None:
            self._thread.join()

    def _read(self) -> None:
        try:
            for value in self._source:
                self._room.acquire()
                if self._ended:
                    break
                self._waiting.put(([value], None))
            self._waiting.put(([], None))
        except BaseException as error:
            self._waiting.put(([], error))
        finally:
            if isinstance(self._source, Generator):
                self._source.close()
