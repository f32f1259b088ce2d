"""One worker's part of a training: its share of the rows, its network and the loop over epochs.

Of every global batch each worker has an equal part, and what they learn from it together is what one alone would, but
for dropout and batch normalisation, which are each worker's own. Nothing here knows of Ray: several workers only have
to be in one torch process group.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from genre_ray.config import Settings
from genre_ray.errors import ConfigurationError, GenreRayError, InputError
from genre_ray.models.outputs import Output
from genre_ray.models.preparation import Preparation
from genre_ray.systems.model import Model
from genre_ray.systems.system import System, TrainingRules
from genre_ray.training import checkpoints
from genre_ray.training.checkpoints import Progress
from genre_ray.training.examples import Examples
from genre_ray.training.order import NOISE, VIEWS, Share, seed_of
from genre_ray.training.ranking import RankHistogram
from genre_ray.training.reading import FeaturesTable
from genre_ray.training.rows import Reader, Rows, batches, open_sources

CHECKPOINT_EVERY_S = 60.0

MEMORY_BYTES = 2**30
"""For the rows of a worker, unless it is told otherwise."""

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class Training:
    """What is to be learnt, by value: everything a worker needs but the features themselves.

    Attributes:
        system: what is trained.
        network: the settings of its network.
        rules: how it is trained.
        preparation: rows of the features tables → inputs of the network; it is fixed.
        outputs: by task, what the network's values mean.
        features: the tables whose rows `examples` names.
        examples: the rows, with their targets.
    """

    system: System
    network: Settings
    rules: TrainingRules
    preparation: Preparation
    outputs: Mapping[str, Output]
    features: tuple[FeaturesTable, ...]
    examples: Examples

    def build(self) -> Model:
        """The model with the network's initial weights."""
        return Model(self.system, self.network, self.preparation, self.outputs)


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
        training: what is to be learnt.
        device: where to compute.
        rank: of this worker.
        world: number of workers.
        memory_bytes: for this worker's rows; where they need more they stream from storage.

    Attributes:
        progress: the metrics of all epochs.
        pace: how fast the latest epoch was.
    """

    def __init__(
        self, training: Training, device: torch.device, rank: int = 0, world: int = 1, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self.training, self.rules, self.system = training, training.rules, training.system
        self.device, self.rank, self.world = device, rank, world
        if device.type == "cuda":
            torch.cuda.set_device(device)
        torch.manual_seed(self.rules.seed)
        self.model = training.build().to(device)
        self.network = self.model.network
        self.tasks = [task.name for task in self.system.tasks]
        devices = [device] if device.type == "cuda" else None
        self.replica = (
            DistributedDataParallel(
                self.network,
                devices,
                gradient_as_bucket_view=True,
                # An epoch of one task leaves the layers of the others without gradients.
                find_unused_parameters=len(self.tasks) > 1,
            )
            if world > 1
            else self.network
        )
        # Batch normalisation has no variance of one row.
        least = 2 if any(isinstance(module, BATCH_NORMS) for module in self.network.modules()) else 1
        reader, held_out = self._reader("train"), self._reader("validation")
        if len(reader.examples) < least * world:
            raise ConfigurationError(
                f"batch normalisation needs {least} training rows per learner, found {len(reader.examples)} for "
                f"{world} learners; lower execution.learners"
            )
        self.share = Share(len(reader.examples), self.rules.batch, rank, world, self.rules.seed, least)
        judged = Share(len(held_out.examples), self.system.rows_per_call, rank, world)
        self.train_rows, self.validation_rows = open_sources((reader, self.share), (held_out, judged), memory_bytes)
        self.batch = reader.empty(max(self.share.sizes))
        self.mean_weights = {task: _mean_weight(reader.examples, task) for task in self.tasks}
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

    def train(self, report: Callable[[], None], on_epoch: Callable[[], None] = lambda: None) -> None:
        """Epoch after epoch until the validation loss has not fallen for `patience` of them.

        Args:
            report: called by all workers together, once a minute at most and at the end.
            on_epoch: called by each worker after each epoch.

        Raises:
            GenreRayError: a loss is no number any more.
        """
        reported_at = time.monotonic()
        for epoch in range(len(self.progress.history), self.rules.max_epochs):
            if self.progress.waited >= self.rules.patience:
                break
            due = float(time.monotonic() - reported_at >= CHECKPOINT_EVERY_S)
            began, waited = time.perf_counter(), self._waited()
            (total, count), validated = self._epoch(epoch), self._validate(epoch)
            own = [total, *validated.sums.flatten(), count, due, time.perf_counter() - began, self._waited() - waited]
            # All workers count with the same sums, so that they stop and report together.
            loss, *sums, rows, due, busy, waiting = self._sums(own)
            self.pace = Pace(rows / busy * self.world, waiting / busy)
            metrics = self._metrics(epoch, loss / rows, sums, validated.ranking)
            if self.progress.add(_finite(metrics, epoch)):
                self.best = self._weights()
            on_epoch()
            if due:
                report()
                reported_at = time.monotonic()
        self.train_rows.close()
        self.validation_rows.close()
        report()

    def _epoch(self, epoch: int) -> tuple[Tensor, int]:
        """Learn from every row once; return (sum of losses, rows)."""
        # Seeds that depend on the epoch alone make a resumed training the same as one that was not cut off.
        torch.manual_seed(seed_of(self.rules.seed, epoch, NOISE, self.rank))
        drawn = torch.Generator().manual_seed(seed_of(self.rules.seed, epoch, VIEWS, self.rank))
        task = self.tasks[self._task_of(epoch)]
        self.replica.train()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        parts = batches(self.train_rows, self.share, epoch, self.batch)
        for size, rows in zip(self.share.global_sizes, parts, strict=True):
            logits = self.model.logits(self.replica, task, self.system.view.sample(rows.inputs, drawn))
            losses = self._losses(task, logits, rows.targets[task])
            loss = (losses * rows.weights).sum() / self.mean_weights[task]
            self.optimiser.zero_grad(set_to_none=True)
            # Gradients are averaged over workers. Dividing by the mean weight of all rows, not of the batch, keeps
            # every example's share the same.
            (loss * (self.world / size)).backward()
            self.optimiser.step()
            total += loss.detach()
        return total, self.share.count

    @torch.no_grad()
    def _validate(self, epoch: int) -> "_Validated":
        """The losses of this worker's validation rows."""
        if self.world > 1:
            # Batch normalisation's running statistics are each worker's own; the first one's are kept.
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, 0)
        self.network.eval()
        found = _Validated(len(self.tasks), self.training, self.device)
        for stretch in self.validation_rows.stretches(epoch):
            for start in range(0, len(stretch), self.system.rows_per_call):
                rows = stretch[start : start + self.system.rows_per_call]
                windows = self.system.view.windows(rows.inputs)
                for place, task in enumerate(self.tasks):
                    self._judge(found, place, task, windows, rows)
        return found

    def _judge(self, found: "_Validated", place: int, task: str, windows: Tensor, rows: Rows) -> None:
        """Add the losses of a task: a row's loss is the mean of its windows'."""
        each = windows.shape[1]
        targets = rows.targets[task]
        logits = self.model.logits(self.network, task, windows.flatten(0, 1))
        repeated = targets.repeat_interleave(each, dim=0) if each > 1 else targets
        losses = self._losses(task, logits, repeated).unflatten(0, windows.shape[:2]).mean(dim=1) * rows.weights
        weights = rows.weights * _known(targets)
        found.sums[place] += torch.stack([losses.double().sum(), weights.double().sum()])
        if place == 0 and found.ranking is not None:
            scores = self.model.output(task).score(logits).unflatten(0, windows.shape[:2])
            found.ranking.add(self.system.view.aggregate(scores), targets)

    def _losses(self, task: str, logits: Tensor, targets: Tensor) -> Tensor:
        """(rows,) each row's loss, 0 for a row without a target."""
        output = self.model.output(task)
        if not targets.is_floating_point():
            return output.losses(logits, targets.to(logits.dtype))
        return torch.where(_known(targets), output.losses(logits, targets.nan_to_num()), 0.0)

    def _metrics(
        self, epoch: int, loss: float, sums: Sequence[float], ranking: RankHistogram | None
    ) -> dict[str, float]:
        """An epoch's metrics; see `Progress`."""
        losses = [total / weight for total, weight in zip(sums[::2], sums[1::2], strict=True)]
        metrics = {"loss": loss, "validation_loss": losses[0]}
        if len(self.tasks) > 1:
            others = zip(self.tasks[1:], losses[1:], strict=True)
            metrics |= {"task": self._task_of(epoch), **{f"validation_loss.{task}": value for task, value in others}}
        if ranking is not None:
            self._add_up(ranking.counts)
            columns = {name: found.columns for name, found in self.training.examples.taxonomies.items()}
            metrics |= {f"roc_auc.{name}": value for name, value in ranking.roc_auc(columns).items()}
        return metrics

    def _task_of(self, epoch: int) -> int:
        return self.system.task_rule(len(self.tasks), epoch, self.rules.seed) if len(self.tasks) > 1 else 0

    def _reader(self, part: str) -> Reader:
        examples = self.training.examples.of(part)
        return Reader(self.training.features, examples, self.model.preparation, self.tasks[0], self.device)

    def _waited(self) -> float:
        return self.train_rows.waited_s + self.validation_rows.waited_s

    def _sums(self, values: Sequence[Tensor | float]) -> list[float]:
        """The sums of values over all workers."""
        each = [torch.as_tensor(value, dtype=torch.float64).to(self.device) for value in values]
        sums: list[float] = self._add_up(torch.stack(each)).tolist()
        return sums

    def _add_up(self, values: Tensor) -> Tensor:
        """Replace values by their sums over all workers."""
        if self.world > 1:
            torch.distributed.all_reduce(values)
        return values

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}


class _Validated:
    """What a worker's validation rows add up to.

    Attributes:
        sums: float64 (tasks, 2): weighted losses, weights.
        ranking: of the labels' scores; None where the examples name no taxonomies.
    """

    def __init__(self, tasks: int, training: Training, device: torch.device) -> None:
        self.sums = torch.zeros(tasks, 2, dtype=torch.float64, device=device)
        labels = len(training.examples.labels)
        self.ranking = RankHistogram(labels, device) if training.examples.taxonomies else None


def _known(targets: Tensor) -> Tensor:
    """(rows,) whether a row has a target; labels are always there."""
    if not targets.is_floating_point():
        return torch.ones(len(targets), dtype=torch.bool, device=targets.device)
    return ~targets[:, 0].isnan()


def _mean_weight(examples: Examples, task: str) -> float:
    """The mean weight of a task's training rows, rows without a target included.

    Raises:
        InputError: no training row has a target.
    """
    weights = examples.weights
    if task in examples.soft:
        weights = weights * ~np.isnan(examples.soft[task][examples.recordings, 0])
        if not weights.any():
            raise InputError(f"expected targets of {task} for training recordings, found none; name another table")
    return float(weights.mean())


def _finite(losses: dict[str, float], epoch: int) -> dict[str, float]:
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise GenreRayError(
                f"expected a finite {name.replace('_', ' ')}, found {loss} in epoch {epoch + 1}; lower "
                "rules.learning_rate or set clip_sd, which bounds the standardised inputs"
            )
    return losses
