"""S1's input is found among a table's columns wherever they stand, or the table is refused."""

import numpy as np
import pytest

from genre_ray.errors import InputError
from genre_ray.features.essentia.columns import FEATURE_COLUMNS
from genre_ray.features.essentia.melbands import MELBAND_COLUMNS, melband_places


def test_every_statistic_has_its_bands_in_their_order():
    assert len(set(MELBAND_COLUMNS)) == 9 * 40
    assert MELBAND_COLUMNS[:3] == ("lowlevel.melbands.min.0", "lowlevel.melbands.min.1", "lowlevel.melbands.min.2")
    order = ["min", "mean", "median", "max", "var", "dmean", "dvar", "dmean2", "dvar2"]
    assert [name.split(".")[2] for name in MELBAND_COLUMNS[39::40]] == order
    assert {name.split(".")[3] for name in MELBAND_COLUMNS[39::40]} == {"39"}


def test_places_are_those_of_the_names():
    for columns in (FEATURE_COLUMNS, FEATURE_COLUMNS[::-1], MELBAND_COLUMNS):
        assert tuple(np.array(columns)[melband_places(columns)].tolist()) == MELBAND_COLUMNS


def test_a_table_without_mel_bands_is_refused():
    columns = [column for column in FEATURE_COLUMNS if column != "lowlevel.melbands.var.7"]
    with pytest.raises(
        InputError,
        match=r"360 columns of lowlevel.melbands, but 1 of them are missing, e.g. lowlevel.melbands.var.7; use",
    ):
        melband_places(columns)
