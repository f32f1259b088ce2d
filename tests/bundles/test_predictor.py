"""A bundle scores as the network did that was trained, and refuses what it was not made for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from genre_ray.bundles.manifest import Architecture
from genre_ray.bundles.predictor import Predictor, build
from genre_ray.errors import InputError
from genre_ray.models.description import PreparationDescription


@pytest.fixture
def altered():
    """`altered(bundle, name=array)`: the bundle with other tensors."""

    def alter(bundle, **tensors):
        assert build(bundle)
        changed = {name.replace("__", "."): array for name, array in tensors.items()}
        return replace(bundle, tensors={**bundle.tensors, **changed})

    return alter


@pytest.mark.parametrize("fused", [False, True])
def test_scores_are_the_same_before_and_after_the_bundle(make_bundle, fused):
    bundle, preparation, network = make_bundle(fused=fused)
    features = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32) * 10
    features[2, 3] = np.nan
    with torch.no_grad():
        expected = torch.sigmoid(network(preparation(torch.from_numpy(features)))).numpy()
    predictor = Predictor.of(bundle, device="cpu")
    np.testing.assert_array_equal(predictor.scores(features), expected)
    assert np.isfinite(expected).all()
    assert predictor.scores(features[:0]).shape == (0, 4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fused", [False, True])
def test_rows_that_cannot_be_written_to_are_scored_and_left_as_they_are(make_bundle, fused):
    predictor = Predictor.of(make_bundle(fused=fused)[0], device="cpu")
    features = np.random.default_rng(3).normal(size=(3, 6)).astype(np.float32) * 100
    features[1, 2] = np.nan
    before = features.copy()
    features.setflags(write=False)
    scores = predictor.scores(features)
    np.testing.assert_array_equal(features, before)
    np.testing.assert_array_equal(scores, predictor.scores(before))


@pytest.mark.parametrize("fused", [False, True])
def test_half_precision_moves_scores_by_no_more_than_its_digits(make_bundle, fused):
    """bfloat16 has 8 bits of a number; a sigmoid is at most a quarter as steep."""
    bundle, _, _ = make_bundle(fused=fused)
    features = np.random.default_rng(4).normal(size=(500, 6)).astype(np.float32)
    exact = Predictor.of(bundle, device="cpu").scores(features)
    halved = Predictor.of(bundle, device="cpu", half_precision=True).scores(features)
    assert halved.dtype == exact.dtype == np.float32
    assert 0 < np.abs(halved - exact).max() < 2**-6


def test_an_overflow_is_no_score_in_half_precision_either(make_bundle):
    features = np.ones((2, 6), dtype=np.float32)
    features[0, 0] = np.inf
    scores = Predictor.of(make_bundle(clip_sd=None)[0], device="cpu", half_precision=True).scores(features)
    assert np.isnan(scores).any(axis=1).tolist() == [True, False]


def test_an_overflow_is_no_score(make_bundle, altered):
    bundle, _, _ = make_bundle()
    # One unit is infinite: a sigmoid alone would answer exactly 0 or 1.
    bias = np.zeros(8, dtype=np.float32)
    bias[0] = np.inf
    weight = np.full((4, 8), 0.1, dtype=np.float32)
    broken = altered(bundle, **{"network__branches__0__0__bias": bias, "network__head__1__weight": weight})
    assert np.isnan(Predictor.of(broken, device="cpu").scores(np.ones((2, 6), dtype=np.float32))).all()


def test_weights_of_another_architecture_are_refused(make_bundle, altered):
    broken = altered(make_bundle()[0], network__head__1__weight=np.zeros((4, 9), dtype=np.float32))
    with pytest.raises(InputError, match=r"the weights do not fit the network of the system essentia: .*head.1.weight"):
        Predictor.of(broken)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"system": "S9"}, "unknown system 'S9'"),
        ({"preprocessing": PreparationDescription(kind="whiten", settings={})}, "found 'whiten'"),
        ({"preprocessing": PreparationDescription(kind="standardise", settings={})}, "'columns' is required"),
        ({"preprocessing": PreparationDescription(kind="standardise", settings={"bands": 3})}, "unknown key 'bands'"),
        ({"architecture": Architecture(inputs=6, network={"brnches": {}})}, "did you mean 'branches'"),
        ({"architecture": Architecture(inputs=6, network={"branches": {"units": 10**14}})}, "memory|storage|size"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused(make_bundle, changes, message):
    bundle, _, _ = make_bundle()
    broken = replace(bundle, manifest=bundle.manifest.model_copy(update=changes))
    with pytest.raises(InputError, match=rf"{bundle.uri}: .*({message}).*restore the bundle"):
        Predictor.of(broken)


def test_a_fusion_of_nothing_is_refused(make_bundle):
    bundle, _, _ = make_bundle(fused=True)
    nothing = PreparationDescription(kind="embeddings", settings={"sources": []})
    broken = replace(bundle, manifest=bundle.manifest.model_copy(update={"preprocessing": nothing}))
    with pytest.raises(InputError, match=r"preprocessing: 'sources'.*restore the bundle"):
        Predictor.of(broken)


def test_without_a_device_it_computes_where_the_process_has_reserved(make_bundle, monkeypatch):
    """It once took any GPU that torch saw, which Ray does not hide from workers that have reserved none."""
    bundle, _, _ = make_bundle()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Predictor.of(bundle).device == torch.device("cpu")
    monkeypatch.setattr("genre_ray.bundles.predictor.reserved_device", lambda: torch.device("meta"))
    assert Predictor.of(bundle).device == torch.device("meta")
