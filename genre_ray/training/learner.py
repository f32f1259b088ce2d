"""One worker's part of a training: its share of the rows, its network and the loop over epochs.

Of every global batch each worker has an equal part, and what they learn from it together is what one alone would, but
for dropout and batch normalisation, which are each worker's own. Nothing here knows of Ray: several workers only have
to be in one torch process group.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from genre_ray.config import Settings
from genre_ray.errors import ConfigurationError, GenreRayError
from genre_ray.models.preparation import Preparation
from genre_ray.training import checkpoints
from genre_ray.training.checkpoints import Progress
from genre_ray.training.examples import Examples
from genre_ray.training.order import NOISE, Share, seed_of
from genre_ray.training.rows import VALIDATION_BATCH, Reader, batches, open_sources
from genre_ray.training.systems import System, TrainingRules

CHECKPOINT_EVERY_S = 60.0

MEMORY_BYTES = 2**30
"""For the rows of a worker, unless it is told otherwise."""


@dataclass(frozen=True)
class Task:
    """What is to be learnt, by value: everything a worker needs but the features themselves.

    Attributes:
        preparation: rows of the features table → inputs of the network; it is fixed.
        features_uri, features_version: the table whose rows `examples` name.
    """

    system: System
    network: Settings
    rules: TrainingRules
    preparation: Preparation
    features_uri: str
    features_version: int
    examples: Examples

    def build_network(self) -> nn.Module:
        """The network with its initial weights."""
        return self.system.build(self.preparation.width, len(self.examples.labels), self.network)

    @property
    def losses(self) -> Callable[[Tensor, Tensor], Tensor]:
        """(logits, targets) → each row's loss."""
        outputs = self.system.outputs
        return outputs.masked_losses if self.examples.masked else outputs.losses


@dataclass(frozen=True)
class Pace:
    """How fast an epoch was, over all workers.

    Attributes:
        rows_s: training rows a second, validation's time included.
        waiting: share of the time in which a worker waited for rows.
    """

    rows_s: float = 0.0
    waiting: float = 0.0

    def __str__(self) -> str:
        return f"{self.rows_s:,.0f} rows/s, {self.waiting:.0%} of the time waiting for them"


class Learner:
    """One of `world` workers; `rank` counts them from 0.

    Args:
        memory_bytes: for this worker's rows; where they need more they stream from storage.

    Attributes:
        pace: how fast the latest epoch was.
    """

    def __init__(
        self, task: Task, device: torch.device, rank: int = 0, world: int = 1, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self.task, self.rules, self.device, self.rank, self.world = task, task.rules, device, rank, world
        if device.type == "cuda":
            torch.cuda.set_device(device)
        torch.manual_seed(self.rules.seed)
        self.network = task.build_network().to(device)
        devices = [device] if device.type == "cuda" else None
        self.replica = (
            DistributedDataParallel(self.network, devices, gradient_as_bucket_view=True) if world > 1 else self.network
        )
        self.losses = task.losses
        # Batch normalisation has no variance of one row.
        least = 2 if any(isinstance(module, nn.BatchNorm1d) for module in self.network.modules()) else 1
        reader, held_out = self._reader("train"), self._reader("validation")
        if len(reader.examples) < least * world:
            raise ConfigurationError(
                f"batch normalisation needs {least} training rows per learner, found {len(reader.examples)} for "
                f"{world} learners; lower execution.learners"
            )
        self.share = Share(len(reader.examples), self.rules.batch, rank, world, self.rules.seed, least)
        judged = Share(len(held_out.examples), VALIDATION_BATCH, rank, world)
        self.training, self.validation = open_sources((reader, self.share), (held_out, judged), memory_bytes)
        self.batch = reader.empty(max(self.share.sizes))
        self.mean_weight = float(reader.examples.weights.mean())
        self.optimiser = torch.optim.Adam(
            self.network.parameters(),
            lr=self.rules.learning_rate,
            weight_decay=self.rules.weight_decay,
            # Adam's ten passes over all weights in one: a third of the time of a step of 32 rows.
            fused=True,
        )
        self.progress, self.best, self.pace = Progress(), self._weights(), Pace()

    def write(self, folder: str) -> None:
        """Write a checkpoint."""
        checkpoints.write(folder, self.network, self.optimiser, self.best, self.progress)

    def restore(self, folder: str) -> None:
        """Go on from a checkpoint."""
        self.best, self.progress = checkpoints.restore(folder, self.network, self.optimiser)

    def train(self, report: Callable[[], None]) -> None:
        """Epoch after epoch until the validation loss has not fallen for `patience` of them.

        Args:
            report: called by all workers together, once a minute at most and at the end.

        Raises:
            GenreRayError: a loss is no number any more.
        """
        reported_at = time.monotonic()
        for epoch in range(len(self.progress.history), self.rules.max_epochs):
            if self.progress.waited >= self.rules.patience:
                break
            due = float(time.monotonic() - reported_at >= CHECKPOINT_EVERY_S)
            began, waited = time.perf_counter(), self._waited()
            sums = [*self._epoch(epoch), *self._validate(epoch), torch.tensor(due)]
            pace = [torch.tensor(time.perf_counter() - began), torch.tensor(self._waited() - waited)]
            # All workers count with the same sums, so that they stop and report together.
            loss, rows, validation_loss, weight, due, busy, waiting = self._over_workers(sums + pace)
            self.pace = Pace(rows / busy * self.world, waiting / busy)
            if self.progress.add(_finite({"loss": loss / rows, "validation_loss": validation_loss / weight}, epoch)):
                self.best = self._weights()
            if due:
                report()
                reported_at = time.monotonic()
        self.training.close()
        self.validation.close()
        report()

    def _epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Learn from every row once; return (sum of losses, rows)."""
        # Seeds that depend on the epoch alone make a resumed training the same as one that was not cut off.
        torch.manual_seed(seed_of(self.rules.seed, epoch, NOISE, self.rank))
        self.replica.train()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        parts = batches(self.training, self.share, epoch, self.batch)
        for size, rows in zip(self.share.global_sizes, parts, strict=True):
            logits = self.replica(rows.inputs)
            loss = (self.losses(logits, rows.targets.to(logits.dtype)) * rows.weights).sum() / self.mean_weight
            self.optimiser.zero_grad(set_to_none=True)
            # Gradients are averaged over workers. Dividing by the mean weight of all rows, not of the batch, keeps
            # every example's share the same.
            (loss * (self.world / size)).backward()
            self.optimiser.step()
            total += loss.detach()
        return total, torch.tensor(self.share.count)

    @torch.no_grad()
    def _validate(self, epoch: int) -> tuple[Tensor, Tensor]:
        """(sum of weighted losses, sum of weights) of this worker's validation rows."""
        if self.world > 1:
            # Batch normalisation's running statistics are each worker's own; the first one's are kept.
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, 0)
        self.network.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        for stretch in self.validation.stretches(epoch):
            for start in range(0, len(stretch), VALIDATION_BATCH):
                rows = stretch[start : start + VALIDATION_BATCH]
                logits = self.network(rows.inputs)
                losses = self.losses(logits, rows.targets.to(logits.dtype)) * rows.weights
                sums += torch.stack([losses.double().sum(), rows.weights.double().sum()])
        return sums[0], sums[1]

    def _reader(self, part: str) -> Reader:
        task = self.task
        return Reader(task.features_uri, task.features_version, task.examples.of(part), task.preparation, self.device)

    def _waited(self) -> float:
        return self.training.waited_s + self.validation.waited_s

    def _over_workers(self, sums: Sequence[Tensor]) -> list[float]:
        total = torch.stack([value.to(self.device, torch.float64) for value in sums])
        if self.world > 1:
            torch.distributed.all_reduce(total)
        values: list[float] = total.tolist()
        return values

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}


def _finite(losses: dict[str, float], epoch: int) -> dict[str, float]:
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise GenreRayError(
                f"expected a finite {name.replace('_', ' ')}, found {loss} in epoch {epoch + 1}; lower "
                "rules.learning_rate or set clip_sd, which bounds the standardised inputs"
            )
    return losses
