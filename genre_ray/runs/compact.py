"""Merge the small parts of a table by Delta's OPTIMIZE.

A compaction changes no rows, and readers see the parts either before or after it. It commits twice: first the merged
parts, which delta-rs writes, then their checksums, as application transactions in the log. If the job dies in between,
`verify` checks the merged parts by size and number of rows, and the next compaction records the missing checksums.
Other writers may append at the same time.

After a compaction the names of parts do not contain shards any more. The log still contains the number of rows of every
shard.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from genre_ray.errors import InputError, StorageError
from genre_ray.runs.verify import parts_damage, recorded_checksums
from genre_ray.storage import history, objects, tables
from genre_ray.storage.tables import Append, Part
from genre_ray.storage.transactions import Table

TARGET_BYTES = 2**27
"""Size of merged parts. `verify` reads four parts into memory at a time."""

CONCURRENT_TASKS = 2
"""Number of merges at a time, each of which needs memory for a merged part. delta-rs would run one per core."""

_READER_VERSION, _WRITER_VERSION = 1, 2
"""The protocol versions of tables that genre_ray creates. Newer tables may have deletion vectors or row ids."""


@dataclass(frozen=True)
class Compacted:
    """Number of parts before and after a compaction, including parts that other writers added in the meantime."""

    parts_before: int
    parts_after: int


def compact(uri: str, target_bytes: int = TARGET_BYTES) -> Compacted:
    """Merge the parts of a table that are smaller than `target_bytes`, and record the checksums of merged parts.

    The old parts stay in the store until `vacuum`, for readers of older versions. Verify the table first: damage in a
    part would be copied to the merged part, and its new checksum would hide it.

    Raises:
        InputError: a run of genre_ray did not write the table, see `why_not`.
        StorageError: the store failed, a part without a checksum is damaged, or other writers removed parts during
            every attempt.
    """
    table = tables.open_table(uri)
    reason = why_not(table)
    if reason is not None:
        raise InputError(f"{uri}: {reason}; compact it with the program that writes it")
    before = len(tables.parts_of(table))
    if parts_to_merge(table, target_bytes):
        table = _optimize(uri, target_bytes)
    record_checksums(uri, table)
    return Compacted(before, len(tables.parts_of(table)))


def why_not(table: Table) -> str | None:
    """Return why a table cannot be compacted, or None if it can."""
    metadata, protocol = table.metadata(), table.protocol()
    if "run_id" not in tables.properties_of(table):
        return "another program wrote this table"
    if metadata.partition_columns:
        return f"the table is partitioned by {', '.join(metadata.partition_columns)}"
    if protocol.min_reader_version > _READER_VERSION or protocol.min_writer_version > _WRITER_VERSION:
        found = f"{protocol.min_reader_version} and {protocol.min_writer_version}"
        return f"the table has the Delta protocol versions {found} instead of {_READER_VERSION} and {_WRITER_VERSION}"
    return None


def parts_to_merge(table: Table, target_bytes: int = TARGET_BYTES) -> int:
    """Return how many parts a compaction merges at most. OPTIMIZE skips a part that fits with no other."""
    small = sum(part.size < target_bytes for part in tables.parts_of(table))
    return small if small > 1 else 0


def _optimize(uri: str, target_bytes: int) -> Table:
    """Merge small parts in one commit, and return the table after it."""

    def optimize(table: Table) -> Table:
        # delta-rs retries the commit after appends by other writers, because these remove no parts.
        table.optimize.compact(
            target_size=target_bytes,
            max_concurrent_tasks=CONCURRENT_TASKS,
            writer_properties=history.writer_properties(table),
        )
        return table

    return history.rewrite(uri, optimize)


def record_checksums(uri: str, table: Table) -> None:
    """Commit the checksums of parts that have none, after checking their size and number of rows.

    Raises:
        StorageError: a part is damaged, or the store failed.
    """
    unnamed = [part for part in tables.parts_of(table) if history.named_checksum(part.path) is None]
    known = recorded_checksums(table, unnamed)
    new = [part for part in unnamed if part.path not in known]
    damage = parts_damage(uri, new, {})
    if damage:
        raise StorageError("; ".join(damage))
    tables.append(table, _checksums(uri, new), tables.schema_of(table))


def _checksums(uri: str, parts: Sequence[Part]) -> list[Append]:
    """The transactions that record the checksums of parts."""
    return [
        Append(
            history.checksum_mark(part.path),
            version=history.checksum(objects.read_bytes(objects.join(uri, part.path))),
        )
        for part in parts
    ]
