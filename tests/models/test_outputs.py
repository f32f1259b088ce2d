"""A row's loss is the mean binary cross-entropy of its labels, and its scores are probabilities."""

import numpy as np
import torch
from sklearn.metrics import log_loss

from genre_ray.models.outputs import OUTPUTS, UNKNOWN


def test_losses_equal_sklearns_log_loss():
    generator = np.random.default_rng(0)
    logits, targets = generator.normal(size=(6, 4)) * 3, generator.random((6, 4)) < 0.3
    output = OUTPUTS["sigmoid"]
    losses = output.losses(torch.tensor(logits), torch.tensor(targets, dtype=torch.float64))
    scores = output.score(torch.tensor(logits)).numpy()
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)))
    expected = [
        log_loss(row, row_scores, labels=[False, True]) for row, row_scores in zip(targets, scores, strict=True)
    ]
    np.testing.assert_allclose(losses.numpy(), expected)


def test_losses_of_huge_logits_are_finite():
    losses = OUTPUTS["sigmoid"].losses(torch.tensor([[1e4, -1e4]]), torch.tensor([[0.0, 1.0]]))
    assert losses.tolist() == [1e4]


def test_masked_losses_are_those_of_the_known_labels_alone():
    generator = np.random.default_rng(1)
    logits = torch.tensor(generator.normal(size=(6, 4)) * 3, requires_grad=True)
    targets = torch.tensor(generator.integers(UNKNOWN, 2, (6, 4)), dtype=torch.float64)
    targets[:, 0] = 1
    output = OUTPUTS["sigmoid"]
    losses = output.masked_losses(logits, targets)
    for row, loss in enumerate(losses):
        known = targets[row] != UNKNOWN
        (expected,) = output.losses(logits[row, known][None], targets[row, known][None])
        torch.testing.assert_close(loss, expected)
    losses.sum().backward()
    assert ((logits.grad != 0) == (targets != UNKNOWN)).all()
    whole = targets.clamp(min=0)
    torch.testing.assert_close(output.masked_losses(logits, whole), output.losses(logits, whole))
