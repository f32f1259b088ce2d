"""Guards that FMA's measurements come out as they stand in the file, and that a bad line is rejected alone."""

import numpy as np
import pyarrow as pa
import pytest

from genre_ray.features.fma import ParseMeasurements, spec
from genre_ray.sources.fma import LINES
from genre_ray.storage import tables
from genre_ray.storage.schemas import FEATURES

COLUMNS = ("mfcc_mean_01", "mfcc_mean_02")


def parse(*lines):
    rows = [
        {"source_uri": f"f#{n}", "recording_id": line.partition(b",")[0].decode(), "line": line}
        for n, line in enumerate(lines)
    ]
    return ParseMeasurements(COLUMNS).open()(pa.Table.from_pylist(rows, LINES))


def test_the_specification_names_the_measurements():
    assert (spec(COLUMNS).kind, spec(COLUMNS).columns) == ("fma-2", COLUMNS)
    assert spec(tuple(map(str, range(518)))).kind == "fma-518"


def test_lines_are_rows_of_the_features_table():
    outcome = parse(b"2,1.5,-0.25", b"10,3e2, 7 ")
    assert outcome.accepted.schema == FEATURES
    assert outcome.accepted["recording_id"].to_pylist() == ["2", "10"]
    assert outcome.accepted["source_uri"].to_pylist() == ["f#0", "f#1"]
    np.testing.assert_array_equal(tables.vectors(outcome.accepted["features"]), np.float32([[1.5, -0.25], [300, 7]]))
    assert outcome.rejected.num_rows == 0


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b"7,1", "wrong_shape", "expected 2 values, found 1"),
        (b"7,1,2,3", "wrong_shape", "expected 2 values, found 3"),
        (b"7,1,", "missing_value", "expected a number as mfcc_mean_02, found none"),
        (b"7,loud,2", "wrong_type", "expected numbers, found: could not convert string to float: b'loud'"),
        (b"7,1_0,2", "wrong_type", "expected numbers, found: an underscore"),
        (b"7,\xff,2", "wrong_type", "expected numbers"),
        (b"7,nan,2", "not_finite", "expected a finite 32-bit float as mfcc_mean_01, found nan"),
        (b"7,1,1e39", "not_finite", "expected a finite 32-bit float as mfcc_mean_02, found 1e39"),
        (b",1,2", "missing_value", "expected a track id of 1 to 256 characters, found 0"),
        (b"7" * 257 + b",1,2", "id_too_long", "expected a track id of 1 to 256 characters, found 257"),
        (b"", "missing_value", "expected a track id"),
    ],
)
def test_a_line_that_is_none_is_rejected_alone(line, reason, detail):
    outcome = parse(b"1,1,2", line, b"3,3,4")
    assert outcome.accepted["recording_id"].to_pylist() == ["1", "3"]
    (why,) = outcome.rejected.to_pylist()
    assert (why["source_uri"], why["reason"]) == ("f#1", reason)
    assert why["detail"].startswith(detail)
