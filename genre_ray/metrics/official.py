"""The official scores of the MediaEval AcousticBrainz genre task.

They are the means and standard deviations of precision, recall and F over recordings and over labels, each for all
labels, genres and subgenres: 18 means. `official_scores` says what each mean is taken over. The official tool rounds to
four digits before and after averaging. This module does not round.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from genre_ray.labels.taxonomy import Taxonomy, is_subgenre
from genre_ray.metrics.matrices import LabelMatrix, as_csr, check_labels, paired_csr

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Cell:
    """A mean over `count` values and their sample standard deviation (n - 1); None where undefined."""

    mean: float | None
    sd: float | None
    count: int


@dataclass(frozen=True)
class Group:
    """Precision, recall and F of one group of labels, averaged over recordings or over labels, in [0, 1]."""

    precision: Cell
    recall: Cell
    f_score: Cell


@dataclass(frozen=True)
class OfficialScores:
    """The 18 official scores. A name says what is averaged over and which labels are counted."""

    recording_all: Group
    recording_genres: Group
    recording_subgenres: Group
    label_all: Group
    label_genres: Group
    label_subgenres: Group

    def as_dict(self) -> dict[str, dict[str, dict[str, float | int | None]]]:
        """The scores as JSON values: group → score → mean, sd and count. Undefined values are None."""
        return asdict(self)


@dataclass(frozen=True)
class LabelScores:
    """The scores of each label; all arrays are (labels,).

    Precision, recall and F are NaN for a label that does not occur in the truth. They are 0 for a label that occurs in
    the truth but is never predicted.
    """

    labels: tuple[str, ...]
    truth_count: Counts
    predicted_count: Counts
    precision: Floats
    recall: Floats
    f_score: Floats

    def as_rows(self) -> list[dict[str, Any]]:
        """The scores as JSON values: one dict per label. Undefined values are None."""
        scores = np.stack([self.precision, self.recall, self.f_score], axis=1)
        return [
            {
                "label": label,
                "truth_count": int(self.truth_count[i]),
                "predicted_count": int(self.predicted_count[i]),
                **{
                    name: None if np.isnan(value) else float(value)
                    for name, value in zip(("precision", "recall", "f_score"), scores[i], strict=True)
                },
            }
            for i, label in enumerate(self.labels)
        ]


def official_scores(truth: LabelMatrix, predicted: LabelMatrix, labels: Sequence[str]) -> OfficialScores:
    """Compute the official scores.

    - Per recording, all labels: mean over the recordings with at least one true label. A recording without predicted
      labels has recall 0 and F 0, and is left out of the mean precision.
    - Per recording, genres or subgenres: mean over the recordings with at least one true label of that kind. Only
      labels of that kind are compared. Without a predicted one, precision is 0. A wrong subgenre does not count if the
      truth has no subgenre.
    - Per label: mean over the labels that occur in the truth. A label that is never predicted has precision, recall and
      F 0. A label that occurs only in predictions is ignored here, but is a false positive per recording.

    A mean F is the mean of F values, not the F of mean precision and recall.

    Args:
        truth: true labels, (recordings, labels).
        predicted: predicted labels, (recordings, labels).
        labels: the labels of the columns; a subgenre is written `genre---subgenre`.

    Raises:
        InputError: the shapes do not agree, or `labels` contains a label twice.
    """
    true, given = paired_csr(truth, predicted, labels)
    hits = true.multiply(given).tocsr()
    subgenres = np.array([is_subgenre(label) for label in labels], dtype=bool)
    kinds = {"all": np.ones_like(subgenres), "genres": ~subgenres, "subgenres": subgenres}
    per_label = _label_scores(true, given, hits, labels)
    groups = {}
    for kind, members in kinds.items():
        groups[f"recording_{kind}"] = _recording_group(true, given, hits, members, skip_empty=kind == "all")
        scored = members & (per_label.truth_count > 0)
        groups[f"label_{kind}"] = Group(
            precision=_cell(per_label.precision[scored]),
            recall=_cell(per_label.recall[scored]),
            f_score=_cell(per_label.f_score[scored]),
        )
    return OfficialScores(**groups)


def label_scores(truth: LabelMatrix, predicted: LabelMatrix, labels: Sequence[str]) -> LabelScores:
    """Compute precision, recall and F of each label, and the number of recordings with it in truth and predictions.

    Args:
        truth: true labels, (recordings, labels).
        predicted: predicted labels, (recordings, labels).
        labels: the labels of the columns.

    Raises:
        InputError: the shapes do not agree, or `labels` contains a label twice.
    """
    true, given = paired_csr(truth, predicted, labels)
    return _label_scores(true, given, true.multiply(given).tocsr(), labels)


def add_parents(predicted: LabelMatrix, labels: Sequence[str]) -> LabelMatrix:
    """Add to the predicted labels all their ancestors.

    Args:
        predicted: predicted labels, (recordings, labels).
        labels: the labels of the columns; ancestors without a column are ignored.

    Returns:
        Boolean (recordings, labels): a CSR array if `predicted` is sparse, otherwise a NumPy array.

    Raises:
        InputError: there is not one label per column, or a label occurs twice.
    """
    given = as_csr(predicted, "predicted")
    check_labels(labels, given.shape[1])
    closure = Taxonomy.of_names(labels).closure(labels)
    closed = (given @ closure).astype(bool)
    return closed if sparse.issparse(predicted) else closed.toarray()


def _recording_group(
    true: sparse.csr_array,
    given: sparse.csr_array,
    hits: sparse.csr_array,
    members: NDArray[np.bool_],
    *,
    skip_empty: bool,
) -> Group:
    """Average over recordings, counting only the labels in `members` (labels,).

    A recording without predicted labels has precision 0, or is left out of the mean precision if `skip_empty`.
    """
    column = members.astype(np.int64)
    n_true, n_given, n_hits = (matrix @ column for matrix in (true, given, hits))
    scored = n_true > 0
    n_true, n_given, n_hits = n_true[scored], n_given[scored], n_hits[scored]
    precision = _ratio(n_hits, n_given)
    return Group(
        precision=_cell(precision[n_given > 0] if skip_empty else precision),
        recall=_cell(_ratio(n_hits, n_true)),
        f_score=_cell(_ratio(2 * n_hits, n_true + n_given)),
    )


def _label_scores(
    true: sparse.csr_array, given: sparse.csr_array, hits: sparse.csr_array, labels: Sequence[str]
) -> LabelScores:
    n_true, n_given, n_hits = (
        np.bincount(matrix.indices, minlength=len(labels)).astype(np.int64) for matrix in (true, given, hits)
    )
    absent = n_true == 0
    return LabelScores(
        labels=tuple(labels),
        truth_count=n_true,
        predicted_count=n_given,
        precision=np.where(absent, np.nan, _ratio(n_hits, n_given)),
        recall=np.where(absent, np.nan, _ratio(n_hits, n_true)),
        f_score=np.where(absent, np.nan, _ratio(2 * n_hits, n_true + n_given)),
    )


def _ratio(part: Counts, whole: Counts) -> Floats:
    """Return `part / whole`, and 0 where `whole` is 0."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _cell(values: Floats) -> Cell:
    return Cell(
        mean=float(values.mean()) if len(values) else None,
        sd=float(values.std(ddof=1)) if len(values) > 1 else None,
        count=len(values),
    )
