"""Training on Ray Train: 1 to N learners, on CPUs (gloo) or GPUs (nccl), whatever the system.

A training that was interrupted resumes from its last checkpoint, also with another number of learners. Errors that a
user can correct are raised unchanged and not retried.
"""

import logging
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import torch
import torch.distributed
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from torch import Tensor

from genre_ray.config import Execution
from genre_ray.errors import GenreRayError
from genre_ray.runs import capacity, resources
from genre_ray.runs.background import repeated
from genre_ray.runs.stages import Resources
from genre_ray.storage import objects, s3
from genre_ray.training import checkpoints
from genre_ray.training.learner import Learner, Task

logger = logging.getLogger(__name__)

RETRIES, REPORT_EVERY_S = 3, 60.0


@dataclass(frozen=True)
class Fitted:
    """The best weights, as named tensors, and the losses of every epoch that led to them."""

    weights: dict[str, Tensor]
    history: list[dict[str, float]]
    best_epoch: int


def fit(task: Task, storage_uri: str, execution: Execution) -> Fitted:
    """Train `task`, keeping its newest checkpoint below `storage_uri`.

    Raises:
        ConfigurationError: the cluster can never run so many learners.
        GenreRayError: the training diverged, or a learner cannot read what it needs.
        ray.train.TrainingFailedError: workers failed otherwise, more often than they are tried again.
    """
    progress_uri = objects.join(storage_uri, "progress.txt")
    loop_config = {
        "task": ray.put(task),
        "memory_bytes": execution.training_memory_mib * 2**20,
        "progress_uri": progress_uri,
    }
    learner = Resources(execution.cpus_per_learner, execution.gpus_per_learner)
    capacity.refuse_impossible(
        learner,
        "execution.learners, execution.cpus_per_learner or execution.gpus_per_learner",
        workers=execution.learners,
        name="a learner",
    )
    if learner.gpus and not torch.backends.cuda.is_built():
        logger.warning("learners reserve GPUs, but this PyTorch has no CUDA: they compute on CPUs")
    learners = f"{execution.learners} learner{'s' if execution.learners > 1 else ''}"
    awaited = resources.describe(learner, learners, execution.learners)

    def attempt() -> ray.train.Result:
        objects.delete_files([progress_uri])
        return _trainer(loop_config, storage_uri, execution).fit()

    with (
        _progress_in_log(progress_uri),
        resources.heartbeat(lambda: None if objects.exists(progress_uri) else awaited),
    ):
        result = with_retries(attempt)
    if result.checkpoint is None:
        raise AssertionError(f"{storage_uri}: a training ended without its last checkpoint")
    with result.checkpoint.as_directory() as folder:
        weights, progress = checkpoints.read_best(folder)
    return Fitted(weights, progress.history, progress.best_epoch)


def with_retries(attempt: Callable[[], ray.train.Result]) -> ray.train.Result:
    """The result of the first attempt that does not fail.

    Ray Train would try again after every error; this does not after a `GenreRayError`, which comes again.
    """
    for left in reversed(range(RETRIES + 1)):
        try:
            return attempt()
        except TrainingFailedError as error:
            failures = getattr(error, "worker_failures", {})
            ours = [failures[rank] for rank in sorted(failures) if isinstance(failures[rank], GenreRayError)]
            if ours:
                raise ours[0] from None
            if not left:
                raise
            logger.warning("a training worker failed, going on from the last checkpoint: %s", error)
    raise AssertionError("unreachable")


def _trainer(loop_config: dict[str, Any], storage_uri: str, execution: Execution) -> TorchTrainer:
    gpus = execution.gpus_per_learner
    # One learner exchanges nothing, and NCCL refuses to start where it finds no GPU.
    nccl = gpus > 0 and execution.learners > 1 and torch.distributed.is_nccl_available()
    return TorchTrainer(
        _work,
        train_loop_config=loop_config,
        scaling_config=ScalingConfig(
            num_workers=execution.learners,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": execution.cpus_per_learner, **({"GPU": gpus} if gpus else {})},
        ),
        torch_config=TorchConfig(backend="nccl" if nccl else "gloo"),
        run_config=RunConfig(
            name="train",
            storage_path=storage_uri.removeprefix("s3://"),
            storage_filesystem=s3.filesystem() if objects.is_remote(storage_uri) else None,
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            failure_config=FailureConfig(max_failures=0),
        ),
    )


def _work(config: dict[str, Any]) -> None:
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    if rank == 0:
        objects.write_bytes(config["progress_uri"], b"no epoch is done yet")
    learner = Learner(ray.get(config["task"]), _device(), rank, world, config["memory_bytes"])
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            learner.restore(folder)

    def report() -> None:
        if learner.rank != 0:
            ray.train.report({})
            return
        objects.write_bytes(config["progress_uri"], f"{learner.progress}; {learner.pace}".encode())
        with tempfile.TemporaryDirectory() as folder:
            learner.write(folder)
            ray.train.report({}, checkpoint=Checkpoint.from_directory(folder))

    learner.train(report)


def _device() -> torch.device:
    """The device that this learner reserved, or the CPU if it reserved a GPU that PyTorch cannot use."""
    device = get_device()
    if device.type == "cuda" and not torch.cuda.is_available():
        logger.warning("a GPU is reserved, but PyTorch finds no CUDA here: this learner computes on the CPU")
        return torch.device("cpu")
    return device


def _progress_in_log(uri: str) -> AbstractContextManager[None]:
    """Log once a minute what the learners last wrote to `uri`; before they run there is nothing to log."""

    def line() -> None:
        if objects.exists(uri):
            logger.info("%s", objects.read_bytes(uri).decode())

    return repeated(line, REPORT_EVERY_S, name="reading the progress of the training, which goes on,")
