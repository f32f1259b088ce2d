"""What a table's log says of its application transactions: their versions, and the notes beside their commits.

delta-rs replays the log for every transaction that it is asked for: milliseconds each, and on a store as many requests.
A `Table` answers the same from memory. It reads its log once, from the newest checkpoint on, and then every commit that
it has come by.
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
    """A Delta table that reads its log once to know all transactions in it.

    They do not expire here: Delta forgets only those with a date (`lastUpdated`), and ours have none.
    """

    def __init__(self, table_uri: str | Path | os.PathLike[str], *args: Any, **settings: Any) -> None:
        super().__init__(table_uri, *args, **settings)
        self._log = objects.join(objects.absolute(str(table_uri)), LOG)
        self._known: dict[str, int] = {}
        self._known_at = -1
        """The table's version that `_known` is of; -1 is before the first."""
        self._left_at: int | None = None
        """The version at which delta-rs is asked, because this log is not as `_catch_up` reads it."""

    def transaction_version(self, app_id: str) -> int | None:
        """The newest version of a transaction as of the table's version; None when the log has none of this name.

        Raises:
            StorageError: the log cannot be read.
        """
        return self._known.get(app_id) if self._is_known() else super().transaction_version(app_id)

    def transactions(self, prefix: str) -> dict[str, int] | None:
        """The newest versions of all transactions whose names begin with `prefix`, as of the table's version.

        None when this class cannot read the log's checkpoint: delta-rs finds single transactions, but lists none.

        Raises:
            StorageError: the log cannot be read.
        """
        if not self._is_known():
            return None
        return {name: version for name, version in self._known.items() if name.startswith(prefix)}

    def _is_known(self) -> bool:
        """Whether `_known` is of the table's version, after reading what is new; if not, delta-rs is asked."""
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
            # Other writers may keep checkpoints in several files, or remove commits that this table had yet to read.
            logger.info("%s: transactions are asked for one by one at version %d: %s", self._log, version, error)
            self._known_at, self._known, self._left_at = -1, {}, version


def read_actions(uri: str) -> Iterator[dict[str, Any]]:
    """The actions of a commit, whose file in the log is `uri`."""
    # As bytes: text would also end a line at characters that JSON leaves as they are.
    return map(json.loads, objects.read_bytes(uri).splitlines())


def read_notes(table: DeltaTable, transactions: Iterable[str]) -> dict[str, str]:
    """The notes of transactions, read from the newest commit backwards until all are found.

    A transaction without a note, or one whose commit the log no longer keeps, is left out.
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
    """The newest checkpoint up to `version`: (its version, its transactions); (-1, none) where there is none."""
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
