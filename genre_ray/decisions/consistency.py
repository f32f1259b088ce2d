"""Consistency: no label gets a higher score than its parents, and no label is predicted without its parents.

A hierarchy consists of (child, parent) pairs of columns, as `Taxonomy.edges` returns them. A label may have several
parents.
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
    """The (child, parent) pairs of a label space, ready to be applied to many recordings at once.

    Args:
        pairs: (column of the child, column of the parent).
        labels: number of columns.

    Raises:
        InputError: a column is out of range, or the pairs form a cycle.
    """

    def __init__(self, pairs: Sequence[Pair], labels: int) -> None:
        self.pairs, self.labels = tuple((int(child), int(above)) for child, above in pairs), labels
        if any(not 0 <= column < labels for pair in self.pairs for column in pair):
            raise InputError(
                f"expected (child, parent) pairs of columns from 0 to {labels - 1}, found another column; restore the "
                "file or table that contains them"
            )
        self.depth = self._depths()

    def _depths(self) -> Columns:
        """For each column, the length of the longest path up to a label without parents, (labels,)."""
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
        raise InputError("the hierarchy of labels contains a cycle; remove it from the taxonomy")

    @cached_property
    def order(self) -> Columns:
        """All columns with parents before their children, and otherwise in increasing order, (labels,)."""
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
        """The pairs, sorted so that the pairs of a label come after those of all its ancestors."""
        return sorted(self.pairs, key=lambda pair: (self.depth[pair[0]], pair))

    @cached_property
    def _steps(self) -> list[Columns]:
        """The steps of `lower` in order. Each is an array (labels,): a parent of each label, or the label itself.

        A label has a parent in a step only after its ancestors have been lowered in earlier steps.
        """
        taken: Counter[int] = Counter()
        steps: dict[tuple[int, int], Columns] = {}
        for child, above in self.downwards():
            # Per depth there is one step for each child's first parent, one for its second parent, and so on.
            step = steps.setdefault((int(self.depth[child]), taken[child]), np.arange(self.labels))
            step[child] = above
            taken[child] += 1
        return [steps[key] for key in sorted(steps)]

    @cached_property
    def _ancestors(self) -> Columns:
        """The ancestors of each label, (labels, maximum number of ancestors), padded with the label itself."""
        above: list[set[int]] = [set() for _ in range(self.labels)]
        for child, parent in self.downwards():
            above[child] |= {parent} | above[parent]
        most = max(map(len, above), default=0)
        filled = [sorted(found) + [label] * (most - len(found)) for label, found in enumerate(above)]
        return np.array(filled, dtype=np.intp).reshape(self.labels, most)

    def lower(self, scores: Scores) -> Scores:
        """Lower every child's score to the lowest score among its parents, in place.

        The scores of labels without parents do not change.

        Args:
            scores: (recordings, labels); changed and returned.
        """
        for above in self._steps:
            # Taking all columns is several times faster than indexing only the children and assigning them back.
            np.minimum(scores, np.take(scores, above, axis=1, mode="clip"), out=scores)
        return scores

    def close(self, decided: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Add to the predicted labels all their ancestors, in place.

        Args:
            decided: (recordings, labels); changed and returned.
        """
        if self.pairs:
            rows, columns = decided.nonzero()
            for above in self._ancestors.T:
                decided[rows, above[columns]] = True
        return decided

    def violations(self, scores: NDArray[np.floating]) -> int:
        """Count, over recordings and (child, parent) pairs, how often the child's score exceeds its parent's."""
        return sum(int((scores[:, child] > scores[:, above]).sum()) for child, above in self.pairs)
