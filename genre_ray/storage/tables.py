"""Delta tables: create them, append Parquet parts, and read them.

A part is a Parquet file of a table. Guarantees: the name of a part contains the SHA-256 of its content and is unique
per attempt. Readers see a commit completely or not at all. Of several commits with the same transaction id at most one
succeeds. If the response to a commit was lost, the log is checked before the commit is retried.
"""

import hashlib
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, CommitProperties, Transaction

from genre_ray.errors import InputError, StorageError
from genre_ray.storage import delta, objects, retries, transactions
from genre_ray.storage.transactions import Table

if TYPE_CHECKING:
    from pyarrow.dataset import Dataset

ROW_GROUP_ROWS = 1024
COMPRESSION = "lz4"
"""Feature vectors hardly compress: Zstandard would save 5 % of the bytes and take twice the time."""
COMMIT_ATTEMPTS, COMMIT_PAUSE_S = 50, 2.0
PREFIX = "genre_ray."
"""Prefix of the names of Delta properties that genre_ray sets."""
COMMIT = "genre_ray.commit"
"""The key in a commit's metadata by which its writer recognises it."""

Vectors = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Part:
    """A Parquet file of a table: its path relative to the table, its size in bytes and its number of rows."""

    path: str
    size: int
    rows: int


@dataclass(frozen=True)
class Append:
    """Parts to commit together, at most once.

    Attributes:
        transaction: name of the application transaction, by which the log detects a second attempt.
        parts: the parts.
        version: version of the transaction.
        note: text to store with the commit, for `transactions.read_notes`.
    """

    transaction: str
    parts: Sequence[Part] = ()
    version: int = 1
    note: str = ""


def create_table(uri: str, schema: pa.Schema, properties: Mapping[str, str]) -> bool:
    """Create an empty table unless it exists. Of several concurrent creators exactly one gets True.

    Args:
        uri: the table.
        schema: its columns.
        properties: its Delta properties. `PREFIX` is added to names without a dot; names with one are Delta's own, e.g.
            `delta.logRetentionDuration`.
    """
    commit = uuid.uuid4().hex

    def create() -> bool:
        try:
            Table.create(
                uri,
                schema=schema,
                mode="error",
                configuration={name if "." in name else PREFIX + name: value for name, value in properties.items()},
                raise_if_key_not_exists=False,
                # With retries, the second of two concurrent creators would overwrite the metadata of the first.
                commit_properties=CommitProperties(custom_metadata={COMMIT: commit}, max_commit_retries=0),
                storage_options=delta.options(uri),
            )
        except (DeltaError, OSError):
            if not is_table(uri):
                raise
            # If the response was lost, the table found here may be our own.
            return commit in commits_of(open_table(uri, version=0))
        return True

    try:
        return delta.retried(uri, create)
    except TableNotFoundError as error:  # delta-rs raises this if it cannot create the folder
        raise delta.storage_error(uri, error) from None


def is_table(uri: str) -> bool:
    """Whether there is a Delta table at `uri`."""
    return delta.retried(uri, lambda: bool(Table.is_deltatable(uri, storage_options=delta.options(uri))))


def open_table(uri: str, version: int | None = None) -> Table:
    """Open a table at its newest version, or at `version`.

    Raises:
        InputError: there is no table.
        StorageError: it cannot be read, or has no such version.
    """
    try:
        return delta.retried(uri, lambda: Table(uri, version=version, storage_options=delta.options(uri)))
    except TableNotFoundError:
        raise InputError(
            f"{uri}: there is no Delta table; give the table itself, e.g. OUTPUT/features of ingest"
        ) from None


def dataset(uri: str, version: int | None = None) -> "Dataset":
    """Open a table as an Arrow dataset."""
    return open_table(uri, version).to_pyarrow_dataset()


def properties(uri: str) -> dict[str, str]:
    """Return the Delta properties of a table that genre_ray set, without their prefix."""
    return properties_of(open_table(uri))


def properties_of(table: Table) -> dict[str, str]:
    """Like `properties`, for an open table."""
    found = table.metadata().configuration.items()
    return {name.removeprefix(PREFIX): value for name, value in found if name.startswith(PREFIX)}


def schema_of(table: Table) -> pa.Schema:
    """Return the schema of a table, with the Arrow types of Delta's schema."""
    return pa.schema(table.schema().to_arrow())


def commits_of(table: Table) -> set[str]:
    """Return the values of `COMMIT` in the latest commits of a table."""
    return {str(commit.get(COMMIT)) for commit in table.history(2 * COMMIT_ATTEMPTS)}


@contextmanager
def open_part(uri: str) -> Iterator[pq.ParquetFile]:
    """Open the Parquet file of a part for the duration of the block.

    Raises:
        StorageError: it cannot be read, or is truncated or damaged. Errors inside the block are converted too.
    """
    try:
        with objects.open_seekable(uri) as file:
            yield pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise delta.storage_error(uri, error) from None


def list_parts(uri: str, version: int | None = None) -> list[Part]:
    """Return the parts of a version of a table, sorted by path."""
    return parts_of(open_table(uri, version))


def parts_of(table: Table) -> list[Part]:
    """Return the parts of an open table, sorted by path."""
    actions = pa.table(table.get_add_actions(flatten=True))
    columns = [actions[name].to_pylist() for name in ("path", "size_bytes", "num_records")]
    return sorted((Part(path, size, rows) for path, size, rows in zip(*columns, strict=True)), key=lambda p: p.path)


def write_part(uri: str, name: str, rows: pa.Table) -> Part:
    """Write a Parquet file for a table without committing it.

    Args:
        uri: the table.
        name: start of the file's name, e.g. that of a shard; a unique id and the checksum are appended.
        rows: the rows to write.
    """
    content = encode(rows)
    digest = hashlib.sha256(content).hexdigest()
    path = f"{name}-{uuid.uuid4().hex[:12]}-{digest[:32]}.parquet"
    objects.write_bytes(objects.join(uri, path), content.to_pybytes())
    return Part(path, content.size, rows.num_rows)


def encode(rows: pa.Table) -> pa.Buffer:
    """Encode rows as the content of a Parquet file."""
    # Float values hardly ever repeat, so a dictionary would double the time and increase the size.
    others = [path for field in rows.schema if (path := _leaf_unless_floats(field)) is not None]
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows,
        sink,
        compression=COMPRESSION,
        row_group_size=ROW_GROUP_ROWS,
        use_dictionary=others,
        write_statistics=others,
    )
    return sink.getvalue()


def _leaf_unless_floats(field: pa.Field) -> str | None:
    """The Parquet path of a column's values; None for lists of floats."""
    if not pa.types.is_nested(field.type):
        return str(field.name)
    return None if pa.types.is_floating(field.type.value_type) else f"{field.name}.list.element"


def append(table: Table, appends: Sequence[Append], schema: pa.Schema) -> list[Append]:
    """Commit the appends whose transactions are not in the table yet, in one version; return those.

    A second attempt with the same transaction is ignored, and its parts become orphans. Writers may run concurrently;
    the log accepts one commit per version.

    Raises:
        StorageError: the store failed, or every commit conflicted with another writer's.
    """
    once: dict[str, Append] = {}
    for item in appends:
        once.setdefault(item.transaction, item)
    unsure: dict[str, list[Append]] = {}  # commits that failed with an error but may have succeeded
    faults = 0
    for _ in retries.attempts(COMMIT_ATTEMPTS, COMMIT_PAUSE_S):
        try:
            table.update_incremental()
            fresh = [item for item in once.values() if table.transaction_version(item.transaction) is None]
            if fresh:
                commit = uuid.uuid4().hex
                unsure[commit] = fresh
                _commit(table, fresh, schema, commit)
                table.update_incremental()
                del unsure[commit]
            landed = commits_of(table) if unsure else set()
            return fresh + [item for commit, items in unsure.items() if commit in landed for item in items]
        except CommitFailedError:
            continue
        except (DeltaError, OSError) as error:
            faults += 1
            if faults == retries.OPERATION_ATTEMPTS or not delta.is_transient(table.table_uri, error):
                raise delta.storage_error(table.table_uri, error) from None
    raise StorageError(
        f"{table.table_uri}: all {COMMIT_ATTEMPTS} commits conflicted with other writers; run again with --resume when "
        "fewer programs write to this table"
    )


def read_batches(
    uri: str, columns: Sequence[str], *, version: int | None = None, batch_rows: int = ROW_GROUP_ROWS
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a table, in the order of its parts, as record batches of at most `batch_rows` rows."""
    table = open_table(uri, version)
    schema = schema_of(table)
    for part in parts_of(table):
        with open_part(objects.join(uri, part.path)) as file:
            for batch in file.iter_batches(batch_size=batch_rows, columns=list(columns)):
                yield as_table_types(batch, schema)


def as_table_types(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Cast a batch of a part to the types of the table's schema; without a copy if it has them already.

    This is needed because delta-rs writes strings as string views when it deletes rows.
    """
    return batch.cast(pa.schema([schema.field(name) for name in batch.schema.names]))


def vectors(column: pa.Array | pa.ChunkedArray) -> Vectors:
    """Convert a column of float lists of equal length to an array (rows, values), without a copy if possible.

    Raises:
        InputError: a list is null, or the lengths differ.
    """
    if isinstance(column, pa.ChunkedArray):
        # Combining a single chunk would copy it.
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if len(column) == 0:
        return np.zeros((0, getattr(column.type, "list_size", 0)), dtype=np.float32)
    lengths = pc.min_max(pc.list_value_length(column)).as_py()
    if column.null_count or lengths["min"] != lengths["max"]:
        raise InputError(
            f"expected {len(column)} lists of the same length, found {column.null_count} null lists and lengths from "
            f"{lengths['min']} to {lengths['max']}; use a table that genre_ray wrote"
        )
    values: Vectors = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    return values.reshape(len(column), -1)


def _commit(table: Table, appends: Sequence[Append], schema: pa.Schema, commit: str) -> None:
    table.create_write_transaction(
        [_add_action(part) for item in appends for part in item.parts],
        mode="append",
        schema=schema,
        commit_properties=CommitProperties(
            custom_metadata={COMMIT: commit, **_notes(appends)},
            app_transactions=[Transaction(item.transaction, item.version) for item in appends],
            max_commit_retries=0,
        ),
    )


def _notes(appends: Sequence[Append]) -> dict[str, str]:
    notes = {item.transaction: item.note for item in appends if item.note}
    return {transactions.NOTES: json.dumps(notes)} if notes else {}


def _add_action(part: Part) -> AddAction:
    return AddAction(
        path=part.path,
        size=part.size,
        partition_values={},
        modification_time=int(time.time() * 1000),
        data_change=True,
        stats=json.dumps({"numRecords": part.rows}),
    )
