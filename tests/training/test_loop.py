"""Training through Ray Train is the same loop: same numbers, resumed by other workers, and errors as they are."""

import logging
import re
import time
from dataclasses import replace

import numpy as np
import pytest
import ray
import ray.train
import torch
from ray.train import TrainingFailedError

from genre_ray.config import Execution
from genre_ray.errors import GenreRayError, StorageError
from genre_ray.runs import cluster, resources
from genre_ray.runs.stages import Resources
from genre_ray.training import loop
from genre_ray.training.learner import Learner
from genre_ray.training.loop import fit, with_retries


def alone(task):
    learner = Learner(task, torch.device("cpu"))
    learner.train(lambda: None)
    return learner


def test_one_worker_equals_the_learner_alone_and_two_go_on_from_it(ray_cluster, make_task, tmp_path):
    cluster.connect()
    task = make_task(max_epochs=3, train=38, validation=11)
    storage = str(tmp_path / "run")
    epochs = []
    fitted = fit(task, storage, Execution(learners=1), epochs.append)
    learner = alone(task)
    np.testing.assert_allclose(
        [list(losses.values()) for losses in fitted.history],
        [list(losses.values()) for losses in learner.progress.history],
        rtol=1e-5,
    )
    assert fitted.best_epoch == learner.progress.best_epoch
    for name, tensor in learner.best.items():
        torch.testing.assert_close(fitted.weights[name], tensor)
    assert [epoch.number for epoch in epochs] == [0, 1, 2]
    assert [epoch.metrics for epoch in epochs] == fitted.history
    assert 0.5 < fitted.history[-1]["roc_auc.t"] <= 1

    # The shares of two workers are uneven, in train and in validation.
    longer = make_task(max_epochs=7, patience=50, train=38, validation=11, name="again")
    epochs.clear()
    resumed = fit(longer, storage, Execution(learners=2), epochs.append)
    assert resumed.history[:3] == fitted.history
    assert len(resumed.history) == 7
    assert [epoch.metrics for epoch in epochs] == resumed.history
    judge = Learner(longer, torch.device("cpu"))
    judge.network.load_state_dict(resumed.weights)
    loss, weight = judge._validate(0).sums[0].tolist()
    assert loss / weight == pytest.approx(resumed.history[resumed.best_epoch]["validation_loss"], rel=1e-5)
    assert len([path for path in (tmp_path / "run" / "train").glob("checkpoint_*") if path.is_dir()]) == 1


def test_a_diverging_training_ends_at_once_and_without_a_traceback_of_ray(ray_cluster, make_task, tmp_path, caplog):
    cluster.connect()
    with caplog.at_level(logging.WARNING, "genre_ray"), pytest.raises(GenreRayError) as caught:
        fit(make_task(learning_rate=1e30), str(tmp_path / "run"), Execution(learners=1))
    assert "lower rules.learning_rate" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [record for record in caplog.records if "going on from" in record.message]


def failing(*errors):
    """An attempt that fails with each of `errors` and then gives "result"; it counts itself."""

    def attempt():
        attempt.calls += 1
        if attempt.calls <= len(errors):
            raise errors[attempt.calls - 1]
        return "result"

    attempt.calls = 0
    return attempt


def of_workers(failures):
    return ray.train.WorkerGroupError("a traceback\nof ray", failures)


def test_workers_that_die_are_tried_again():
    attempt = failing(*[of_workers({1: ray.exceptions.RayActorError()})] * 3)
    assert with_retries(attempt) == "result"
    assert attempt.calls == 4


def test_the_last_failure_is_raised():
    attempt = failing(*[of_workers({0: RuntimeError("gloo")})] * 4)
    with pytest.raises(TrainingFailedError):
        with_retries(attempt)
    assert attempt.calls == 4


def test_what_a_user_can_correct_is_raised_at_once():
    # The other worker only failed because the first was gone.
    attempt = failing(of_workers({0: RuntimeError("connection closed"), 1: StorageError("s3://b: not there")}))
    with pytest.raises(StorageError, match="s3://b: not there"):
        with_retries(attempt)
    assert attempt.calls == 1


@pytest.mark.parametrize(
    ("settings", "learners", "reserved"),
    [
        ({}, 1, {"CPU": 1.0}),
        # `workers` is a setting of the jobs that work on rows: a pipeline's `workers: 4` once trained with 4 learners.
        ({"workers": 4, "cpus_per_worker": 3, "gpus_per_worker": 1}, 1, {"CPU": 1.0}),
        ({"learners": 2, "cpus_per_learner": 3}, 2, {"CPU": 3.0}),
        ({"learners": 2, "gpus_per_learner": 1}, 2, {"CPU": 1.0, "GPU": 1.0}),
        ({"gpus_per_learner": 0.5}, 1, {"CPU": 1.0, "GPU": 0.5}),
    ],
)
def test_learners_reserve_what_is_asked_for_whatever_the_cluster_has(make_task, tmp_path, settings, learners, reserved):
    execution = Execution(**settings)
    learner = loop._learner(make_task(), execution)
    scaling = loop._trainer({}, str(tmp_path), execution, learner).scaling_config
    assert (scaling.num_workers, scaling.resources_per_worker) == (learners, reserved)
    assert scaling.use_gpu == ("GPU" in reserved)


def test_a_reserved_gpu_that_pytorch_cannot_use_is_replaced_by_the_cpu(monkeypatch, caplog):
    monkeypatch.setattr(loop, "get_device", lambda: torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert loop._device() == torch.device("cpu")
    assert "finds no CUDA" in caplog.text
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert loop._device() == torch.device("cuda:0")


def test_a_training_that_has_no_room_says_what_it_waits_for(
    ray_cluster, make_task, tmp_path, monkeypatch, caplog, until
):
    """It said "no epoch is done yet" for ever."""
    cluster.connect()
    monkeypatch.setattr(resources, "FIRST_LINE_S", 0.1)
    monkeypatch.setattr(resources, "LINE_EVERY_S", 0.1)
    monkeypatch.setattr(loop, "REPORT_EVERY_S", 0.1)

    def fit_never(trainer):
        until(lambda: sum("waiting" in record.message for record in caplog.records) >= 2)
        raise GenreRayError("enough")

    monkeypatch.setattr(loop.TorchTrainer, "fit", fit_never)
    with caplog.at_level(logging.INFO, "genre_ray"), pytest.raises(GenreRayError, match="enough"):
        fit(make_task(), str(tmp_path / "run"), Execution(learners=50, gpus_per_learner=1))
    lines = [record.message for record in caplog.records if "waiting" in record.message]
    assert re.match(
        r"waiting for 50 CPUs and 50 GPUs for 50 learners: the cluster has 2 CPUs \([\d.]+ free\) and 1 GPU .* now; ",
        lines[0],
    )
    assert not [record for record in caplog.records if "no epoch" in record.message]


def test_a_system_that_needs_more_reserves_it(make_task, tmp_path):
    training = make_task()
    needy = replace(training, system=replace(training.system, resources=Resources(2, 1, 512)))
    execution = Execution(cpus_per_learner=1.5, gpus_per_learner=2)
    learner = loop._learner(needy, execution)
    scaling = loop._trainer({}, str(tmp_path), execution, learner).scaling_config
    assert scaling.resources_per_worker == {"CPU": 2.0, "GPU": 2.0, "memory": 512 * 2**20}


class Fails(Exception):
    """What a test raises."""


def test_each_epoch_comes_once_and_the_latest_is_logged(monkeypatch, caplog, until):
    """Epochs that are repeated after a failure do not come again, and those that were never reported come last."""
    monkeypatch.setattr(loop, "POLL_EVERY_S", 0.01)
    monkeypatch.setattr(loop, "REPORT_EVERY_S", 0.02)
    reports, found = loop.Reports(), []
    with caplog.at_level(logging.INFO, "genre_ray"), loop.Following(reports.since, found.append) as following:
        time.sleep(0.05)
        assert not following.begun
        reports.begin([])
        for number in range(3):
            reports.add(loop.Epoch(number, {"loss": number}, f"epoch {number + 1}"))
        until(lambda: len(found) == 3 and "epoch 3" in caplog.messages)
        assert following.begun
        reports.begin([loop.Epoch(0, {"loss": 0})])
        reports.add(loop.Epoch(1, {"loss": 1}, "epoch 2"))
        time.sleep(0.05)
        assert [epoch.number for epoch in found] == [0, 1, 2]
        reports.add(loop.Epoch(2, {"loss": 2}, "epoch 3"))
        reports.add(loop.Epoch(3, {"loss": 3}, "epoch 4"))
        until(lambda: "epoch 4" in caplog.messages)
    following.finish([loop.Epoch(number, {"loss": number}) for number in range(5)])
    assert [(epoch.number, epoch.metrics["loss"]) for epoch in found] == [(n, n) for n in range(5)]
    assert caplog.messages == ["epoch 3", "epoch 4"]


def test_an_error_ends_the_following(monkeypatch):
    monkeypatch.setattr(loop, "POLL_EVERY_S", 0.01)
    with pytest.raises(Fails), loop.Following(loop.Reports().since, lambda epoch: None) as following:
        raise Fails
    assert not following._thread.is_alive()
