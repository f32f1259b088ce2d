"""Which part of a row the network sees: all of it, or windows along one of its axes.

Training takes one view of each row per epoch. Scoring takes all windows of the row, and the row's prediction is the
aggregate of theirs.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor


class View(Protocol):
    """What the network sees of prepared rows, (rows, …)."""

    def shape(self, row: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that the network sees of a row of that shape."""

    def sample(self, rows: Tensor, generator: Generator) -> Tensor:
        """What an epoch sees: (rows, …) → (rows, *shape), drawn by `generator`."""

    def windows(self, rows: Tensor) -> Tensor:
        """What is scored: (rows, …) → (rows, windows, *shape), always the same."""

    def aggregate(self, values: Tensor) -> Tensor:
        """What a row's windows give together: (rows, windows, values) → (rows, values)."""


@dataclass(frozen=True)
class Whole:
    """The whole row."""

    def shape(self, row: tuple[int, ...]) -> tuple[int, ...]:
        """The row's own shape."""
        return row

    def sample(self, rows: Tensor, generator: Generator) -> Tensor:
        """The rows as they are."""
        return rows

    def windows(self, rows: Tensor) -> Tensor:
        """The row is its only window."""
        return rows.unsqueeze(1)

    def aggregate(self, values: Tensor) -> Tensor:
        """The only window's values."""
        return values.squeeze(1)


WHOLE = Whole()


@dataclass(frozen=True)
class Windows:
    """Windows along one axis: a random one of each row per epoch; evenly spaced ones are scored, and averaged.

    Attributes:
        axis: which axis of a row they are cut along, counted from 0 without the axis of the rows.
        size: values of a window along the axis.
        hop: values from the start of one scored window to the start of the next.
    """

    axis: int
    size: int
    hop: int

    def shape(self, row: tuple[int, ...]) -> tuple[int, ...]:
        """The row's shape with `size` values along the axis.

        Raises:
            ValueError: a row is shorter than a window.
        """
        if row[self.axis] < self.size:
            raise ValueError(f"expected rows of at least {self.size} values along axis {self.axis}, found {row}")
        return (*row[: self.axis], self.size, *row[self.axis + 1 :])

    def sample(self, rows: Tensor, generator: Generator) -> Tensor:
        """One window of each row; every start is as likely."""
        starts = rows.shape[self.axis + 1] - self.size + 1
        drawn = torch.randint(starts, (len(rows),), generator=generator).to(rows.device)
        every = rows.unfold(self.axis + 1, self.size, 1).movedim(self.axis + 1, 1)
        return every[torch.arange(len(rows), device=rows.device), drawn].movedim(-1, self.axis + 1)

    def windows(self, rows: Tensor) -> Tensor:
        """The windows that start every `hop` values and fit into the row."""
        every = rows.unfold(self.axis + 1, self.size, self.hop).movedim(self.axis + 1, 1)
        return every.movedim(-1, self.axis + 2)

    def aggregate(self, values: Tensor) -> Tensor:
        """The mean over the windows."""
        return values.mean(dim=1)
