"""The rows that a worker learns from, as tensors: held in memory, or read one stretch ahead of use.

Reading takes no turn from learning: threads fetch, decode and prepare the next stretch while this one is used, and
what a worker has to wait for them nevertheless is counted.
"""

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genre_ray.models.preparation import Preparation
from genre_ray.storage import tables
from genre_ray.training.examples import Examples
from genre_ray.training.order import Share, Span, cut, even
from genre_ray.training.reading import ABSENT, FeaturesTable, Parts, read_positions

READERS, NICENESS = 4, 5
"""Spans that are fetched at once, for an object store's answer takes longer than its bytes; and how far the threads
that do it stand back for those that learn, which they would otherwise keep from a CPU while they decode."""

BUFFERS = 2
"""Stretches in memory: one that is learnt from, one that is being read."""


@dataclass(frozen=True)
class Rows:
    """Examples as tensors.

    Attributes:
        inputs: (rows, …) what a view is taken of and given to the network.
        targets: by task, (rows, labels); NaN for a row without a soft target.
        weights: (rows,)
    """

    inputs: Tensor
    targets: dict[str, Tensor]
    weights: Tensor

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, stretch: slice) -> "Rows":
        """A view of consecutive rows."""
        targets = {task: tensor[stretch] for task, tensor in self.targets.items()}
        return Rows(self.inputs[stretch], targets, self.weights[stretch])

    def put(self, rows: "Rows", chosen: Tensor) -> None:
        """Overwrite all rows with those of `rows` at `chosen`."""
        for own, other in zip(self._tensors(), rows._tensors(), strict=True):
            torch.index_select(other, 0, chosen, out=own)

    def copy_(self, rows: "Rows") -> None:
        """Overwrite all rows."""
        for own, other in zip(self._tensors(), rows._tensors(), strict=True):
            own.copy_(other)

    def _tensors(self) -> list[Tensor]:
        return [self.inputs, *self.targets.values(), self.weights]


class Reader:
    """Reads examples of features tables into tensors, several spans at once.

    Args:
        features: the tables.
        examples: which of their rows.
        preparation: from their rows to inputs.
        task: whose targets are the examples' labels.
        device: where the tensors are.

    Attributes:
        spans: of all examples, in their order; each lies within one row group of the first table that has them.
    """

    def __init__(
        self,
        features: Sequence[FeaturesTable],
        examples: Examples,
        preparation: Preparation,
        task: str,
        device: torch.device,
    ) -> None:
        self.examples, self.task, self.device, self.preparation = examples, task, device, preparation.to(device)
        self._features = features
        self._parts = [Parts(table.uri, table.version) for table in features]
        self.spans = _spans([parts.starts for parts in self._parts], examples.rows)
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="rows", initializer=_give_way)

    @property
    def row_bytes(self) -> int:
        """Memory that an example takes."""
        soft = sum(values.shape[1] for values in self.examples.soft.values())
        needed: int = 4 * math.prod(self.preparation.shape) + len(self.examples.labels) + 4 * soft + 4
        return needed

    def empty(self, rows: int) -> Rows:
        """Room for so many rows."""
        targets = self._targets(self.examples.take(np.arange(0)))
        return Rows(
            torch.empty(rows, *self.preparation.shape, device=self.device),
            {
                task: torch.empty(rows, *none.shape[1:], dtype=none.dtype, device=self.device)
                for task, none in targets.items()
            },
            torch.empty(rows, device=self.device),
        )

    def start(self, spans: Sequence[Span], into: Rows) -> list[Future[None]]:
        """Begin to read `spans` into `into`, one after the other."""
        ends = np.cumsum([len(span) for span in spans]).tolist()
        return [
            self._pool.submit(self._read, span, into[end - len(span) : end])
            for span, end in zip(spans, ends, strict=True)
        ]

    @torch.no_grad()
    def _read(self, span: Span, into: Rows) -> None:
        examples = self.examples.take(slice(span.low, span.high))
        values = [
            read_positions(parts, rows, table.values)
            for parts, rows, table in zip(self._parts, examples.rows, self._features, strict=True)
        ]
        inputs = self.preparation(*(torch.from_numpy(features).to(self.device) for features in values))
        into.copy_(Rows(inputs, self._targets(examples), torch.from_numpy(examples.weights)))

    def _targets(self, examples: Examples) -> dict[str, Tensor]:
        soft = {task: torch.from_numpy(values[examples.recordings]) for task, values in examples.soft.items()}
        return {self.task: torch.from_numpy(examples.targets()), **soft}


class Held:
    """Rows that stay in memory; an epoch is one stretch."""

    waited_s = 0.0

    def __init__(self, reader: Reader, spans: Sequence[Span]) -> None:
        self.rows = reader.empty(sum(map(len, spans)))
        for future in reader.start(spans, self.rows):
            future.result()

    def stretches(self, epoch: int) -> Iterator[Rows]:
        """All rows at once."""
        yield self.rows

    def close(self) -> None:
        """Nothing is being read."""


class Streamed:
    """Rows that come from storage, a stretch at a time, while the one before is used.

    Args:
        plan: epoch → spans of each of its stretches; the first one of the next epoch is read ahead too.
        capacity: rows of a stretch at most.

    Attributes:
        waited_s: time that was spent waiting for rows, since the beginning.
    """

    def __init__(self, reader: Reader, plan: Callable[[int], list[list[Span]]], capacity: int) -> None:
        self._reader, self._plan, self.waited_s = reader, plan, 0.0
        self._buffers = [reader.empty(capacity) for _ in range(BUFFERS)]
        self._reading: list[Future[None]] = []
        self._ahead: tuple[int, Rows] | None = None

    def stretches(self, epoch: int) -> Iterator[Rows]:
        """The epoch's stretches; one is overwritten soon after the next is asked for."""
        stretches = self._plan(epoch)
        if not stretches:
            return
        if self._ahead is None or self._ahead[0] != epoch:
            self.close()
            self._read(epoch, stretches[0])
        for following, spans in [*((epoch, s) for s in stretches[1:]), (epoch + 1, self._plan(epoch + 1)[0])]:
            rows = self._wait()
            self._read(following, spans)
            yield rows

    def close(self) -> None:
        """Stop reading ahead."""
        for future in self._reading:
            future.cancel()
        wait(self._reading)
        self._reading, self._ahead = [], None

    def _read(self, epoch: int, spans: Sequence[Span]) -> None:
        self._buffers.reverse()
        rows = self._buffers[0][: sum(map(len, spans))]
        self._reading, self._ahead = self._reader.start(spans, rows), (epoch, rows)

    def _wait(self) -> Rows:
        assert self._ahead is not None
        start = time.perf_counter()
        for future in self._reading:
            future.result()
        self.waited_s += time.perf_counter() - start
        return self._ahead[1]


Source = Held | Streamed


def open_sources(
    train: tuple[Reader, Share], validation: tuple[Reader, Share], memory_bytes: int
) -> tuple[Source, Source]:
    """Where the rows of both parts come from: memory where they fit there, storage where not.

    In memory each worker has all training rows, so that its batches are the same rows whatever the number of workers.
    """
    reader, share = train
    held_out, own = validation
    _, judged = cut(held_out.spans, [own.start, own.count])
    if (share.rows + own.count) * reader.row_bytes <= memory_bytes:
        return Held(reader, reader.spans), Held(held_out, judged)
    capacity = max(1, memory_bytes // reader.row_bytes // BUFFERS)
    return (
        Streamed(reader, lambda epoch: share.stretches(reader.spans, epoch, capacity), capacity),
        Streamed(held_out, lambda epoch: cut(judged, even(own.count, own.batch)), own.batch),
    )


def batches(source: Source, share: Share, epoch: int, batch: Rows) -> Iterator[Rows]:
    """A worker's part of each of the epoch's global batches; each overwrites the one before in `batch`."""
    stretches, number = source.stretches(epoch), 0
    order = torch.empty(0, dtype=torch.int64)
    for size in share.sizes:
        filled = 0
        while filled < size:
            if not len(order):
                rows = next(stretches)
                order = share.order(epoch, number, len(rows)).to(batch.weights.device)
                number += 1
            chosen, order = order[: size - filled], order[size - filled :]
            batch[filled : filled + len(chosen)].put(rows, chosen)
            filled += len(chosen)
        yield batch[:size]


def _give_way() -> None:
    # Only Linux has a niceness of each thread; elsewhere this would be the process's.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)


def _spans(starts: Sequence[NDArray[np.int64]], rows: NDArray[np.int64]) -> list[Span]:
    """Stretches of examples within a row group of the first table that has them.

    Args:
        starts: for each table, where its parts begin.
        rows: (tables, examples) positions in each.
    """
    found: list[Span] = []
    begin = parts = 0
    for own, positions in zip(starts, rows, strict=True):
        # Examples that an earlier table has come before, those of later ones only come after.
        end = begin + int((positions[begin:] != ABSENT).sum())
        for part, (start, stop) in enumerate(pairwise(own.tolist()), parts):
            edges = np.append(np.arange(start, stop, tables.ROW_GROUP_ROWS), stop)
            places = (begin + np.searchsorted(positions[begin:end], edges)).tolist()
            found += [Span(part, low, high) for low, high in pairwise(places) if low < high]
        begin, parts = end, parts + len(own) - 1
    return found
