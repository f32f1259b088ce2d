"""Training on Ray Train: 1 to N learners, on CPUs (gloo) or GPUs (nccl), whatever the system.

`fit` knows nothing of bundles, nor what its folder belongs to: `train`, `fuse` and `tune` use it alike. A training that
was interrupted resumes from its last checkpoint, also with another number of learners. Errors that a user can correct
are raised unchanged and not retried.
"""

import logging
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
from genre_ray.runs.stages import Resources
from genre_ray.storage import objects, s3
from genre_ray.storage.delta import one_line
from genre_ray.training import checkpoints
from genre_ray.training.learner import Learner, Training

logger = logging.getLogger(__name__)

RETRIES, REPORT_EVERY_S, POLL_EVERY_S = 3, 60.0, 1.0


@dataclass(frozen=True)
class Epoch:
    """One epoch of a training.

    Attributes:
        number: counted from 0.
        metrics: as `Progress` has them.
        summary: a line for a log.
    """

    number: int
    metrics: dict[str, float]
    summary: str = ""


OnEpoch = Callable[[Epoch], None]


@dataclass(frozen=True)
class Fitted:
    """The best weights of the network, as named tensors, and the metrics of every epoch that led to them."""

    weights: dict[str, Tensor]
    history: list[dict[str, float]]
    best_epoch: int


def fit(training: Training, storage_uri: str, execution: Execution, on_epoch: OnEpoch = lambda epoch: None) -> Fitted:
    """Train, keeping the newest checkpoint below `storage_uri`, and go on from one that is there.

    Args:
        training: what is to be learnt.
        storage_uri: a folder that is this training's alone.
        execution: learners, and what each reserves.
        on_epoch: called with each epoch once, in their order, within seconds of its end. Epochs before a checkpoint
            that the training goes on from come first. It is called by a thread of its own.

    Raises:
        ConfigurationError: the cluster can never run so many learners.
        GenreRayError: the training diverged, or a learner cannot read what it needs.
        ray.train.TrainingFailedError: workers failed otherwise, more often than they are tried again.
    """
    learner = _learner(training, execution)
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
    reports: Any = ray.remote(Reports).options(num_cpus=0).remote()
    loop_config = {
        "training": ray.put(training),
        "memory_bytes": execution.training_memory_mib * 2**20,
        "reports": reports,
    }
    with (
        Following(partial(_since, reports), on_epoch) as following,
        resources.heartbeat(lambda: None if following.begun else awaited),
    ):
        result = with_retries(lambda: _trainer(loop_config, storage_uri, execution, learner).fit())
    if result.checkpoint is None:
        raise AssertionError(f"{storage_uri}: a training ended without its last checkpoint")
    with result.checkpoint.as_directory() as folder:
        weights, progress = checkpoints.read_best(folder)
    following.finish([Epoch(number, metrics) for number, metrics in enumerate(progress.history)])
    return Fitted(weights, progress.history, progress.best_epoch)


def _learner(training: Training, execution: Execution) -> Resources:
    least = training.system.resources
    return Resources(
        max(execution.cpus_per_learner, least.cpus),
        max(execution.gpus_per_learner, least.gpus),
        least.memory_mib,
    )


class Reports:
    """What the first learner says of its epochs, on its way to the driver: an actor.

    A lost report costs a line of the log only: the history is in the checkpoints.
    """

    def __init__(self) -> None:
        self._epochs: list[Epoch] = []
        self._begun = False

    def begin(self, earlier: list[Epoch]) -> None:
        """A learner has started, after these epochs."""
        self._begun, self._epochs = True, earlier

    def add(self, epoch: Epoch) -> None:
        """An epoch has ended; one that a failure cost is replaced when it ends again."""
        self._epochs[epoch.number :] = [epoch]

    def since(self, known: int) -> tuple[bool, list[Epoch]]:
        """Whether a learner has started, and the epochs after the first `known` ones."""
        return self._begun, self._epochs[known:]


def _since(reports: Any, known: int) -> tuple[bool, list[Epoch]]:
    found: tuple[bool, list[Epoch]] = ray.get(reports.since.remote(known))
    return found


class Following:
    """Calls `on_epoch` with each epoch, and logs the latest one once a minute, while the block runs.

    Args:
        since: number of known epochs → whether a learner has started, and the epochs after them.
        on_epoch: what to call.

    Attributes:
        begun: whether a learner has started.
    """

    def __init__(self, since: Callable[[int], tuple[bool, list[Epoch]]], on_epoch: OnEpoch) -> None:
        self._since, self._on_epoch = since, on_epoch
        self._known, self.begun = 0, False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="epochs", daemon=True)

    def __enter__(self) -> "Following":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def finish(self, epochs: list[Epoch]) -> None:
        """Call `on_epoch` with those of all epochs that have not come yet."""
        for epoch in epochs[self._known :]:
            self._take(epoch)

    def _watch(self) -> None:
        latest, logged_at = "", time.monotonic()
        while not self._ended.wait(POLL_EVERY_S):
            try:
                self.begun, epochs = self._since(self._known)
            except ray.exceptions.RayError as error:
                logger.warning("the training goes on, its progress cannot be read: %s", one_line(error))
                return
            for epoch in epochs:
                self._take(epoch)
                latest = epoch.summary
            if latest and time.monotonic() - logged_at >= REPORT_EVERY_S:
                logger.info("%s", latest)
                latest, logged_at = "", time.monotonic()

    def _take(self, epoch: Epoch) -> None:
        self._known = epoch.number + 1
        self._on_epoch(epoch)


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


def _trainer(loop_config: dict[str, Any], storage_uri: str, execution: Execution, learner: Resources) -> TorchTrainer:
    # One learner exchanges nothing, and NCCL refuses to start where it finds no GPU.
    nccl = learner.gpus > 0 and execution.learners > 1 and torch.distributed.is_nccl_available()
    reserved = {"CPU": learner.cpus}
    reserved |= {"GPU": learner.gpus} if learner.gpus else {}
    reserved |= {"memory": learner.memory_mib * 2**20} if learner.memory_mib else {}
    return TorchTrainer(
        _work,
        train_loop_config=loop_config,
        scaling_config=ScalingConfig(
            num_workers=execution.learners, use_gpu=learner.gpus > 0, resources_per_worker=reserved
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
    learner = Learner(ray.get(config["training"]), _device(), rank, world, config["memory_bytes"])
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            learner.restore(folder)
    if rank == 0:
        earlier = [Epoch(number, metrics) for number, metrics in enumerate(learner.progress.history)]
        config["reports"].begin.remote(earlier)

    def on_epoch() -> None:
        if rank == 0:
            history = learner.progress.history
            epoch = Epoch(len(history) - 1, history[-1], f"{learner.progress}; {learner.pace}")
            config["reports"].add.remote(epoch)

    def report() -> None:
        if rank != 0:
            ray.train.report({})
            return
        with tempfile.TemporaryDirectory() as folder:
            learner.write(folder)
            ray.train.report({}, checkpoint=Checkpoint.from_directory(folder))

    learner.train(report, on_epoch)


def _device() -> torch.device:
    """The device that this learner reserved, or the CPU if it reserved a GPU that PyTorch cannot use."""
    device = get_device()
    if device.type == "cuda" and not torch.cuda.is_available():
        logger.warning("a GPU is reserved, but PyTorch finds no CUDA here: this learner computes on the CPU")
        return torch.device("cpu")
    return device
