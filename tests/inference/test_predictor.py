"""A bundle scores as the network did that was trained, and refuses what it was not made for."""

import numpy as np
import pytest
import torch

from genre_ray.errors import InputError
from genre_ray.inference.bundles import check_columns
from genre_ray.inference.predictor import Predictor


@pytest.mark.parametrize("fused", [False, True])
def test_scores_are_the_same_before_and_after_the_bundle(make_bundle, fused):
    bundle, preparation, network = make_bundle(fused=fused)
    features = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32) * 10
    features[2, 3] = np.nan
    with torch.no_grad():
        expected = torch.sigmoid(network(preparation(torch.from_numpy(features)))).numpy()
    predictor = Predictor(bundle, device="cpu")
    np.testing.assert_array_equal(predictor.scores(features), expected)
    assert np.isfinite(expected).all()
    assert predictor.labels == ("jazz", "rock", "rock---indie", "soul")
    assert predictor.scores(features[:0]).shape == (0, 4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fused", [False, True])
def test_rows_that_cannot_be_written_to_are_scored_and_left_as_they_are(make_bundle, fused):
    predictor = Predictor(make_bundle(fused=fused)[0], device="cpu")
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
    exact = Predictor(bundle, device="cpu").scores(features)
    halved = Predictor(bundle, device="cpu", half_precision=True).scores(features)
    assert halved.dtype == exact.dtype == np.float32
    assert 0 < np.abs(halved - exact).max() < 2**-6


def test_an_overflow_is_no_score_in_half_precision_either(make_bundle):
    features = np.ones((2, 6), dtype=np.float32)
    features[0, 0] = np.inf
    scores = Predictor(make_bundle(clip_sd=None)[0], device="cpu", half_precision=True).scores(features)
    assert np.isnan(scores).any(axis=1).tolist() == [True, False]


def test_an_overflow_is_no_score(make_bundle, altered):
    bundle, _, _ = make_bundle()
    # One unit is infinite: a sigmoid alone would answer exactly 0 or 1.
    bias = np.zeros(8, dtype=np.float32)
    bias[0] = np.inf
    weight = np.full((4, 8), 0.1, dtype=np.float32)
    broken = altered(bundle, **{"network__branches__0__0__bias": bias, "network__head__1__weight": weight})
    assert np.isnan(Predictor(broken, device="cpu").scores(np.ones((2, 6), dtype=np.float32))).all()


def test_weights_of_another_architecture_are_refused(make_bundle, altered):
    broken = altered(make_bundle()[0], network__head__1__weight=np.zeros((4, 9), dtype=np.float32))
    with pytest.raises(InputError, match=r"expected the weights of essentia, found others: .*head.1.weight"):
        Predictor(broken)


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ("abcdef", None),
        ("abcde", r"found 5: 1 columns are missing \(f\)"),
        ("abcdefg", r"found 7: 1 are unknown to it \(g\)"),
        ("abcdeg", r"1 columns are missing \(f\); 1 are unknown to it \(g\)"),
        ("bacdef", "the same columns in another order"),
        ("zyxwvutsrqponmlkjihg", r"6 columns are missing \(a, b, c, d, e, …\)"),
    ],
)
def test_other_columns_are_refused_by_name(make_bundle, columns, found):
    bundle, _, _ = make_bundle()
    if found is None:
        check_columns(bundle, columns, "t")
        return
    with pytest.raises(InputError, match=rf"t: expected the 6 columns of the bundle .*{found}"):
        check_columns(bundle, columns, "t")


def test_without_a_device_it_computes_where_the_process_has_reserved(make_bundle, monkeypatch):
    """It once took any GPU that torch saw, which Ray does not hide from workers that have reserved none."""
    bundle, _, _ = make_bundle()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Predictor(bundle).device == torch.device("cpu")
    monkeypatch.setattr("genre_ray.inference.predictor.reserved_device", lambda: torch.device("meta"))
    assert Predictor(bundle).device == torch.device("meta")
