"""Soft targets: a distribution per recording, from a table with the columns `recording_id` and `values`."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from genre_ray.errors import InputError
from genre_ray.storage import tables


def read_soft_targets(uri: str, version: int, ids: pa.Array) -> NDArray[np.float32]:
    """Read the (recordings, values) of a table of soft targets; NaN for a recording that it lacks.

    Raises:
        InputError: the table has other columns, or a recording's values are no distribution.
    """
    table = tables.open_table(uri, version)
    if missing := {"recording_id", "values"} - {*tables.schema_of(table).names}:
        raise InputError(f"{uri}: expected the columns recording_id and values, found no {', '.join(sorted(missing))}")
    batches = list(tables.read_batches(uri, ["recording_id", "values"], version=version))
    rows = pa.Table.from_batches(batches)
    values = tables.vectors(rows["values"])
    if not (np.isfinite(values).all() and (values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=1e-3)):
        raise InputError(f"{uri}: expected values of at least 0 that sum to 1 for each recording, found others")
    place = pc.index_in(ids, value_set=rows["recording_id"].combine_chunks().cast(pa.string()))
    there = pc.is_valid(place).to_numpy(zero_copy_only=False)
    targets = np.full((len(ids), values.shape[1]), np.nan, dtype=np.float32)
    targets[there] = values[place.drop_null().to_numpy()]
    return targets
