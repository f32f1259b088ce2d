"""A target predicts its own labels in its own order, whatever else the network of its bundle scores."""

import numpy as np
import pytest

from genre_ray.bundles.files import Bundle
from genre_ray.bundles.manifest import TargetDescription, TaskDescription
from genre_ray.bundles.targets import Target, find_target, read_targets
from genre_ray.decisions.calibration import Calibration
from genre_ray.decisions.policy import Policy, PolicyDescription
from genre_ray.decisions.thresholds import NO_THRESHOLD
from genre_ray.errors import ConfigurationError
from genre_ray.systems.description import GENRES
from tests.manifests import make_manifest

TARGETS = {
    # Its own names may sort otherwise than the normalised ones.
    "discogs": TargetDescription(
        task=GENRES,
        labels=("Jazz", "funk / soul"),
        columns=(2, 0),
        hierarchy=((1, 0),),
        policy=PolicyDescription(thresholds=(0.5, 0.25)),
    ),
    "lastfm": TargetDescription(
        task=GENRES,
        labels=("hiphop",),
        columns=(1,),
        hierarchy=(),
        policy=PolicyDescription(thresholds=(float(NO_THRESHOLD),)),
    ),
}
TASK = TaskDescription(kind="multi_label", output="sigmoid", labels=("funksoul", "hiphop", "jazz"))
BUNDLE = Bundle("b", "id", make_manifest(taxonomy="discogs", tasks={GENRES: TASK}, targets=TARGETS), {})


def test_scores_are_put_in_the_targets_order():
    scores = np.float32([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    target = find_target(BUNDLE)
    assert target.labels == ("Jazz", "funk / soul")
    np.testing.assert_array_equal(target.select(scores), np.float32([[0.3, 0.1], [0.6, 0.4]]))
    np.testing.assert_array_equal(find_target(BUNDLE, "lastfm").select(scores), np.float32([[0.2], [0.5]]))
    # As many columns as the network has, but in another order.
    turned = Target("t", np.array([2, 1, 0]), Policy(tuple("abc"), np.float32([0.5] * 3), Calibration.none(3)))
    np.testing.assert_array_equal(turned.select(scores), scores[:, ::-1])


def test_a_description_makes_it_again():
    targets = read_targets(BUNDLE)
    assert targets.keys() == TARGETS.keys()
    for taxonomy, target in targets.items():
        assert target.taxonomy == taxonomy
        assert target.describe() == TARGETS[taxonomy]


def test_another_taxonomy_is_refused():
    with pytest.raises(
        ConfigurationError, match=r"--target allmusic: the bundle b predicts 'discogs', 'lastfm'; choose"
    ):
        find_target(BUNDLE, "allmusic")
