"""What a Delta log tells of all versions that it still has, and the one change that rewrites parts: erasing rows."""

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from genre_ray.errors import InputError, StorageError
from genre_ray.storage import objects, retries, tables
from genre_ray.storage.tables import Part
from genre_ray.storage.transactions import LOG, NOTES, Table, read_actions

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


def erase_rows(uri: str, wanted: Callable[[pa.Table], pa.ChunkedArray]) -> int:
    """Commit a version of the table without some rows; return how many there were.

    Parts that hold such rows are written anew, with their schema's metadata and a name that carries their checksum
    (delta-rs' own delete keeps neither); older versions keep the old parts until `vacuum`.

    Args:
        uri: the table.
        wanted: (rows of a part) → a boolean a row: whether it goes.

    Raises:
        InputError: it is not a table, or is partitioned.
        StorageError: the store failed, or other writers were faster every time.
    """
    known: dict[str, tuple[int, Part | None]] = {}  # by old part: what a lost race need not compute again
    for _ in retries.attempts(tables.COMMIT_ATTEMPTS, tables.COMMIT_PAUSE_S):
        table = tables.open_table(uri)
        if table.metadata().partition_columns:
            raise InputError(f"{uri}: expected a table without partitions, as genre_ray writes; erase in it otherwise")
        parts = tables.list_parts(uri, table.version())
        for part in parts:
            if part.path not in known:
                known[part.path] = _without(uri, part, wanted)
        changed = [(part, *known[part.path]) for part in parts if known[part.path][0]]
        if not changed:
            return 0
        actions = _actions(changed, table)
        name = objects.join(uri, LOG, f"{table.version() + 1:020d}.json")
        if objects.put_if_absent(name, "\n".join(map(json.dumps, actions)).encode()):
            return sum(count for _, count, _ in changed)
    raise StorageError(f"{uri}: {tables.COMMIT_ATTEMPTS} commits were refused because others wrote; try again")


def vacuum(uri: str, retention_hours: float, *, dry_run: bool) -> int:
    """Remove parts that no version of the last `retention_hours` names; return how many there are.

    Parts that no version ever named are not touched: `verify --gc` is for them.
    """
    table = tables.open_table(uri)
    return len(table.vacuum(int(retention_hours), dry_run=dry_run, enforce_retention_duration=False))


def _without(uri: str, part: Part, wanted: Callable[[pa.Table], pa.ChunkedArray]) -> tuple[int, Part | None]:
    """(rows that go, the part that stands for `part` without them); no part when none is left."""
    with objects.open_seekable(objects.join(uri, part.path)) as file:
        rows = pq.read_table(file)
    going = pa.chunked_array(wanted(rows), pa.bool_()) if rows.num_rows else pa.chunked_array([[]], pa.bool_())
    count = sum(value is True for value in going.to_pylist())
    if not count:
        return 0, part
    kept = rows.filter(pa.array([value is not True for value in going.to_pylist()]))
    return count, tables.write_part(uri, shard_of(part.path), kept) if kept.num_rows else None


def _actions(changed: Sequence[tuple[Part, int, Part | None]], table: Table) -> list[dict[str, object]]:
    now = int(time.time() * 1000)
    info = {"timestamp": now, "operation": "DELETE", "operationParameters": {}, "engineInfo": "genre_ray"}
    actions: list[dict[str, object]] = [{"commitInfo": info}]
    counts: dict[str, int] = {}
    for old, count, new in changed:
        shard = shard_of(old.path)
        counts[shard] = counts.get(shard, table.transaction_version(erased_mark(shard)) or 0) + count
        gone = {"path": old.path, "size": old.size, "partitionValues": {}, "extendedFileMetadata": True}
        actions.append({"remove": {**gone, "deletionTimestamp": now, "dataChange": True}})
        if new is not None:
            stats = json.dumps({"numRecords": new.rows})
            added = {"path": new.path, "size": new.size, "partitionValues": {}, "modificationTime": now}
            actions.append({"add": {**added, "dataChange": True, "stats": stats}})
    actions += [{"txn": {"appId": erased_mark(shard), "version": count}} for shard, count in counts.items()]
    return actions
