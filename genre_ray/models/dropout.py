"""Dropout that is several times faster than torch's on a CPU: it needs 16 random bits per value.

torch's own dropout takes a third of a training step of S0's network on a CPU.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

LEVELS = 2**16
"""The share of dropped values is rounded to a multiple of 1 / LEVELS."""


class Dropout(nn.Module):
    """Set a random share of the values to 0 in training and scale up the others. In evaluation, change nothing.

    Args:
        p: share of the values to set to 0, from 0 to 1.
        inplace: overwrite the input in training. The first layer may do so, because its input is a copy.
    """

    def __init__(self, p: float, *, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"expected a dropout share from 0 to 1, found {p}")
        self.p, self.inplace = p, inplace

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply dropout to a tensor of any shape."""
        if not self.training or self.p == 0:
            return inputs
        if inputs.device.type != "cpu":
            return functional.dropout(inputs, self.p, inplace=self.inplace)
        dropped = round(self.p * LEVELS)
        kept, scale = _draw(inputs.shape, dropped), LEVELS / (LEVELS - dropped) if dropped < LEVELS else 0.0
        if self.inplace:
            return inputs.mul_(kept).mul_(scale)
        return inputs * kept.to(inputs.dtype).mul_(scale)

    def extra_repr(self) -> str:
        """The settings in the printed form of the module."""
        return f"{self.p}, inplace={self.inplace}"


def _draw(shape: torch.Size, dropped: int) -> Tensor:
    """Return booleans of this shape that are True with probability 1 - dropped / LEVELS."""
    words = torch.empty(-(-shape.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[: shape.numel()].view(shape)
    return bits >= min(dropped - LEVELS // 2, LEVELS // 2 - 1)
