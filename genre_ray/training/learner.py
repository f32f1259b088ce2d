"""One worker's part of a training: its share of the rows, its network and the loop over epochs.

Workers hold disjoint shares of the rows in memory and see each of them once an epoch (a worker that is a row short
sees another's first one). Nothing here knows of Ray: several workers only have to be in one torch process group.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from genre_ray.config import Settings
from genre_ray.errors import GenreRayError
from genre_ray.models.preparation import Preparation
from genre_ray.training import checkpoints
from genre_ray.training.checkpoints import Progress
from genre_ray.training.examples import Examples, load_rows
from genre_ray.training.systems import System, TrainingRules

CHECKPOINT_EVERY_S, VALIDATION_BATCH = 60.0, 4096


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


class Learner:
    """One of `world` workers; `rank` counts them from 0."""

    def __init__(self, task: Task, device: torch.device, rank: int = 0, world: int = 1) -> None:
        self.task, self.rules, self.device, self.rank, self.world = task, task.rules, device, rank, world
        if device.type == "cuda":
            torch.cuda.set_device(device)
        torch.manual_seed(self.rules.seed)
        self.network = task.build_network().to(device)
        self.normalises = any(isinstance(module, nn.BatchNorm1d) for module in self.network.modules())
        devices = [device] if device.type == "cuda" else None
        self.replica = DistributedDataParallel(self.network, devices) if world > 1 else self.network
        self.losses = task.losses
        self.training = self._load("train", equal=True)
        self.validation = self._load("validation", equal=False)
        self.mean_weight = float(task.examples.of("train").weights.mean())
        self.optimiser = torch.optim.Adam(
            self.network.parameters(), lr=self.rules.learning_rate, weight_decay=self.rules.weight_decay
        )
        self.progress, self.best = Progress(), self._weights()

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
            sums = torch.cat([self._epoch(epoch), self._validate(), torch.tensor([due], device=self.device)])
            # All workers count with the same sums, so that they stop and report together.
            loss, rows, validation_loss, weight, due = self._over_workers(sums)
            if self.progress.add(_finite({"loss": loss / rows, "validation_loss": validation_loss / weight}, epoch)):
                self.best = self._weights()
            if due:
                report()
                reported_at = time.monotonic()
        report()

    def _epoch(self, epoch: int) -> Tensor:
        """Learn from every row once; return (sum of losses, rows)."""
        inputs, targets, weights = self.training
        # Seeds that depend on the epoch alone make a resumed training the same as one that was not cut off.
        torch.manual_seed(int(np.random.SeedSequence([self.rules.seed, epoch, self.rank]).generate_state(1)[0]))
        self.replica.train()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for chosen in self._batches(torch.randperm(len(inputs)).to(self.device)):
            logits = self.replica(inputs[chosen])
            losses = self.losses(logits, targets[chosen].to(logits.dtype)) * weights[chosen]
            # Dividing by the mean weight of all rows, not of the batch, keeps every example's share the same.
            loss = losses.mean() / self.mean_weight
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            total += loss.detach() * len(chosen)
        return torch.stack([total, torch.full_like(total, len(inputs))])

    def _batches(self, order: Tensor) -> list[Tensor]:
        size = max(2 if self.normalises else 1, self.rules.batch // self.world)
        batches = list(order.split(size))
        if self.normalises and len(batches) > 1 and len(batches[-1]) == 1:
            # Batch normalisation has no variance of one row.
            batches[-2:] = [torch.cat(batches[-2:])]
        return batches

    @torch.no_grad()
    def _validate(self) -> Tensor:
        """(sum of weighted losses, sum of weights) of this worker's validation rows."""
        inputs, targets, weights = self.validation
        if self.world > 1:
            # Batch normalisation's running statistics are each worker's own; the first one's are kept.
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, 0)
        self.network.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        for rows in torch.arange(len(inputs), device=self.device).split(VALIDATION_BATCH):
            logits = self.network(inputs[rows])
            losses = self.losses(logits, targets[rows].to(logits.dtype)) * weights[rows]
            sums += torch.stack([losses.double().sum(), weights[rows].double().sum()])
        return sums

    def _over_workers(self, sums: Tensor) -> list[float]:
        if self.world > 1:
            torch.distributed.all_reduce(sums)
        values: list[float] = sums.tolist()
        return values

    @torch.no_grad()
    def _load(self, part: str, *, equal: bool) -> tuple[Tensor, Tensor, Tensor]:
        """This worker's share of a part: inputs (rows, inputs), targets (rows, labels), weights (rows,)."""
        examples = self.task.examples.of(part)
        share = np.arange(self.rank, len(examples), self.world)
        if equal and len(share) < -(-len(examples) // self.world):
            # Every worker takes the same number of steps.
            share = np.append(0, share)
        examples = examples.take(share)
        preparation = self.task.preparation.to(self.device)
        inputs = torch.empty(len(examples), preparation.width, device=self.device)
        start = 0
        for rows in load_rows(self.task.features_uri, self.task.features_version, examples.rows):
            inputs[start : start + len(rows)] = preparation(torch.from_numpy(rows).to(self.device))
            start += len(rows)
        targets = torch.from_numpy(examples.targets()).to(self.device)
        return inputs, targets, torch.from_numpy(examples.weights).to(self.device)

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
