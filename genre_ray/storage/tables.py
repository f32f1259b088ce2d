"""Delta tables: created once, read as Arrow datasets, appended to by whole Parquet parts.

Guarantees: a part's name carries the SHA-256 of its content and no two attempts share a name; readers see a commit
whole or not at all; of several commits with one transaction id at most one is taken. A commit whose answer was lost
is looked up in the log before it is tried again.
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
"""Feature vectors hardly shrink: Zstandard saves 5 % of the bytes and doubles the time."""
COMMIT_ATTEMPTS, COMMIT_PAUSE_S = 50, 2.0
PREFIX = "genre_ray."
"""How the names of the table's properties begin that genre_ray sets."""
COMMIT = "genre_ray.commit"
"""The key in a commit's information by which its writer knows it again."""

Vectors = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Part:
    """A Parquet file of a table; `path` is relative to the table."""

    path: str
    size: int
    rows: int


@dataclass(frozen=True)
class Append:
    """Parts that become visible together, once: the log keeps `version` under the name `transaction`.

    `note` is kept beside the commit, for `transactions.read_notes`.
    """

    transaction: str
    parts: Sequence[Part] = ()
    version: int = 1
    note: str = ""


def create_table(uri: str, schema: pa.Schema, properties: Mapping[str, str]) -> bool:
    """Create an empty table; False when there is one already (of several creators exactly one gets True).

    Args:
        uri: where.
        schema: its columns.
        properties: what its Delta properties state for its readers, by names without `PREFIX`; and Delta's own, e.g.
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
                # With retries the second of two creators at once commits its own metadata over the first one's.
                commit_properties=CommitProperties(custom_metadata={COMMIT: commit}, max_commit_retries=0),
                storage_options=delta.options(uri),
            )
        except (DeltaError, OSError):
            if not is_table(uri):
                raise
            # A creation whose answer was lost meets its own table.
            return commit in commits_of(open_table(uri, version=0))
        return True

    try:
        return delta.retried(uri, create)
    except TableNotFoundError as error:  # delta-rs says so where no folder can be made
        raise delta.storage_error(uri, error) from None


def is_table(uri: str) -> bool:
    """Whether a Delta table is there."""
    return delta.retried(uri, lambda: bool(Table.is_deltatable(uri, storage_options=delta.options(uri))))


def open_table(uri: str, version: int | None = None) -> Table:
    """The table at its newest version, or at `version`.

    Raises:
        InputError: no table is there.
        StorageError: it cannot be read, or has no such version.
    """
    try:
        return delta.retried(uri, lambda: Table(uri, version=version, storage_options=delta.options(uri)))
    except TableNotFoundError:
        raise InputError(
            f"{uri}: expected a Delta table, found none; name the table itself, e.g. OUTPUT/features of an ingest"
        ) from None


def dataset(uri: str, version: int | None = None) -> "Dataset":
    """The table as an Arrow dataset."""
    return open_table(uri, version).to_pyarrow_dataset()


def properties(uri: str) -> dict[str, str]:
    """The properties of the table that genre_ray set, without their prefix."""
    return properties_of(open_table(uri))


def properties_of(table: Table) -> dict[str, str]:
    """As `properties`, of an opened table."""
    found = table.metadata().configuration.items()
    return {name.removeprefix(PREFIX): value for name, value in found if name.startswith(PREFIX)}


def schema_of(table: Table) -> pa.Schema:
    """The table's columns, with the Arrow types of Delta's schema."""
    return pa.schema(table.schema().to_arrow())


def commits_of(table: Table) -> set[str]:
    """The values of `COMMIT` in the table's latest commits."""
    return {str(commit.get(COMMIT)) for commit in table.history(2 * COMMIT_ATTEMPTS)}


@contextmanager
def open_part(uri: str) -> Iterator[pq.ParquetFile]:
    """A part's Parquet file, for as long as the block runs.

    Raises:
        StorageError: it cannot be read, is cut or altered, even where the block finds that out.
    """
    try:
        with objects.open_seekable(uri) as file:
            yield pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise delta.storage_error(uri, error) from None


def list_parts(uri: str, version: int | None = None) -> list[Part]:
    """The parts that a version of the table names, sorted by path."""
    return parts_of(open_table(uri, version))


def parts_of(table: Table) -> list[Part]:
    """The parts that the table names at its version, sorted by path."""
    actions = pa.table(table.get_add_actions(flatten=True))
    columns = [actions[name].to_pylist() for name in ("path", "size_bytes", "num_records")]
    return sorted((Part(path, size, rows) for path, size, rows in zip(*columns, strict=True)), key=lambda p: p.path)


def write_part(uri: str, name: str, rows: pa.Table) -> Part:
    """Write one Parquet file that no version of the table names yet.

    Args:
        uri: the table.
        name: what the part holds, e.g. a shard's name; the attempt and the checksum are added to it.
        rows: its rows.
    """
    content = encode(rows)
    digest = hashlib.sha256(content).hexdigest()
    path = f"{name}-{uuid.uuid4().hex[:12]}-{digest[:32]}.parquet"
    objects.write_bytes(objects.join(uri, path), content.to_pybytes())
    return Part(path, content.size, rows.num_rows)


def encode(rows: pa.Table) -> pa.Buffer:
    """The content of a part with these rows."""
    # Measurements hardly ever repeat: a dictionary of them doubles the time and only adds to the size.
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
    """Parquet's path of a column's values; None for lists of floats."""
    if not pa.types.is_nested(field.type):
        return str(field.name)
    return None if pa.types.is_floating(field.type.value_type) else f"{field.name}.list.element"


def append(table: Table, appends: Sequence[Append], schema: pa.Schema) -> list[Append]:
    """Commit those of `appends` whose transaction the table does not have yet, all in one version; return them.

    A duplicate attempt is left out, whether the log has the first one or `appends` itself: its parts stay unnamed.
    Writers may race: the log refuses all but one of them.

    Raises:
        StorageError: the store failed, or other writers were faster every time.
    """
    once: dict[str, Append] = {}
    for item in appends:
        once.setdefault(item.transaction, item)
    unsure: dict[str, list[Append]] = {}  # commits that ended with an error, which may be in nevertheless
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
        f"{table.table_uri}: {COMMIT_ATTEMPTS} commits were refused because others wrote; --resume when fewer do"
    )


def read_batches(
    uri: str, columns: Sequence[str], *, version: int | None = None, batch_rows: int = ROW_GROUP_ROWS
) -> Iterator[pa.RecordBatch]:
    """The table's rows in order of its parts, as record batches of at most `batch_rows` rows, of the table's types."""
    table = open_table(uri, version)
    schema = schema_of(table)
    for part in parts_of(table):
        with open_part(objects.join(uri, part.path)) as file:
            for batch in file.iter_batches(batch_size=batch_rows, columns=list(columns)):
                yield as_table_types(batch, schema)


def as_table_types(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch of a part with the types that the table's schema has for its columns; without a copy if it has them.

    delta-rs writes strings as string views when it deletes rows, and PyArrow reads them as such.
    """
    return batch.cast(pa.schema([schema.field(name) for name in batch.schema.names]))


def vectors(column: pa.Array | pa.ChunkedArray) -> Vectors:
    """A column of equally long float lists as an array (rows, values), without a copy where Arrow allows it.

    Raises:
        InputError: a list is missing, or longer than another.
    """
    if isinstance(column, pa.ChunkedArray):
        # To combine a single chunk copies it.
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if len(column) == 0:
        return np.zeros((0, getattr(column.type, "list_size", 0)), dtype=np.float32)
    lengths = pc.min_max(pc.list_value_length(column)).as_py()
    if column.null_count or lengths["min"] != lengths["max"]:
        raise InputError(
            f"expected {len(column)} lists of one length, found {column.null_count} missing ones and lengths from "
            f"{lengths['min']} to {lengths['max']}; read a table that genre_ray wrote"
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
