"""Calibration where one label of each recording is right: temperature scaling of the softmax (Guo et al. 2017)."""

import numpy as np
from numpy.typing import NDArray

from genre_ray.decisions.calibration import Calibration, Method, sharpen
from genre_ray.errors import ConfigurationError, InputError
from genre_ray.metrics.matrices import LabelMatrix, as_csr

_SLOPES = (0.05, 20.0)


def fit_temperature(truth: LabelMatrix, scores: NDArray[np.float32], method: Method = "auto") -> Calibration:
    """Fit one temperature on recordings that the model has not learnt from.

    Args:
        truth: (recordings, labels), one label each.
        scores: (recordings, labels), probabilities that sum to 1.
        method: `temperature`; `auto`, which keeps the scores as they are unless a temperature explains validation
            better by the Bayesian information criterion; or `none`.

    Raises:
        ConfigurationError: the method is one for independent labels.
        InputError: a recording has several labels or none.
    """
    from scipy.optimize import minimize_scalar  # takes a moment to import, and applying a temperature needs none of it

    if method not in ("auto", "temperature", "none"):
        raise ConfigurationError(
            f"decisions.calibration: {method} maps each label's score alone, but this model's scores sum to 1; set it "
            "to auto, temperature or none"
        )
    true = as_csr(truth, "truth")
    if (np.diff(true.indptr) != 1).any():
        raise InputError("expected one label for each recording, found others; a single-label system learns from these")

    def cross_entropy(slope: float) -> float:
        sharpened = sharpen(scores, slope)[np.arange(len(scores)), true.indices]
        return float(-np.log(np.maximum(sharpened, np.finfo(np.float32).tiny)).sum(dtype=np.float64))

    labels = scores.shape[1]
    if method == "none" or not len(scores):
        return Calibration.none(labels)
    best = float(
        np.exp(minimize_scalar(lambda x: cross_entropy(np.exp(x)), bounds=np.log(_SLOPES), method="bounded").x)
    )
    if method == "auto" and cross_entropy(1.0) - cross_entropy(best) <= np.log(len(scores)) / 2:
        return Calibration.none(labels)
    slopes = np.full(labels, best, dtype=np.float32)
    return Calibration("softmax", ("softmax",) * labels, slopes, np.zeros(labels, dtype=np.float32))
