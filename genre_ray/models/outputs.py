"""What a network's logits mean: the loss that trains them and the score that they become."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

UNKNOWN = -1
"""The target of a label that may or may not be a recording's."""


@dataclass(frozen=True)
class Output:
    """Loss and score of one kind of output.

    Attributes:
        task: `multi_label` or `single_label`.
        losses: (logits (rows, labels), targets (rows, labels)) → (rows,), each row's own loss.
        masked_losses: the same over the labels of a row whose target is not `UNKNOWN`; a row has at least one.
        score: logits (rows, labels) → scores (rows, labels).
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
    # A mean over the known labels, so that a recording counts the same however many taxonomies annotated it.
    return losses.sum(dim=1) / known.sum(dim=1)


OUTPUTS = {"sigmoid": Output("multi_label", _binary_cross_entropy, _masked_binary_cross_entropy, torch.sigmoid)}
