"""The loop over epochs, without Ray: it learns as a bare torch loop does, stops, keeps the best and goes on exactly."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from genre_ray.errors import GenreRayError
from genre_ray.training import learner as learner_module
from genre_ray.training.learner import Learner

CPU = torch.device("cpu")

PLAIN = {"input_dropout": 0.0, "branches": {"units": 16, "dropout": 0.0}}


def nothing():
    pass


def trained(task):
    learner = Learner(task, CPU)
    learner.train(nothing)
    return learner


def arrays(task, part):
    """Standardised inputs, targets and weights of a part, made another way than the learner does."""
    import deltalake

    table = deltalake.DeltaTable(task.features_uri, version=task.features_version)
    rows = sorted(table.to_pyarrow_table().to_pylist(), key=lambda row: (row["recording_id"], row["submission"]))
    examples = task.examples.of(part)
    labels = dict(zip(examples.recording_ids.tolist(), examples.label_sets, strict=True))
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
    network = nn.Sequential(nn.Dropout(0.2), first, nn.ReLU(), nn.Dropout(0.3), last)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    history, states = [], []
    for epoch in range(5):
        torch.manual_seed(int(np.random.SeedSequence([7, epoch, 0]).generate_state(1)[0]))
        network.train()
        total = 0.0
        order = torch.randperm(len(inputs))
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
    examples = learner.task.examples
    ids, counts = np.unique(examples.recording_ids, return_counts=True)
    assert set(counts.tolist()) == {1, 2}
    for recording in ids:
        assert examples.weights[examples.recording_ids == recording].sum() == 1
    assert learner.training[2].tolist() == [
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


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_every_row_is_seen_once_an_epoch(make_task, batch, batch_norm):
    # 8 recordings of train and 2 more submissions; 10 = 8 + 2, then 9 = 8 + 1: a last batch of one row.
    for train in (8, 7):
        network = {"hidden": {"units": 5, "batch_norm": batch_norm}}
        learner = Learner(make_task(train=train, batch=batch, network=network), CPU)
        rows = len(learner.training[0])
        batches = learner._batches(torch.randperm(rows))
        assert sorted(torch.cat(batches).tolist()) == list(range(rows))
        if batch_norm:
            assert min(map(len, batches)) > 1
        else:
            assert [len(chosen) for chosen in batches[:-1]] == [batch] * (len(batches) - 1)
        learner.train(nothing)


def test_uneven_shares_of_several_workers_cover_all_rows(make_task, monkeypatch):
    monkeypatch.setattr(learner_module, "DistributedDataParallel", lambda network, devices: network)
    task = make_task(train=37, validation=11)
    alone = Learner(task, CPU)
    workers = [Learner(task, CPU, rank, 4) for rank in range(4)]
    # As many steps for each worker, so that none waits for another for ever.
    assert len({len(worker.training[0]) for worker in workers}) == 1
    for part in ("training", "validation"):
        rows = {tuple(row) for worker in workers for row in getattr(worker, part)[0].tolist()}
        assert rows == {tuple(row) for row in getattr(alone, part)[0].tolist()}
    assert sum(len(worker.validation[0]) for worker in workers) == len(alone.validation[0])
    assert {worker.mean_weight for worker in workers} == {alone.mean_weight}


def test_a_loss_that_is_no_number_is_an_error_a_user_can_act_on(make_task):
    learner = Learner(make_task(learning_rate=1e30), CPU)
    with pytest.raises(GenreRayError, match=r"found (nan|inf) in epoch \d+; lower rules.learning_rate or set clip_sd"):
        learner.train(nothing)
