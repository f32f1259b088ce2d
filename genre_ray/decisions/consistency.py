"""Consistency: no label is more probable than the labels above it, and none is answered without them.

A hierarchy is the (child, parent) pairs of columns that a taxonomy's `edges` gives; labels may have several parents.
"""

import heapq
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from genre_ray.errors import InputError

Columns = NDArray[np.intp]
Scores = NDArray[np.float32]
Pair = tuple[int, int]


class Hierarchy:
    """The pairs (child, parent) among `labels` columns, ready to be applied to many recordings at once.

    Raises:
        InputError: a pair names a column that is not there, or pairs form a circle.
    """

    def __init__(self, pairs: Sequence[Pair], labels: int) -> None:
        self.pairs, self.labels = tuple((int(child), int(above)) for child, above in pairs), labels
        if any(not 0 <= column < labels for pair in self.pairs for column in pair):
            raise InputError(f"expected pairs of columns below {labels}, found others; restore the taxonomy")
        self.depth = self._depths()

    def _depths(self) -> Columns:
        """For each column the longest way up to a label without parents, (labels,)."""
        depth = np.zeros(self.labels, dtype=np.intp)
        if not self.pairs:
            return depth
        children, parents = np.array(self.pairs).T
        for _ in range(self.labels):
            below = depth.copy()
            np.maximum.at(below, children, depth[parents] + 1)
            if (below == depth).all():
                return depth
            depth = below
        raise InputError("expected a hierarchy without circles, found one; repair the taxonomy")

    @cached_property
    def order(self) -> Columns:
        """All columns, parents before their children, and rising where that leaves a choice; (labels,)."""
        above = np.bincount([child for child, _ in self.pairs], minlength=self.labels)
        below: list[list[int]] = [[] for _ in range(self.labels)]
        for child, parent in self.pairs:
            below[parent].append(child)
        ready, order = [column for column in range(self.labels) if not above[column]], []
        while ready:
            order.append(heapq.heappop(ready))
            for child in below[order[-1]]:
                above[child] -= 1
                if not above[child]:
                    heapq.heappush(ready, child)
        return np.array(order, dtype=np.intp)

    def downwards(self) -> list[Pair]:
        """The pairs, those of a child after all pairs above it."""
        return sorted(self.pairs, key=lambda pair: (self.depth[pair[0]], pair))

    @cached_property
    def _steps(self) -> list[Columns]:
        """To be taken in order: for each label a parent, or itself, (labels,); a label comes after all above it."""
        taken: Counter[int] = Counter()
        steps: dict[tuple[int, int], Columns] = {}
        for child, above in self.downwards():
            # A child's first parents make one step of its depth, its second parents the next.
            step = steps.setdefault((int(self.depth[child]), taken[child]), np.arange(self.labels))
            step[child] = above
            taken[child] += 1
        return [steps[key] for key in sorted(steps)]

    @cached_property
    def _ancestors(self) -> Columns:
        """All labels above each, (labels, most), filled up with the label itself."""
        above: list[set[int]] = [set() for _ in range(self.labels)]
        for child, parent in self.downwards():
            above[child] |= {parent} | above[parent]
        most = max(map(len, above), default=0)
        filled = [sorted(found) + [label] * (most - len(found)) for label, found in enumerate(above)]
        return np.array(filled, dtype=np.intp).reshape(self.labels, most)

    def lower(self, scores: Scores) -> Scores:
        """Scores (recordings, labels) with every child lowered to its parents' least, in the same memory.

        A parent's own score stays, and so does its ranking of recordings.
        """
        for above in self._steps:
            # To take every column is several times faster than to pick children and put them back.
            np.minimum(scores, np.take(scores, above, axis=1, mode="clip"), out=scores)
        return scores

    def close(self, decided: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Labels (recordings, labels) with all labels above them, in the same memory."""
        if self.pairs:
            rows, columns = decided.nonzero()
            for above in self._ancestors.T:
                decided[rows, above[columns]] = True
        return decided

    def violations(self, scores: NDArray[np.floating]) -> int:
        """How many pairs of a recording and a (child, parent) have the child above its parent."""
        return sum(int((scores[:, child] > scores[:, above]).sum()) for child, above in self.pairs)
