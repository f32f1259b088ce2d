"""A mapping between two taxonomies, learnt from the recordings that both annotate, and from equal names where few do.

What is learnt is the share of one label's recordings that have the other, with its interval. Two labels are the same
when most recordings of either have the other, one lies within the other when that holds one way, and they overlap when
they stand together more often than by chance; most, and more often, at the stated confidence.
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
    """When counts say something.

    Attributes:
        confidence: of every interval, two-sided.
        inclusion: a label lies within another when at least this share of its recordings has the other.
        least: recordings that two labels share before their relation is learnt, and that each needs before its name
            is held against it.
        least_weight: labels that overlap are told of from this share on, and where a label has no better witness.
    """

    confidence: float = 0.95
    inclusion: float = 0.5
    least: int = 5
    least_weight: float = 0.05


@dataclass(frozen=True)
class Relations:
    """How the labels of two taxonomies relate: matrices (from, to).

    Attributes:
        found: the counts.
        above: the second taxonomy.
        rule: when they say something.
    """

    found: CoOccurrence
    above: Taxonomy
    rule: Rule

    @cached_property
    def bounds(self) -> tuple[Floats, Floats]:
        """Least and greatest share of the first label's recordings that have the second."""
        return self.found.bounds(self.rule.confidence)

    @cached_property
    def back(self) -> tuple[Floats, Floats]:
        """Least and greatest share of the second label's recordings that have the first."""
        low, high = self.found.swapped.bounds(self.rule.confidence)
        return low.T, high.T

    @cached_property
    def within(self) -> Marks:
        """Most recordings of the first have the second."""
        return self._enough & (self.bounds[0] >= self.rule.inclusion) & self._attracted

    @cached_property
    def contains(self) -> Marks:
        """Most recordings of the second have the first."""
        return self._enough & (self.back[0] >= self.rule.inclusion) & self._attracted

    @cached_property
    def overlaps(self) -> Marks:
        """They stand together more often than by chance, whether or not one includes the other."""
        return self._enough & self._attracted

    @cached_property
    def apart(self) -> Marks:
        """Both have recordings enough to say that neither includes the other."""
        count = np.minimum.outer(self.found.count_from, self.found.count_to)
        inclusion = self.rule.inclusion
        return (count >= self.rule.least) & (self.bounds[1] < inclusion) & (self.back[1] < inclusion)

    @cached_property
    def same_name(self) -> Marks:
        """Their names are equal once they are normalised."""
        return same_keys(self.found.from_labels, self.found.to_labels, key)

    @cached_property
    def by_name(self) -> Marks:
        """Of equal names, those for which there are too few recordings of either to deny it."""
        few_from, few_to = self.found.count_from < self.rule.least, self.found.count_to < self.rule.least
        return self.same_name & (few_from[:, None] | (few_to & (self.found.together > 0)))

    @cached_property
    def same(self) -> Marks:
        """Each lies within the other, or their equal names must do."""
        return (self.within & self.contains) | self.by_name

    @cached_property
    def weights(self) -> Floats:
        """(from, to) how far the first label vouches for the second; a label's parents have no less than itself."""
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
        """A row for each pair with a weight: the related ones, and what is above the second label of each."""
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
        """Pairs that only equal names relate, their own or those of labels below."""
        below = self.above.closure(self.found.to_labels).astype(np.int64)
        return np.asarray((self.by_name @ below > 0) & ~self.overlaps)

    @cached_property
    def _enough(self) -> Marks:
        return self.found.together >= self.rule.least

    @cached_property
    def _attracted(self) -> Marks:
        """More of the first label's recordings have the second than of all recordings."""
        return self.bounds[0] > self.found.count_to / max(self.found.recordings, 1)


def key(label: str) -> str | None:
    """The name by which labels of different taxonomies are compared; None for one without letters."""
    try:
        return normalise(label)
    except InputError:
        return None


def same_keys(from_labels: Sequence[str], to_labels: Sequence[str], key: Callable[[str], str | None]) -> Marks:
    """(from, to) whether two labels have one key; labels without one are like no other."""
    keys = [key(label) for label in to_labels]
    return np.array(
        [[ours is not None and ours == theirs for theirs in keys] for ours in map(key, from_labels)], dtype=bool
    ).reshape(len(from_labels), len(to_labels))
