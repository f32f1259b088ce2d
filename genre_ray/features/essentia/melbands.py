"""The mel band columns of a features table, the input of S1: nine statistics of forty bands."""

from collections.abc import Sequence

from genre_ray.errors import InputError

BANDS = 40

STATISTICS = ("min", "mean", "median", "max", "var", "dmean", "dvar", "dmean2", "dvar2")
"""The statistics in the order of S1's channels."""

MELBAND_COLUMNS: tuple[str, ...] = tuple(
    f"lowlevel.melbands.{statistic}.{band}" for statistic in STATISTICS for band in range(BANDS)
)
"""The names of the columns, by statistic and then by band."""


def melband_places(columns: Sequence[str]) -> list[int]:
    """Return the position of each of `MELBAND_COLUMNS` among the columns of a table.

    Raises:
        InputError: some of them are missing.
    """
    place = {column: number for number, column in enumerate(columns)}
    missing = [column for column in MELBAND_COLUMNS if column not in place]
    if missing:
        raise InputError(
            f"expected a features table with the {len(MELBAND_COLUMNS)} columns of lowlevel.melbands, but "
            f"{len(missing)} of them are missing, e.g. {missing[0]}; use a table that `ingest` wrote"
        )
    return [place[column] for column in MELBAND_COLUMNS]
