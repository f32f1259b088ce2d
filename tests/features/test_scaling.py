"""Scaling equals scikit-learn's, however the rows are cut into batches, and knows missing columns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from genre_ray.features.scaling import fit_scaling

COLUMN = st.tuples(
    st.sampled_from(["spread", "constant", "missing"]),
    st.sampled_from([0.0, 1e-6, 1.0, -440.0, 2e13]),  # mean
    st.sampled_from([1e-3, 1.0, 1e6]),  # deviation, relative to the mean where there is one
    st.sampled_from([0.0, 0.3]),  # share of missing values
)


def column(kind, mean, relative, missing, rows, generator):
    spread = relative * (abs(mean) or 1.0) if kind == "spread" else 0.0
    # Distinct values: no draw is so close to another that it counts as rounding.
    values = mean + spread * generator.permutation(rows)
    values[generator.random(rows) < (1.0 if kind == "missing" else missing)] = np.nan
    return values


@given(
    columns=st.lists(COLUMN, min_size=1, max_size=6),
    rows=st.integers(1, 60),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_sklearn_in_any_batches(columns, rows, cuts, seed):
    generator = np.random.default_rng(seed)
    values = np.stack([column(*kind, rows, generator) for kind in columns], axis=1).astype(np.float32)
    scaling = fit_scaling(np.split(values, sorted(cut for cut in cuts if cut <= rows)))
    with np.errstate(invalid="ignore"):
        reference = StandardScaler().fit(values.astype(np.float64))
    there = ~np.isnan(values).all(axis=0)
    # Missing everywhere: scikit-learn leaves NaN.
    np.testing.assert_array_equal(scaling.mean[~there], 0)
    np.testing.assert_array_equal(scaling.scale[~there], 0)
    np.testing.assert_allclose(scaling.mean[there], reference.mean_[there], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(1 / scaling.scale[there], reference.scale_[there], rtol=1e-6)


def test_a_column_without_variance_is_divided_by_one():
    values = np.full((1000, 2), [0.1, -3e7], dtype=np.float32)
    scaling = fit_scaling(np.array_split(values, 7))
    assert scaling.scale.tolist() == [1.0, 1.0]
    np.testing.assert_allclose((values - scaling.mean) * scaling.scale, 0, atol=1e-6)


def test_float32_rounding_is_no_variance():
    # scikit-learn would blow one unit in the last place up to a standard deviation.
    value = np.float32(440.1)
    values = np.array([[value], [np.nextafter(value, np.float32(1e3))]] * 50)
    assert fit_scaling([values]).scale.tolist() == [1.0]


def test_scale_is_a_float32_however_small_the_spread():
    scaling = fit_scaling([np.array([[0.0], [1e-42]], dtype=np.float32)])
    assert np.isfinite(np.float32(scaling.scale)).all()


def test_infinite_values_are_missing():
    with_them = fit_scaling([np.array([[1.0], [3.0], [np.inf], [-np.inf]], dtype=np.float32)])
    without = fit_scaling([np.array([[1.0], [3.0]], dtype=np.float32)])
    assert (with_them.mean, with_them.scale) == (without.mean, without.scale) == (2.0, 1.0)


def test_a_column_that_comes_late_counts_only_its_rows():
    early, late = np.full((5, 1), np.nan, np.float32), np.array([[1.0], [5.0]], np.float32)
    scaling = fit_scaling([early, late, early])
    assert (scaling.mean.tolist(), scaling.scale.tolist()) == ([3.0], [0.5])


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="no rows"):
        fit_scaling([])
