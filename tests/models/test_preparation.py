"""Inputs are standardised as they were in training, and a fusion's are L2-normalised embeddings."""

import numpy as np
import pytest
import torch

from genre_ray.features.essentia.columns import FEATURE_COLUMNS
from genre_ray.features.essentia.melbands import MELBAND_COLUMNS
from genre_ray.features.scaling import Scaling
from genre_ray.models.description import PreparationDescription
from genre_ray.models.essentia import EssentiaNetwork, EssentiaSettings
from genre_ray.models.preparation import Embeddings, Melbands, Standardise, build_preparation


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


def named(vectors):
    """Rows of a features table from (rows) mappings of statistic → its forty bands; all else is 7."""
    rows = np.full((len(vectors), len(FEATURE_COLUMNS)), 7, dtype=np.float32)
    for row, statistics in zip(rows, vectors, strict=True):
        for statistic, bands in statistics.items():
            for band, value in enumerate(bands):
                row[FEATURE_COLUMNS.index(f"lowlevel.melbands.{statistic}.{band}")] = value
    return torch.from_numpy(rows)


def test_mel_bands_are_relative_to_each_statistics_maximum():
    generator = np.random.default_rng(0)
    bands = {name: generator.random(40).astype(np.float32) * 10.0**-place for place, name in enumerate(("mean", "var"))}
    prepared = Melbands.of(FEATURE_COLUMNS)(named([bands]))
    assert prepared.shape == (1, 360)
    of = dict(zip(MELBAND_COLUMNS, prepared[0].numpy(), strict=True))
    for name, values in bands.items():
        expected = (values / values.max()).astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal([of[f"lowlevel.melbands.{name}.{band}"] for band in range(40)], expected)
    assert {of[f"lowlevel.melbands.dvar2.{band}"] for band in range(40)} == {1.0}


def test_mel_bands_without_a_maximum_to_divide_by():
    silent, lost, odd = np.zeros(40), np.linspace(0, 1, 40), np.full(40, -3e38)
    lost[3], odd[5] = np.nan, 1e-3
    rows = named([{"min": silent, "mean": lost, "max": odd}])
    prepared = Melbands.of(FEATURE_COLUMNS)(rows).view(9, 40)
    assert not prepared[0].any()
    assert not prepared[1].any()
    assert (prepared[3].max(), prepared[3].min()) == (1, -65504)
    assert prepared.isfinite().all()


@pytest.mark.parametrize("kind", ["standardise", "embeddings", "melbands"])
def test_a_description_and_the_tensors_make_it_again(kind, embeddings):
    columns = ("a", *MELBAND_COLUMNS)
    original = {
        "standardise": embeddings.standardise[0],
        "embeddings": embeddings,
        "melbands": Melbands.of(columns),
    }[kind]
    described = PreparationDescription.model_validate_json(original.describe().model_dump_json(), strict=True)
    again = build_preparation(described)
    again.load_state_dict(original.state_dict())
    rows = torch.randn(4, len(columns) if kind == "melbands" else 6)
    rows[0, 2] = torch.nan
    torch.testing.assert_close(again(rows), original(rows), rtol=0, atol=0)
    assert again.describe() == original.describe()
    assert again.width == original.width
