"""The feature specification of a table: the kind, shape and columns of its vectors.

It is stored in the table's Delta properties, which Delta keeps in OPTIMIZE and VACUUM. The metadata of Parquet files is
lost when files are rewritten.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from genre_ray.config import first_error
from genre_ray.errors import InputError
from genre_ray.storage import tables

PROPERTY = "feature_spec"
"""The Delta property that contains the specification."""

Parameter = str | int | float | bool


@dataclass(frozen=True)
class Axis:
    """One axis of the values of a row.

    Attributes:
        name: e.g. `columns`, `mels` or `frames`.
        size: number of values along the axis.
    """

    name: str
    size: int


@dataclass(frozen=True)
class FeatureSpec:
    """What the values in a row of a features table mean.

    Attributes:
        kind: name of the extraction, e.g. `essentia-2669`.
        shape: the axes of a row's values, outermost first. A row stores its values flat, in C order.
        dtype: NumPy's name for the type of a value.
        columns: names of the values, if each has its own name. Then there is one axis of that size.
        parameters: settings of the extraction, e.g. the sample rate in Hz under `sample_rate_hz`.

    Raises:
        ValueError: the columns do not fit the shape.
    """

    kind: str
    shape: tuple[Axis, ...]
    dtype: str = "float32"
    columns: tuple[str, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.columns and [axis.size for axis in self.shape] != [len(self.columns)]:
            raise ValueError(f"expected one axis of {len(self.columns)} columns, found {self.shape}")

    @classmethod
    def of_columns(cls, kind: str, columns: Sequence[str]) -> Self:
        """Make the specification of float32 vectors with named values."""
        return cls(kind, (Axis("columns", len(columns)),), columns=tuple(columns))

    @property
    def values(self) -> int:
        """How many values a row has."""
        return math.prod(axis.size for axis in self.shape)

    @property
    def hash(self) -> str:
        """Hexadecimal SHA-256 of the specification. Two specifications are equal if their hashes are equal."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """The specification and its hash as JSON values."""
        return {**self._content(), "hash": self.hash}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Make a specification from the result of `as_dict`.

        Raises:
            ValueError: a key is missing or unknown, a value has another type, or the hash does not match.
        """
        if not isinstance(content, Mapping):
            raise ValueError(f"expected a mapping, found {type(content).__name__}")
        try:
            spec = TypeAdapter(cls).validate_python({key: content[key] for key in content if key != "hash"})
        except ValidationError as error:
            raise ValueError(first_error(error)) from None
        if spec.hash != content.get("hash"):
            raise ValueError(f"its hash is {spec.hash} instead of {content.get('hash')}")
        if spec.as_dict() != content:
            raise ValueError("it has unknown keys or values of another type")
        return spec

    def properties(self) -> dict[str, str]:
        """The Delta properties of a table with these features, for `tables.create_table`."""
        return {PROPERTY: json.dumps(self.as_dict(), ensure_ascii=False)}

    def _content(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "shape": [{"name": axis.name, "size": axis.size} for axis in self.shape],
            "dtype": self.dtype,
            "columns": list(self.columns),
            "parameters": dict(self.parameters),
        }


def read_spec(uri: str) -> FeatureSpec:
    """Read the specification of a features table from its Delta properties.

    Raises:
        InputError: there is no table, it has no specification, or the specification was altered.
    """
    stated = tables.properties(uri).get(PROPERTY)
    if stated is None:
        raise InputError(
            f"{uri}: expected a features table, found a table without the property {tables.PREFIX}{PROPERTY}; give "
            "OUTPUT/features of ingest"
        )
    try:
        return FeatureSpec.from_dict(json.loads(stated))
    except ValueError as error:
        raise InputError(
            f"{uri}: the feature specification in the property {tables.PREFIX}{PROPERTY} is damaged ({error}); restore "
            "the property, or ingest again"
        ) from None
