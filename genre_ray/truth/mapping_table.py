"""The mapping table: how the labels of taxonomies relate, as tab-separated text that people correct and jobs read.

A row says what a label of one taxonomy tells of a label of another: their relation, and the weight, the share of the
first label's recordings that have the second. Only taxonomies, labels and weight are needed; what else a row has is
there for those who judge it. Lines that start with `#` are remarks.
"""

import csv
import hashlib
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields

from genre_ray.errors import InputError
from genre_ray.outcomes import printable
from genre_ray.storage import objects
from genre_ray.truth.lines import read_rows, refuse

RELATIONS = ("same", "within", "contains", "overlaps")
ORIGINS = ("learnt", "name", "corrected")
NEEDED = ("from_taxonomy", "from_label", "to_taxonomy", "to_label", "weight")


@dataclass(frozen=True, slots=True)
class MappingRow:
    """What one label tells of another.

    Attributes:
        relation: of `RELATIONS`: the two are the same, the first lies within the second, contains it, or overlaps it.
        weight: the share of the first label's recordings that have the second.
        low, high: the interval of that share.
        together: recordings with both labels, among those that both taxonomies annotate.
        count_from, count_to: those with either.
        cosine: similarity of the two labels' columns.
        by: of `ORIGINS`: learnt from recordings, taken from equal names, or corrected by people.
    """

    from_taxonomy: str
    from_label: str
    to_taxonomy: str
    to_label: str
    relation: str
    weight: float
    low: float
    high: float
    together: int
    count_from: int
    count_to: int
    cosine: float
    by: str


@dataclass(frozen=True)
class MappingTable:
    """A table as read: weight by (from label, to label) for each pair (from taxonomy, to taxonomy).

    Attributes:
        uri: where it was read.
        sha256: of its content.
        weights: all above 0.
    """

    uri: str
    sha256: str
    weights: dict[tuple[str, str], dict[tuple[str, str], float]]


def format_mapping(rows: Iterable[MappingRow]) -> bytes:
    """The content of a mapping table, in the order of `rows`."""
    return format_table([field.name for field in fields(MappingRow)], (asdict(row).values() for row in rows))


def format_table(header: Sequence[str], rows: Iterable[Iterable[str | int | float]]) -> bytes:
    """Tab-separated lines; numbers with six digits, which is more than any count of recordings settles."""
    text = io.StringIO()
    writer = csv.writer(text, "excel-tab", lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows)
    return text.getvalue().encode()


def read_mapping(uri: str) -> MappingTable:
    """Read a mapping table, as `reconcile` wrote it or as people changed it.

    Columns may stand in any order, and be left out but for `NEEDED`. A weight of 0 is as good as no row.

    Raises:
        InputError: a line departs from the format; the message names it.
        StorageError: the file is not there or cannot be read.
    """
    columns: list[str] | None = None
    lines: dict[tuple[str, ...], int] = {}
    weights: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for number, found in read_rows(uri):
        if number == 1:
            found[0] = found[0].removeprefix("\ufeff")  # spreadsheets begin with it
        if found == [""] or found[0].startswith("#"):
            continue
        values = _unquoted(uri, number, found)
        if columns is None:
            columns = _header(uri, number, values)
            continue
        if len(values) != len(columns):
            refuse(uri, number, f"{len(columns)} fields", str(len(values)), "separate them by tabs")
        row = dict(zip(columns, values, strict=True))
        weight = _check(uri, number, row)
        names = tuple(row[name] for name in NEEDED[:4])
        if names in lines:
            refuse(uri, number, "each pair of labels once", f"them again after line {lines[names]}", "remove one")
        lines[names] = number
        if weight:
            weights.setdefault((names[0], names[2]), {})[names[1], names[3]] = weight
    if not weights:
        raise InputError(f"{uri}: expected rows with a weight above 0, found none; give a table that reconcile wrote")
    return MappingTable(uri, hashlib.sha256(objects.read_bytes(uri)).hexdigest(), weights)


def _unquoted(uri: str, number: int, found: list[str]) -> list[str]:
    """Fields as they were before a spreadsheet quoted them."""
    try:
        return next(csv.reader(["\t".join(found)], "excel-tab", strict=True))
    except csv.Error as error:
        refuse(uri, number, "fields between tabs", f"a quotation mark that is not closed ({error})", "close it")


def _header(uri: str, number: int, values: list[str]) -> list[str]:
    columns = [value.strip() for value in values]
    known = [field.name for field in fields(MappingRow)]
    for place, column in enumerate(columns):
        if column not in known:
            refuse(uri, number, f"columns of {', '.join(known)}", repr(printable(column)), "correct the header")
        if column in columns[:place]:
            refuse(uri, number, "each column once", f"{column} twice", "remove one of them")
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        refuse(uri, number, f"the columns {', '.join(NEEDED)}", f"no {missing[0]}", "add it")
    return columns


def _check(uri: str, number: int, row: dict[str, str]) -> float:
    """The row's weight."""
    for name in NEEDED[:4]:
        value = row[name]
        if not value or value != value.strip() or printable(value) != value:
            refuse(uri, number, f"a name as {name}", repr(value), "name a taxonomy or a label")
    if row["from_taxonomy"] == row["to_taxonomy"]:
        refuse(uri, number, "two taxonomies", f"{row['from_taxonomy']!r} twice", "remove the row")
    for name, allowed in (("relation", RELATIONS), ("by", ORIGINS)):
        if name in row and row[name] not in allowed:
            refuse(uri, number, f"{name} to be one of {', '.join(allowed)}", repr(row[name]), "correct it")
    try:
        weight = float(row["weight"])
    except ValueError:
        weight = math.nan
    if not 0 <= weight <= 1:
        refuse(uri, number, "a weight from 0 to 1", repr(row["weight"]), "correct it")
    return weight
