"""Learn how the labels of two taxonomies relate, from the recordings that both annotate.

The measure is the share of one label's recordings that have the other label, with a confidence interval. Two labels are
the same if most recordings of each have the other. One is within the other if this holds in one direction. They overlap
if they occur together more often than by chance. "Most" and "more often" must hold at the configured confidence level.
Labels with few recordings are related by equal names instead.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from genre_ray.errors import InputError
from genre_ray.labels.co_occurrence import CoOccurrence, Floats
from genre_ray.labels.names import normalise
from genre_ray.labels.taxonomy import Taxonomy
from genre_ray.truth.mapping_table import MappingRow

Marks = NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """The thresholds for relating two labels.

    Attributes:
        confidence: two-sided confidence level of the intervals.
        inclusion: a label is within another if at least this share of its recordings has the other.
        least: minimum number of common recordings to relate two labels by their recordings. Labels with fewer
            recordings of their own are related by equal names.
        least_weight: overlaps with a smaller share are left out, unless they are a label's best relation.
    """

    confidence: float = 0.95
    inclusion: float = 0.5
    least: int = 5
    least_weight: float = 0.05


@dataclass(frozen=True)
class Relations:
    """How the labels of two taxonomies relate. All matrices are (from, to).

    Attributes:
        found: the numbers of recordings.
        above: the taxonomy of the `to` labels.
        rule: the thresholds for relating labels.
    """

    found: CoOccurrence
    above: Taxonomy
    rule: Rule

    @cached_property
    def bounds(self) -> tuple[Floats, Floats]:
        """Lower and upper bounds of the share of the `from` label's recordings that have the `to` label."""
        return self.found.bounds(self.rule.confidence)

    @cached_property
    def back(self) -> tuple[Floats, Floats]:
        """Lower and upper bounds of the share of the `to` label's recordings that have the `from` label."""
        low, high = self.found.swapped.bounds(self.rule.confidence)
        return low.T, high.T

    @cached_property
    def within(self) -> Marks:
        """Whether most recordings of the `from` label have the `to` label."""
        return self._enough & (self.bounds[0] >= self.rule.inclusion) & self._attracted

    @cached_property
    def contains(self) -> Marks:
        """Whether most recordings of the `to` label have the `from` label."""
        return self._enough & (self.back[0] >= self.rule.inclusion) & self._attracted

    @cached_property
    def overlaps(self) -> Marks:
        """Whether the labels occur together more often than by chance. Pairs where one includes the other count too."""
        return self._enough & self._attracted

    @cached_property
    def apart(self) -> Marks:
        """Whether both labels have enough recordings and neither includes the other."""
        count = np.minimum.outer(self.found.count_from, self.found.count_to)
        inclusion = self.rule.inclusion
        return (count >= self.rule.least) & (self.bounds[1] < inclusion) & (self.back[1] < inclusion)

    @cached_property
    def same_name(self) -> Marks:
        """Whether the normalised names are equal."""
        return same_keys(self.found.from_labels, self.found.to_labels, key)

    @cached_property
    def by_name(self) -> Marks:
        """Whether the names are equal and one of the labels has too few recordings to contradict that."""
        few_from, few_to = self.found.count_from < self.rule.least, self.found.count_to < self.rule.least
        return self.same_name & (few_from[:, None] | (few_to & (self.found.together > 0)))

    @cached_property
    def same(self) -> Marks:
        """Whether each label is within the other, or they are the same by name."""
        return (self.within & self.contains) | self.by_name

    @cached_property
    def weights(self) -> Floats:
        """The weights of the mapping table; 0 for unrelated labels. A parent's weight is at least that of its child."""
        few = self.found.count_from[:, None] < self.rule.least
        weights = np.where(self.by_name & few, 1.0, np.where(self.by_name | self.overlaps, self.found.share, 0.0))
        kept = self.same | self.within | self.contains | (weights >= self.rule.least_weight)
        kept |= weights == weights.max(axis=0, initial=np.finfo(float).tiny)
        for child, parent in reversed(self.above.edges(self.found.to_labels)):
            kept[:, parent] |= kept[:, child]
            vouched = np.maximum(weights[:, child], self.found.share[:, parent])
            weights[:, parent] = np.maximum(weights[:, parent], np.where(kept[:, child], vouched, 0.0))
        return np.where(kept, weights, 0.0)

    def rows(self, from_taxonomy: str, to_taxonomy: str) -> list[MappingRow]:
        """Return the rows of the mapping table: all pairs with a weight above 0, also for parents of related labels."""
        rows = [self._row(from_taxonomy, to_taxonomy, i, j) for i, j in np.argwhere(self.weights > 0)]
        return sorted(rows, key=lambda row: (row.from_label, -row.weight, row.to_label))

    def _row(self, from_taxonomy: str, to_taxonomy: str, i: int, j: int) -> MappingRow:
        found, weight = self.found, float(self.weights[i, j])
        return MappingRow(
            from_taxonomy,
            found.from_labels[i],
            to_taxonomy,
            found.to_labels[j],
            relation=self._relation(i, j),
            weight=weight,
            low=float(self.bounds[0][i, j]),
            high=float(self.bounds[1][i, j]),
            together=int(found.together[i, j]),
            count_from=int(found.count_from[i]),
            count_to=int(found.count_to[j]),
            cosine=float(found.cosine[i, j]),
            by="name" if self._named[i, j] else "learnt",
        )

    def _relation(self, i: int, j: int) -> str:
        if self.same[i, j]:
            return "same"
        return "within" if self.within[i, j] else "contains" if self.contains[i, j] else "overlaps"

    @cached_property
    def _named(self) -> Marks:
        """Pairs that are related only by equal names, their own or those of a descendant of the `to` label."""
        below = self.above.closure(self.found.to_labels).astype(np.int64)
        return np.asarray((self.by_name @ below > 0) & ~self.overlaps)

    @cached_property
    def _enough(self) -> Marks:
        return self.found.together >= self.rule.least

    @cached_property
    def _attracted(self) -> Marks:
        """Whether the `to` label is more frequent among the `from` label's recordings than among all recordings."""
        return self.bounds[0] > self.found.count_to / max(self.found.recordings, 1)


def key(label: str) -> str | None:
    """Return the normalised name of a label, or None if it cannot be normalised."""
    try:
        return normalise(label)
    except InputError:
        return None


def same_keys(from_labels: Sequence[str], to_labels: Sequence[str], key: Callable[[str], str | None]) -> Marks:
    """Return which labels have the same key, (from, to). A label whose key is None equals no other."""
    keys = [key(label) for label in to_labels]
    return np.array(
        [[ours is not None and ours == theirs for theirs in keys] for ours in map(key, from_labels)], dtype=bool
    ).reshape(len(from_labels), len(to_labels))
