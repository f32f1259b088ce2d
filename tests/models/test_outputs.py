"""A row's loss is the mean binary cross-entropy of its labels, and its scores are probabilities."""

import numpy as np
import torch
from sklearn.metrics import log_loss

from genre_ray.models.outputs import OUTPUTS


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
