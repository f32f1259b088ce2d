"""Map other ids to recording ids: a catalog's own ids, ISRCs, and MusicBrainz ids that were merged into others.

A table of identifiers has the column `recording_id` and one or both of `own_id` and `isrc`. A table of redirects has
`old_id` and `new_id`. Both are TSV, CSV or Parquet files; other columns are ignored. Every id stands for exactly one
recording, after all redirects are followed.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from genre_ray.errors import InputError
from genre_ray.sources.documents.names import identifier
from genre_ray.storage import objects
from genre_ray.truth.ground_truth import GroundTruth
from genre_ray.truth.lines import refuse

_ISRC = re.compile(r"[A-Z]{2}[A-Z0-9]{3}[0-9]{7}")


@dataclass(frozen=True)
class Identifiers:
    """A mapping from ids to recording ids. An unknown id stands for itself.

    Attributes:
        recordings: id → recording id, with all redirects followed. Ids that stand for themselves are left out.
    """

    recordings: Mapping[str, str] = field(default_factory=dict)

    def resolve(self, name: str) -> str:
        """Return the recording id that an id stands for."""
        return self.recordings.get(name) or self.recordings.get(_isrc(name) or "", name)

    def column(self, names: pa.Array) -> pa.Array:
        """Map a column of ids to recording ids."""
        if not self.recordings:
            return names
        return pa.array([self.resolve(name) for name in names.to_pylist()], pa.string())

    def truth(self, stated: GroundTruth) -> GroundTruth:
        """Replace the ids of a ground truth by recording ids, and merge the labels of ids of the same recording."""
        found = GroundTruth(stated.uri, [], [], [])
        place: dict[str, int] = {}
        for name, group, labels in zip(stated.recording_ids, stated.release_group_ids, stated.labels, strict=True):
            recording = self.resolve(name)
            if recording not in place:
                place[recording] = len(found)
                found.recording_ids.append(recording)
                found.release_group_ids.append(group)
                found.labels.append(labels)
            else:
                known = place[recording]
                found.release_group_ids[known] = found.release_group_ids[known] or group
                found.labels[known] = tuple(sorted({*found.labels[known], *labels}))
        return found


NO_IDENTIFIERS = Identifiers()
"""The mapping without tables: every id stands for itself."""


def read_identifiers(identifiers: str | None = None, redirects: str | None = None) -> Identifiers:
    """Read a table of identifiers and a table of redirects.

    Args:
        identifiers: the table of identifiers; None for no table.
        redirects: the table of redirects; None for no table.

    Raises:
        InputError: a table is malformed, an id stands for two recordings, or redirects form a cycle.
        StorageError: a table does not exist or cannot be read.
    """
    moved = {} if redirects is None else _read(redirects, ("old_id",), "new_id")
    for name in moved:
        _follow(name, moved, str(redirects))
    own = {} if identifiers is None else _read(identifiers, ("own_id", "isrc"), "recording_id")
    names = {name: _follow(recording, moved, str(redirects)) for name, recording in {**moved, **own}.items()}
    return Identifiers({name: recording for name, recording in names.items() if name != recording})


def _follow(name: str, moved: Mapping[str, str], uri: str) -> str:
    path = [name]
    while path[-1] in moved:
        path.append(moved[path[-1]])
        if path[-1] in path[:-1]:
            circle = " → ".join(path[path.index(path[-1]) :])
            raise InputError(f"{uri}: redirects form a cycle: {circle}; remove one of them")
    return path[-1]


def _read(uri: str, names: Sequence[str], target: str) -> dict[str, str]:
    """Read a table as a dict from id to target."""
    found: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, row in _rows(uri, names, target):
        recording = identifier(row[target])
        for column in names:
            stated = identifier(row.get(column, ""))
            if not stated:
                continue
            name = stated if column != "isrc" else _isrc(stated)
            if name is None:
                refuse(uri, number, "an ISRC such as USRC17607839", repr(stated), "correct it")
            if not recording:
                refuse(uri, number, f"a {target}", "an empty field", "add it or remove the line")
            if found.setdefault(name, recording) != recording:
                both = f"{found[name]} (line {lines[name]}) and {recording}"
                refuse(uri, number, "one recording per id", f"{both} for {name}", "keep one of them")
            lines.setdefault(name, number)
    if not found:
        raise InputError(
            f"{uri}: the table has no rows with {' or '.join(names)} and {target}; give a table with such rows"
        )
    return found


def _rows(uri: str, names: Sequence[str], target: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a table with the wanted columns, with line numbers as in a text file."""
    header, rows = _parquet(uri) if uri.lower().endswith(".parquet") else _text(uri)
    wanted = [column for column in (*names, target) if column in header]
    if target not in wanted or len(wanted) < 2:
        expected, found = f"the columns {target} and {' or '.join(names)}", ", ".join(header[:8]) or "none"
        refuse(uri, 1, expected, found, "rename the columns")
    places = {column: header.index(column) for column in wanted}
    for number, values in rows:
        if values and len(values) != len(header):
            refuse(uri, number, f"{len(header)} fields", str(len(values)), "correct the line")
        if values:
            yield number, {column: values[place] for column, place in places.items()}


def _text(uri: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    try:
        text = objects.read_bytes(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{uri}: cannot read this file as UTF-8 text: {error}; convert it to UTF-8") from None
    reader = csv.reader(io.StringIO(text), "excel" if uri.lower().endswith(".csv") else "excel-tab", strict=True)

    def rows() -> Iterator[tuple[int, list[str]]]:
        try:
            for values in reader:
                yield reader.line_num, values
        except csv.Error as error:
            refuse(uri, reader.line_num, "well-formed fields", str(error), "correct the line")

    lines = rows()
    return [column.strip() for column in next(lines, (1, []))[1]], lines


def _parquet(uri: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    try:
        table = pq.read_table(pa.BufferReader(objects.read_bytes(uri)))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{uri}: cannot read this file as Parquet: {error}; restore the file") from None
    values = zip(*(column.to_pylist() for column in table.columns), strict=True)
    rows = (["" if value is None else str(value) for value in row] for row in values)
    return table.column_names, enumerate(rows, start=2)


def _isrc(name: str) -> str | None:
    """Return an ISRC without its dashes, or None if the text is not an ISRC."""
    plain = name.replace("-", "").replace(" ", "").upper()
    return plain if _ISRC.fullmatch(plain) else None
