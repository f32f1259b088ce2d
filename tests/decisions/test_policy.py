"""The policy: scores become the answer that its steps, taken one recording at a time, give."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from genre_ray.decisions.calibration import Calibration
from genre_ray.decisions.policy import Policy, PolicyDescription
from genre_ray.decisions.thresholds import NO_THRESHOLD

LABELS = ("electronic", "electronic---ambient", "electronic---ambient---drone", "jazz", "world")
# A drone is also of the world: two parents.
PAIRS = ((1, 0), (2, 1), (2, 4))
LINES = Calibration("platt", ("platt",) * 5, np.float32([0.5, 1, 2, 1, 0.7]), np.float32([-0.3, 0, 0.2, -1, 0.4]))


def one_answer(scores, thresholds, max_labels):
    """The steps, for one recording, in double precision."""
    odds = logit(scores.astype(np.float64))
    values = expit(LINES.slopes * odds + LINES.intercepts)
    values[1] = min(values[1], values[0])
    values[2] = min(values[2], values[1], values[4])
    ratios = values / thresholds
    columns = set(np.flatnonzero(ratios >= 1)) or {int(ratios.argmax())}
    if 2 in columns:
        columns |= {1, 4}
    if 1 in columns:
        columns |= {0}
    depth = [0, 1, 2, 0, 0]
    ranked = sorted(columns, key=lambda column: (-values[column], depth[column], column))
    return values, set(ranked[:max_labels])


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.none() | st.integers(1, 4))
def test_answers_are_what_the_steps_give(seed, max_labels):
    generator = np.random.default_rng(seed)
    scores = generator.uniform(0.02, 0.98, (7, 5)).astype(np.float32)
    thresholds = generator.uniform(0.1, 0.9, 5).astype(np.float32)
    policy = Policy(LABELS, thresholds, LINES, PAIRS, max_labels)
    probabilities = policy.probabilities(scores)
    decided = policy.decide(probabilities).labels
    for row in range(7):
        values, columns = one_answer(scores[row], thresholds, max_labels)
        np.testing.assert_allclose(probabilities[row], values, rtol=1e-5)
        assert set(np.flatnonzero(decided[row])) == columns
    assert policy.hierarchy.violations(probabilities) == 0
    np.testing.assert_array_equal(policy.hierarchy.close(decided.copy()), decided)


def test_many_recordings_are_decided_as_one_by_one():
    scores = np.random.default_rng(0).random((5000, 5), dtype=np.float32)
    policy = Policy(LABELS, np.full(5, 0.4, np.float32), LINES, PAIRS, 3, 0.6)
    together = policy.decide(policy.probabilities(scores))
    single = [policy.decide(policy.probabilities(scores[row : row + 1])) for row in range(2040, 2060)]
    np.testing.assert_array_equal(together.labels[2040:2060], np.concatenate([one.labels for one in single]))
    np.testing.assert_array_equal(together.abstained[2040:2060], np.concatenate([one.abstained for one in single]))
    in_place = scores.copy()
    assert policy.probabilities(in_place, out=in_place) is in_place
    np.testing.assert_array_equal(in_place, policy.probabilities(scores))


def test_an_abstained_recording_keeps_its_best_guess():
    policy = Policy(("jazz", "rock"), np.float32([0.5, 0.5]), Calibration.none(2), least_confidence=0.5)
    labels, abstained = policy.decide(np.float32([[0.9, 0.0], [0.2, 0.1]]))
    assert labels.tolist() == [[True, False], [True, False]]
    assert abstained.tolist() == [False, True]


def test_more_is_abstained_from_as_more_confidence_is_asked():
    scores = np.random.default_rng(0).random((300, 5), dtype=np.float32)
    counts = []
    for least in (None, 0.0, 0.3, 0.5, 0.7, 1.0):
        policy = Policy(LABELS, np.full(5, 0.4, np.float32), LINES, PAIRS, None, least)
        counts.append(int(policy.decide(policy.probabilities(scores)).abstained.sum()))
    assert counts == sorted(counts)
    assert counts[0] == counts[1] == 0 < counts[3] < 300


def test_answers_name_parents_before_children_and_else_by_the_labels_order():
    policy = Policy(("acid", "dance", "club"), np.full(3, 0.1, np.float32), Calibration.none(3), ((0, 1),))
    assert policy.label_sets(np.ones((1, 3), np.float32)) == [("dance", "acid", "club")]


def test_a_description_survives_json_and_a_policy_a_journey():
    policy = Policy(LABELS, np.float32([0.1, 0.2, 0.3, NO_THRESHOLD, 0.5]), LINES, PAIRS, 3, 0.25)
    scores = np.random.default_rng(0).random((50, 5), dtype=np.float32)
    for again in (
        Policy.of(LABELS, PolicyDescription.model_validate_json(policy.describe().model_dump_json(), strict=True)),
        pickle.loads(pickle.dumps(policy)),
    ):
        for one, other in zip(
            again.decide(again.probabilities(scores)), policy.decide(policy.probabilities(scores)), strict=True
        ):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "changes",
    [
        {"thresholds": [0.5]},
        {"thresholds": [0.5, None]},
        {"calibration": "none"},
        {"pairs": [[0, 5]]},
        {"pairs": [[0, 1], [1, 0]]},
        {"pairs": [0]},
        {"max_labels": 0},
        {"least_confidence": float("nan")},
        {"unknown": 1},
    ],
)
def test_descriptions_that_cannot_be_meant_are_refused(changes):
    with pytest.raises(ValueError, match=r"expected|validation error|cycle"):
        Policy.of(["jazz", "rock"], PolicyDescription.model_validate({"thresholds": [0.5, 0.5], **changes}))
