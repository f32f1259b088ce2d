"""The kinds of outputs: the loss of a network's logits in training, and their scores in prediction."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

UNKNOWN = -1
"""The training target of a label that the recording's taxonomy did not annotate."""


@dataclass(frozen=True)
class Output:
    """Loss and score of one kind of output.

    Attributes:
        task: `multi_label` or `single_label`.
        losses: the loss of each row, (rows,), from logits and targets (rows, labels).
        masked_losses: the same, but without the labels whose target is `UNKNOWN`. Every row has at least one other.
        score: the scores (rows, labels) of logits (rows, labels).
    """

    task: str
    losses: Callable[[Tensor, Tensor], Tensor]
    masked_losses: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor], Tensor]


def _binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)


def _masked_binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    known = targets != UNKNOWN
    losses = functional.binary_cross_entropy_with_logits(logits, targets, weight=known, reduction="none")
    # The mean over known labels, so that the weight of a recording does not depend on how many taxonomies annotated it.
    return losses.sum(dim=1) / known.sum(dim=1)


OUTPUTS = {"sigmoid": Output("multi_label", _binary_cross_entropy, _masked_binary_cross_entropy, torch.sigmoid)}
