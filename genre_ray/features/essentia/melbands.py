"""The mel bands among the columns of a features table, as S1 takes them: nine statistics of forty bands."""

from collections.abc import Sequence

from genre_ray.errors import InputError

BANDS = 40

STATISTICS = ("min", "mean", "median", "max", "var", "dmean", "dvar", "dmean2", "dvar2")
"""In the order of S1's channels."""

MELBAND_COLUMNS: tuple[str, ...] = tuple(
    f"lowlevel.melbands.{statistic}.{band}" for statistic in STATISTICS for band in range(BANDS)
)
"""The names of the columns: the bands of a statistic side by side, in their order."""


def melband_places(columns: Sequence[str]) -> list[int]:
    """Where each of `MELBAND_COLUMNS` stands in a table's columns.

    Raises:
        InputError: the table lacks some of them.
    """
    place = {column: number for number, column in enumerate(columns)}
    missing = [column for column in MELBAND_COLUMNS if column not in place]
    if missing:
        raise InputError(
            f"expected a features table with the {len(MELBAND_COLUMNS)} columns of lowlevel.melbands, found "
            f"{len(columns)} columns without {len(missing)} of them, e.g. {missing[0]}; use a table that `ingest` wrote"
        )
    return [place[column] for column in MELBAND_COLUMNS]
