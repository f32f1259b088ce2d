"""Feature vectors at positions of a features table, read from its parts. Nothing here imports torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from genre_ray.storage import objects, tables

Matrix = NDArray[np.float32]

ABSENT = -1
"""The position of a row that a table does not have."""

BATCH_ROWS = 1024


@dataclass(frozen=True)
class FeaturesTable:
    """A version of a features table.

    Attributes:
        uri: absolute, since workers have working directories of their own.
        version: of the Delta table.
        values: how many values a row has.
    """

    uri: str
    version: int
    values: int


class Parts:
    """The parts of a version of a table, in order.

    Attributes:
        uris: of each part, absolute.
        starts: (parts + 1,) the position of the first row of each, and how many rows there are.
    """

    def __init__(self, uri: str, version: int) -> None:
        parts = tables.list_parts(uri, version)
        self.uris = [objects.join(objects.absolute(uri), part.path) for part in parts]
        self.starts: NDArray[np.int64] = np.cumsum([0, *(part.rows for part in parts)], dtype=np.int64)

    def groups(self, rows: int) -> Iterator[slice]:
        """Neighbouring parts of at least so many rows together, except for the last ones."""
        first = 0
        for last in range(1, len(self.uris) + 1):
            if last == len(self.uris) or self.starts[last] - self.starts[first] >= rows:
                yield slice(first, last)
                first = last


def load_rows(uri: str, version: int, rows: NDArray[np.int64], batch_rows: int = BATCH_ROWS) -> Iterator[Matrix]:
    """Feature vectors at sorted positions of a table, in that order, as arrays (rows, values)."""
    parts = Parts(uri, version)
    return read_batches(parts.uris, parts.starts, rows, batch_rows)


def read_batches(
    uris: Sequence[str], starts: NDArray[np.int64], rows: NDArray[np.int64], batch_rows: int = BATCH_ROWS
) -> Iterator[Matrix]:
    """As `load_rows`, of parts that begin at `starts`."""
    for uri, (start, stop) in zip(uris, pairwise(starts.tolist()), strict=True):
        if np.searchsorted(rows, start) == np.searchsorted(rows, stop):
            continue
        with tables.open_part(uri) as file:
            for batch in file.iter_batches(batch_size=batch_rows, columns=["features"]):
                low, high = np.searchsorted(rows, [start, start + batch.num_rows])
                if high > low:
                    yield tables.vectors(batch.column("features"))[rows[low:high] - start]
                start += batch.num_rows


def read_positions(parts: Parts, positions: NDArray[np.int64], values: int) -> NDArray[np.float32]:
    """Feature vectors (rows, values) at positions of a table; NaN where a position is `ABSENT`."""
    order = np.argsort(positions, kind="stable")
    rising = positions[order]
    edges = np.searchsorted(rising, parts.starts)
    within = [part for part, (low, high) in enumerate(pairwise(edges.tolist())) if low < high]
    if len(within) == 1 and edges[0] == 0 and (np.diff(positions) > 0).all():
        return read_rows(parts.uris[within[0]], positions - parts.starts[within[0]])
    found = np.full((len(positions), values), np.nan, dtype=np.float32)
    for part in within:
        chosen = slice(edges[part], edges[part + 1])
        found[order[chosen]] = read_rows(parts.uris[part], rising[chosen] - parts.starts[part])
    return found


def read_rows(uri: str, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Feature vectors at sorted positions of one part, from the row groups that hold them."""
    with tables.open_part(uri) as file:
        counts = np.array([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
        starts = np.cumsum(counts) - counts
        groups = np.searchsorted(starts, positions, side="right") - 1
        read, place = np.unique(groups, return_inverse=True)
        table = file.read_row_groups(read.tolist(), columns=["features"], use_threads=False)
    begins = np.cumsum(counts[read]) - counts[read]
    values: NDArray[np.float32] = tables.vectors(table.column("features"))[begins[place] + positions - starts[groups]]
    return values
