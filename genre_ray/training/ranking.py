"""The macro ROC AUC of validation scores in one pass over them, from histograms that workers add up.

Sorting the scores of all labels takes longer than scoring them. A histogram of each label's positives and negatives
takes a small part of it, and its ROC AUC differs by what the order within a bin would add: some thousandths.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genre_ray.models.outputs import UNKNOWN

BINS, BINS_PER_UNIT = 512, 16
"""Bins of a score's log-odds, from -16 to 16."""


class RankHistogram:
    """Counts positives and negatives of each label by their scores.

    Attributes:
        counts: float64 (2, labels, bins): negatives, positives.
    """

    def __init__(self, labels: int, device: torch.device) -> None:
        self.labels = labels
        self.counts = torch.zeros(2, labels, BINS, dtype=torch.float64, device=device)
        self._offset = torch.arange(labels, device=device) * BINS

    def add(self, scores: Tensor, targets: Tensor) -> None:
        """Add rows.

        Args:
            scores: (rows, labels) in [0, 1].
            targets: (rows, labels) 1 for a positive, 0 for a negative, `UNKNOWN` for neither.
        """
        # A network that diverges gives NaN, which its loss reports.
        places = torch.logit(scores, eps=1e-7).nan_to_num_(0).mul_(BINS_PER_UNIT).add_(BINS // 2).clamp_(0, BINS - 1)
        places = places.to(torch.int64).add_(self._offset)
        positives = self._count(places[targets == 1])
        self.counts[1] += positives
        self.counts[0] += self._count(places[targets != UNKNOWN]) - positives

    def roc_auc(self, columns: Mapping[str, NDArray[np.int64]]) -> dict[str, float]:
        """The macro ROC AUC over some labels that have both positives and negatives.

        Args:
            columns: by name, the columns of the labels.

        Returns:
            By name; a name without such labels is left out.
        """
        negatives, positives = self.counts.cpu().numpy()
        below = np.cumsum(negatives, axis=1) - negatives / 2
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            each = (positives * below).sum(axis=1) / pairs
        means = {name: each[own][pairs[own] > 0] for name, own in columns.items()}
        return {name: float(found.mean()) for name, found in means.items() if len(found)}

    def _count(self, places: Tensor) -> Tensor:
        return torch.bincount(places.flatten(), minlength=self.labels * BINS).view(self.labels, BINS)
