"""Convert a parsed document to a vector of 2669 numbers.

A fast function reads all values of a valid document. If it fails, a slower one goes through the document field by field
and reports the first faulty column. Both use the descriptors in `genre_ray.features.essentia.columns`.
"""

from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from genre_ray.features.essentia.columns import (
    ABSENT_PEAK,
    CATEGORIES,
    DESCRIPTORS,
    FEATURE_COLUMNS,
    LONE_PEAKS,
    READING_ORDER,
    STATISTICS,
    Category,
    Descriptor,
    missing_columns,
)
from genre_ray.outcomes import Reason, Rejection
from genre_ray.sources.documents.parse import Document, DocumentVersion

Rooms = Mapping[str, Mapping[str, Any]]

# The flats that the newer extractor is known to write. Others are rejected.
SHARPS = {"Ab": "G#", "Bb": "A#", "Eb": "D#"}

# The statistics of a single number that equal the number. The others measure variation and are 0.
LEVELS = frozenset({"mean", "median", "min", "max"})

_NUMBERS = frozenset({int, float})
_ORDER = np.array([READING_ORDER.index(column) for column in FEATURE_COLUMNS])
_SUPPLIED = {version: ~np.isin(FEATURE_COLUMNS, missing_columns(version)) for version in DocumentVersion}


def flatten(document: Document) -> npt.NDArray[np.float32] | Rejection:
    """Return the values of `FEATURE_COLUMNS`, float32 (2669,), or why the document is rejected.

    Columns that documents of this version lack are NaN. All others are finite. The detail of a rejection names the
    first faulty column.
    """
    rooms = _as_music_1(document)
    try:
        values = _read(rooms)
    except (KeyError, TypeError, ValueError):
        return _fault(rooms, document)
    if not _NUMBERS.issuperset(map(type, values)):
        return _fault(rooms, document)
    try:
        with np.errstate(over="ignore"):
            vector: npt.NDArray[np.float32] = np.array(values, dtype=np.float32)[_ORDER]
    except OverflowError:
        return _fault(rooms, document)
    if not np.isfinite(vector)[_SUPPLIED[document.version]].all():
        return _fault(rooms, document)
    return vector


def _as_music_1(document: Document) -> Rooms:
    """Convert the sections of a document to the layout of version "music 1.0", with NaN for missing fields.

    The newer extractor writes histogram peaks as single numbers: their mean, median, minimum and maximum are the number
    itself, and their variation is 0. It writes the key for three profiles. The older extractor used `temperley`.
    """
    if document.version is DocumentVersion.MUSIC_1:
        return {"lowlevel": document.lowlevel, "rhythm": document.rhythm, "tonal": document.tonal}
    rhythm, tonal = dict(document.rhythm), dict(document.tonal)
    for name in LONE_PEAKS:
        if name in rhythm:
            rhythm[name] = {statistic: rhythm[name] if statistic in LEVELS else 0 for statistic in STATISTICS}
    rhythm[ABSENT_PEAK] = dict.fromkeys(STATISTICS, np.nan)
    key = tonal.get("key_temperley")
    for part in ("key", "scale", "strength"):
        tonal.pop(f"key_{part}", None)
        if isinstance(key, dict) and part in key:
            tonal[f"key_{part}"] = key[part]
    return {"lowlevel": document.lowlevel, "rhythm": rhythm, "tonal": tonal}


def _values(descriptor: Descriptor) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that returns the values of a field: one per statistic, or the field itself."""
    statistics = descriptor.statistics
    if len(statistics) > 1:
        return itemgetter(*statistics)
    return lambda field: (field[statistics[0]],) if statistics else (field,)


def _one_hot(category: Category) -> dict[str, tuple[int, ...]]:
    columns = {value: tuple(int(value == other) for other in category.values) for value in category.values}
    return columns | {flat: columns[sharp] for flat, sharp in SHARPS.items() if sharp in columns}


_PLAN = [(d.room, d.name, _values(d), len(d.shape), d.shape[-1] if d.shape else 0) for d in DESCRIPTORS]
_ONE_HOT = [(category.name, _one_hot(category)) for category in CATEGORIES]


def _read(rooms: Rooms) -> list[Any]:
    """Return all values in `READING_ORDER`, of any type; raise KeyError, TypeError or ValueError for a wrong shape."""
    read: list[Any] = []
    for room, name, values_of, dimensions, length in _PLAN:
        values = values_of(rooms[room][name])
        if dimensions == 0:
            read += values
            continue
        for value in values:
            if dimensions == 1:
                read += _sized(value, length)
            else:
                for row in _sized(value, length):
                    read += _sized(row, length)
    for name, columns in _ONE_HOT:
        read += columns[rooms["tonal"][name]]
    return read


def _sized(value: Any, length: int) -> list[Any]:
    if type(value) is not list or len(value) != length:
        raise ValueError
    return value


def _fault(rooms: Rooms, document: Document) -> Rejection:
    """Return the rejection for the first fault of a document, in reading order."""
    missing = frozenset(missing_columns(document.version))
    for reason, column, detail in _faults(rooms):
        if column not in missing:
            return Rejection(reason, f"{column}: {detail}", document.recording_id)
    raise AssertionError("the fast reader found a fault, the field-by-field reader did not")


def _faults(rooms: Rooms) -> Iterator[tuple[Reason, str, str]]:
    for descriptor in DESCRIPTORS:
        base = f"{descriptor.room}.{descriptor.name}"
        field = rooms[descriptor.room].get(descriptor.name)
        if not descriptor.statistics or field is None:
            yield from _value_faults(field, base, descriptor.shape)
        elif not isinstance(field, dict):
            yield Reason.WRONG_SHAPE, base, f"expected an object of statistics, found {_kind(field)}"
        else:
            for statistic in descriptor.statistics:
                yield from _value_faults(field.get(statistic), f"{base}.{statistic}", descriptor.shape)
    for category in CATEGORIES:
        column, value = f"tonal.{category.name}", rooms["tonal"].get(category.name)
        if value is None:
            yield Reason.MISSING_VALUE, column, "expected a string, found nothing"
        elif not isinstance(value, str):
            yield Reason.WRONG_TYPE, column, f"expected a string, found {_kind(value)}"
        elif value not in _one_hot(category):
            yield Reason.UNKNOWN_KEY, column, f"expected one of {', '.join(category.values)}, found {value!r}"


def _value_faults(value: Any, column: str, shape: tuple[int, ...]) -> Iterator[tuple[Reason, str, str]]:
    if value is None:
        yield Reason.MISSING_VALUE, column, "expected a value, found nothing"
    elif shape:
        if not isinstance(value, list) or len(value) != shape[0]:
            yield Reason.WRONG_SHAPE, column, f"expected a list of {shape[0]}, found {_kind(value)}"
        else:
            for place, part in enumerate(value):
                yield from _value_faults(part, f"{column}.{place}", shape[1:])
    elif isinstance(value, list | dict):
        yield Reason.WRONG_SHAPE, column, f"expected a number, found {_kind(value)}"
    elif type(value) not in _NUMBERS:
        yield Reason.WRONG_TYPE, column, f"expected a number, found {_kind(value)}"
    elif not np.isfinite(number := _float32(value)):
        found = value if isinstance(value, float) else number
        yield Reason.NOT_FINITE, column, f"expected a finite 32-bit float, found {found:g}"


def _float32(value: float) -> np.float32:
    try:
        with np.errstate(over="ignore"):
            return np.float32(value)
    except OverflowError:
        return np.float32(np.inf)


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return {dict: "an object", bool: "a boolean", str: "a string"}.get(type(value), "a number")
