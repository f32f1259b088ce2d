"""The loop over epochs, without Ray: it learns as a bare torch loop does, stops, keeps the best and goes on exactly."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from genre_ray.errors import ConfigurationError, GenreRayError
from genre_ray.models.dropout import Dropout
from genre_ray.storage import tables
from genre_ray.training import learner as learner_module
from genre_ray.training.learner import Learner, Pace
from genre_ray.training.rows import Streamed

CPU = torch.device("cpu")

PLAIN = {"input_dropout": 0.0, "branches": {"units": 16, "dropout": 0.0}}


def nothing():
    pass


def trained(task):
    learner = Learner(task, CPU)
    learner.train(nothing)
    return learner


def rows_of(examples):
    """(recording, labels, weight) of each example."""
    ids, sets = examples.recording_ids.to_pylist(), examples.matrix.toarray()
    return [
        (ids[place], {label for label, there in zip(examples.labels, sets[place], strict=True) if there}, float(weight))
        for place, weight in zip(examples.recordings.tolist(), examples.weights, strict=True)
    ]


def arrays(task, part):
    """Standardised inputs, targets and weights of a part, made another way than the learner does."""
    import deltalake

    table = deltalake.DeltaTable(task.features[0].uri, version=task.features[0].version)
    rows = sorted(table.to_pyarrow_table().to_pylist(), key=lambda row: (row["recording_id"], row["submission"]))
    examples = task.examples.of(part)
    labels = {recording: label_set for recording, label_set, _ in rows_of(examples)}
    chosen = [row for row in rows if row["recording_id"] in labels]
    values = torch.tensor([row["features"] for row in chosen])
    inputs = (values - task.preparation.mean) * task.preparation.scale
    targets = torch.tensor(
        [[float(label in labels[row["recording_id"]]) for label in task.examples.labels] for row in chosen]
    )
    counts = [sum(other["recording_id"] == row["recording_id"] for other in rows) for row in chosen]
    return inputs, targets, 1 / torch.tensor(counts, dtype=torch.float32)


def bare_torch(task):
    """The published training, restated: (history, weights after each epoch)."""
    inputs, targets, weights = arrays(task, "train")
    validation_inputs, validation_targets, validation_weights = arrays(task, "validation")
    torch.manual_seed(7)
    first, last = nn.Linear(6, 4), nn.Linear(4, 3)
    torch.manual_seed(7)
    # What torch draws for its own initial weights comes first in both.
    first, last = nn.Linear(6, 4), nn.Linear(4, 3)
    for layer in (first, last):
        nn.init.uniform_(layer.weight, -0.05, 0.05)
        nn.init.zeros_(layer.bias)
    network = nn.Sequential(Dropout(0.2), first, nn.ReLU(), Dropout(0.3), last)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    history, states = [], []
    for epoch in range(5):
        torch.manual_seed(int(np.random.SeedSequence([7, epoch, 0, 0, 0]).generate_state(1)[0]))
        order = torch.randperm(len(inputs))
        torch.manual_seed(int(np.random.SeedSequence([7, epoch, 2, 0]).generate_state(1)[0]))
        network.train()
        total = 0.0
        for start in range(0, len(inputs), 8):
            rows = order[start : start + 8]
            cross_entropy = functional.binary_cross_entropy_with_logits(
                network(inputs[rows]), targets[rows], weight=weights[rows, None] / weights.mean()
            )
            optimiser.zero_grad()
            cross_entropy.backward()
            optimiser.step()
            total += cross_entropy.item() * len(rows)
        network.eval()
        with torch.no_grad():
            logits = network(validation_inputs)
            each = functional.binary_cross_entropy_with_logits(logits, validation_targets, reduction="none").mean(1)
        validation = (each * validation_weights).sum() / validation_weights.sum()
        history.append((total / len(inputs), validation.item()))
        states.append([parameter.detach().clone() for parameter in network.parameters()])
    return history, states


def test_equals_a_bare_torch_loop(make_task):
    task = make_task(learning_rate=0.01)
    learner = trained(task)
    history, states = bare_torch(task)
    found = [(losses["loss"], losses["validation_loss"]) for losses in learner.progress.history]
    np.testing.assert_allclose(found, history, rtol=1e-5)
    for parameter, expected in zip(learner.network.parameters(), states[-1], strict=True):
        torch.testing.assert_close(parameter.detach(), expected)
    best = int(np.argmin([validation for _, validation in history]))
    for parameter, expected in zip(learner.best.values(), states[best], strict=True):
        torch.testing.assert_close(parameter, expected)


def test_stops_after_patience_and_keeps_the_best_not_the_last(make_task):
    task = make_task(noise=3.0, network=PLAIN, learning_rate=0.05, max_epochs=200, patience=3)
    learner = trained(task)
    losses = [epoch["validation_loss"] for epoch in learner.progress.history]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 3 < 200
    assert learner.progress.best_epoch == best
    inputs, targets, weights = arrays(task, "validation")
    learner.network.load_state_dict(learner.best)
    with torch.no_grad():
        each = functional.binary_cross_entropy_with_logits(learner.network(inputs), targets, reduction="none").mean(1)
    assert ((each * weights).sum() / weights.sum()).item() == pytest.approx(losses[best], rel=1e-5)
    assert losses[-1] > losses[best]


def test_max_epochs_end_a_training_that_still_improves(make_task):
    assert len(trained(make_task(max_epochs=3, patience=50)).progress.history) == 3


def test_submissions_share_their_recordings_weight(make_task):
    learner = Learner(make_task(), CPU)
    examples = learner.training.examples
    counts = np.bincount(examples.recordings)
    assert set(counts.tolist()) == {1, 2}
    for recording in range(len(counts)):
        assert examples.weights[examples.recordings == recording].sum() == 1
    assert learner.train_rows.rows.weights.tolist() == [
        1 / 2 if i % 5 == 0 else 1 for i in range(37) for _ in range(1 + (i % 5 == 0))
    ]


@pytest.mark.parametrize("at", [1, 3])
def test_a_checkpoint_goes_on_exactly(make_task, tmp_path, monkeypatch, at):
    monkeypatch.setattr(learner_module, "CHECKPOINT_EVERY_S", 0.0)
    task = make_task(network={"hidden": {"units": 5, "batch_norm": True}}, max_epochs=6)
    whole = Learner(task, CPU)

    def save():
        if len(whole.progress.history) == at:
            whole.write(str(tmp_path))

    whole.train(save)
    resumed = Learner(task, CPU)
    resumed.restore(str(tmp_path))
    assert len(resumed.progress.history) == at
    resumed.train(nothing)
    assert resumed.progress == whole.progress
    for name, tensor in whole.network.state_dict().items():
        torch.testing.assert_close(resumed.network.state_dict()[name], tensor, rtol=0, atol=0)
        torch.testing.assert_close(resumed.best[name], whole.best[name], rtol=0, atol=0)


def test_reports_at_the_end_and_when_a_minute_is_over(make_task, monkeypatch):
    reports = []
    Learner(make_task(), CPU).train(lambda: reports.append(1))
    assert len(reports) == 1
    monkeypatch.setattr(learner_module, "CHECKPOINT_EVERY_S", 0.0)
    Learner(make_task(), CPU).train(lambda: reports.append(1))
    assert len(reports) == 1 + 5 + 1


def test_a_finished_training_is_not_gone_on_with(make_task, tmp_path):
    task = make_task(noise=3.0, network=PLAIN, learning_rate=0.05, max_epochs=200, patience=2)
    finished = trained(task)
    finished.write(str(tmp_path))
    again = Learner(task, CPU)
    again.restore(str(tmp_path))
    again.train(nothing)
    assert again.progress == finished.progress


@pytest.mark.parametrize("train", [7, 8])
def test_batch_normalisation_never_meets_one_row_alone(make_task, train):
    # 8 recordings of train and 2 more submissions; 10 = 8 + 2, then 9 = 8 + 1: a last batch of one row.
    network = {"hidden": {"units": 5, "batch_norm": True}}
    for batch in (1, 8):
        trained(make_task(train=train, batch=batch, network=network, max_epochs=1))


def test_batch_normalisation_needs_rows_for_every_worker(make_task, monkeypatch):
    monkeypatch.setattr(learner_module, "DistributedDataParallel", lambda network, devices, **options: network)
    task = make_task(train=4, network={"hidden": {"units": 5, "batch_norm": True}})
    with pytest.raises(
        ConfigurationError, match=r"2 training rows per learner, found 5 for 3 learners; lower execution.learners"
    ):
        Learner(task, CPU, 0, 3)


def test_a_loss_that_is_no_number_is_an_error_a_user_can_act_on(make_task):
    learner = Learner(make_task(learning_rate=1e30), CPU)
    with pytest.raises(GenreRayError, match=r"found (nan|inf) in epoch \d+; lower rules.learning_rate or set clip_sd"):
        learner.train(nothing)


STREAMED = 30 * 40
"""Bytes: room for 30 rows of the task and so for stretches of 15."""


def test_streaming_equals_memory_where_a_stretch_holds_all_rows(make_task, monkeypatch):
    task = make_task(max_epochs=4, network={"hidden": {"units": 5, "batch_norm": True}})
    held = trained(task)
    streamed = Learner(task, CPU)
    streamed.train_rows = streamed_source(streamed, capacity=1000)
    streamed.train(nothing)
    assert streamed.progress == held.progress
    for name, tensor in held.best.items():
        torch.testing.assert_close(streamed.best[name], tensor, rtol=0, atol=0)


def streamed_source(learner, capacity):
    reader = learner._reader("train")
    return Streamed(reader, lambda epoch: learner.share.stretches(reader.spans, epoch, capacity), capacity)


def test_streaming_learns_as_well_as_memory(make_task):
    # Another order of the rows is another seed's: the losses of seeds in memory say how far apart these are.
    held = [trained(make_task(name=f"s{seed}", seed=seed, **SMALL)).progress for seed in range(5)]
    lowest = [progress.history[progress.best_epoch]["validation_loss"] for progress in held]
    streamed = Learner(make_task(name="streamed", **SMALL), CPU, memory_bytes=STREAMED)
    streamed.train(nothing)
    found = streamed.progress.history[streamed.progress.best_epoch]["validation_loss"]
    assert abs(found - np.mean(lowest)) < 4 * np.std(lowest)
    assert found < 0.8 * streamed.progress.history[0]["validation_loss"]


SMALL = {"train": 120, "validation": 60, "max_epochs": 60, "learning_rate": 0.01, "network": PLAIN}


def test_streaming_is_the_same_twice_and_goes_on_exactly(make_task, tmp_path, monkeypatch):
    monkeypatch.setattr(learner_module, "CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 8)
    task = make_task(max_epochs=5)
    whole = Learner(task, CPU, memory_bytes=STREAMED)
    assert isinstance(whole.train_rows, Streamed)
    assert isinstance(whole.validation_rows, Streamed)

    def save():
        if len(whole.progress.history) == 2:
            whole.write(str(tmp_path))

    whole.train(save)
    resumed = Learner(task, CPU, memory_bytes=STREAMED)
    resumed.restore(str(tmp_path))
    again = Learner(task, CPU, memory_bytes=STREAMED)
    for other in (resumed, again):
        other.train(nothing)
        assert other.progress == whole.progress
        for name, tensor in whole.network.state_dict().items():
            torch.testing.assert_close(other.network.state_dict()[name], tensor, rtol=0, atol=0)


def test_the_pace_says_how_much_of_the_time_was_waiting(make_task):
    learner = Learner(make_task(), CPU, memory_bytes=STREAMED)
    learner.train(nothing)
    assert learner.pace.rows_s > 0
    assert 0 < learner.pace.waiting < 1
    assert trained(make_task(name="held")).pace.waiting == 0
    assert str(Pace(5120.4, 0.023)) == "5,120 rows/s, 2% of the time waiting for them"


def several(rank, world, trainings, folder):
    """One of several workers, in a process of its own."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    for name, (task, memory_bytes) in trainings.items():
        learner = Learner(task, CPU, rank, world, memory_bytes)
        learner.train(nothing)
        if rank == world - 1:
            (Path(folder) / f"{name} checkpoint").mkdir()
            learner.write(f"{folder}/{name} checkpoint")
    torch.distributed.destroy_process_group()


def test_several_workers_learn_what_one_does(make_task, tmp_path):
    """Rows that were seen twice and batches of each worker's own rows once made the weights depend on the workers."""
    rules = {"network": PLAIN, "max_epochs": 3, "learning_rate": 0.01}
    # 46 rows in batches of 5 for 2 workers: parts of 3 and 2, in the end of 1 and 0. Streamed rows come in another
    # order, which does not show in one batch of all.
    held, streamed = make_task(batch=5, name="held", **rules), make_task(batch=46, name="streamed", **rules)
    trainings = {"held": (held, learner_module.MEMORY_BYTES), "streamed": (streamed, STREAMED)}
    torch.multiprocessing.spawn(several, (2, trainings, str(tmp_path)), nprocs=2)
    for name, (task, _) in trainings.items():
        one, other = trained(task), Learner(task, CPU)
        other.restore(str(tmp_path / f"{name} checkpoint"))
        np.testing.assert_allclose(
            [list(losses.values()) for losses in other.progress.history],
            [list(losses.values()) for losses in one.progress.history],
            rtol=1e-5,
        )
        for parameter, tensor in one.best.items():
            torch.testing.assert_close(other.best[parameter], tensor, rtol=1e-4, atol=1e-6)
