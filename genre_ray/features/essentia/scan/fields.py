"""The fields of a document as a table that the compiled scanner walks, and the way from its slots to the columns.

The scanner does not know a document's version before the end: the fields of both have slots of their own, and
the version chooses among them afterwards.
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
"""Whose a field is: of both versions, of "music 1.0", of "music 2.0"."""

# Numba keeps compiled code on disk by the content of one file and the types of what is passed in. Three more files
# are compiled into it; their content becomes part of a type here, the name of a field without use.
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
    """A field with values: its path in the document, and the names of its slots, which stand in a row."""

    path: tuple[str, ...]
    kind: int
    slots: tuple[str, ...] = ()
    group: int = COMMON
    spellings: tuple[tuple[str, str], ...] = ()
    """For a category: what may stand there, and the slot that it sets."""


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
"""Slots that hold 0 and NaN."""
SLOTS = len(_SLOTS) + 2


def _table() -> npt.NDArray[np.void]:
    """One record for the root, each key on the way to a leaf, each leaf and each spelling; brothers stand together."""
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
    """The key and its closing quote as words to compare, and which of their bits count."""
    spelt = key.encode() + b'"'
    row["key_bytes"], row["words"] = len(spelt), -(-len(spelt) // 8)
    padded, mask = (text.ljust(8 * scanner.KEY_WORDS, b"\0") for text in (spelt, b"\xff" * len(spelt)))
    row["key"], row["mask"] = (np.frombuffer(text, "<u8") for text in (padded, mask))


FIELDS = _table()
"""What the scanner looks for; row `scanner.ROOT` is the document itself."""


def first_guess() -> npt.NDArray[np.int64]:
    """Which field is expected after each one, and, in a second half, as the first in each one: in order of the table.

    The scanner puts down here what it found, so that documents that keep their keys in one order, whichever,
    are read with one comparison a key. A wrong guess costs time only.
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
"""The version of each layout; a document of layout n has all fields of the groups `COMMON` and n + 1."""

LAYOUTS = np.array([[_slot(column, version) for column in FEATURE_COLUMNS] for version in VERSIONS])
"""(layouts, columns) the slot of each of `FEATURE_COLUMNS`."""

LEAVES_OF_GROUP = np.bincount([leaf.group for leaf in _LEAVES])
"""How many fields with values each group has."""
