"""Passes over examples on the workers of the cluster, so that nothing that grows with the rows is a driver's."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from genre_ray.runs.tasks import Result, start
from genre_ray.training.reading import ABSENT, BATCH_ROWS, FeaturesTable, Matrix, Parts, read_batches, read_positions

T = TypeVar("T")

PASS_ROWS = 50_000
"""Rows of a table, at least, that one task passes over, if there are as many."""

Batches = Iterable[tuple[Matrix, ...]]


def map_rows(features: Sequence[FeaturesTable], rows: NDArray[np.int64], function: Callable[..., T]) -> Iterator[T]:
    """Apply a function to batches of rows, on workers.

    Args:
        features: the tables.
        rows: (tables, examples) positions in each, in the order of the first table that has them.
        function: (batch of each table, (rows, values)) → anything that can be pickled.

    Returns:
        The function's results, batch by batch, in the order of the examples.
    """
    results = deque(start_passes(features, rows, partial(_each, function)))
    while results:
        # What was taken is referenced no longer, so that the object store frees it.
        yield from results.popleft().get()


def start_passes(
    features: Sequence[FeaturesTable], rows: NDArray[np.int64], function: Callable[..., T], *shared: Any
) -> list[Result[T]]:
    """Start tasks that each apply a function to neighbouring examples.

    Args:
        features: the tables.
        rows: (tables, examples) positions in each, in the order of the first table that has them.
        function: (batches of rows, each with an array (rows, values) of each table; *shared) → anything that can be
            pickled.
        shared: more arguments of the function, values or `Result`s.

    Returns:
        A result for each task, in the order of the examples.
    """
    every = [Parts(table.uri, table.version) for table in features]
    widths = [table.values for table in features]
    results, begin = [], 0
    for parts, positions in zip(every, rows, strict=True):
        end = begin + int((positions[begin:] != ABSENT).sum())
        for group in parts.groups(PASS_ROWS):
            starts = parts.starts[group.start : group.stop + 1]
            low, high = (begin + np.searchsorted(positions[begin:end], starts[[0, -1]])).tolist()
            if low < high and len(every) == 1:
                results.append(start(_pass, function, parts.uris[group], starts, rows[0, low:high], *shared))
            elif low < high:
                results.append(start(_pass_together, function, every, widths, rows[:, low:high], *shared))
        begin = end
    return results


def _each(function: Callable[..., T], batches: Batches) -> list[T]:
    return [function(*batch) for batch in batches]


def _pass(
    function: Callable[..., T],
    uris: Sequence[str],
    starts: NDArray[np.int64],
    rows: NDArray[np.int64],
    *shared: Any,
) -> T:
    return function(((batch,) for batch in read_batches(uris, starts, rows)), *shared)


def _pass_together(
    function: Callable[..., T], every: Sequence[Parts], widths: Sequence[int], rows: NDArray[np.int64], *shared: Any
) -> T:
    def batches() -> Iterator[tuple[Matrix, ...]]:
        for first in range(0, rows.shape[1], BATCH_ROWS):
            positions = rows[:, first : first + BATCH_ROWS]
            yield tuple(read_positions(*each) for each in zip(every, positions, widths, strict=True))

    return function(batches(), *shared)
