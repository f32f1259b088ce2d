"""Logistic regression on log-odds: fit `slope · log-odds + intercept`, per label or pooled over labels.

The fit uses Newton's method and halves a step until the loss decreases. The loss depends on the targets only by two
sums, so each step is one pass over the log-odds. That pass uses float32 with pairwise summation, which makes slopes and
intercepts accurate to about five digits.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]
Scores = NDArray[np.float32]
Columns = NDArray[np.intp]

_LOWEST, _HIGHEST = np.finfo(np.float32).tiny, np.float32(1 - 2**-24)

# Columns that are processed together, so that their copy stays small compared with all scores.
_BLOCK = 32

_STEPS, _SHORT_STEP, _LOSS_NOISE = 60, 1e-4, 1e-6

IDENTITY = np.array([1.0, 0.0])


@dataclass(frozen=True)
class _Loss:
    """The cross-entropy of several lines (lines,), its gradient (lines, 2) and its Hessian (lines, 2, 2)."""

    value: Floats
    gradient: Floats
    curvature: Floats


def log_odds(scores: Scores) -> Scores:
    """Return log(s / (1 − s)); 0 and 1 are replaced by the nearest float32 numbers between them."""
    bounded = np.clip(scores, _LOWEST, _HIGHEST)
    odds: Scores = np.subtract(1, bounded)
    np.divide(bounded, odds, out=odds)
    return np.log(odds, out=odds)


def sigmoid(odds: Scores) -> Scores:
    """Return 1 / (1 + exp(−odds)), computed in place."""
    np.negative(odds, out=odds)
    with np.errstate(over="ignore"):
        np.exp(odds, out=odds)
    odds += 1
    return np.reciprocal(odds, out=odds)


def fit_per_label(truth: sparse.csc_array, scores: Scores, columns: Columns) -> Floats:
    """Fit a slope and an intercept for each column by maximum likelihood.

    With p positives and n negatives, the targets are (p + 1) / (p + 2) and 1 / (n + 2) instead of 1 and 0, as in Platt
    (1999), so that few positives do not give probabilities near 0 or 1.

    Args:
        truth: true labels, canonical CSC (recordings, labels).
        scores: float32 (recordings, labels) in [0, 1].
        columns: the columns to fit.

    Returns:
        (columns, 2): slope and intercept.
    """
    fitted = [_newton(block.loss, len(block.odds)) for block in _blocks(truth, scores, columns, smooth=True)]
    return np.concatenate([np.zeros((0, 2)), *fitted])


def cross_entropy(truth: sparse.csc_array, scores: Scores, columns: Columns, lines: Floats) -> Floats:
    """Compute the cross-entropy of each column with its line, summed over recordings.

    Args:
        truth: true labels, canonical CSC (recordings, labels).
        scores: float32 (recordings, labels) in [0, 1].
        columns: the columns to use.
        lines: slope and intercept of each of them, (columns, 2).

    Returns:
        (columns,).
    """
    starts = range(0, len(columns), _BLOCK)
    blocks = zip(starts, _blocks(truth, scores, columns), strict=True)
    return np.concatenate([np.zeros(0), *(block.loss(lines[start : start + _BLOCK]).value for start, block in blocks)])


def fit_pooled(truth: sparse.csc_array, scores: Scores, columns: Columns, *, intercept: bool) -> Floats:
    """Fit one slope and intercept for several columns together by maximum likelihood.

    Args:
        truth: true labels, canonical CSC (recordings, labels).
        scores: float32 (recordings, labels) in [0, 1].
        columns: the columns to fit.
        intercept: whether to fit the intercept; otherwise it is 0.

    Returns:
        (2,): slope and intercept.
    """

    def loss(line: Floats) -> _Loss:
        parts = [block.loss(np.repeat(line, len(block.odds), axis=0)) for block in _blocks(truth, scores, columns)]
        value, gradient, curvature = (
            sum(getattr(part, name).sum(axis=0, keepdims=True) for part in parts)
            for name in ("value", "gradient", "curvature")
        )
        if not intercept:
            gradient[:, 1], curvature[:, :, 1], curvature[:, 1, :] = 0, 0, 0
            curvature[:, 1, 1] = 1
        return _Loss(value, gradient, curvature)

    (fitted,) = _newton(loss, 1)
    return np.asarray(fitted)


@dataclass(frozen=True)
class _Block:
    """Some columns: their log-odds (columns, recordings), and sums over recordings of targets and targets × odds."""

    odds: Scores
    targets: Floats
    weighted: Floats

    def loss(self, lines: Floats) -> _Loss:
        """The cross-entropy of one line per column: Σ log(1 + exp(u)) − t · u over recordings, with u from the line."""
        slopes, intercepts = lines.T.astype(np.float32)
        u = self.odds * slopes[:, None]
        u += intercepts[:, None]
        # log(1 + exp(u)) without overflow; NumPy's log1p takes twenty times as long as its log for float32.
        small = np.exp(-np.abs(u))
        value = (np.maximum(u, 0) + np.log(1 + small)).sum(axis=1).astype(np.float64)
        value -= lines[:, 0] * self.weighted + lines[:, 1] * self.targets
        p = sigmoid(u)
        gradient = np.stack([(p * self.odds).sum(axis=1) - self.weighted, p.sum(axis=1) - self.targets], axis=1)
        spread = np.subtract(1, p, out=small)
        spread *= p
        corner = np.multiply(spread, self.odds, out=p)
        h01, h11 = corner.sum(axis=1), spread.sum(axis=1)
        h00 = np.multiply(corner, self.odds, out=corner).sum(axis=1)
        curvature = np.stack([h00, h01, h01, h11], axis=1).reshape(-1, 2, 2).astype(np.float64)
        return _Loss(value, gradient, curvature)


def _blocks(truth: sparse.csc_array, scores: Scores, columns: Columns, *, smooth: bool = False) -> Iterator[_Block]:
    recordings = scores.shape[0]
    for start in range(0, len(columns), _BLOCK):
        block = columns[start : start + _BLOCK]
        odds = log_odds(np.ascontiguousarray(scores[:, block].T))
        totals = odds.sum(axis=1, dtype=np.float64)
        positives = np.diff(truth.indptr)[block]
        inside = [
            odds[row, truth.indices[truth.indptr[column] : truth.indptr[column + 1]]].sum(dtype=np.float64)
            for row, column in enumerate(block)
        ]
        high, low = np.ones(len(block)), np.zeros(len(block))
        if smooth:
            high, low = (positives + 1) / (positives + 2), 1 / (recordings - positives + 2)
        yield _Block(
            odds,
            targets=high * positives + low * (recordings - positives),
            weighted=high * np.array(inside) + low * (totals - inside),
        )


def _newton(loss: Callable[[Floats], _Loss], count: int) -> Floats:
    """Minimise the loss of each of `count` lines, starting at the identity; return them as (count, 2)."""
    lines, steps = np.tile(IDENTITY, (count, 1)), np.ones(count)
    here = loss(lines)
    for _ in range(_STEPS):
        # The ridge keeps the system solvable for a label whose scores are all equal. It does not affect others.
        ridge = 1e-6 * (1 + np.trace(here.curvature, axis1=1, axis2=2))[:, None, None] * np.eye(2)
        moves = -np.linalg.solve(here.curvature + ridge, here.gradient[..., None])[..., 0] * steps[:, None]
        if np.abs(moves).max() < _SHORT_STEP:
            break
        there = loss(lines + moves)
        lower = there.value <= here.value + _LOSS_NOISE * np.abs(here.value)
        lines = np.where(lower[:, None], lines + moves, lines)
        here = _Loss(
            np.where(lower, there.value, here.value),
            np.where(lower[:, None], there.gradient, here.gradient),
            np.where(lower[:, None, None], there.curvature, here.curvature),
        )
        steps = np.where(lower, 1.0, steps / 2)
    return lines
