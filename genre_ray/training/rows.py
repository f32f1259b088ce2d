"""The rows that a worker learns from, as tensors: held in memory, or read one stretch ahead of use.

Reading takes no turn from learning: threads fetch, decode and prepare the next stretch while this one is used, and
what a worker has to wait for them nevertheless is counted.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genre_ray.models.preparation import Preparation
from genre_ray.storage import objects, tables
from genre_ray.training.examples import Examples
from genre_ray.training.order import Share, Span, cut, even

READERS, NICENESS = 4, 5
"""Spans that are fetched at once, for an object store's answer takes longer than its bytes; and how far the threads
that do it stand back for those that learn, which they would otherwise keep from a CPU while they decode."""

VALIDATION_BATCH = 4096
"""Rows that are judged at once."""

BUFFERS = 2
"""Stretches in memory: one that is learnt from, one that is being read."""


@dataclass(frozen=True)
class Rows:
    """Examples as tensors.

    Attributes:
        inputs: (rows, inputs) what the network is given.
        targets: (rows, labels)
        weights: (rows,)
    """

    inputs: Tensor
    targets: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, stretch: slice) -> "Rows":
        """A view of consecutive rows."""
        return Rows(self.inputs[stretch], self.targets[stretch], self.weights[stretch])

    def put(self, rows: "Rows", chosen: Tensor) -> None:
        """Overwrite all rows with those of `rows` at `chosen`."""
        for name in ("inputs", "targets", "weights"):
            torch.index_select(getattr(rows, name), 0, chosen, out=getattr(self, name))

    def copy_(self, inputs: Tensor, targets: Tensor, weights: Tensor) -> None:
        """Overwrite all rows."""
        self.inputs.copy_(inputs)
        self.targets.copy_(targets)
        self.weights.copy_(weights)


class Reader:
    """Reads examples of a features table into tensors, several spans at once.

    Attributes:
        spans: of all examples, in their order; each lies within one row group.
    """

    def __init__(
        self, features_uri: str, version: int, examples: Examples, preparation: Preparation, device: torch.device
    ) -> None:
        self.examples, self.device, self.preparation = examples, device, preparation.to(device)
        parts = tables.list_parts(features_uri, version)
        self._uris = [objects.join(features_uri, part.path) for part in parts]
        self._starts = np.cumsum([0, *(part.rows for part in parts)])
        self.spans = _spans(self._starts, examples.rows)
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="rows", initializer=_give_way)

    @property
    def row_bytes(self) -> int:
        """Memory that an example takes."""
        return 4 * self.preparation.width + len(self.examples.labels) + 4

    def empty(self, rows: int) -> Rows:
        """Room for so many rows."""
        targets = torch.from_numpy(self.examples.take(np.arange(0)).targets())
        return Rows(
            torch.empty(rows, self.preparation.width, device=self.device),
            torch.empty(rows, targets.shape[1], dtype=targets.dtype, device=self.device),
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
        examples = self.examples.take(np.arange(span.low, span.high))
        values = _read_rows(self._uris[span.part], examples.rows - self._starts[span.part])
        into.copy_(
            self.preparation(torch.from_numpy(values).to(self.device)),
            torch.from_numpy(examples.targets()),
            torch.from_numpy(examples.weights),
        )


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
        Streamed(held_out, lambda epoch: cut(judged, even(own.count, VALIDATION_BATCH)), VALIDATION_BATCH),
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


def _spans(starts: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]) -> list[Span]:
    """Stretches of the positions `rows` within a row group, for parts that begin at `starts`."""
    found = []
    for part, (start, stop) in enumerate(pairwise(starts.tolist())):
        edges = np.append(np.arange(start, stop, tables.ROW_GROUP_ROWS), stop)
        places = np.searchsorted(rows, edges).tolist()
        found += [Span(part, low, high) for low, high in pairwise(places) if low < high]
    return found


def _read_rows(uri: str, positions: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Feature vectors at sorted positions of one part, from the row groups that hold them."""
    with tables.open_part(uri) as file:
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        starts = np.cumsum([0, *counts])
        first, last = np.searchsorted(starts, positions[[0, -1]], side="right") - 1
        groups = file.read_row_groups(range(first, last + 1), columns=["features"], use_threads=False)
    values: np.ndarray[Any, np.dtype[np.float32]] = tables.vectors(groups.column("features"))[positions - starts[first]]
    return values
