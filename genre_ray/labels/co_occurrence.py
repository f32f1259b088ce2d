"""Count how often the labels of two taxonomies occur on the same recordings, with confidence intervals.

Only recordings that both taxonomies annotate are counted. Memory grows with the number of label pairs, but not with the
number of recordings.
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
"""Number of recordings that are counted together; each needs about ten numbers of memory."""


@dataclass(frozen=True)
class CoOccurrence:
    """Numbers of recordings per label and per pair of labels of two taxonomies.

    Attributes:
        from_labels, to_labels: the labels of the two taxonomies, (from,) and (to,).
        together: recordings with both labels, int64 (from, to).
        count_from, count_to: recordings with the label, int64 (from,) and (to,).
        recordings: number of recordings that both taxonomies annotate.
    """

    from_labels: tuple[str, ...]
    to_labels: tuple[str, ...]
    together: Counts
    count_from: Counts
    count_to: Counts
    recordings: int

    @classmethod
    def count(cls, from_labels: Sequence[str], to_labels: Sequence[str], blocks: Iterable[tuple[Any, Any]]) -> Self:
        """Count label pairs over blocks of recordings.

        Args:
            from_labels: labels of the columns of each block's first matrix.
            to_labels: labels of the columns of each block's second matrix.
            blocks: pairs of boolean CSR matrices (recordings, from) and (recordings, to) of the same recordings.
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
        """The same counts with the two taxonomies exchanged."""
        return type(self)(
            self.to_labels, self.from_labels, self.together.T, self.count_to, self.count_from, self.recordings
        )

    @cached_property
    def cosine(self) -> Floats:
        """Cosine similarity of the label columns, (from, to); 0 for a label that does not occur.

        This is the matrix M by which JKU mapped taxonomies in the MediaEval 2017 AcousticBrainz genre task.
        """
        lengths = np.sqrt(np.outer(self.count_from, self.count_to))
        return np.divide(self.together, lengths, out=np.zeros(self.together.shape), where=lengths > 0)

    @cached_property
    def share(self) -> Floats:
        """The share of a `from` label's recordings that have the `to` label, (from, to); 0 if it does not occur."""
        whole = np.broadcast_to(self.count_from[:, None], self.together.shape)
        return np.divide(self.together, whole, out=np.zeros(self.together.shape), where=whole > 0)

    def bounds(self, confidence: float) -> tuple[Floats, Floats]:
        """Lower and upper bounds of `share` at this two-sided confidence level, each (from, to)."""
        return wilson(self.together, self.count_from[:, None], confidence)


def wilson(hits: Counts, trials: Counts, confidence: float) -> tuple[Floats, Floats]:
    """Compute the score interval of a proportion (Wilson 1927).

    Args:
        hits: number of successes, of any shape.
        trials: number of trials, of a shape that broadcasts to that of `hits`.
        confidence: two-sided confidence level, in (0, 1).

    Returns:
        Lower and upper bounds, of the shape of `hits`; 0 and 1 without trials.
    """
    z2 = stats.norm.ppf((1 + confidence) / 2) ** 2
    hits, trials = np.asarray(hits, np.float64), np.asarray(trials, np.float64)
    centre = (hits + z2 / 2) / (trials + z2)
    # This is hits (trials - hits) / trials, without a division by 0.
    spread = hits * (1 - hits / np.maximum(trials, 1))
    half = np.sqrt(z2 * (spread + z2 / 4)) / (trials + z2)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
