"""What the vectors of a features table are: their kind, shape and columns, in the table's Delta properties.

Delta keeps its properties through OPTIMIZE and VACUUM. The metadata of Parquet files is lost when parts are rewritten.
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
"""The property of a features table that holds its specification."""

Parameter = str | int | float | bool


@dataclass(frozen=True)
class Axis:
    """One axis of an item's values.

    Attributes:
        name: what runs along it, e.g. `columns`, `mels` or `frames`.
        size: how many values it has.
    """

    name: str
    size: int


@dataclass(frozen=True)
class FeatureSpec:
    """What the values of one row of a features table are.

    Attributes:
        kind: how they were made, e.g. `essentia-2669`.
        shape: the axes of a row's values, outermost first. A row stores its values flat, in C order.
        dtype: NumPy's name of the type of a value.
        columns: the names of the values, for values that each have a name of their own; their number is the size of the
            only axis.
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
        """The specification of float32 vectors whose values have these names."""
        return cls(kind, (Axis("columns", len(columns)),), columns=tuple(columns))

    @property
    def values(self) -> int:
        """How many values a row has."""
        return math.prod(axis.size for axis in self.shape)

    @property
    def hash(self) -> str:
        """SHA-256, in hexadecimal, over everything else: equal only for equal specifications."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """The specification and its hash as plain JSON values."""
        return {**self._content(), "hash": self.hash}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The specification that `as_dict` describes.

        Raises:
            ValueError: a key is missing or unknown, a value is of another type, or the content does not match the hash.
        """
        if not isinstance(content, Mapping):
            raise ValueError(f"expected a mapping, found {type(content).__name__}")
        try:
            spec = TypeAdapter(cls).validate_python({key: content[key] for key in content if key != "hash"})
        except ValidationError as error:
            raise ValueError(first_error(error)) from None
        if spec.hash != content.get("hash"):
            raise ValueError(f"expected content with the hash {content.get('hash')}, found {spec.hash}")
        if spec.as_dict() != content:
            raise ValueError("expected only the keys and types of a specification, found others")
        return spec

    def properties(self) -> dict[str, str]:
        """The properties of a table with such features, for `tables.create_table`."""
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
    """The specification of a features table, from its Delta properties.

    Raises:
        InputError: there is no table, it states no specification, or one that was altered.
    """
    stated = tables.properties(uri).get(PROPERTY)
    if stated is None:
        raise InputError(
            f"{uri}: expected a features table, whose property {tables.PREFIX}{PROPERTY} says what its features are, "
            "found another table"
        )
    try:
        return FeatureSpec.from_dict(json.loads(stated))
    except ValueError as error:
        raise InputError(
            f"{uri}: expected a feature specification in the property {tables.PREFIX}{PROPERTY}, found: {error}; "
            "restore the property or ingest again"
        ) from None
