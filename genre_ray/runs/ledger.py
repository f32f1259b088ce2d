"""The ledger of a run: which shards are committed. It is stored in the Delta logs of the run's two tables.

A shard is committed if the data table has its transaction `run_id/item/index`. The version of the transaction is
`2 * rows_in + last`: the number of rows of the shard, and whether it is the last of its item. Both remain known after
parts are compacted or rewritten. Only the last shard of an item can be empty, so a version is never 0.

The rejected table is committed first. So a committed shard has all its rows: accepted rows + rejected rows = rows in.
The first commit also decides which attempt counts, and its note lists the data parts of that attempt. This matters
because two attempts may reject different rows (after a read error or a timeout), and must not be mixed. The log refuses
a second attempt, whose parts become orphans.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

from genre_ray.errors import InputError, OutputTakenError
from genre_ray.runs.identity import Identity, run_id
from genre_ray.runs.output import Output, TableRecord
from genre_ray.runs.plan import Plan, RemainingWork
from genre_ray.storage import objects, tables
from genre_ray.storage.history import ERASED, erased_mark
from genre_ray.storage.schemas import REJECTED
from genre_ray.storage.tables import Append, Part
from genre_ray.storage.transactions import read_notes


@dataclass(frozen=True)
class ShardSummary:
    """A shard that a worker has written but that is not committed yet.

    Attributes:
        item: name of its work item.
        index: its position among the shards of the item, from 0.
        last: whether it is the last shard of the item.
        rows_in: number of rows from the source; at least 1, except in a last shard.
        parts: its parts of the data table.
        rejected_parts: its parts of the rejected table.
    """

    item: str
    index: int
    last: bool
    rows_in: int
    parts: tuple[Part, ...]
    rejected_parts: tuple[Part, ...]


@dataclass(frozen=True)
class Totals:
    """Number of rows in the tables of a run: accepted, rejected, and rejected by reason."""

    rows: int
    rejected: int
    reasons: dict[str, int]

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self.reasons.items()))
        return f"{self.rows} rows, {self.rejected} rejected" + (f" ({reasons})" if reasons else "")


class Ledger:
    """The ledger of a claimed output, a folder with the tables `output/<name>` and `output/rejected`."""

    def __init__(self, output: str, name: str, schema: pa.Schema, run: str) -> None:
        self.arguments = (output, name, schema, run)
        self.output, self.schema, self.run = output, schema, run
        self.data_uri, self.rejected_uri = objects.join(output, name), objects.join(output, "rejected")
        self._data, self._rejected = tables.open_table(self.data_uri), tables.open_table(self.rejected_uri)

    @classmethod
    def claim(
        cls,
        output: str,
        name: str,
        schema: pa.Schema,
        identity: Identity,
        *,
        resume: bool,
        properties: Mapping[str, str] | None = None,
    ) -> "Ledger":
        """Claim the output for a run, or join the same run if `resume`.

        Args:
            output: the folder of the tables.
            name: name of the data table.
            schema: schema of the data table.
            identity: identity of the run.
            resume: whether the run may have started before.
            properties: Delta properties of the data table, the same in all claims of a run.

        Raises:
            OutputTakenError: the output belongs to another run, or to this run without `resume`, or its data table has
                other properties.
            ConfigurationError: the store does not support conditional writes.
        """
        data = TableRecord(objects.join(output, name), schema, properties or {})
        rejected = TableRecord(objects.join(output, "rejected"), REJECTED)
        Output(output, identity, resume).claim(data, rejected)
        ledger = cls(output, name, schema, run_id(identity))
        for record, table in ((data, ledger._data), (rejected, ledger._rejected)):
            _refuse_changed(record.uri, record.stated(identity), tables.properties_of(table))
        return ledger

    @classmethod
    def open(cls, output: str, name: str) -> "Ledger":
        """Open the ledger of an existing output for reading.

        Raises:
            InputError: a table does not exist, or does not belong to a run.
        """
        uri = objects.join(output, name)
        run = tables.properties(uri).get("run_id")
        if run is None:
            raise InputError(f"{uri}: genre_ray did not write this table; give the output of a run")
        return cls(output, name, pa.schema([]), run)

    def remaining(self, plans: Sequence[Plan]) -> list[RemainingWork]:
        """Return the remaining work of all plans."""
        return [work for plan in plans for work in plan.remaining(self.shards_done)]

    def shards_done(self, item: str) -> int | None:
        """Return how many shards of a work item are committed, counted from its first; None if all are."""
        done, complete = self.progress(item)
        return None if complete else done

    def progress(self, item: str) -> tuple[int, bool]:
        """Return how many shards of a work item are committed, counted from its first, and whether these are all.

        The numbers are as of the claim or the latest commit. If another driver commits shards later, they may be
        computed twice, but they are committed once.
        """
        done = 0
        while (version := self._data.transaction_version(self._transaction(item, done))) is not None:
            done += 1
            if _is_last(version):
                return done, True
        return done, False

    def rows_in(self, item: str, index: int) -> int | None:
        """Return the number of rows of a shard, before rejections and erasures; None if it is not committed."""
        version = self._data.transaction_version(self._transaction(item, index))
        return None if version is None else _rows_in(version)

    def rows_to_commit(self, item: str, index: int) -> int:
        """Return the number of rows of a shard if only its rejected rows are committed so far; 0 otherwise."""
        name = self._transaction(item, index)
        version = self._rejected.transaction_version(name)
        return 0 if version is None or self._data.transaction_version(name) is not None else _rows_in(version)

    def erased(self, shard: str) -> int:
        """Return how many rows of a shard (by its `shard_name`) were erased from the two tables."""
        mark = erased_mark(shard)
        return sum(table.transaction_version(mark) or 0 for table in (self._data, self._rejected))

    def bounds(self) -> tuple[int, int] | None:
        """Return the minimum and maximum number of rows (accepted, rejected or erased) of both tables, by their logs.

        They differ while only the rejected rows of a shard are committed. Returns None if the shards cannot be listed,
        because another program wrote the checkpoints.
        """
        data, rejected = (table.transactions(f"{self.run}/") for table in (self._data, self._rejected))
        if data is None or rejected is None:
            return None
        committed = sum(map(_rows_in, data.values()))
        return committed, committed + sum(_rows_in(rejected[name]) for name in rejected.keys() - data.keys())

    def erased_by_name(self) -> Counter[str] | None:
        """Return the number of erased rows by shard or compacted part; None as for `bounds`."""
        found: Counter[str] = Counter()
        for table in (self._data, self._rejected):
            if (marks := table.transactions(ERASED)) is None:
                return None
            found.update({name.removeprefix(ERASED): count for name, count in marks.items()})
        return found

    def parts(self) -> list[Part]:
        """Return the parts of both tables, at the versions that the ledger has read."""
        return [*tables.parts_of(self._data), *tables.parts_of(self._rejected)]

    def commit(self, summaries: Sequence[ShardSummary]) -> int:
        """Commit shards; return how many were not committed before."""
        if not summaries:
            return 0
        rejected = [self._append(s, s.rejected_parts, note=_note(s.parts)) for s in summaries]
        decided = {append.transaction for append in tables.append(self._rejected, rejected, REJECTED)}
        data = [self._append(s, s.parts) for s in summaries]
        late = [append.transaction for append in data if append.transaction not in decided]
        theirs = self._decided(name for name in late if self._data.transaction_version(name) is None)
        return len(tables.append(self._data, [theirs.get(own.transaction, own) for own in data], self.schema))

    def totals(self) -> Totals:
        """Count the rows of the tables as they are now."""
        reasons: dict[str, int] = {}
        for batch in tables.read_batches(self.rejected_uri, ["reason"], batch_rows=65536):
            for count in batch.column("reason").value_counts().to_pylist():
                reasons[count["values"]] = reasons.get(count["values"], 0) + count["counts"]
        rows = sum(part.rows for part in tables.list_parts(self.data_uri))
        return Totals(rows, sum(reasons.values()), reasons)

    def _decided(self, transactions: Iterable[str]) -> dict[str, Append]:
        """The appends that the rejected table's notes list for these transactions, if all their parts still exist."""
        decided: dict[str, Append] = {}
        for name, note in read_notes(self._rejected, transactions).items():
            parts = tuple(Part(**part) for part in json.loads(note))
            if all(map(self._is_there, parts)):
                version = self._rejected.transaction_version(name)
                assert version is not None  # the commit that has the note has the transaction
                decided[name] = Append(name, parts, version)
        return decided

    def _is_there(self, part: Part) -> bool:
        return objects.exists(objects.join(self.data_uri, part.path))

    def _append(self, summary: ShardSummary, parts: Sequence[Part], note: str = "") -> Append:
        version = 2 * summary.rows_in + summary.last
        return Append(self._transaction(summary.item, summary.index), parts, version, note)

    def _transaction(self, item: str, index: int) -> str:
        return f"{self.run}/{item}/{index}"


def shard_name(item: str, index: int) -> str:
    """Return the start of the names of a shard's parts."""
    return f"{item}-{index:05d}"


def _rows_in(version: int) -> int:
    return version // 2


def _is_last(version: int) -> bool:
    return version % 2 == 1


def _note(parts: Sequence[Part]) -> str:
    return json.dumps([asdict(part) for part in parts])


def _refuse_changed(uri: str, stated: Mapping[str, str], found: Mapping[str, str]) -> None:
    others = sorted(name for name, value in stated.items() if name != "identity" and found.get(name) != value)
    if others:
        raise OutputTakenError(
            f"{uri}: another program changed the table's properties {', '.join(others)}; choose another --output"
        )
