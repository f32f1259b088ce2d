"""Calibration: map the scores of each label to probabilities. The maps are fitted on validation recordings.

Every map is a strictly increasing function of the log-odds of a score. So calibration does not change how a label ranks
recordings, except for scores whose log-odds agree to six digits. The kinds of maps are:

- *isotonic*: line segments through the blocks of an isotonic regression (Zadrozny and Elkan 2002). Each block is
  represented by its mean, as in centered isotonic regression (Oron and Flournoy 2017). Outside the blocks the map has
  the slope of the label's logistic line;
- *platt*: a line (Platt 1999);
- *pooled*: one line fitted to all labels together, used by labels with few positives;
- *temperature*: one line through the origin for all labels (Guo et al. 2017);
- *softmax*: the same for labels of which one is right: their probabilities, sharpened, still sum to 1;
- *none*: the score as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse

from genre_ray.config import Description
from genre_ray.decisions.logistic import IDENTITY, cross_entropy, fit_per_label, fit_pooled, log_odds, sigmoid
from genre_ray.errors import InputError
from genre_ray.metrics.matrices import LabelMatrix, as_csr

Method = Literal["auto", "none", "platt", "isotonic", "temperature"]
Scores = NDArray[np.float32]
Lines = NDArray[np.float64]

ISOTONIC_POSITIVES = 1000
"""Labels with at least this many positives and negatives get an isotonic map: with about 1,000 cases it is more
accurate than a line (Niculescu-Mizil and Caruana 2005)."""

OWN_POSITIVES = 50
"""Labels with at least this many positives and negatives can get their own line instead of the pooled one."""

_BINS, _BIN_POSITIVES = 20, 10

_SHARED_CELLS = 10_000_000

# A decreasing map would reverse the ranking of recordings, and a nearly flat one would merge their scores.
_LEAST_SLOPE = 0.05


_LARGEST = float(np.finfo(np.float32).max)

Float32 = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
"""A number that is finite as a float32."""

Position = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
"""The position of a label, as a key of a JSON object."""


class CalibrationDescription(Description):
    """The form in which bundles and tables store a calibration, see `Calibration`."""

    method: Method | Literal["softmax"] = Field(description="as asked for, or softmax")
    kinds: tuple[str, ...] = Field(description="the map of each label")
    slopes: tuple[Float32, ...] = Field(description="of each label's line in log-odds")
    intercepts: tuple[Float32, ...] = Field(description="of each label's line in log-odds")
    knots: dict[Position, tuple[tuple[Float32, ...], tuple[Float32, ...]]] = Field(
        description="by the position of an isotonic label: log-odds of scores, and of probabilities"
    )


@dataclass(frozen=True)
class Calibration:
    """Maps from scores to probabilities, one per label.

    Attributes:
        method: as asked for, or `softmax`.
        kinds: (labels,) the map that each label got.
        slopes, intercepts: float32 (labels,), lines in log-odds.
        knots: column of an isotonic label → log-odds of scores and of probabilities, both float32 (knots,) and rising.
    """

    method: Method | Literal["softmax"]
    kinds: tuple[str, ...]
    slopes: Scores
    intercepts: Scores
    knots: Mapping[int, tuple[Scores, Scores]] = field(default_factory=dict)

    @classmethod
    def none(cls, labels: int) -> Self:
        """The calibration that does not change scores."""
        return cls("none", ("none",) * labels, np.ones(labels, np.float32), np.zeros(labels, np.float32))

    def apply(self, scores: Scores) -> Scores:
        """Return calibrated probabilities, (recordings, labels).

        Args:
            scores: float32 (recordings, labels) in [0, 1]. The method `none` returns this same array.
        """
        if self.method == "none":
            return scores
        if self.method == "softmax":
            return sharpen(scores, float(self.slopes[0]))
        odds = log_odds(scores)
        bent = {column: _through(odds[:, column], *knots, self.slopes[column]) for column, knots in self.knots.items()}
        odds *= self.slopes
        odds += self.intercepts
        for column, values in bent.items():
            odds[:, column] = values
        return sigmoid(odds)

    def describe(self) -> CalibrationDescription | None:
        """The calibration in the form that bundles and tables store; None for the method `none`."""
        if self.method == "none":
            return None
        return CalibrationDescription(
            method=self.method,
            kinds=self.kinds,
            slopes=_digits(self.slopes),
            intercepts=_digits(self.intercepts),
            knots={str(column): (_digits(x), _digits(y)) for column, (x, y) in self.knots.items()},
        )

    @classmethod
    def of(cls, description: CalibrationDescription | None, labels: int) -> Self:
        """Make the calibration that `describe` described.

        Raises:
            ValueError: it is not one of this number of labels.
        """
        if description is None:
            return cls.none(labels)
        lines = _floats(description.slopes), _floats(description.intercepts)
        if not (len(description.kinds),) == lines[0].shape == lines[1].shape == (labels,):
            raise ValueError(f"expected a calibration of {labels} labels, found one of {len(description.kinds)}")
        knots = {int(column): (_floats(x), _floats(y)) for column, (x, y) in description.knots.items()}
        if any(column >= labels or not len(x) == len(y) > 0 for column, (x, y) in knots.items()):
            raise ValueError(f"expected the knots of some of {labels} labels, found others")
        return cls(description.method, description.kinds, *lines, knots)


def fit_calibration(truth: LabelMatrix, scores: NDArray[np.floating], method: Method = "auto") -> Calibration:
    """Fit a calibration on recordings that the model was not trained on.

    With `platt` and `isotonic`, labels with at least `OWN_POSITIVES` positives and negatives get their own map, and the
    others get the pooled line. `auto` chooses for each label: an isotonic map with at least `ISOTONIC_POSITIVES`
    positives and negatives; else its own line, with at least `OWN_POSITIVES` of both and if the Bayesian information
    criterion prefers it to the pooled line; else the pooled line, if the criterion prefers that to no change. A line
    with a slope below 0.05 is not used.

    Args:
        truth: true labels, (recordings, labels).
        scores: (recordings, labels) in [0, 1], converted to float32.
        method: the calibration method.

    Raises:
        InputError: the shapes differ, or a score is not in [0, 1].
    """
    values = np.asarray(scores, dtype=np.float32)
    true = as_csr(truth, "truth").tocsc()
    labels = true.shape[1]
    if values.shape != true.shape:
        raise InputError(f"expected scores of the truth's shape {true.shape}, found {values.shape}")
    if method == "none":
        return Calibration.none(labels)
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise InputError("cannot calibrate scores that are not in [0, 1]; set decisions.calibration to none")
    if (shared := _shared(true, values, method)) is None:
        lines, kinds = np.tile(IDENTITY, (labels, 1)), np.full(labels, "none", dtype=object)
    else:
        name = "temperature" if method == "temperature" else "pooled"
        lines, kinds = np.tile(shared, (labels, 1)), np.full(labels, name, dtype=object)
    if method != "temperature":
        _give_own(true, values, method, lines, kinds)
    knots = {int(column): _knots(true, values, int(column)) for column in np.flatnonzero(kinds == "isotonic")}
    slopes, intercepts = lines.T.astype(np.float32)
    return Calibration(method, tuple(kinds.tolist()), slopes, intercepts, knots)


def sharpen(scores: Scores, slope: float) -> Scores:
    """Probabilities that sum to 1 to the power of `slope`, scaled to sum to 1 again; (recordings, labels)."""
    logits = slope * np.log(np.maximum(scores, np.finfo(np.float32).tiny))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    sharpened: Scores = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return sharpened


def _give_own(
    truth: sparse.csc_array, scores: Scores, method: Method, lines: Lines, kinds: NDArray[np.object_]
) -> None:
    """For labels that get their own map, overwrite `lines` (labels, 2) and `kinds` (labels,)."""
    positives = np.diff(truth.indptr)
    rarer = np.minimum(positives, truth.shape[0] - positives)
    own = np.flatnonzero(rarer >= OWN_POSITIVES)
    fitted = fit_per_label(truth, scores, own)
    curved = {"platt": np.inf, "isotonic": 0, "auto": ISOTONIC_POSITIVES}[method] <= rarer[own]
    taken = fitted[:, 0] >= _LEAST_SLOPE
    if method == "auto":
        taken &= curved | (_gain(truth, scores, own, lines[own], fitted) > _worth(truth.shape[0]))
    lines[own[taken]] = fitted[taken]
    kinds[own[taken]] = np.where(curved, "isotonic", "platt")[taken]


def _shared(truth: sparse.csc_array, scores: Scores, method: Method) -> Lines | None:
    """Fit one line (2,) to all labels together; None if there are too few cases or no change is better."""
    # Some millions of cells determine two parameters well enough, so larger data are sampled evenly.
    every = -(-truth.shape[0] * truth.shape[1] // _SHARED_CELLS) or 1
    truth, scores = truth.tocsr()[::every].tocsc(), scores[::every]
    columns, cells = np.arange(truth.shape[1]), truth.shape[0] * truth.shape[1]
    if not OWN_POSITIVES <= truth.nnz <= cells - OWN_POSITIVES:
        return None
    line = fit_pooled(truth, scores, columns, intercept=method != "temperature")
    if line[0] < _LEAST_SLOPE:
        return None
    if method == "auto":
        identity, lines = (np.tile(x, (len(columns), 1)) for x in (IDENTITY, line))
        if _gain(truth, scores, columns, identity, lines).sum() <= _worth(truth.shape[0]):
            return None
    return line


def _gain(truth: sparse.csc_array, scores: Scores, columns: NDArray[np.intp], old: Lines, new: Lines) -> Lines:
    """The log-likelihood of the new lines minus that of the old ones, (columns,)."""
    before, after = (cross_entropy(truth, scores, columns, lines) for lines in (old, new))
    return before - after


def _worth(recordings: int) -> float:
    """The gain in log-likelihood that justifies two parameters: the Bayesian information criterion (Schwarz 1978)."""
    return float(np.log(max(recordings, 1)))


def _knots(truth: sparse.csc_array, scores: Scores, column: int) -> tuple[Scores, Scores]:
    """Fit the isotonic map of a label: its knots (x, y) in log-odds.

    Recordings are put into bins with equal numbers of positives, and an isotonic regression merges bins into blocks.
    """
    from sklearn.isotonic import isotonic_regression  # takes a second to import and is needed only for fitting

    odds = log_odds(scores[:, column])
    inside = odds[truth.indices[truth.indptr[column] : truth.indptr[column + 1]]]
    bins = min(_BINS, len(inside) // _BIN_POSITIVES)
    edges = np.unique(np.quantile(inside, np.arange(1, bins) / bins))
    place = np.searchsorted(edges, odds, "right")
    counts = np.bincount(place, minlength=len(edges) + 1).astype(np.float64)
    hits = np.bincount(np.searchsorted(edges, inside, "right"), minlength=len(counts))
    sums = np.bincount(place, weights=odds, minlength=len(counts))
    held = counts > 0
    counts, hits, sums = counts[held], hits[held], sums[held]
    # Half a positive and half a negative are added to each bin, so that no probability becomes 0 or 1.
    rates = isotonic_regression((hits + 0.5) / (counts + 1), sample_weight=counts)
    blocks = np.unique(rates, return_inverse=True)[1]
    x = np.bincount(blocks, weights=sums) / np.bincount(blocks, weights=counts)
    y = np.unique(rates)
    return x.astype(np.float32), np.log(y / (1 - y)).astype(np.float32)


def _through(odds: Scores, x: Scores, y: Scores, slope: np.float32) -> Scores:
    """Interpolate through the knots (x, y) at `odds`, and extrapolate with `slope`."""
    through: Scores = np.interp(odds, x, y).astype(np.float32)
    through += slope * np.minimum(odds - x[0], 0)
    through += slope * np.maximum(odds - x[-1], 0)
    return through


def _floats(values: Sequence[float]) -> Scores:
    return np.array(values, dtype=np.float32)


def _digits(values: Scores) -> tuple[float, ...]:
    """Convert to floats with the shortest decimal representation that gives the same float32."""
    return tuple(float(str(value)) for value in values)
