"""The tables that control the compiled scanner: the fields of a document, and the slot of each feature column.

The scanner writes each value to a *slot*. It knows the version of a document only at the end, so fields of each version
have their own slots. A *layout* then says which slot each column is copied from.
"""

import inspect
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genre_ray.features.essentia.columns import (
    ABSENT_PEAK,
    CATEGORIES,
    DESCRIPTORS,
    FEATURE_COLUMNS,
    LONE_PEAKS,
    Category,
    Descriptor,
)
from genre_ray.features.essentia.flatten import LEVELS, SHARPS
from genre_ray.features.essentia.scan import lanes, numbers, scanner, unread
from genre_ray.sources.documents.parse import DocumentVersion

COMMON, OLDER, NEWER = range(3)
"""The group of a field: in both versions, only in "music 1.0", only in "music 2.0"."""

# Numba caches compiled code by the content of one file and the types of the arguments. Three more files are compiled
# into that code, so a hash of their content becomes part of a type: the name of an unused field.
_COMPILED_IN = zlib.crc32("".join(map(inspect.getsource, (lanes, numbers, unread))).encode())

_FIELD = np.dtype(
    [
        ("key", np.uint64, scanner.KEY_WORDS),
        ("mask", np.uint64, scanner.KEY_WORDS),
        *((name, np.int64) for name in ("words", "key_bytes", "kind", "group", "parent", "first", "end")),
        *((name, np.int64) for name in ("slot", "length")),
        ("is_object", np.bool_),
        (f"code_{_COMPILED_IN:08x}", np.bool_),
    ],
    align=True,
)


@dataclass(frozen=True)
class _Leaf:
    """A field with values: its path in the document, and the names of its slots, which are consecutive."""

    path: tuple[str, ...]
    kind: int
    slots: tuple[str, ...] = ()
    group: int = COMMON
    spellings: tuple[tuple[str, str], ...] = ()
    """For a category: each allowed string and the slot that it sets to 1."""


def _leaves() -> Iterator[_Leaf]:
    yield _Leaf(("metadata",), scanner.METADATA)
    for descriptor in DESCRIPTORS:
        yield from _numbers(descriptor)
    for name in LONE_PEAKS:
        yield _Leaf(("rhythm", name), scanner.NUMBER, (f"rhythm.{name}",), NEWER)
    for category in CATEGORIES:
        older = category.name.startswith("key_")
        yield _spelt(category, ("tonal", category.name), f"tonal.{category.name}", OLDER if older else COMMON)
        if older:
            part = category.name.removeprefix("key_")
            yield _spelt(category, ("tonal", "key_temperley", part), f"tonal.key_temperley.{part}", NEWER)
    yield _Leaf(("tonal", "key_temperley", "strength"), scanner.NUMBER, ("tonal.key_temperley.strength",), NEWER)


def _numbers(descriptor: Descriptor) -> Iterator[_Leaf]:
    older = descriptor.name in (*LONE_PEAKS, ABSENT_PEAK, "key_strength")
    kind = (scanner.NUMBER, scanner.ROW, scanner.MATRIX)[len(descriptor.shape)]
    columns = tuple(descriptor.columns())
    paths = [(descriptor.room, descriptor.name, statistic) for statistic in descriptor.statistics]
    size = len(columns) // max(len(paths), 1)
    for number, path in enumerate(paths or [(descriptor.room, descriptor.name)]):
        slots = columns[number * size : (number + 1) * size]
        yield _Leaf(path, kind, slots, OLDER if older else COMMON)


def _spelt(category: Category, path: tuple[str, ...], slot: str, group: int) -> _Leaf:
    values = {value: value for value in category.values}
    flats = {flat: sharp for flat, sharp in SHARPS.items() if sharp in values}
    spellings = tuple((spelling, f"{slot}_{value}") for spelling, value in (values | flats).items())
    return _Leaf(path, scanner.CATEGORY, tuple(f"{slot}_{value}" for value in category.values), group, spellings)


_LEAVES = tuple(_leaves())
_SLOTS = {name: slot for slot, name in enumerate(name for leaf in _LEAVES for name in leaf.slots)}
ZERO, ABSENT = len(_SLOTS), len(_SLOTS) + 1
"""The slots that contain the constants 0 and NaN."""
SLOTS = len(_SLOTS) + 2


def _table() -> npt.NDArray[np.void]:
    """Build the records of the root, the inner keys, the leaves and the spellings; siblings are consecutive."""
    leaves = {leaf.path: leaf for leaf in _LEAVES}
    spellings = {(*leaf.path, spelt): slot for leaf in _LEAVES for spelt, slot in leaf.spellings}
    children: dict[tuple[str, ...], dict[tuple[str, ...], None]] = {}
    for path in (*leaves, *spellings):
        for depth in range(len(path)):
            children.setdefault(path[:depth], {})[path[: depth + 1]] = None
    order: list[tuple[str, ...]] = [()]
    for path in order:  # grows: breadth first
        order += children.get(path, {})
    number = {path: place for place, path in enumerate(order)}
    table = np.zeros(len(order), _FIELD)
    for path, row in zip(order, table, strict=True):
        leaf = leaves.get(path)
        below = children.get(path, {})
        row["kind"] = leaf.kind if leaf else scanner.OBJECT
        row["is_object"] = bool(below) and row["kind"] != scanner.CATEGORY
        row["first"] = min((number[child] for child in below), default=0)
        row["end"] = row["first"] + len(below)
        if path:
            row["parent"] = number[path[:-1]]
            _set_key(row, path[-1])
        if leaf and leaf.slots:
            row["slot"], row["group"] = _SLOTS[leaf.slots[0]], leaf.group
            row["length"] = round(len(leaf.slots) ** (1 / 2)) if leaf.kind == scanner.MATRIX else len(leaf.slots)
        elif path in spellings:
            row["slot"] = _SLOTS[spellings[path]]
    return table


def _set_key(row: np.void, key: str) -> None:
    """Store a key with its closing quote as 64-bit words, and the mask of the bits to compare."""
    spelt = key.encode() + b'"'
    row["key_bytes"], row["words"] = len(spelt), -(-len(spelt) // 8)
    padded, mask = (text.ljust(8 * scanner.KEY_WORDS, b"\0") for text in (spelt, b"\xff" * len(spelt)))
    row["key"], row["mask"] = (np.frombuffer(text, "<u8") for text in (padded, mask))


FIELDS = _table()
"""The fields that the scanner looks for. Row `scanner.ROOT` is the document itself."""


def first_guess() -> npt.NDArray[np.int64]:
    """Return the initial guesses of which field follows which, in the order of the table.

    The first half contains the field expected after each field, the second half the first field expected inside each
    object. The scanner updates the guesses with the order that it finds. So documents with the same order of keys need
    one comparison per key. A wrong guess only costs time.

    Returns:
        (2 · fields,) positions in `FIELDS`.
    """
    firsts = FIELDS["first"]
    following = np.arange(1, len(FIELDS) + 1)
    ends = FIELDS["end"][FIELDS["parent"]]
    return np.concatenate([np.where(following < ends, following, firsts[FIELDS["parent"]]), firsts])


def _slot(column: str, version: DocumentVersion) -> int:
    if version is DocumentVersion.MUSIC_1:
        return _SLOTS[column]
    field, _, statistic = column.rpartition(".")
    if field == f"rhythm.{ABSENT_PEAK}":
        return ABSENT
    if field.removeprefix("rhythm.") in LONE_PEAKS:
        return _SLOTS[field] if statistic in LEVELS else ZERO
    return _SLOTS[column.replace("tonal.key_", "tonal.key_temperley.")]


VERSIONS = tuple(DocumentVersion)
"""The version of each layout. A document of layout n has all fields of the groups `COMMON` and n + 1."""

LAYOUTS = np.array([[_slot(column, version) for column in FEATURE_COLUMNS] for version in VERSIONS])
"""The slot of each of `FEATURE_COLUMNS`, (layouts, columns)."""

LEAVES_OF_GROUP = np.bincount([leaf.group for leaf in _LEAVES])
"""Number of fields with values in each group."""
