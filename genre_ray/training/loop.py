"""Training on Ray Train: 1 to N learners, on CPUs (gloo) or GPUs (nccl), whatever the system.

A training that is cut off goes on from its last checkpoint, also with another number of workers. What a user can
correct is raised as it is and not tried again.
"""

import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer, get_device
from torch import Tensor

from genre_ray.config import Execution
from genre_ray.errors import GenreRayError
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
        GenreRayError: the training diverged, or a worker cannot read what it needs.
        ray.train.TrainingFailedError: workers failed otherwise, more often than they are tried again.
    """
    progress_uri = objects.join(storage_uri, "progress.txt")
    loop_config = {
        "task": ray.put(task),
        "memory_bytes": execution.training_memory_mib * 2**20,
        "progress_uri": progress_uri,
    }
    with _progress_in_log(progress_uri):
        result = with_retries(lambda: _trainer(loop_config, storage_uri, execution).fit())
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
    workers = execution.workers or 1
    gpus = execution.gpus_per_worker
    if gpus is None:
        gpus = float(ray.cluster_resources().get("GPU", 0) >= workers)
    return TorchTrainer(
        _work,
        train_loop_config=loop_config,
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": execution.cpus_per_worker, **({"GPU": gpus} if gpus else {})},
        ),
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
    learner = Learner(ray.get(config["task"]), get_device(), rank, world, config["memory_bytes"])
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


@contextmanager
def _progress_in_log(uri: str) -> Iterator[None]:
    """Log once a minute what the workers last wrote to `uri`: their own logs stay where they are."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(REPORT_EVERY_S):
            try:
                logger.info("%s", objects.read_bytes(uri).decode() if objects.exists(uri) else "no epoch is done yet")
            except GenreRayError as error:
                logger.warning("the training goes on, its progress cannot be read: %s", error)

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
