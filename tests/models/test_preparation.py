"""Inputs are standardised as they were in training, and a fusion's are L2-normalised embeddings."""

import copy

import numpy as np
import pytest
import torch

from genre_ray.features.scaling import Scaling
from genre_ray.models.essentia import EssentiaNetwork, EssentiaSettings
from genre_ray.models.preparation import Embeddings, Standardise, build_preparation


@pytest.fixture
def embeddings():
    torch.manual_seed(1)
    sources = []
    for labels in (3, 5):
        standardise = Standardise.of(Scaling(np.arange(6.0), np.full(6, 0.5)), clip_sd=4.0)
        sources.append((standardise, EssentiaNetwork(6, labels, EssentiaSettings())))
    return Embeddings(sources)


def test_a_missing_value_becomes_the_training_mean():
    standardise = Standardise.of(Scaling(np.array([2.0, 5.0]), np.array([0.5, 2.0])))
    rows = torch.tensor([[4.0, torch.nan], [torch.nan, 4.0]])
    assert standardise(rows).tolist() == [[1.0, 0.0], [0.0, -2.0]]


def test_a_column_that_training_lacked_stays_silent():
    standardise = Standardise.of(Scaling(np.array([0.0]), np.array([0.0])))
    assert standardise(torch.tensor([[3.0], [torch.nan], [2e13], [torch.inf]])).tolist() == [[0.0]] * 4


def test_clip_sd_bounds_both_sides():
    scaling = Scaling(np.array([0.0]), np.array([1.0]))
    rows = torch.tensor([[2e13], [-2e13], [3.0]])
    assert Standardise.of(scaling, clip_sd=10.0)(rows).flatten().tolist() == [10.0, -10.0, 3.0]
    assert Standardise.of(scaling)(rows).flatten().tolist() == [pytest.approx(2e13), pytest.approx(-2e13), 3.0]


def test_fusion_input_has_each_embedding_with_length_one(embeddings):
    rows = torch.randn(8, 6) * 5
    prepared = embeddings(rows)
    assert prepared.shape == (8, embeddings.width) == (8, 512)
    for place, network in enumerate(embeddings.networks):
        part = prepared[:, 256 * place : 256 * (place + 1)]
        torch.testing.assert_close(part.norm(dim=1), torch.ones(8))
        raw = network.embed(((rows - torch.arange(6)) * 0.5).clamp(-4, 4))
        torch.testing.assert_close(part, raw / raw.norm(dim=1, keepdim=True))


def test_embeddings_stay_without_dropout_and_gradient(embeddings):
    rows = torch.randn(4, 6)
    torch.testing.assert_close(embeddings.train()(rows), embeddings(rows), rtol=0, atol=0)
    assert not embeddings(rows).requires_grad


@pytest.mark.parametrize("kind", ["standardise", "embeddings"])
def test_a_description_and_the_tensors_make_it_again(kind, embeddings):
    original = embeddings if kind == "embeddings" else embeddings.standardise[0]
    again = build_preparation(copy.deepcopy(original.describe()))
    again.load_state_dict(original.state_dict())
    rows = torch.randn(4, 6)
    rows[0, 2] = torch.nan
    torch.testing.assert_close(again(rows), original(rows), rtol=0, atol=0)
    assert again.describe() == original.describe()
    assert again.width == original.width
