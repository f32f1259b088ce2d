"""What the values of a network mean: the loss that trains them and the score that they become.

Scores are in [0, 1] and rise with the network's belief, whatever the output, so that calibration, thresholds and
metrics take them alike.
"""

from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from genre_ray.models.description import OutputDescription, OutputName

UNKNOWN = -1
"""The training target of a label that the recording's taxonomy did not annotate."""

Kind = Literal["multi_label", "single_label"]


class Output(nn.Module):
    """Loss and score of one task.

    Attributes:
        name: its key in `OUTPUTS`.
        kind: `multi_label`, or `single_label` if scores are the probabilities of labels of which one is right.
        labels: how many labels are scored.
        width: values that the network gives for a row.
    """

    name: OutputName
    kind: Kind = "multi_label"
    labels: int
    width: int

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(rows, width) of a network and targets (rows, labels) → (rows,), each row's loss."""
        raise NotImplementedError

    def score(self, logits: Tensor) -> Tensor:
        """(rows, width) → (rows, labels), in [0, 1]."""
        raise NotImplementedError

    def describe(self) -> OutputDescription:
        """What `restore_output` makes it from, except for the tensors."""
        return OutputDescription(output=self.name, labels=self.labels, width=self.width)

    @classmethod
    def from_description(cls, description: OutputDescription) -> Self:
        """The output that `describe` described."""
        return cls(description.labels)

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.labels = self.width = labels


class Sigmoid(Output):
    """Independent labels: the mean binary cross-entropy over a row's labels, and the sigmoid."""

    name = "sigmoid"

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The targets are 0 or 1."""
        return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)

    def score(self, logits: Tensor) -> Tensor:
        """The sigmoid."""
        return torch.sigmoid(logits)


class MaskedSigmoid(Sigmoid):
    """As `Sigmoid`, over the labels of a row whose target is not `UNKNOWN`; a row has at least one.

    Its scores are those of `Sigmoid`, and so it describes itself as one.
    """

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The targets are 0, 1 or `UNKNOWN`."""
        known = targets != UNKNOWN
        losses = functional.binary_cross_entropy_with_logits(logits, targets, weight=known, reduction="none")
        # A mean over the known labels, so that a recording counts the same however many taxonomies annotated it.
        return losses.sum(dim=1) / known.sum(dim=1)


class Softmax(Output):
    """Labels of which one is right: categorical cross-entropy against 0 and 1, or against a distribution."""

    name, kind = "softmax", "single_label"

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The targets of a row sum to 1."""
        return -(targets * functional.log_softmax(logits, dim=1)).sum(dim=1)

    def score(self, logits: Tensor) -> Tensor:
        """The softmax."""
        return torch.softmax(logits, dim=1)


class Cosine(Output):
    """Label factors (Oramas, Nieto, Barbieri and Serra 2017): the network gives a vector in their space.

    A row's target is the sum of its labels' factors. The loss is clip((1 - cosine) / 2, 0, 1). A label's score is
    (1 + cosine of the vector with its factor) / 2: the paper's cosine, moved to [0, 1], which ranks labels and rows as
    the cosine does.

    Args:
        factors: (labels, dimensions).
    """

    name = "cosine"
    factors: Tensor

    def __init__(self, factors: NDArray[np.float32]) -> None:
        super().__init__(len(factors))
        self.width = factors.shape[1]
        self.register_buffer("factors", torch.from_numpy(np.ascontiguousarray(factors, dtype=np.float32)))

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The targets are 0 or 1; an `UNKNOWN` label adds no factor."""
        wanted = targets.clamp(min=0) @ self.factors.to(targets.dtype)
        return ((1 - functional.cosine_similarity(logits, wanted, dim=1)) / 2).clamp(0, 1)

    def score(self, logits: Tensor) -> Tensor:
        """(1 + cosine) / 2."""
        cosines = functional.normalize(logits, dim=1) @ functional.normalize(self.factors, dim=1).T
        return ((1 + cosines) / 2).clamp(0, 1)

    @classmethod
    def from_description(cls, description: OutputDescription) -> Self:
        """The output that `describe` described, with factors of 0."""
        return cls(np.zeros((description.labels, description.width), dtype=np.float32))


OUTPUTS: dict[OutputName, type[Output]] = {"sigmoid": Sigmoid, "softmax": Softmax, "cosine": Cosine}


def restore_output(description: OutputDescription) -> Output:
    """The output that `Output.describe` described."""
    return OUTPUTS[description.output].from_description(description)
