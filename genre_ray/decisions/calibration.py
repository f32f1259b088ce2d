"""Calibration: for each label a rising map from scores to probabilities, fitted on validation.

Maps are functions of a score's log-odds and rise strictly, so calibration never changes how a label ranks recordings
(but for scores whose log-odds are equal to six digits):

- *isotonic*: segments through the blocks of an isotonic regression (Zadrozny and Elkan 2002), each at its block's mean
  as in centered isotonic regression (Oron and Flournoy 2017), and with the slope of its line past the ends;
- *platt*: a line (Platt 1999);
- *pooled*: one line, fitted to all labels, for those without a map of their own;
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
from genre_ray.decisions.logistic import IDENTITY, cross_entropy, log_odds, own_lines, shared_line, sigmoid
from genre_ray.errors import InputError
from genre_ray.metrics.matrices import LabelMatrix, as_csr

Method = Literal["auto", "none", "platt", "isotonic", "temperature"]
Scores = NDArray[np.float32]
Lines = NDArray[np.float64]

ISOTONIC_POSITIVES = 1000
"""From about so many cases isotonic maps beat lines (Niculescu-Mizil and Caruana 2005)."""

OWN_POSITIVES = 50
"""From so many a label may have a line of its own."""

_BINS, _BIN_POSITIVES = 20, 10

_SHARED_CELLS = 10_000_000

# A map that falls would turn a label's ranking round, one that hardly rises would make its scores one.
_LEAST_SLOPE = 0.05


_LARGEST = float(np.finfo(np.float32).max)

Float32 = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
"""A number that is finite as a float32, too."""

Position = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
"""An index as a key of JSON."""


class CalibrationDescription(Description):
    """A calibration as bundles and tables state it; see `Calibration`."""

    method: Method | Literal["softmax"] = Field(description="as asked for, or softmax")
    kinds: tuple[str, ...] = Field(description="the map of each label")
    slopes: tuple[Float32, ...] = Field(description="of each label's line in log-odds")
    intercepts: tuple[Float32, ...] = Field(description="of each label's line in log-odds")
    knots: dict[Position, tuple[tuple[Float32, ...], tuple[Float32, ...]]] = Field(
        description="by the position of an isotonic label: log-odds of scores, and of probabilities"
    )


@dataclass(frozen=True)
class Calibration:
    """Maps from scores to probabilities, one a label.

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
        """Scores as they are."""
        return cls("none", ("none",) * labels, np.ones(labels, np.float32), np.zeros(labels, np.float32))

    def apply(self, scores: Scores) -> Scores:
        """Float32 scores in [0, 1] → probabilities, (recordings, labels); the very scores for the method `none`."""
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
        """What bundles and tables state of it; None for the method `none`."""
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
    """Fit maps on recordings that the model has not learnt from.

    `platt` and `isotonic` give the labels that have `OWN_POSITIVES` positives, and as many negatives, a map of their
    own and the others the pooled line. `auto` gives a label what validation supports: isotonic from
    `ISOTONIC_POSITIVES`; from `OWN_POSITIVES` a line, if it explains validation better than the pooled one by the
    Bayesian information criterion; else the pooled line, if that is better than none by the same. A line that does not
    rise is never taken.

    Args:
        truth: (recordings, labels).
        scores: (recordings, labels) in [0, 1], taken as float32.
        method: which maps.

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
        raise InputError("expected scores in [0, 1] to calibrate, found others; set calibration to none")
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
    """Write the lines of labels that get one of their own over the shared `lines` (labels, 2), and their `kinds`."""
    positives = np.diff(truth.indptr)
    rarer = np.minimum(positives, truth.shape[0] - positives)
    own = np.flatnonzero(rarer >= OWN_POSITIVES)
    fitted = own_lines(truth, scores, own)
    curved = {"platt": np.inf, "isotonic": 0, "auto": ISOTONIC_POSITIVES}[method] <= rarer[own]
    taken = fitted[:, 0] >= _LEAST_SLOPE
    if method == "auto":
        taken &= curved | (_gain(truth, scores, own, lines[own], fitted) > _worth(truth.shape[0]))
    lines[own[taken]] = fitted[taken]
    kinds[own[taken]] = np.where(curved, "isotonic", "platt")[taken]


def _shared(truth: sparse.csc_array, scores: Scores, method: Method) -> Lines | None:
    """The line of all labels together, (2,); None where validation does not support one."""
    # Two parameters need no more than some millions of cells: of more, evenly chosen recordings.
    every = -(-truth.shape[0] * truth.shape[1] // _SHARED_CELLS) or 1
    truth, scores = truth.tocsr()[::every].tocsc(), scores[::every]
    columns, cells = np.arange(truth.shape[1]), truth.shape[0] * truth.shape[1]
    if not OWN_POSITIVES <= truth.nnz <= cells - OWN_POSITIVES:
        return None
    line = shared_line(truth, scores, columns, shifted=method != "temperature")
    if line[0] < _LEAST_SLOPE:
        return None
    if method == "auto":
        identity, lines = (np.tile(x, (len(columns), 1)) for x in (IDENTITY, line))
        if _gain(truth, scores, columns, identity, lines).sum() <= _worth(truth.shape[0]):
            return None
    return line


def _gain(truth: sparse.csc_array, scores: Scores, columns: NDArray[np.intp], old: Lines, new: Lines) -> Lines:
    """How much more log-likelihood the new lines have than the old ones, (columns,)."""
    before, after = (cross_entropy(truth, scores, columns, lines) for lines in (old, new))
    return before - after


def _worth(recordings: int) -> float:
    """The log-likelihood that two parameters must gain by the Bayesian information criterion (Schwarz 1978)."""
    return float(np.log(max(recordings, 1)))


def _knots(truth: sparse.csc_array, scores: Scores, column: int) -> tuple[Scores, Scores]:
    """The label's map through bins of equally many positives, those of one isotonic block together."""
    from sklearn.isotonic import isotonic_regression  # takes a second to import, and applying maps needs none of it

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
    # Half a recording of either kind keeps a bin of one kind from certainty.
    rates = isotonic_regression((hits + 0.5) / (counts + 1), sample_weight=counts)
    blocks = np.unique(rates, return_inverse=True)[1]
    x = np.bincount(blocks, weights=sums) / np.bincount(blocks, weights=counts)
    y = np.unique(rates)
    return x.astype(np.float32), np.log(y / (1 - y)).astype(np.float32)


def _through(odds: Scores, x: Scores, y: Scores, slope: np.float32) -> Scores:
    """The segments through the knots (x, y) at `odds`, with `slope` past the ends."""
    through: Scores = np.interp(odds, x, y).astype(np.float32)
    through += slope * np.minimum(odds - x[0], 0)
    through += slope * np.maximum(odds - x[-1], 0)
    return through


def _floats(values: Sequence[float]) -> Scores:
    return np.array(values, dtype=np.float32)


def _digits(values: Scores) -> tuple[float, ...]:
    """The shortest decimals that are these float32 numbers."""
    return tuple(float(str(value)) for value in values)
