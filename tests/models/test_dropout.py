"""Dropout obeys torch's law: as many values are dropped, what is kept is scaled so that the mean stays."""

import numpy as np
import pytest
import torch
from torch import nn

from genre_ray.models.dropout import Dropout

SHARES = [0.1, 0.2, 0.5, 0.6, 0.9]


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("p", SHARES)
def test_law(p, inplace):
    torch.manual_seed(0)
    inputs = torch.randn(1000, 333) + 5
    kept_values = inputs.clone()
    outputs = Dropout(p, inplace=inplace)(inputs)
    kept = outputs != 0
    # Three standard deviations of a binomial share, and the rounding of the share.
    bound = 3 * np.sqrt(p * (1 - p) / kept.numel()) + 1 / 65536
    assert abs(kept.float().mean().item() - (1 - p)) < bound
    torch.testing.assert_close(outputs[kept], kept_values[kept] / (1 - p), rtol=1e-4, atol=0)
    assert torch.equal(inputs, outputs) is inplace
    # Rows, columns and neighbours are alike and independent.
    share = kept.double()
    deviation = np.sqrt(p * (1 - p))
    assert abs(share.mean(0) - (1 - p)).max() < 5 * deviation / np.sqrt(1000) + 1e-4
    assert abs(share.mean(1) - (1 - p)).max() < 5 * deviation / np.sqrt(333) + 1e-4
    flat = (share.flatten() - share.mean()) / share.std()
    for lag in (1, 2, 3, 4, 8, 333):
        assert abs((flat[lag:] * flat[:-lag]).mean()) < 5 / np.sqrt(len(flat))


def test_the_four_values_of_a_word_are_alike():
    """torch's random_() without a range leaves a word's highest bit 0: every fourth value would be kept more often."""
    torch.manual_seed(1)
    kept = (Dropout(0.5)(torch.ones(400_000)) != 0).double().view(-1, 4).mean(0)
    assert abs(kept - 0.5).max() < 5 * 0.5 / np.sqrt(100_000)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_all_or_nothing(p):
    inputs = torch.randn(7, 5)
    assert torch.equal(Dropout(p)(inputs), nn.Dropout(p)(inputs))


@pytest.mark.parametrize("p", SHARES)
def test_gradients_go_where_values_went(p):
    inputs = torch.rand(50, 40) + 1
    inputs.requires_grad_()
    outputs = Dropout(p)(inputs)
    outputs.sum().backward()
    torch.testing.assert_close(inputs.grad * inputs.detach(), outputs.detach())


@pytest.mark.parametrize("inplace", [False, True])
def test_evaluation_changes_nothing(inplace):
    inputs = torch.randn(7, 5)
    assert Dropout(0.5, inplace=inplace).eval()(inputs) is inputs


def test_torchs_seed_decides():
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(Dropout(0.5)(torch.ones(100)))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (1,), (3, 1), (2, 3, 5)])
def test_any_shape(shape):
    assert Dropout(0.3)(torch.ones(shape)).shape == shape


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_what_is_no_share_is_refused(p):
    with pytest.raises(ValueError, match="expected a dropout share from 0 to 1"):
        Dropout(p)
