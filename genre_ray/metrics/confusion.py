"""Which label is predicted in place of which: the pairs that predictions confuse most."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genre_ray.labels.taxonomy import SEPARATOR
from genre_ray.metrics.matrices import LabelMatrix, paired_csr


@dataclass(frozen=True)
class Confusion:
    """A true label that was missed where another was predicted falsely.

    Attributes:
        truth: the label missed.
        predicted: the label predicted falsely for the same recordings.
        count: number of such recordings.
        share: `count` as a part, in (0, 1], of the recordings that truly have `truth`.
    """

    truth: str
    predicted: str
    count: int
    share: float


def most_confused(
    truth: LabelMatrix, predicted: LabelMatrix, labels: Sequence[str], *, top: int = 20
) -> list[Confusion]:
    """The most frequent pairs (true label missed, label falsely predicted), counted once a recording.

    A recording with several missed and several false labels counts for each of their pairs. Pairs on one
    branch of the taxonomy (`rock`, `rock---indie`) are left out: such a prediction is too coarse or too fine
    rather than confused.

    Args:
        truth: true labels, (recordings, labels).
        predicted: predicted labels, (recordings, labels).
        labels: the columns' labels.
        top: number of pairs at most.

    Returns:
        Most frequent first, then by the labels' names.

    Raises:
        InputError: the shapes do not agree, or a label is named twice.
    """
    true, given = paired_csr(truth, predicted, labels)
    hits = true.multiply(given)
    missed, false = (true - hits).tocsr(), (given - hits).tocsr()
    pairs = (missed.T @ false).tocoo()
    occurrences = np.bincount(true.indices, minlength=len(labels))
    order = np.argsort(np.argsort(np.array(labels, dtype=str)))
    confusions: list[Confusion] = []
    for i in np.lexsort((order[pairs.col], order[pairs.row], -pairs.data)):
        if len(confusions) == top or pairs.data[i] == 0:
            break
        row, column, count = int(pairs.row[i]), int(pairs.col[i]), int(pairs.data[i])
        if not _on_one_branch(labels[row], labels[column]):
            share = count / int(occurrences[row])
            confusions.append(Confusion(labels[row], labels[column], count, share))
    return confusions


def _on_one_branch(one: str, other: str) -> bool:
    return one.startswith(other + SEPARATOR) or other.startswith(one + SEPARATOR)
