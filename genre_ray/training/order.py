"""The order in which an epoch's rows are learnt from, and which of them are one worker's.

All workers cut an epoch alike: the n-th batches of all of them are together the n-th global batch, however many share
it, so that all take as many steps and every row is in exactly one batch of one worker.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

ROWS, SPANS, NOISE, VIEWS = 0, 1, 2, 3
"""What is drawn at random: the order of rows, that of spans, dropout, and which view of a row an epoch sees."""


def seed_of(*key: int) -> int:
    """A seed for what `key` names, e.g. (seed of the training, epoch, what is drawn, rank)."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])


def permutation(count: int, *key: int) -> Tensor:
    """The numbers below `count` in an order that `key` alone decides."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed_of(*key)))


@dataclass(frozen=True)
class Span:
    """Examples `low` to `high` (exclusive), which lie within one part of the features table."""

    part: int
    low: int
    high: int

    def __len__(self) -> int:
        return self.high - self.low


@dataclass(frozen=True)
class Share:
    """One worker's share of the rows.

    Attributes:
        rows: of all workers together.
        batch: rows of a global batch.
        rank: counts the `world` workers from 0.
        seed: of the training.
        least: rows that a worker needs in a batch, as far as there are any: batch normalisation has no variance of
            one row.
    """

    rows: int
    batch: int
    rank: int = 0
    world: int = 1
    seed: int = 0
    least: int = 1

    @cached_property
    def global_sizes(self) -> list[int]:
        """Rows of each global batch."""
        full, rest = divmod(self.rows, max(self.batch, self.least * self.world))
        sizes = [max(self.batch, self.least * self.world)] * full
        if rest and full and self.least > 1 and rest < self.least * self.world:
            sizes[-1] += rest
        elif rest:
            sizes.append(rest)
        return sizes

    @cached_property
    def sizes(self) -> list[int]:
        """Rows of this worker's part of each global batch; they differ by one between workers at most."""
        return self._sizes(self.rank)

    @cached_property
    def count(self) -> int:
        """Rows of this worker."""
        return sum(self.sizes)

    @cached_property
    def start(self) -> int:
        """Rows of the workers before this one."""
        return sum(sum(self._sizes(rank)) for rank in range(self.rank))

    def order(self, epoch: int, stretch: int, count: int) -> Tensor:
        """The rows of a stretch in the order in which this worker learns from them.

        Of a stretch that holds the rows of all workers it takes its part of each global batch, and these are the same
        rows however many workers there are.

        Args:
            epoch: counts from 0.
            stretch: counts the worker's stretches of the epoch from 0.
            count: rows of the stretch.
        """
        order = permutation(count, self.seed, epoch, ROWS, self.rank if count < self.rows else 0, stretch)
        if count < self.rows:
            return order
        return torch.cat([batch[self.rank :: self.world] for batch in order.split(self.global_sizes)])

    def stretches(self, spans: Sequence[Span], epoch: int, capacity: int) -> list[list[Span]]:
        """This worker's rows of the epoch where it does not hold them all: stretches to be read one after the other.

        The spans come in an order that the epoch decides; workers take consecutive, disjoint ranges of it. A span on
        a border is cut.

        Args:
            spans: of all rows.
            epoch: counts from 0.
            capacity: rows of a stretch at most.
        """
        order = permutation(len(spans), self.seed, epoch, SPANS)
        _, *stretches = cut((spans[place] for place in order.tolist()), [self.start, *even(self.count, capacity)])
        # In the table's order, so that a stretch of all rows is the rows as they are held in memory.
        return [sorted(stretch, key=lambda span: span.low) for stretch in stretches]

    def _sizes(self, rank: int) -> list[int]:
        return [len(range(rank, size, self.world)) for size in self.global_sizes]


def cut(spans: Iterable[Span], sizes: Iterable[int]) -> list[list[Span]]:
    """The first `sizes[0]` rows of the spans, the next `sizes[1]`, and so on."""
    pieces: list[list[Span]] = []
    left, span = iter(spans), Span(0, 0, 0)
    for size in sizes:
        pieces.append([])
        while size:
            if not len(span):
                span = next(left)
            taken = min(size, len(span))
            pieces[-1].append(Span(span.part, span.low, span.low + taken))
            span, size = Span(span.part, span.low + taken, span.high), size - taken
    return pieces


def even(rows: int, most: int) -> list[int]:
    """`rows` in as few numbers as possible, each `most` at most, that differ by one at most."""
    count = -(-rows // most)
    return [len(range(place, rows, count)) for place in range(count)]
