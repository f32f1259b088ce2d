"""Guards that a training that is restored continues with the numbers of one that was never interrupted."""

import copy

import torch

from genre_ray.training import checkpoints
from genre_ray.training.checkpoints import Progress


def step(network, optimiser):
    inputs = torch.arange(12, dtype=torch.float32).reshape(3, 4) / 10
    optimiser.zero_grad()
    network(inputs).square().mean().backward()
    optimiser.step()


def started():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
    return network, torch.optim.Adam(network.parameters(), lr=0.1)


def test_a_restored_training_takes_the_same_steps(tmp_path):
    network, optimiser = started()
    step(network, optimiser)
    step(network, optimiser)
    best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    step(network, optimiser)
    progress = Progress([{"loss": 2.0, "validation_loss": 1.0}, {"loss": 1.0, "validation_loss": 3.0}], 0)
    checkpoints.write(str(tmp_path), network, optimiser, best, progress)

    other, its_optimiser = started()
    found, restored = checkpoints.restore(str(tmp_path), other, its_optimiser)
    assert restored == progress
    for given, read in ((best, found), (network.state_dict(), other.state_dict())):
        assert given.keys() == read.keys()
        assert all(torch.equal(given[name], read[name]) for name in given)
    step(network, optimiser)
    step(other, its_optimiser)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))
    assert {path.name for path in tmp_path.iterdir()} == {checkpoints.STATE, checkpoints.PROGRESS}


def test_what_is_written_does_not_change_with_the_network(tmp_path):
    network, optimiser = started()
    best = copy.deepcopy(network.state_dict())
    checkpoints.write(str(tmp_path), network, optimiser, network.state_dict(), Progress())
    step(network, optimiser)
    found, _ = checkpoints.read_best(str(tmp_path))
    assert all(torch.equal(best[name], found[name]) for name in best)


def test_the_lowest_validation_loss_is_the_best_epoch():
    progress = Progress()
    assert (str(progress), progress.waited) == ("no epoch is done yet", 0)
    losses = [3.0, 2.0, 2.0, 2.5, 1.0]
    added = [progress.add({"loss": 9.0, "validation_loss": loss}) for loss in losses]
    assert added == [True, True, False, False, True]
    progress.add({"loss": 8.0, "validation_loss": float("nan")})
    assert (progress.best_epoch, progress.waited) == (4, 1)
    assert str(progress) == "epoch 6: loss 8.00000, validation loss nan, lowest 1.00000 in epoch 5"
