"""An evaluation compares the right things: its numbers equal ones computed without genre_ray's metrics."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from genre_ray.decisions.calibration import Calibration, fit_calibration
from genre_ray.decisions.policy import Policy, PolicyDescription
from genre_ray.errors import InputError
from genre_ray.metrics.reliability import reliability
from genre_ray.reports.evaluation import FEW_RECORDINGS, evaluate
from genre_ray.reports.inputs import AllScores, Predictions, Truth

LABELS = ("jazz", "rock", "rock---indie", "silence")


def random_case(recordings=60, seed=0):
    """Truth without `silence`, scores that know something of it, and labels decided at 0.5."""
    generator = np.random.default_rng(seed)
    truth = generator.random((recordings, 4)) < (0.5, 0.6, 0.3, 0.0)
    truth[:, 0] |= ~truth.any(axis=1)
    scores = (0.35 * truth + 0.65 * generator.random(truth.shape)).astype(np.float32)
    return truth, scores, scores >= 0.5


def label_sets(matrix, labels=LABELS):
    return tuple(tuple(label for label, given in zip(labels, row, strict=True) if given) for row in matrix)


def ids(recordings):
    return tuple(f"r{number:05}" for number in range(recordings))


def scored(scores):
    policy = Policy.of(LABELS, PolicyDescription(thresholds=(0.5,) * len(LABELS)))
    return AllScores(policy, scores, scores)


def evaluated(truth, scores, given, *, stored=True, training=None):
    names = ids(len(truth))
    return evaluate(
        "case",
        Predictions("predictions", names, label_sets(given), scores=scored(scores) if stored else None),
        Truth("truth", "test", names, label_sets(truth), training),
    )


def mean_f(truth_sets, given_sets):
    """The mean over recordings of the F of two label sets, from its definition."""
    scores = [2 * len(set(t) & set(g)) / (len(t) + len(g)) for t, g in zip(truth_sets, given_sets, strict=True)]
    return np.mean(scores)


def test_worked_case_of_the_task():
    truth = {
        "a1": ("rock", "rock---indie"),
        "a2": ("jazz",),
        "a3": ("electronic", "electronic---ambient", "rock"),
        "a4": ("pop", "pop---ballad", "rock", "rock---indie"),
        "a5": ("folk",),
    }
    given = (
        ("rock", "rock---metal"),
        ("jazz", "jazz---bop"),
        ("electronic", "rock", "pop"),
        ("pop---ballad", "rock---indie"),
        ("blues",),
    )
    result = evaluate(
        "worked", Predictions("run", tuple(truth), given), Truth("truth", None, tuple(truth), tuple(truth.values()))
    )
    official = result.system.official
    assert round(official.recording_all.f_score.mean, 4) == 0.5
    assert round(official.recording_genres.f_score.mean, 4) == 0.56
    assert round(official.recording_subgenres.precision.sd, 4) == 0.5774
    assert round(official.label_all.recall.mean, 4) == 0.5208
    # With parents, only a4 changes: pop and rock come with pop---ballad and rock---indie, all four are right.
    assert result.system.official_with_parents.recording_all.f_score.mean == pytest.approx(0.5 + (1 - 2 / 3) / 5)
    assert (result.genres, result.subgenres) == (5, 3)


def test_ranking_equals_scikit_learn_over_labels_with_both_classes():
    truth, scores, given = random_case()
    system = evaluated(truth, scores, given).system
    defined = slice(0, 3)
    assert system.roc_auc.macro == pytest.approx(roc_auc_score(truth[:, defined], scores[:, defined], average="macro"))
    assert system.average_precision.macro == pytest.approx(
        average_precision_score(truth[:, defined], scores[:, defined], average="macro")
    )
    assert system.roc_auc.micro == pytest.approx(roc_auc_score(truth.ravel(), scores.ravel()))


def test_baselines_learn_from_training_and_are_scored_on_the_truth():
    truth, scores, given = random_case()
    result = evaluated(truth, scores, given, training=(("blues",), ("blues",), ("jazz",)))
    popularity = result.baselines["popularity"]
    assert popularity.official.recording_all.f_score.mean == 0.0
    assert popularity.roc_auc.macro == 0.5
    assert popularity.average_precision.macro == pytest.approx(truth[:, :3].mean())
    learnt = evaluated(truth, scores, given)
    genre = max(("jazz", "rock"), key=lambda label: truth[:, LABELS.index(label)].sum())
    expected = mean_f(label_sets(truth), [(genre,)] * len(truth))
    assert learnt.baselines["popularity"].official.recording_all.f_score.mean == pytest.approx(expected)
    assert any("The baselines are fitted to the truth itself" in note for note in learnt.notes)
    assert not any("The baselines are fitted" in note for note in result.notes)


def test_truth_label_outside_the_model_counts_as_never_predicted():
    truth, scores, given = random_case()
    sets = [(*labels, "polka") if row % 2 else labels for row, labels in enumerate(label_sets(truth))]
    names = ids(len(truth))
    predictions = Predictions("p", names, label_sets(given), scores=scored(scores))
    result = evaluate("outside", predictions, Truth("t", "test", names, tuple(sets)))
    assert result.system.official.recording_all.f_score.mean == pytest.approx(mean_f(sets, label_sets(given)))
    assert result.system.roc_auc == evaluated(truth, scores, given).system.roc_auc
    polka = next(row for row in result.labels if row.label == "polka")
    assert (polka.count, polka.predicted, polka.recall, polka.roc_auc) == (30, 0, 0.0, None)
    assert any("1 label of the truth unknown to the model (polka)" in note for note in result.notes)


def test_coverage_counts_missing_and_unknown_and_scores_what_is_there():
    truth, _, given = random_case()
    predictions = Predictions("p", ids(60)[:50], label_sets(given)[:50], unknown=9)
    result = evaluate("part", predictions, Truth("t", "test", ids(60), label_sets(truth)))
    coverage = result.coverage
    assert (coverage.truth, coverage.evaluated, coverage.missing, coverage.unknown) == (60, 50, 10, 9)
    assert result.system.official.recording_all.f_score.mean == pytest.approx(
        mean_f(label_sets(truth)[:50], label_sets(given)[:50])
    )
    assert any("10 recordings of the truth without a prediction" in note for note in result.notes)


def test_no_common_recording_is_refused_with_what_to_do():
    predictions = Predictions("s3://catalog/predictions", (), (), unknown=12)
    with pytest.raises(InputError, match=r"none of its 12 recordings is among the 1 recordings.*check that both"):
        evaluate("none", predictions, Truth("truth.tsv", None, ("a",), (("rock",),)))


def test_without_all_scores_ranking_is_not_available():
    truth, scores, given = random_case()
    result = evaluated(truth, scores, given, stored=False)
    assert result.system.roc_auc is None
    assert (result.curves, result.histograms) == ((), ())
    plain = result.as_dict()
    assert plain["system"]["roc_auc"] == plain["baselines"]["random"]["average_precision"] == "not available"
    assert any("not available" in note for note in result.notes)


def test_label_that_every_recording_has_leaves_everything_defined_or_none(build):
    result = build(("rock",), everywhere=("rock",))
    assert result.system.roc_auc.macro is None
    assert (result.curves, result.histograms) == ((), ())
    assert result.system.official.label_all.f_score.sd is None
    json.dumps(result.as_dict(), allow_nan=False)


def test_label_rows_equal_the_counts():
    truth, scores, given = random_case()
    result = evaluated(truth, scores, given)
    assert [row.count for row in result.labels] == sorted(truth.sum(axis=0), reverse=True)
    for row in result.labels:
        column = LABELS.index(row.label)
        assert row.predicted == given[:, column].sum()
        if row.count:
            assert row.recall == pytest.approx((truth & given)[:, column].sum() / row.count)
            assert row.roc_auc == pytest.approx(roc_auc_score(truth[:, column], scores[:, column]))
    assert result.labels[-1].label == "silence"
    assert result.labels[-1].f_score is None


def test_curves_sum_to_the_average_precision_and_histograms_to_the_recordings():
    truth, scores, given = random_case()
    result = evaluated(truth, scores, given)
    for curve, histogram in zip(result.curves, result.histograms, strict=True):
        column = LABELS.index(curve.label)
        expected = average_precision_score(truth[:, column], scores[:, column])
        assert np.sum(np.diff(curve.recall) * curve.precision[1:]) == pytest.approx(expected)
        assert sum(histogram.positives) == truth[:, column].sum()
        assert sum(histogram.negatives) == (~truth[:, column]).sum()
        assert histogram.threshold == 0.5


@pytest.mark.parametrize(("recordings", "warned"), [(FEW_RECORDINGS - 1, True), (FEW_RECORDINGS, False)])
def test_small_data_are_said_to_be_small(build, recordings, warned):
    notes = build(recordings=recordings).notes
    assert any("can be due to chance (standard error" in note for note in notes) is warned


def test_trust_compares_the_models_scores_with_the_answers():
    generator = np.random.default_rng(1)
    probabilities = generator.random((500, 4), dtype=np.float32)
    truth = generator.random(probabilities.shape) < probabilities
    truth[:, 0] |= ~truth.any(axis=1)
    raw = probabilities**3
    calibration = fit_calibration(truth, raw)
    policy = Policy(LABELS, np.full(4, 0.5, np.float32), calibration, pairs=((2, 1),))
    values = policy.probabilities(raw)
    labels, abstained = replace(policy, least_confidence=0.7).decide(values)
    names = ids(500)
    predictions = Predictions("p", names, label_sets(labels), tuple(abstained.tolist()), AllScores(policy, raw, values))
    result = evaluate("trust", predictions, Truth("t", "test", names, label_sets(truth)))
    assert result.calibrated.brier == pytest.approx(((values - truth) ** 2).mean(), rel=1e-5)
    assert result.uncalibrated.brier == pytest.approx(((raw - truth) ** 2).mean(), rel=1e-5)
    assert result.calibrated.unbiased < result.uncalibrated.unbiased / 3
    above = (raw[:, 2] > raw[:, 1]).sum()
    assert (result.consistency.pairs, result.consistency.before, result.consistency.after) == (500, above, 0)
    f_scores = 2 * (labels & truth).sum(axis=1) / (labels.sum(axis=1) + truth.sum(axis=1))
    assert 0 < result.abstention.abstained == abstained.sum() < 500
    assert result.abstention.answered_f == pytest.approx(f_scores[~abstained].mean())
    assert result.abstention.answered_f > f_scores.mean()
    assert result.abstention.risk[-1] == pytest.approx(1 - f_scores.mean())
    assert result.abstention.area < 1 - f_scores.mean()
    rows = {row.label: row.calibration_error for row in result.labels}
    found = reliability(truth, values)
    assert [rows[label] for label in LABELS] == pytest.approx(found.per_label.tolist())


def test_parents_left_out_do_not_pay():
    """The same predictions with and without parents are both scored, and the answer's own gain nothing by either."""
    truth, scores, _ = random_case()
    policy = Policy(LABELS, np.full(4, 0.5, np.float32), Calibration.none(4), pairs=((2, 1),))
    values = policy.probabilities(scores)
    given = policy.decide(values).labels
    closed = evaluated(truth, scores, given).system
    assert closed.official == closed.official_with_parents
    given[:, 1] &= ~given[:, 2]
    open_ = evaluated(truth, scores, given).system
    assert open_.official != open_.official_with_parents == closed.official
