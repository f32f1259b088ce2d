"""Read all versions in a Delta log, and change tables by delta-rs operations that rewrite parts.

delta-rs chooses the names of the parts that it writes. Their checksums are recorded in the log afterwards, see
`genre_ray.runs.compact`.
"""

import hashlib
import json
import logging
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import ColumnProperties, WriterProperties
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import CommitProperties, Transaction

from genre_ray.errors import InputError, StorageError
from genre_ray.storage import delta, objects, retries, tables
from genre_ray.storage.tables import Part
from genre_ray.storage.transactions import LOG, NOTES, Table, read_actions

logger = logging.getLogger(__name__)

T = TypeVar("T")

REWRITE_ATTEMPTS, REWRITE_PAUSE_S = 5, 10.0
SCAN_ROWS = 65536

ERASED, CHECKSUM = "genre_ray.erased/", "genre_ray.checksum/"
"""Prefixes of transaction names: for the number of erased rows of a shard, and for the checksum of a compacted part."""

_CHECKSUM = re.compile(r"-[0-9a-f]{12}-([0-9a-f]{32})\.parquet$")


def named_parts(uri: str) -> set[str]:
    """Return the paths of all parts that any version in the table's log refers to."""
    named: set[str] = set()
    for file in objects.list_files(objects.join(uri, LOG)):
        if file.name.endswith(".json"):
            for action in read_actions(file.uri):
                named |= {action[kind]["path"] for kind in ("add", "remove") if action.get(kind)}
        elif file.name.endswith(".parquet"):
            table = pq.read_table(pa.BufferReader(objects.read_bytes(file.uri)))
            for kind in {"add", "remove"} & set(table.column_names):
                named |= {value["path"] for value in table[kind].to_pylist() if value and value.get("path")}
    return named


def noted_parts(uri: str) -> set[str]:
    """Return the paths of all parts in the notes of the table's commits, which another table will commit."""
    noted: set[str] = set()
    for file in objects.list_files(objects.join(uri, LOG)):
        if file.name.endswith(".json"):
            for action in read_actions(file.uri):
                notes = json.loads((action.get("commitInfo") or {}).get(NOTES, "{}"))
                noted |= {part["path"] for note in notes.values() for part in json.loads(note)}
    return noted


def erased_mark(shard: str) -> str:
    """Return the name of the transaction whose version is the number of erased rows of a shard."""
    return f"{ERASED}{shard}"


def checksum_mark(path: str) -> str:
    """Return the name of the transaction whose version is the checksum of a part that has none in its name."""
    return f"{CHECKSUM}{path}"


def checksum(content: bytes) -> int:
    """Return the first 63 bits of the SHA-256 of a part's content, which fit into a transaction's version."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1


def named_checksum(path: str) -> str | None:
    """Return the first 32 hexadecimal digits of a part's SHA-256, from its name; None if they are not in the name."""
    found = _CHECKSUM.search(path)
    return found[1] if found else None


def shard_of(part: str) -> str:
    """Return the name of the shard in a part's name: `item-index` of `item-index-attempt-checksum.parquet`."""
    return part.rpartition("/")[2].rsplit("-", 2)[0]


def rewrite(uri: str, change: Callable[[Table], T]) -> T:
    """Apply `change` to the newest version of a table, again if its commit conflicts with another; return its result.

    Raises:
        InputError: there is no table.
        StorageError: the store failed, or every commit conflicted with another writer's.
    """
    faults, refusal = 0, ""
    for _ in retries.attempts(REWRITE_ATTEMPTS, REWRITE_PAUSE_S):
        table = tables.open_table(uri)
        try:
            return change(table)
        except CommitFailedError as error:
            refusal = delta.one_line(error)
            logger.info("%s: retrying, because the commit conflicted with another: %s", uri, refusal)
        except (DeltaError, OSError) as error:
            faults += 1
            if faults == retries.OPERATION_ATTEMPTS or not delta.is_transient(uri, error):
                raise delta.storage_error(uri, error) from None
    raise StorageError(
        f"{uri}: all {REWRITE_ATTEMPTS} commits conflicted with other writers (last error: {refusal}); try again when "
        "no other program changes the table"
    )


def writer_properties(table: Table) -> WriterProperties:
    """Return settings with which delta-rs writes parts like `tables.encode`, except for columns inside lists."""
    flat = [column.name for column in tables.schema_of(table) if not pa.types.is_nested(column.type)]
    return WriterProperties(
        compression="LZ4_RAW",
        max_row_group_size=tables.ROW_GROUP_ROWS,
        default_column_properties=ColumnProperties(dictionary_enabled=False, statistics_enabled="NONE"),
        column_properties=dict.fromkeys(flat, ColumnProperties(dictionary_enabled=True, statistics_enabled="CHUNK")),
    )


def erase_rows(uri: str, wanted: Callable[[pa.Table], pa.ChunkedArray]) -> int:
    """Commit a version of the table without some rows, and return their number.

    delta-rs rewrites and merges the parts that contain them. The same commit records the number of erased rows per
    shard. The log contains the predicate with the ids as long as it contains this commit. Older versions keep the old
    parts until `vacuum`.

    Args:
        uri: the table.
        wanted: returns whether to erase each row of a table with `recording_id` and, if it exists, `source_uri`. It
            decides by `recording_id`, or by `source_uri` for rows without one.

    Raises:
        InputError: there is no table, or it is partitioned.
        StorageError: the store failed, or every commit conflicted with another writer's.
    """
    scanned: dict[str, _Found] = {}  # by part: parts do not change, so a retry need not read them again
    unsure: dict[str, int] = {}  # erased rows by commit, for commits that failed with an error but may have succeeded

    def erase(table: Table) -> int:
        landed = tables.commits_of(table) if unsure else set()
        if done := sum(count for commit, count in unsure.items() if commit in landed):
            return done
        if table.metadata().partition_columns:
            raise InputError(
                f"{uri}: this table is partitioned, so genre_ray did not write it; erase its rows with the program "
                "that writes it"
            )
        parts = tables.parts_of(table)
        for part in parts:
            if part.path not in scanned:
                scanned[part.path] = _scan(uri, part, tables.schema_of(table), wanted)
        going = {part.path: found for part in parts if (found := scanned[part.path]).rows}
        if not going:
            return 0
        counts: Counter[str] = Counter()
        for path, found in going.items():
            counts[erased_mark(shard_of(path))] += found.rows
        marks = [Transaction(mark, (table.transaction_version(mark) or 0) + rows) for mark, rows in counts.items()]
        commit = uuid.uuid4().hex
        unsure[commit] = counts.total()
        table.delete(
            _predicate(going.values()),
            writer_properties=writer_properties(table),
            # delta-rs retries the commit after appends by other writers, and raises an error after other deletions.
            commit_properties=CommitProperties(custom_metadata={tables.COMMIT: commit}, app_transactions=marks),
        )
        return counts.total()

    return rewrite(uri, erase)


def vacuum(uri: str, retention_hours: float, *, dry_run: bool) -> int:
    """Delete parts that no version of the last `retention_hours` refers to, and return their number.

    Orphans, which no version ever referred to, are kept. `verify --gc` deletes them.
    """
    table = tables.open_table(uri)
    return len(table.vacuum(int(retention_hours), dry_run=dry_run, enforce_retention_duration=False))


@dataclass
class _Found:
    """The rows of a part to erase: their number, their ids, and the source URIs of those without an id."""

    rows: int = 0
    ids: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)


def _scan(uri: str, part: Part, schema: pa.Schema, wanted: Callable[[pa.Table], pa.ChunkedArray]) -> _Found:
    columns = [name for name in ("recording_id", "source_uri") if name in schema.names]
    found = _Found()
    with tables.open_part(objects.join(uri, part.path)) as file:
        for batch in file.iter_batches(batch_size=SCAN_ROWS, columns=columns):
            rows = pa.Table.from_batches([tables.as_table_types(batch, schema)])
            going = rows.filter(wanted(rows)).to_pylist()
            found.rows += len(going)
            found.ids |= {row["recording_id"] for row in going if row["recording_id"] is not None}
            found.sources |= {row["source_uri"] for row in going if row["recording_id"] is None}
    return found


def _predicate(found: Iterable[_Found]) -> str:
    """The SQL condition that selects exactly these rows."""
    parts = list(found)
    ids, sources = (set[str]().union(*(getattr(part, name) for part in parts)) for name in ("ids", "sources"))
    terms = [f"recording_id IN ({_literals(ids)})"] if ids else []
    terms += [f"(recording_id IS NULL AND source_uri IN ({_literals(sources)}))"] if sources else []
    return " OR ".join(terms)


def _literals(values: Iterable[str]) -> str:
    # In SQL string literals only the quote needs an escape.
    return ", ".join("'" + value.replace("'", "''") + "'" for value in sorted(values))
