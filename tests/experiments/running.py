"""The jobs that people run, called in one process.

A training runs here without the seconds that Ray takes to start its workers: `tests/training/test_loop.py` holds that
the loop gives the same either way.
"""

from typing import Any

import torch

from genre_ray.commands import learning
from genre_ray.config import Execution
from genre_ray.runs import cluster
from genre_ray.training.learner import Learner, Training
from genre_ray.training.loop import Fitted


def of_configuration(cls: Any, **settings: Any) -> Any:
    """A job's configuration; what an earlier run left half done goes on."""
    return cls.from_mapping({"resume": True, **settings})


def succeeded(code: int) -> None:
    """Stop where a job did not."""
    if code:
        raise SystemExit(f"a job ended with exit code {code}; its log says why")


def train_here() -> None:
    """Train in this process from now on."""
    cluster.connect()
    learning.fit = _fit


def _fit(training: Training, storage_uri: str, execution: Execution) -> Fitted:
    learner = Learner(training, torch.device("cpu"))
    learner.train(lambda: None)
    return Fitted(learner.best, learner.progress.history, learner.progress.best_epoch)
