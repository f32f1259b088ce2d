"""Merge the small parts of a table into larger ones, by Delta's own OPTIMIZE.

A compaction changes no row, and readers see the parts before it or after it. It commits twice: first the merged parts,
which delta-rs writes and names, then their checksums, as application transactions of the log. If it ends in between,
`verify` checks the merged parts by size and rows, and the next compaction records the missing checksums. Writers may
append meanwhile.

After a compaction no part name says which shard a row belongs to; the log still states the rows of every shard.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from genre_ray.errors import InputError, StorageError
from genre_ray.runs.verify import parts_damage, recorded_checksums
from genre_ray.storage import history, objects, tables
from genre_ray.storage.tables import Append, Part
from genre_ray.storage.transactions import Table

TARGET_BYTES = 2**27
"""`verify` holds four parts of this size in memory."""

CONCURRENT_TASKS = 2
"""Each holds about a merged part in memory; delta-rs's own default is one task per core."""

_READER_VERSION, _WRITER_VERSION = 1, 2
"""The protocol of tables that genre_ray creates; newer ones may have deletion vectors or row ids."""


@dataclass(frozen=True)
class Compacted:
    """How many parts a table had before and after a compaction; other writers may have added some meanwhile."""

    parts_before: int
    parts_after: int


def compact(uri: str, target_bytes: int = TARGET_BYTES) -> Compacted:
    """Merge the parts of a table that are smaller than `target_bytes`, and record the checksums of merged parts.

    Parts that were merged stay in the store until `vacuum`, for readers of older versions. Verify the table first: what
    is damaged in a part would be copied into the merged one, and covered by its checksum.

    Raises:
        InputError: it is not a table that a run of genre_ray wrote; see `why_not`.
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
    """Why a table is left alone; None for a table that can be compacted."""
    metadata, protocol = table.metadata(), table.protocol()
    if "run_id" not in tables.properties_of(table):
        return "expected a table that a run of genre_ray wrote, found one of another program"
    if metadata.partition_columns:
        return f"expected a table without partitions, found partitions by {', '.join(metadata.partition_columns)}"
    if protocol.min_reader_version > _READER_VERSION or protocol.min_writer_version > _WRITER_VERSION:
        found = f"{protocol.min_reader_version} and {protocol.min_writer_version}"
        return f"expected Delta protocol {_READER_VERSION} and {_WRITER_VERSION}, found {found}"
    return None


def parts_to_merge(table: Table, target_bytes: int = TARGET_BYTES) -> int:
    """How many parts a compaction merges at most; OPTIMIZE leaves out a part that fits with none beside it."""
    small = sum(part.size < target_bytes for part in tables.parts_of(table))
    return small if small > 1 else 0


def _optimize(uri: str, target_bytes: int) -> Table:
    """Merge small parts in one commit; return the table at a version after it."""

    def optimize(table: Table) -> Table:
        # delta-rs repeats its commit after appends by others, which remove no part.
        table.optimize.compact(
            target_size=target_bytes,
            max_concurrent_tasks=CONCURRENT_TASKS,
            writer_properties=history.writer_properties(table),
        )
        return table

    return history.rewrite(uri, optimize)


def record_checksums(uri: str, table: Table) -> None:
    """Commit the checksums of parts that have none, after a check of their size and rows.

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
    """The transactions that keep the checksums of parts."""
    return [
        Append(
            history.checksum_mark(part.path),
            version=history.checksum(objects.read_bytes(objects.join(uri, part.path))),
        )
        for part in parts
    ]
