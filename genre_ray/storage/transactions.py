"""Read the application transactions in the log of a Delta table: their versions, and the notes of their commits.

delta-rs reads the log again for every transaction, which takes milliseconds and, on a store, requests. `Table` keeps
all transactions in memory. It reads the log once, from the newest checkpoint on, and then only new commits.
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from genre_ray.errors import NotFoundError
from genre_ray.storage import delta, objects

logger = logging.getLogger(__name__)

LOG = "_delta_log"
NOTES, NOTED_COMMITS = "genre_ray.notes", 16
_NOT_UNDERSTOOD = (NotFoundError, pa.ArrowException, ValueError, KeyError, TypeError, AttributeError)


class Table(DeltaTable):
    """A Delta table that keeps all its application transactions in memory.

    The transactions do not expire, because Delta removes only those with a date (`lastUpdated`), which ours do not
    have.
    """

    def __init__(self, table_uri: str | Path | os.PathLike[str], *args: Any, **settings: Any) -> None:
        super().__init__(table_uri, *args, **settings)
        self._log = objects.join(objects.absolute(str(table_uri)), LOG)
        self._known: dict[str, int] = {}
        self._known_at = -1
        """The table version that `_known` belongs to; -1 for none."""
        self._left_at: int | None = None
        """The table version for which delta-rs is used, because `_catch_up` could not read its log."""

    def transaction_version(self, app_id: str) -> int | None:
        """Return the newest version of a transaction; None if the log has no transaction with this name.

        Raises:
            StorageError: the log cannot be read.
        """
        return self._known.get(app_id) if self._is_known() else super().transaction_version(app_id)

    def transactions(self, prefix: str) -> dict[str, int] | None:
        """Return the newest versions of all transactions whose names start with `prefix`.

        Returns None if this class cannot read the log's checkpoint. delta-rs can read it, but cannot list transactions.

        Raises:
            StorageError: the log cannot be read.
        """
        if not self._is_known():
            return None
        return {name: version for name, version in self._known.items() if name.startswith(prefix)}

    def _is_known(self) -> bool:
        """Read new commits; return whether `_known` is up to date. If not, use delta-rs instead."""
        version = self.version()
        if version not in (self._known_at, self._left_at):
            self._catch_up(version)
        return version != self._left_at

    def _catch_up(self, version: int) -> None:
        try:
            if not 0 <= self._known_at < version:
                self._known_at, self._known = _newest_checkpoint(self._log, version)
            for number in range(self._known_at + 1, version + 1):
                for action in read_actions(objects.join(self._log, f"{number:020d}.json")):
                    if transaction := action.get("txn"):
                        self._known[transaction["appId"]] = transaction["version"]
                self._known_at = number
        except _NOT_UNDERSTOOD as error:
            # Other writers may split checkpoints into several files, or remove commits before this table read them.
            logger.info("%s: reading transactions one by one by delta-rs at version %d: %s", self._log, version, error)
            self._known_at, self._known, self._left_at = -1, {}, version


def read_actions(uri: str) -> Iterator[dict[str, Any]]:
    """Yield the actions of a commit from its file in the log."""
    # Bytes are split at line feeds only. Text would also be split at other characters, which JSON may contain.
    return map(json.loads, objects.read_bytes(uri).splitlines())


def read_notes(table: DeltaTable, transactions: Iterable[str]) -> dict[str, str]:
    """Return the notes of transactions, reading commits from the newest backwards until all are found.

    Transactions without a note, and those whose commit was removed from the log, are missing in the result.
    """
    wanted, depth = set(transactions), NOTED_COMMITS
    found: dict[str, str] = {}
    while wanted - found.keys():
        history = delta.retried(table.table_uri, partial(table.history, depth))
        for commit in history:
            notes = json.loads(commit.get(NOTES, "{}"))
            found |= {name: note for name, note in notes.items() if name in wanted}
        if len(history) < depth:
            break
        depth *= 8
    return found


def _newest_checkpoint(log: str, version: int) -> tuple[int, dict[str, int]]:
    """Read the newest checkpoint up to `version`; return its version and transactions, or -1 and none."""
    try:
        number = int(json.loads(objects.read_bytes(objects.join(log, "_last_checkpoint")))["version"])
    except NotFoundError:
        return -1, {}
    if number > version:
        return -1, {}
    content = objects.read_bytes(objects.join(log, f"{number:020d}.checkpoint.parquet"))
    actions = pq.ParquetFile(pa.BufferReader(content)).read(columns=["txn.appId", "txn.version"])
    found = actions["txn"].drop_null()
    names, versions = (pc.struct_field(found, field).to_pylist() for field in ("appId", "version"))
    return number, dict(zip(names, versions, strict=True))
