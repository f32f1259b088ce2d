"""A target answers in its own labels and order, whatever else the network of its bundle knows."""

import numpy as np
import pytest

from genre_ray.decisions.policy import Policy
from genre_ray.decisions.thresholds import NO_THRESHOLD
from genre_ray.errors import ConfigurationError, InputError
from genre_ray.inference.target import Target, find_target, read_targets

MODEL = {
    "taxonomy": "discogs",
    "labels": ["funksoul", "hiphop", "jazz"],
    "targets": {
        # Its own names may sort otherwise than the normalised ones.
        "discogs": {
            "labels": ["Jazz", "funk / soul"],
            "columns": [2, 0],
            "thresholds": [0.5, 0.25],
            "calibration": "none",
        },
        "lastfm": {"labels": ["hiphop"], "columns": [1], "thresholds": [NO_THRESHOLD], "calibration": "none"},
    },
}

# As bundles were before taxonomies could be joined.
OLD = {"taxonomy": "folders", "labels": ["jazz", "rock"], "thresholds": [0.5, 0.25], "calibration": "none"}


def changed(taxonomy="discogs", without=None, **values):
    target = {key: value for key, value in (MODEL["targets"]["discogs"] | values).items() if key != without}
    return {**MODEL, "targets": {taxonomy: target}}


def test_scores_are_put_in_the_targets_order():
    scores = np.float32([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    target = find_target(MODEL, "b")
    assert target.labels == ("Jazz", "funk / soul")
    np.testing.assert_array_equal(target.select(scores), np.float32([[0.3, 0.1], [0.6, 0.4]]))
    np.testing.assert_array_equal(find_target(MODEL, "b", "lastfm").select(scores), np.float32([[0.2], [0.5]]))
    # As many columns as the network has, but in another order.
    turned = Target("t", np.array([2, 1, 0]), Policy.of("abc", {"thresholds": [0.5] * 3, "calibration": "none"}))
    np.testing.assert_array_equal(turned.select(scores), scores[:, ::-1])


def test_a_description_makes_it_again():
    for taxonomy, target in read_targets(MODEL, "b").items():
        assert target.taxonomy == taxonomy
        described = target.describe()
        assert described.items() >= MODEL["targets"][taxonomy].items()
        again = read_targets({**MODEL, "targets": {taxonomy: described}, "taxonomy": taxonomy}, "b")[taxonomy]
        assert again.describe() == described


def test_an_older_bundle_has_one_target():
    (target,) = read_targets(OLD, "b").values()
    assert (target.taxonomy, target.labels, target.policy.pairs) == ("folders", ("jazz", "rock"), ())
    assert target.policy.calibration.method == "none"
    assert (target.columns.tolist(), target.policy.thresholds.tolist()) == ([0, 1], [0.5, 0.25])


def test_another_taxonomy_is_refused():
    with pytest.raises(
        ConfigurationError, match=r"--target allmusic: the bundle b answers in 'discogs', 'lastfm'; name"
    ):
        find_target(MODEL, "b", "allmusic")


@pytest.mark.parametrize(
    "model",
    [
        changed(thresholds=[0.5]),
        changed(thresholds=[0.5, 0.0]),
        changed(thresholds=[0.5, float("nan")]),
        changed(thresholds=None),
        changed(columns=[2, 3]),
        changed(columns=[2, -1]),
        changed(columns=[2, 2]),
        changed(columns=["a", "b"]),
        changed(labels=[], columns=[], thresholds=[]),
        changed(without="calibration"),
        changed(calibration="beta"),
        changed(calibration={"method": "platt"}),
        changed(pairs=[[0, 2]]),
        changed(pairs=[[0, 1], [1, 0]]),
        changed(pairs=[3]),
        changed(without="columns"),
        changed(taxonomy="another"),
        {**MODEL, "targets": []},
        {**MODEL, "targets": {"discogs": None}},
        {**OLD, "thresholds": [0.5]},
        {key: value for key, value in OLD.items() if key != "thresholds"},
    ],
)
def test_targets_that_cannot_be_meant_are_refused(model):
    with pytest.raises(InputError, match=r"b: expected .*restore the bundle"):
        read_targets(model, "b")
