"""Roll-up: a group's probabilities are the mean of its recordings', its truth what any of them has."""

import numpy as np
import pytest

from genre_ray.decisions.calibration import Calibration
from genre_ray.decisions.policy import Policy
from genre_ray.errors import InputError
from genre_ray.reports.evaluation import evaluate
from genre_ray.reports.groups import read_groups, roll_up
from genre_ray.reports.inputs import AllScores, Predictions, Truth

LABELS = ("jazz", "rock")


def predictions(scores):
    policy = Policy(tuple(LABELS), np.float32([0.5, 0.5]), Calibration.none(2), least_confidence=0.6)
    names = tuple(f"r{n:04d}" for n in range(len(scores)))
    return Predictions("p", names, ((),) * len(names), scores=AllScores(policy, scores, scores))


def test_a_group_has_the_mean_of_its_recordings_and_all_their_labels():
    scores = np.float32([[0.9, 0.1], [0.3, 0.7], [0.2, 0.6], [0.1, 0.2]])
    truth = Truth("t", "test", ("r0000", "r0001", "r0002", "r0003"), (("jazz",), ("rock",), ("rock",), ("jazz",)))
    groups = {"r0000": "b", "r0001": "b", "r0002": "a", "r0003": "r0003"}
    answered, known = roll_up(predictions(scores), truth, groups, "artist")
    assert answered.recording_ids == known.recording_ids == ("a", "b", "r0003")
    np.testing.assert_allclose(answered.scores.values, [[0.2, 0.6], [0.6, 0.4], [0.1, 0.2]])
    assert answered.labels == (("rock",), ("jazz",), ("rock",))
    assert answered.abstained == (False, False, True)
    assert known.labels == (("rock",), ("jazz", "rock"), ("jazz",))
    result = evaluate("artists", answered, known)
    assert result.level == "artist"
    assert result.uncalibrated is None
    assert result.system.official.recording_all.f_score.mean == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_groups_are_those_of_the_first_submission(write_features):
    uri = write_features(
        np.zeros((5, 2)),
        recording_id=["a", "b", "a", "c", "d"],
        submission=[1, 0, 0, 0, 0],
        artist_ids=[["late"], ["x", "y"], ["early"], [], []],
        release_group_id=["g1", None, "g0", "g2", None],
    )
    assert read_groups(uri, {"a", "b", "c", "d", "e"}, "artist") == {
        "a": "early",
        "b": "x",
        "c": "g2",
        "d": "d",
        "e": "e",
    }
    assert read_groups(uri, {"a", "b", "c"}, "release_group") == {"a": "g0", "b": "x", "c": "g2"}


def test_without_all_scores_there_is_nothing_to_roll_up():
    with pytest.raises(InputError, match="predict again with --all-scores"):
        roll_up(Predictions("p", ("r",), ((),)), Truth("t", None, ("r",), ((),)), {"r": "a"}, "artist")
