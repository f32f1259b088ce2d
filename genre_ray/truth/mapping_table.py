"""The mapping table: how the labels of taxonomies relate, as tab-separated text.

`reconcile` writes it, people correct it, and `predict` reads it. A row relates a label of one taxonomy to a label of
another. Its weight is the share of the first label's recordings that have the second. `predict` uses only the columns
`NEEDED`; the others help people to judge a row. Lines that start with `#` are comments.
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
    """One row of the mapping table.

    Attributes:
        from_taxonomy, from_label, to_taxonomy, to_label: the two labels.
        relation: one of `RELATIONS`: the labels are the same, or the first is within, contains or overlaps the second.
        weight: share of the first label's recordings that have the second.
        low, high: confidence interval of that share.
        together: number of recordings with both labels, among those that both taxonomies annotate.
        count_from, count_to: number of recordings with the first and with the second label, among the same.
        cosine: cosine similarity of the two labels' columns.
        by: one of `ORIGINS`: learnt from recordings, derived from equal names, or corrected by people.
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
    """The content of a mapping table file.

    Attributes:
        uri: the file.
        sha256: hexadecimal hash of the file.
        weights: (from taxonomy, to taxonomy) → (from label, to label) → weight, which is above 0.
    """

    uri: str
    sha256: str
    weights: dict[tuple[str, str], dict[tuple[str, str], float]]


def format_mapping(rows: Iterable[MappingRow]) -> bytes:
    """Return the content of a mapping table file, in the order of `rows`."""
    return format_table([field.name for field in fields(MappingRow)], (asdict(row).values() for row in rows))


def format_table(header: Sequence[str], rows: Iterable[Iterable[str | int | float]]) -> bytes:
    """Return tab-separated lines. Floats are written with six significant digits."""
    text = io.StringIO()
    writer = csv.writer(text, "excel-tab", lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows)
    return text.getvalue().encode()


def read_mapping(uri: str) -> MappingTable:
    """Read a mapping table, as `reconcile` wrote it or as people changed it.

    Columns may be in any order, and only those in `NEEDED` are required. Rows with a weight of 0 are ignored.

    Raises:
        InputError: a line is malformed; the message contains its number.
        StorageError: the file does not exist or cannot be read.
    """
    columns: list[str] | None = None
    lines: dict[tuple[str, ...], int] = {}
    weights: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for number, found in read_rows(uri):
        if number == 1:
            found[0] = found[0].removeprefix("\ufeff")  # some spreadsheets write a byte order mark
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
            refuse(uri, number, "each pair of labels once", f"one that is also in line {lines[names]}", "remove one")
        lines[names] = number
        if weight:
            weights.setdefault((names[0], names[2]), {})[names[1], names[3]] = weight
    if not weights:
        raise InputError(f"{uri}: the table has no row with a weight above 0; give a table that reconcile wrote")
    return MappingTable(uri, hashlib.sha256(objects.read_bytes(uri)).hexdigest(), weights)


def _unquoted(uri: str, number: int, found: list[str]) -> list[str]:
    """Remove the quotes that spreadsheets write around fields."""
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
    """Check a row and return its weight."""
    for name in NEEDED[:4]:
        value = row[name]
        if not value or value != value.strip() or printable(value) != value:
            refuse(uri, number, f"a name as {name}", repr(value), "write the name of a taxonomy or label")
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
