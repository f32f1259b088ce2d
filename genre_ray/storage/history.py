"""What a Delta log states of all versions that it still has, and the changes that rewrite parts, by delta-rs.

delta-rs names the parts that it writes. Their checksums are recorded in the log afterwards (`genre_ray.runs.compact`).
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
"""How the names of the transactions begin that count erased rows, and that keep checksums of compacted parts."""

_CHECKSUM = re.compile(r"-[0-9a-f]{12}-([0-9a-f]{32})\.parquet$")


def named_parts(uri: str) -> set[str]:
    """The paths of all parts that a version of the table names or named, as far back as its log goes."""
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
    """The paths of all parts that the notes beside the table's commits promise to another table."""
    noted: set[str] = set()
    for file in objects.list_files(objects.join(uri, LOG)):
        if file.name.endswith(".json"):
            for action in read_actions(file.uri):
                notes = json.loads((action.get("commitInfo") or {}).get(NOTES, "{}"))
                noted |= {part["path"] for note in notes.values() for part in json.loads(note)}
    return noted


def erased_mark(shard: str) -> str:
    """The transaction whose version says how many rows of a shard were erased; it outlives checkpoints."""
    return f"{ERASED}{shard}"


def checksum_mark(path: str) -> str:
    """The transaction whose version is `checksum` of a part; for parts whose names carry none."""
    return f"{CHECKSUM}{path}"


def checksum(content: bytes) -> int:
    """The first 63 bits of the SHA-256 of a part's content: what fits into a transaction's version."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1


def named_checksum(path: str) -> str | None:
    """The first 32 hexadecimal digits of a part's SHA-256, from its name; None when another program named it."""
    found = _CHECKSUM.search(path)
    return found[1] if found else None


def shard_of(part: str) -> str:
    """What a part's name says it holds: `item-index` of `item-index-attempt-checksum.parquet`."""
    return part.rpartition("/")[2].rsplit("-", 2)[0]


def rewrite(uri: str, change: Callable[[Table], T]) -> T:
    """Return what `change` returns for the newest version of a table; it is repeated when its commit is refused.

    Raises:
        InputError: no table is there.
        StorageError: the store failed, or other writers were faster every time.
    """
    faults, refusal = 0, ""
    for _ in retries.attempts(REWRITE_ATTEMPTS, REWRITE_PAUSE_S):
        table = tables.open_table(uri)
        try:
            return change(table)
        except CommitFailedError as error:
            refusal = delta.one_line(error)
            logger.info("%s: the change is repeated, its commit was refused: %s", uri, refusal)
        except (DeltaError, OSError) as error:
            faults += 1
            if faults == retries.OPERATION_ATTEMPTS or not delta.is_transient(uri, error):
                raise delta.storage_error(uri, error) from None
    raise StorageError(
        f"{uri}: {REWRITE_ATTEMPTS} commits were refused, the last one with: {refusal}; try again when no other "
        "program changes the table"
    )


def writer_properties(table: Table) -> WriterProperties:
    """Let delta-rs write as `tables.encode` does, as far as it can: columns inside of lists cannot be named."""
    flat = [column.name for column in tables.schema_of(table) if not pa.types.is_nested(column.type)]
    return WriterProperties(
        compression="LZ4_RAW",
        max_row_group_size=tables.ROW_GROUP_ROWS,
        default_column_properties=ColumnProperties(dictionary_enabled=False, statistics_enabled="NONE"),
        column_properties=dict.fromkeys(flat, ColumnProperties(dictionary_enabled=True, statistics_enabled="CHUNK")),
    )


def erase_rows(uri: str, wanted: Callable[[pa.Table], pa.ChunkedArray]) -> int:
    """Commit a version of the table without some rows; return how many there were.

    delta-rs writes the parts that held them anew, merged. The same commit counts the erased rows by the shards whose
    parts held them. Its predicate, and with it the ids, stays in the log as long as the commit does. Older versions
    keep the old parts until `vacuum`.

    Args:
        uri: the table.
        wanted: (rows with `recording_id` and, where the table has it, `source_uri`) → a boolean per row: whether it
            goes. It decides by `recording_id`, and by `source_uri` for rows without one.

    Raises:
        InputError: it is not a table, or is partitioned.
        StorageError: the store failed, or other writers were faster every time.
    """
    scanned: dict[str, _Found] = {}  # by part: parts do not change, so a refused attempt need not read them again
    unsure: dict[str, int] = {}  # rows by commit, of commits that ended with an error, which may be in nevertheless

    def erase(table: Table) -> int:
        landed = tables.commits_of(table) if unsure else set()
        if done := sum(count for commit, count in unsure.items() if commit in landed):
            return done
        if table.metadata().partition_columns:
            raise InputError(f"{uri}: expected a table without partitions, as genre_ray writes; erase in it otherwise")
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
            # delta-rs repeats the commit after appends by others, and refuses it after other erasures.
            commit_properties=CommitProperties(custom_metadata={tables.COMMIT: commit}, app_transactions=marks),
        )
        return counts.total()

    return rewrite(uri, erase)


def vacuum(uri: str, retention_hours: float, *, dry_run: bool) -> int:
    """Remove parts that no version of the last `retention_hours` names; return how many there are.

    Parts that no version ever named are not touched: `verify --gc` is for them.
    """
    table = tables.open_table(uri)
    return len(table.vacuum(int(retention_hours), dry_run=dry_run, enforce_retention_duration=False))


@dataclass
class _Found:
    """The rows of a part that go: how many, their ids, and the sources of those without one."""

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
    """The SQL condition that holds for these rows alone."""
    parts = list(found)
    ids, sources = (set[str]().union(*(getattr(part, name) for part in parts)) for name in ("ids", "sources"))
    terms = [f"recording_id IN ({_literals(ids)})"] if ids else []
    terms += [f"(recording_id IS NULL AND source_uri IN ({_literals(sources)}))"] if sources else []
    return " OR ".join(terms)


def _literals(values: Iterable[str]) -> str:
    # In SQL a quote is the only character of a string literal that is escaped.
    return ", ".join("'" + value.replace("'", "''") + "'" for value in sorted(values))
