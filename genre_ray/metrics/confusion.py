"""Find the pairs of labels that predictions confuse most often."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genre_ray.labels.taxonomy import SEPARATOR
from genre_ray.metrics.matrices import LabelMatrix, paired_csr


@dataclass(frozen=True)
class Confusion:
    """Recordings for which one true label was missed and another label was predicted wrongly.

    Attributes:
        truth: the missed label.
        predicted: the wrongly predicted label.
        count: number of such recordings.
        share: `count` divided by the number of recordings that have `truth`, in (0, 1].
    """

    truth: str
    predicted: str
    count: int
    share: float


def most_confused(
    truth: LabelMatrix, predicted: LabelMatrix, labels: Sequence[str], *, top: int = 20
) -> list[Confusion]:
    """Find the most frequent pairs of a missed label and a wrongly predicted label.

    A recording with several missed and several wrong labels counts for each of their pairs. Pairs on one branch of the
    taxonomy, such as `rock` and `rock---indie`, are left out: there the prediction is too coarse or too fine.

    Args:
        truth: true labels, (recordings, labels).
        predicted: predicted labels, (recordings, labels).
        labels: the labels of the columns.
        top: maximum number of pairs.

    Returns:
        Pairs by decreasing frequency, then by label names.

    Raises:
        InputError: the shapes do not agree, or `labels` contains a label twice.
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
