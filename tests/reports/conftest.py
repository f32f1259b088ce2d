"""Generated evaluations that the tests of this folder share."""

from collections.abc import Callable

import numpy as np
import pytest

from genre_ray.decisions.calibration import Calibration
from genre_ray.decisions.policy import Policy
from genre_ray.decisions.thresholds import plug_in_thresholds
from genre_ray.labels.taxonomy import Taxonomy
from genre_ray.reports.evaluation import evaluate
from genre_ray.reports.inputs import AllScores, Predictions, Truth
from genre_ray.reports.result import EvaluationResult

Build = Callable[..., EvaluationResult]


def build_evaluation(
    labels: tuple[str, ...] = ("jazz", "rock", "rock---indie"),
    *,
    name: str = "single",
    recordings: int = 40,
    scored: bool = True,
    absent: tuple[str, ...] = (),
    everywhere: tuple[str, ...] = (),
    taxonomy: str | None = "folders",
) -> EvaluationResult:
    """Noisy scores of random label sets; `absent` labels are in no truth, `everywhere` ones in all of it."""
    generator = np.random.default_rng(7)
    truth = generator.random((recordings, len(labels))) < 0.4
    truth[np.arange(recordings), generator.integers(len(labels), size=recordings)] = True
    truth[:, [label in absent for label in labels]] = False
    truth[:, [label in everywhere for label in labels]] = True
    scores = (truth * 0.4 + generator.random(truth.shape) * 0.6).astype(np.float32)
    thresholds, pairs = plug_in_thresholds(truth, scores), tuple(Taxonomy.of_names(labels).edges(labels))
    policy = Policy(labels, thresholds, Calibration.none(len(labels)), pairs)
    probabilities = policy.probabilities(scores)
    answer = policy.decide(probabilities)

    def sets(matrix: np.ndarray) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(label for label, given in zip(labels, row, strict=True) if given) for row in matrix)

    ids = tuple(f"recording-{number:04}" for number in range(recordings))
    return evaluate(
        name,
        Predictions(
            uri="predictions",
            recording_ids=ids,
            labels=sets(answer.labels),
            abstained=tuple(answer.abstained.tolist()),
            scores=AllScores(policy, scores, probabilities) if scored else None,
            taxonomy=taxonomy,
            calibration="none",
            model_ids=("0123456789abcdef",),
        ),
        Truth("truth", "test", ids, sets(truth), training=sets(truth[:10])),
    )


@pytest.fixture
def build() -> Build:
    return build_evaluation
