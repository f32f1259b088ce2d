"""How often the labels of two taxonomies stand on the same recordings, and what that says with which certainty.

Only recordings that both taxonomies annotate are counted. The counts take (labels × labels) memory, however many
recordings they are of.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

BLOCK_RECORDINGS = 100_000
"""Recordings whose labels are looked at together; what it takes is some ten numbers for each."""


@dataclass(frozen=True)
class CoOccurrence:
    """Counts of recordings.

    Attributes:
        from_labels, to_labels: (from,) and (to,), the labels of the two taxonomies.
        together: int64 (from, to), recordings with both labels.
        count_from, count_to: int64 (from,) and (to,), recordings with the label.
        recordings: all that both taxonomies annotate.
    """

    from_labels: tuple[str, ...]
    to_labels: tuple[str, ...]
    together: Counts
    count_from: Counts
    count_to: Counts
    recordings: int

    @classmethod
    def count(cls, from_labels: Sequence[str], to_labels: Sequence[str], blocks: Iterable[tuple[Any, Any]]) -> Self:
        """Count over blocks of recordings.

        Args:
            from_labels: columns of the first matrix of each block.
            to_labels: columns of the second.
            blocks: boolean CSR (recordings, from) and (recordings, to), over the same recordings.
        """
        together = sparse.csr_array((len(from_labels), len(to_labels)), dtype=np.int64)
        count_from, count_to = np.zeros(len(from_labels), np.int64), np.zeros(len(to_labels), np.int64)
        recordings = 0
        for ours, theirs in blocks:
            ours, theirs = ours.astype(np.int64), theirs.astype(np.int64)
            together = together + ours.T @ theirs
            count_from += np.bincount(ours.indices, minlength=len(from_labels))
            count_to += np.bincount(theirs.indices, minlength=len(to_labels))
            recordings += ours.shape[0]
        return cls(tuple(from_labels), tuple(to_labels), together.toarray(), count_from, count_to, recordings)

    @property
    def swapped(self) -> Self:
        """The same, seen from the other taxonomy."""
        return type(self)(
            self.to_labels, self.from_labels, self.together.T, self.count_to, self.count_from, self.recordings
        )

    @cached_property
    def cosine(self) -> Floats:
        """(from, to) cosine similarity of the label columns, JKU's M; 0 for a label that does not occur.

        MediaEval 2017 AcousticBrainz genre task, JKU's mapping between the tasks' taxonomies.
        """
        lengths = np.sqrt(np.outer(self.count_from, self.count_to))
        return np.divide(self.together, lengths, out=np.zeros(self.together.shape), where=lengths > 0)

    @cached_property
    def share(self) -> Floats:
        """(from, to) the part of a first label's recordings that have the second; 0 for a label that does not occur."""
        whole = np.broadcast_to(self.count_from[:, None], self.together.shape)
        return np.divide(self.together, whole, out=np.zeros(self.together.shape), where=whole > 0)

    def bounds(self, confidence: float) -> tuple[Floats, Floats]:
        """(from, to) the least and the greatest share that these counts leave possible, at so much confidence."""
        return wilson(self.together, self.count_from[:, None], confidence)


def wilson(hits: Counts, trials: Counts, confidence: float) -> tuple[Floats, Floats]:
    """The score interval of a share (Wilson 1927), from 0 to 1 without trials.

    Args:
        hits: of any shape.
        trials: of a shape that broadcasts to it.
        confidence: two-sided, in (0, 1).
    """
    z2 = stats.norm.ppf((1 + confidence) / 2) ** 2
    hits, trials = np.asarray(hits, np.float64), np.asarray(trials, np.float64)
    centre = (hits + z2 / 2) / (trials + z2)
    # hits (trials - hits) / trials, without a division by no trials.
    spread = hits * (1 - hits / np.maximum(trials, 1))
    half = np.sqrt(z2 * (spread + z2 / 4)) / (trials + z2)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
