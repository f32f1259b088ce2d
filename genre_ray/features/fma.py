"""FMA's published measurements → rows of the features table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from genre_ray.features.spec import FeatureSpec
from genre_ray.outcomes import Outcome, Reason, Rejection, rejections
from genre_ray.runs.stages import Compute, Resources
from genre_ray.sources.documents.names import MAX_ID_CHARACTERS
from genre_ray.storage.schemas import FEATURES
from genre_ray.storage.tables import Vectors

EXTRACTOR = "fma"


def spec(columns: Sequence[str]) -> FeatureSpec:
    """The specification of these measurements, `fma-518` for the published ones."""
    return FeatureSpec.of_columns(f"fma-{len(columns)}", columns)


@dataclass
class ParseMeasurements:
    """A stage: lines of `features.csv` → rows of the features table.

    Attributes:
        columns: the names of the measurements.
        resources: what a worker of it reserves.
    """

    name = "parse"
    schema = FEATURES

    columns: tuple[str, ...]
    rows_per_call: int | None = None
    resources: Resources | None = None

    def open(self) -> Compute:
        """Nothing is loaded."""
        return self._parse

    def _parse(self, lines: pa.Table) -> Outcome:
        uris, tracks = lines["source_uri"].to_pylist(), lines["recording_id"].to_pylist()
        kept: list[int] = []
        vectors: list[Vectors] = []
        rejected = []
        for row, line in enumerate(lines["line"].to_pylist()):
            found = self._measurements(tracks[row], line.split(b",")[1:])
            if isinstance(found, Rejection):
                rejected.append((uris[row], found))
            else:
                kept.append(row)
                vectors.append(found)
        return Outcome(
            self._rows([uris[row] for row in kept], [tracks[row] for row in kept], vectors), rejections(rejected)
        )

    def _measurements(self, track: str, fields: Sequence[bytes]) -> Vectors | Rejection:
        if not track or len(track) > MAX_ID_CHARACTERS:
            found = f"expected a track id of 1 to {MAX_ID_CHARACTERS} characters, found {len(track)}"
            return Rejection(Reason.ID_TOO_LONG if track else Reason.MISSING_VALUE, found)
        if len(fields) != len(self.columns):
            found = f"expected {len(self.columns)} values, found {len(fields)}"
            return Rejection(Reason.WRONG_SHAPE, found, track)
        if b"" in fields:
            return Rejection(
                Reason.MISSING_VALUE, f"expected a number as {self.columns[fields.index(b'')]}, found none", track
            )
        try:
            if any(b"_" in field for field in fields):
                raise ValueError("an underscore")  # a number to Python, not in a table
            with np.errstate(over="ignore"):
                values = np.array(list(map(float, fields)), dtype=np.float64).astype(np.float32)
        except ValueError as error:
            return Rejection(Reason.WRONG_TYPE, f"expected numbers, found: {error}", track)
        finite = np.isfinite(values)
        if not finite.all():
            column = int(np.argmin(finite))
            found = fields[column].decode(errors="replace")
            detail = f"expected a finite 32-bit float as {self.columns[column]}, found {found}"
            return Rejection(Reason.NOT_FINITE, detail, track)
        return values

    def _rows(self, uris: Sequence[str], tracks: Sequence[str], vectors: Sequence[Vectors]) -> pa.Table:
        count = len(tracks)
        flat = np.concatenate(vectors) if vectors else np.zeros(0, np.float32)
        ends = pa.array(np.arange(count + 1) * len(self.columns), pa.int32())
        columns = [tracks, [0] * count, [[]] * count, [None] * count, uris, [EXTRACTOR] * count]
        arrays = [pa.array(column, kind) for column, kind in zip(columns, FEATURES.types[:-1], strict=True)]
        arrays.append(pa.ListArray.from_arrays(ends, pa.array(flat), type=FEATURES.types[-1]))
        return pa.Table.from_arrays(arrays, schema=FEATURES)
