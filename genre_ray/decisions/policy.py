"""A policy: the steps that turn a model's scores into labels. All systems use the same steps.

The steps are calibration, consistency (no score above its parents'), thresholds, at least one label, adding parents, a
maximum number of labels, and abstention. A policy is fitted on validation recordings. It is stored in the bundle and in
every predictions table, so stored scores can be labelled again without the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from genre_ray.config import Description
from genre_ray.decisions.abstention import expected_f
from genre_ray.decisions.calibration import Calibration, CalibrationDescription, Float32
from genre_ray.decisions.consistency import Hierarchy, Pair
from genre_ray.decisions.thresholds import decide
from genre_ray.errors import InputError

Scores = NDArray[np.float32]

_ROWS = 2048


class Decided(NamedTuple):
    """The predicted labels (recordings, labels), and which recordings are abstained from (recordings,)."""

    labels: NDArray[np.bool_]
    abstained: NDArray[np.bool_]


class PolicyDescription(Description):
    """A policy as bundles and tables state it, beside its labels."""

    thresholds: tuple[Float32, ...] = Field(description="for probabilities; the greatest float32 for a label without")
    calibration: CalibrationDescription | None = Field(None, description="null: scores are taken as probabilities")
    pairs: tuple[Pair, ...] = Field((), description="(child, parent) labels that are kept consistent")
    max_labels: int | None = Field(None, ge=1, description="the most labels that a recording gets")
    least_confidence: float | None = Field(None, description="abstain from recordings with less expected F")


@dataclass(frozen=True)
class Policy:
    """How the scores of a label space are turned into labels.

    Attributes:
        labels: the labels of the columns, (labels,).
        thresholds: float32 (labels,), applied to probabilities; `NO_THRESHOLD` for a label without a threshold.
        calibration: the maps from scores to probabilities.
        pairs: (child, parent) columns to keep consistent; empty to leave labels independent of each other.
        max_labels: maximum number of labels per recording; None for no limit.
        least_confidence: abstain from recordings with a smaller expected F; None to answer all.
    """

    labels: tuple[str, ...]
    thresholds: Scores
    calibration: Calibration
    pairs: tuple[Pair, ...] = ()
    max_labels: int | None = None
    least_confidence: float | None = None

    @cached_property
    def hierarchy(self) -> Hierarchy:
        """The `pairs` as a `Hierarchy`."""
        return Hierarchy(self.pairs, len(self.labels))

    def probabilities(self, scores: Scores, out: Scores | None = None) -> Scores:
        """Return calibrated and consistent probabilities, (recordings, labels).

        Args:
            scores: the model's scores, float32 (recordings, labels).
            out: array to write to, which may be `scores`; a new one if None.
        """
        if self.calibration.method == "none" and not self.pairs and out is None:
            return scores
        result = np.empty_like(scores, dtype=np.float32) if out is None else out
        for start in range(0, len(scores), _ROWS):
            rows = slice(start, start + _ROWS)
            result[rows] = self.calibration.apply(scores[rows])
            self.hierarchy.lower(result[rows])
        return result

    def decide(self, probabilities: Scores) -> Decided:
        """Predict the labels of each recording, at least one, and decide which recordings to abstain from.

        Args:
            probabilities: from `probabilities`, (recordings, labels).

        Raises:
            InputError: the number of columns differs from the number of labels, or a value is not finite.
        """
        decided = np.empty(probabilities.shape, dtype=bool)
        abstained = np.zeros(len(probabilities), dtype=bool)
        for start in range(0, max(len(probabilities), 1), _ROWS):
            rows = slice(start, start + _ROWS)
            block = decide(probabilities[rows], self.thresholds)
            self.hierarchy.close(block)
            self._limit(block, probabilities[rows])
            decided[rows] = block
            if self.least_confidence is not None:
                abstained[rows] = expected_f(probabilities[rows], block) < np.float32(self.least_confidence)
        return Decided(decided, abstained)

    def _limit(self, decided: NDArray[np.bool_], probabilities: Scores) -> None:
        """Keep the `max_labels` most probable labels of each recording; ties go to labels higher in the taxonomy."""
        if self.max_labels is None:
            return
        many = np.flatnonzero(decided.sum(axis=1) > self.max_labels)
        rows, columns = decided[many].nonzero()
        rows = many[rows]
        order = np.lexsort((columns, self.hierarchy.depth[columns], -probabilities[rows, columns], rows))
        rows, columns = rows[order], columns[order]
        place = np.arange(len(rows)) - np.searchsorted(rows, rows)
        dropped = place >= self.max_labels
        decided[rows[dropped], columns[dropped]] = False

    def label_sets(self, probabilities: Scores) -> list[tuple[str, ...]]:
        """Return the names of the predicted labels of each recording, parents before children."""
        decided = self.decide(probabilities).labels
        return [tuple(self.labels[column] for column in self.hierarchy.order if row[column]) for row in decided]

    def describe(self) -> PolicyDescription:
        """The policy without its labels, in the form that bundles and tables store."""
        return PolicyDescription(
            thresholds=tuple(float(threshold) for threshold in self.thresholds),
            calibration=self.calibration.describe(),
            pairs=self.pairs,
            max_labels=self.max_labels,
            least_confidence=self.least_confidence,
        )

    @classmethod
    def of(cls, labels: Sequence[str], description: PolicyDescription) -> Self:
        """Make a policy from the result of `describe`.

        Args:
            labels: the labels of the columns.
            description: the result of `describe`.

        Raises:
            ValueError: the description does not fit the labels.
        """
        if len(description.thresholds) != len(labels):
            raise ValueError(f"expected {len(labels)} thresholds, one per label, found {len(description.thresholds)}")
        found = cls(
            labels=tuple(labels),
            thresholds=np.array(description.thresholds, dtype=np.float32),
            calibration=Calibration.of(description.calibration, len(labels)),
            pairs=description.pairs,
            max_labels=description.max_labels,
            least_confidence=description.least_confidence,
        )
        try:
            found.hierarchy  # noqa: B018 building it checks the pairs
        except InputError as error:
            raise ValueError(str(error)) from None
        return found
