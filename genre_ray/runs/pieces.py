"""Pieces of shards, which go between the operators of a run, and the rows that describe written parts.

A *piece* consists of consecutive rows of one shard, often of all its rows. It is packed into one row of a Ray Data
block, so Ray cannot split it. The last operator writes one part of each table per piece. A shard is complete when all
its pieces are written. The boundaries of pieces follow from the content of the item, so pieces of different attempts
fit together.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from genre_ray import errors
from genre_ray.errors import GenreRayError
from genre_ray.outcomes import REJECTED_ROW, Outcome, printable
from genre_ray.runs.ledger import ShardSummary
from genre_ray.storage.tables import Part

PART = pa.struct([("path", pa.string()), ("size", pa.int64()), ("rows", pa.int64())])
WRITTEN = pa.schema(
    [
        ("item", pa.string()),
        ("shard", pa.int64()),
        ("piece", pa.int64()),
        ("ends_shard", pa.bool_()),
        ("ends_item", pa.bool_()),
        ("rows_in", pa.int64()),
        ("parts", pa.list_(PART)),
        ("rejected_parts", pa.list_(PART)),
        ("error", pa.string()),
        ("message", pa.string()),
    ]
)
"""The schema of what the last operator yields. A row describes a written piece, a shard that was already committed
(`rows_in` is null), or an error."""


class Place(NamedTuple):
    """The place of a piece: its number in a shard of an item, and whether it ends the shard and the item."""

    item: str
    shard: int
    piece: int
    ends_shard: bool
    ends_item: bool


class Piece(NamedTuple):
    """A piece: its place, and its accepted and rejected rows so far."""

    place: Place
    outcome: Outcome


def pack(piece: Piece) -> pa.Table:
    """Pack a piece into a table of one row. The rows of the piece are copied once."""
    nested = {name: _nested(rows) for name, rows in piece.outcome._asdict().items()}
    return pa.table({**{name: [value] for name, value in piece.place._asdict().items()}, **nested})


def unpack(packed: pa.Table) -> Iterator[Piece | pa.Table]:
    """Yield the pieces in a table of packed pieces, without a copy. Rows for errors are yielded unchanged."""
    for number in range(packed.num_rows):
        row = packed.slice(number, 1)
        if "error" in row.column_names:
            yield row
            continue
        place = Place(*(row[name][0].as_py() for name in Place._fields))
        accepted, rejected = (
            pa.Table.from_struct_array(row[name].combine_chunks().flatten()) for name in Outcome._fields
        )
        yield Piece(place, Outcome(accepted, rejected.cast(REJECTED_ROW)))


def written_row(place: Place, rows_in: int, parts: Iterable[Part], rejected: Iterable[Part]) -> pa.Table:
    """Make the row for a written piece, with the schema `WRITTEN`."""
    both = {"parts": [vars(part) for part in parts], "rejected_parts": [vars(part) for part in rejected]}
    return pa.Table.from_pylist([{**place._asdict(), "rows_in": rows_in, **both}], schema=WRITTEN)


def committed_row(place: Place) -> pa.Table:
    """Make the row for a shard that was already committed, with the schema `WRITTEN`."""
    return pa.Table.from_pylist([place._asdict()], schema=WRITTEN)


def failure(error: GenreRayError) -> pa.Table:
    """Make the row for an error, with the schema `WRITTEN`. Raising it would make Ray add a traceback and advice."""
    return pa.Table.from_pylist([{"error": type(error).__name__, "message": printable(str(error))}], schema=WRITTEN)


@dataclass
class _OpenShard:
    """The written pieces of a shard by their number, and their total number once it is known."""

    pieces: dict[int, dict[str, Any]] = field(default_factory=dict)
    count: int | None = None


def summaries(rows: Iterable[dict[str, Any]]) -> Iterator[ShardSummary]:
    """Yield a summary of each shard when all its pieces are written. Repeated pieces are ignored.

    Args:
        rows: rows with the schema `WRITTEN`.

    Raises:
        GenreRayError: a row describes this error.
    """
    shards: dict[tuple[str, int], _OpenShard] = {}
    for row in rows:
        if row["error"] is not None:
            raise getattr(errors, row["error"], GenreRayError)(row["message"])
        if row["rows_in"] is None:
            continue
        place = (row["item"], row["shard"])
        shard = shards.setdefault(place, _OpenShard())
        shard.pieces[row["piece"]] = row
        if row["ends_shard"]:
            shard.count = row["piece"] + 1
        if len(shard.pieces) == shard.count:
            yield _summary(*place, [shard.pieces[number] for number in range(shard.count)])
            del shards[place]


def _summary(item: str, shard: int, pieces: list[dict[str, Any]]) -> ShardSummary:
    parts, rejected = (
        tuple(Part(**part) for piece in pieces for part in piece[name]) for name in ("parts", "rejected_parts")
    )
    rows_in = sum(piece["rows_in"] for piece in pieces)
    return ShardSummary(item, shard, pieces[-1]["ends_item"], rows_in, parts, rejected)


def _nested(rows: pa.Table) -> pa.Array:
    columns = [column.combine_chunks() for column in rows.columns]
    values = pa.StructArray.from_arrays(columns, fields=list(rows.schema))
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values)
