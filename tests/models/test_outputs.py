"""A row's loss is the mean binary cross-entropy of its labels, and its scores are probabilities."""

import numpy as np
import torch
from sklearn.metrics import log_loss

from genre_ray.models.outputs import UNKNOWN, Cosine, MaskedSigmoid, Sigmoid, Softmax, restore_output


def test_losses_equal_sklearns_log_loss():
    generator = np.random.default_rng(0)
    logits, targets = generator.normal(size=(6, 4)) * 3, generator.random((6, 4)) < 0.3
    output = Sigmoid(4)
    losses = output.losses(torch.tensor(logits), torch.tensor(targets, dtype=torch.float64))
    scores = output.score(torch.tensor(logits)).numpy()
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)))
    expected = [
        log_loss(row, row_scores, labels=[False, True]) for row, row_scores in zip(targets, scores, strict=True)
    ]
    np.testing.assert_allclose(losses.numpy(), expected)


def test_losses_of_huge_logits_are_finite():
    losses = Sigmoid(2).losses(torch.tensor([[1e4, -1e4]]), torch.tensor([[0.0, 1.0]]))
    assert losses.tolist() == [1e4]


def test_masked_losses_are_those_of_the_known_labels_alone():
    generator = np.random.default_rng(1)
    logits = torch.tensor(generator.normal(size=(6, 4)) * 3, requires_grad=True)
    targets = torch.tensor(generator.integers(UNKNOWN, 2, (6, 4)), dtype=torch.float64)
    targets[:, 0] = 1
    output, masked = Sigmoid(4), MaskedSigmoid(4)
    losses = masked.losses(logits, targets)
    for row, loss in enumerate(losses):
        known = targets[row] != UNKNOWN
        (expected,) = output.losses(logits[row, known][None], targets[row, known][None])
        torch.testing.assert_close(loss, expected)
    losses.sum().backward()
    assert ((logits.grad != 0) == (targets != UNKNOWN)).all()
    whole = targets.clamp(min=0)
    torch.testing.assert_close(masked.losses(logits, whole), output.losses(logits, whole))


def test_softmax_losses_equal_sklearns_log_loss_for_labels_and_restate_cross_entropy_for_distributions():
    generator = np.random.default_rng(2)
    logits, labels = generator.normal(size=(6, 4)) * 3, np.array([0, 3, 1, 1, 2, 0])
    output = Softmax(4)
    scores = output.score(torch.tensor(logits)).numpy()
    powers = np.exp(logits)
    np.testing.assert_allclose(scores, powers / powers.sum(axis=1, keepdims=True))
    hard = output.losses(torch.tensor(logits), torch.tensor(np.eye(4)[labels])).numpy()
    expected = [log_loss([label], row[None], labels=range(4)) for label, row in zip(labels, scores, strict=True)]
    np.testing.assert_allclose(hard, expected)
    soft = generator.dirichlet(np.ones(4), size=6)
    found = output.losses(torch.tensor(logits), torch.tensor(soft)).numpy()
    np.testing.assert_allclose(found, -(soft * np.log(scores)).sum(axis=1))


def test_cosine_scores_and_losses_restate_the_paper():
    generator = np.random.default_rng(3)
    factors, vectors = generator.normal(size=(5, 3)).astype(np.float32), generator.normal(size=(4, 3))
    targets = (generator.random((4, 5)) < 0.5).astype(np.float64)
    targets[:, 0] = 1
    output = Cosine(factors).double()
    assert (output.labels, output.width) == (5, 3)

    def cosine(one, other):
        return one @ other / np.linalg.norm(one) / np.linalg.norm(other)

    scores = output.score(torch.tensor(vectors)).numpy()
    losses = output.losses(torch.tensor(vectors), torch.tensor(targets)).numpy()
    for row, vector in enumerate(vectors):
        np.testing.assert_allclose(scores[row], [(1 + cosine(vector, factor)) / 2 for factor in factors], rtol=1e-6)
        np.testing.assert_allclose(losses[row], (1 - cosine(vector, targets[row] @ factors)) / 2, rtol=1e-6)


def test_outputs_are_restored_from_their_description():
    factors = np.random.default_rng(4).normal(size=(5, 3)).astype(np.float32)
    for output in (Sigmoid(4), Softmax(4), Cosine(factors)):
        again = restore_output(output.describe())
        again.load_state_dict(output.state_dict())
        assert type(again) is type(output)
        logits = torch.randn(6, output.width)
        torch.testing.assert_close(again.score(logits), output.score(logits), rtol=0, atol=0)
    assert restore_output(MaskedSigmoid(4).describe()).describe() == Sigmoid(4).describe()
