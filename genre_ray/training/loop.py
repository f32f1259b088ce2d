"""The one training loop, on Ray Train: 1 to N workers, on CPUs (gloo) or GPUs (nccl), whatever the system.

Workers hold disjoint shares of the rows in memory and see each of them once an epoch. The weights with the lowest
validation loss are the result. A run that is cut off goes on from its last checkpoint.
"""

import logging
import math
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.train
import torch
import torch.distributed
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device, prepare_model
from torch import Tensor, nn

from genre_ray.config import Execution, Settings
from genre_ray.errors import GenreRayError
from genre_ray.storage import objects
from genre_ray.training import checkpoints
from genre_ray.training.checkpoints import Progress
from genre_ray.training.examples import Examples, load_rows
from genre_ray.training.systems import System, TrainingRules

logger = logging.getLogger(__name__)

CHECKPOINT_EVERY_S, VALIDATION_BATCH = 60.0, 4096


@dataclass(frozen=True)
class Task:
    """What is to be learnt, by value: everything a worker needs but the features themselves.

    Attributes:
        preparation: rows of the features table → inputs of the network; it is fixed.
        inputs: the width of what `preparation` gives.
    """

    system: System
    network: Settings
    rules: TrainingRules
    preparation: nn.Module
    inputs: int
    features_uri: str
    features_version: int
    examples: Examples


@dataclass(frozen=True)
class Fitted:
    """The best weights, as named tensors, and the losses of every epoch that led to them."""

    weights: dict[str, Tensor]
    history: list[dict[str, float]]
    best_epoch: int


def fit(task: Task, storage_uri: str, execution: Execution) -> Fitted:
    """Train `task`, keeping checkpoints below `storage_uri`.

    Raises:
        ray.train.TrainingFailedError: a worker failed more often than it is retried.
    """
    remote = objects.is_remote(storage_uri)
    gpus = execution.gpus_per_worker
    trainer = TorchTrainer(
        _work,
        train_loop_config={"task": ray.put(task)},
        scaling_config=ScalingConfig(
            num_workers=execution.workers or 1,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": execution.cpus_per_worker, **({"GPU": gpus} if gpus else {})},
        ),
        run_config=RunConfig(
            name="train",
            storage_path=storage_uri.removeprefix("s3://"),
            storage_filesystem=objects.s3_filesystem() if remote else None,
            failure_config=FailureConfig(max_failures=3),
        ),
    )
    result = trainer.fit()
    with result.checkpoint.as_directory() as folder:
        weights, progress = checkpoints.read_best(folder)
    return Fitted(weights, progress.history, progress.best_epoch)


def _work(config: dict[str, Any]) -> None:
    task: Task = ray.get(config["task"])
    context = ray.train.get_context()
    worker = _Worker(task, context.get_world_rank(), context.get_world_size())
    worker.train()


class _Worker:
    """One worker's share of the rows, its network and where it is in the training."""

    def __init__(self, task: Task, rank: int, world: int) -> None:
        self.rules, self.rank, self.world = task.rules, rank, world
        self.device = get_device()
        self.losses = task.system.outputs.losses
        torch.manual_seed(self.rules.seed)
        network = task.system.build(task.inputs, len(task.examples.labels), task.network)
        self.training = self._load(task, "train", equal=True)
        self.validation = self._load(task, "validation", equal=False)
        self.weight_mean = float(task.examples.of("train").weights.mean())
        self.network = prepare_model(network)
        self.optimiser = torch.optim.Adam(
            self.network.parameters(), lr=self.rules.learning_rate, weight_decay=self.rules.weight_decay
        )
        self.progress = Progress()
        self.best = self._weights()
        self._restore()

    def train(self) -> None:
        """Epoch after epoch until the validation loss has not fallen for `patience` of them."""
        reported_at = time.monotonic()
        for epoch in range(len(self.progress.history), self.rules.max_epochs):
            if self.progress.waited >= self.rules.patience:
                break
            loss = self._epoch(epoch)
            validation_loss, report_due = self._validate(time.monotonic() - reported_at >= CHECKPOINT_EVERY_S)
            if not math.isfinite(validation_loss):
                raise GenreRayError(
                    f"the validation loss became {validation_loss} in epoch {epoch + 1}; lower rules.learning_rate "
                    "or set clip_sd, which bounds the standardised inputs"
                )
            if self.progress.add({"loss": loss, "validation_loss": validation_loss}):
                self.best = self._weights()
            if report_due:
                self._report()
                reported_at = time.monotonic()
        self._report()

    def _epoch(self, epoch: int) -> float:
        inputs, targets, weights = self.training
        # Seeds that depend on the epoch alone make a resumed training the same as one that was not cut off.
        torch.manual_seed(int(np.random.SeedSequence([self.rules.seed, epoch, self.rank]).generate_state(1)[0]))
        order = torch.randperm(len(inputs)).to(self.device)
        batch = max(1, self.rules.batch // self.world)
        self.network.train()
        total = torch.zeros((), device=self.device)
        for chosen in order.split(batch):
            if len(chosen) == 1 and len(order) > 1:
                continue  # Batch normalisation has no variance of one row; another epoch draws another last one.
            logits = self.network(inputs[chosen])
            losses = self.losses(logits, targets[chosen].to(logits.dtype)) * weights[chosen]
            # Dividing by the mean weight of all rows, not of the batch, keeps every example's share the same.
            loss = losses.mean() / self.weight_mean
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            total += loss.detach() * len(chosen)
        return float(total) / len(order)

    @torch.no_grad()
    def _validate(self, report_due: bool) -> tuple[float, bool]:
        """The loss over all workers' validation rows, and whether any worker finds a checkpoint due."""
        inputs, targets, weights = self.validation
        self.network.eval()
        network = self._plain()
        sums = torch.tensor([0.0, 0.0, float(report_due)], dtype=torch.float64, device=self.device)
        for rows in torch.arange(len(inputs), device=self.device).split(VALIDATION_BATCH):
            logits = network(inputs[rows])
            losses = self.losses(logits, targets[rows].to(logits.dtype)) * weights[rows]
            sums[:2] += torch.stack([losses.double().sum(), weights[rows].double().sum()])
        if self.world > 1:
            torch.distributed.all_reduce(sums)
        return float(sums[0] / sums[1]), bool(sums[2])

    def _load(self, task: Task, part: str, *, equal: bool) -> tuple[Tensor, Tensor, Tensor]:
        """This worker's share of a part: inputs (rows, inputs), targets (rows, labels), weights (rows,)."""
        examples = task.examples.of(part)
        share = np.arange(self.rank, len(examples), self.world)
        if equal and len(share) < -(-len(examples) // self.world):
            # Every worker takes the same number of steps: one that is a row short takes another's first.
            share = np.append(share, 0)
            share.sort()
        examples = examples.take(share)
        preparation = task.preparation.to(self.device)
        with torch.no_grad():
            prepared = [
                preparation(torch.from_numpy(rows).to(self.device))
                for rows in load_rows(task.features_uri, task.features_version, examples.rows)
            ]
        inputs = torch.cat(prepared) if prepared else torch.zeros(0, task.inputs, device=self.device)
        targets = torch.from_numpy(examples.targets().toarray()).to(self.device)
        return inputs, targets, torch.from_numpy(examples.weights).to(self.device)

    def _plain(self) -> nn.Module:
        inner = getattr(self.network, "module", self.network)
        assert isinstance(inner, nn.Module)
        return inner

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self._plain().state_dict().items()}

    def _report(self) -> None:
        metrics = self.progress.latest()
        if self.rank != 0:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            checkpoints.write(folder, self._plain(), self.optimiser, self.best, self.progress)
            ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))

    def _restore(self) -> None:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                self.best, self.progress = checkpoints.restore(folder, self._plain(), self.optimiser)
