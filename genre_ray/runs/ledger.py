"""The record of a run, kept in the Delta logs of its two tables: who owns the output and which shards are committed.

A shard is committed when the data table has its transaction `run_id/item/index`. The version of that transaction is
`2 * rows_in + last`: how many rows the shard had, and whether its item ends with it. Both outlive the parts, which may
be compacted or rewritten. Only the last shard of an item can be empty, so a version is never 0.

The rejected table is committed first, so a committed shard has all its rows: rows kept + rows rejected = rows in, each
once. That first commit decides which attempt counts, and notes its data parts: two attempts may judge a row differently
(a file that could not be read, a limit on time), and the rows of one must not meet the rejections of another. The log
refuses a second attempt; the parts it wrote stay unnamed.
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
    """A shard that a worker has written and nobody has committed yet.

    Attributes:
        item: the name of its work item.
        index: its position among the shards of the item, from 0.
        last: whether the item ends with it.
        rows_in: how many rows the source gave; at least 1, except in a last shard.
        parts: what was written for the data table.
        rejected_parts: what was written for the rejected table.
    """

    item: str
    index: int
    last: bool
    rows_in: int
    parts: tuple[Part, ...]
    rejected_parts: tuple[Part, ...]


@dataclass(frozen=True)
class Totals:
    """What the tables of a run hold."""

    rows: int
    rejected: int
    reasons: dict[str, int]

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self.reasons.items()))
        return f"{self.rows} rows, {self.rejected} rejected" + (f" ({reasons})" if reasons else "")


class Ledger:
    """A claimed output: the folder `output` with the tables `output/<name>` and `output/rejected`."""

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
        """Take the output for a run, or join the same run when `resume`.

        Args:
            output: the folder of the tables.
            name: of the data table.
            schema: of the data table.
            identity: the run's.
            resume: whether the run may have begun before.
            properties: what the data table's properties state for its readers; equal in all claims of a run.

        Raises:
            OutputTakenError: the output is another run's, or this run's and not to be resumed, or its data table has
                other properties.
            ConfigurationError: the store cannot keep two runs apart.
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
        """The ledger of the run that claimed `output`, to be read.

        Raises:
            InputError: a table is gone, or no run's.
        """
        uri = objects.join(output, name)
        run = tables.properties(uri).get("run_id")
        if run is None:
            raise InputError(f"{uri}: expected a run's table, found one that genre_ray did not write")
        return cls(output, name, pa.schema([]), run)

    def remaining(self, plans: Sequence[Plan]) -> list[RemainingWork]:
        """What is left of the plans' items."""
        return [work for plan in plans for work in plan.remaining(self.shards_done)]

    def shards_done(self, item: str) -> int | None:
        """How many shards of a work item are in, from its first on; None when all are. As `progress` otherwise."""
        done, complete = self.progress(item)
        return None if complete else done

    def progress(self, item: str) -> tuple[int, bool]:
        """How many shards of a work item are in, from its first on, and whether these are all.

        As of the claim or the latest commit: what other drivers do meanwhile is done twice at worst, and in once.
        """
        done = 0
        while (version := self._data.transaction_version(self._transaction(item, done))) is not None:
            done += 1
            if _is_last(version):
                return done, True
        return done, False

    def rows_in(self, item: str, index: int) -> int | None:
        """How many rows a shard had before any was rejected or erased; None when it is not committed."""
        version = self._data.transaction_version(self._transaction(item, index))
        return None if version is None else _rows_in(version)

    def rows_to_commit(self, item: str, index: int) -> int:
        """How many rows a shard had whose rejected rows are committed and whose data are not; 0 for other shards."""
        name = self._transaction(item, index)
        version = self._rejected.transaction_version(name)
        return 0 if version is None or self._data.transaction_version(name) is not None else _rows_in(version)

    def erased(self, shard: str) -> int:
        """How many rows of a shard, named as its parts are, were erased from the two tables."""
        mark = erased_mark(shard)
        return sum(table.transaction_version(mark) or 0 for table in (self._data, self._rejected))

    def bounds(self) -> tuple[int, int] | None:
        """The fewest and the most rows, kept, rejected or erased, that both tables can have, as their logs state.

        The two differ while the rejected rows of a shard are committed and its data are not. None when the shards
        cannot be listed, because another program wrote the checkpoints.
        """
        data, rejected = (table.transactions(f"{self.run}/") for table in (self._data, self._rejected))
        if data is None or rejected is None:
            return None
        committed = sum(map(_rows_in, data.values()))
        return committed, committed + sum(_rows_in(rejected[name]) for name in rejected.keys() - data.keys())

    def erased_by_name(self) -> Counter[str] | None:
        """How many rows were erased, by the shard or the compacted part that had them; None as for `bounds`."""
        found: Counter[str] = Counter()
        for table in (self._data, self._rejected):
            if (marks := table.transactions(ERASED)) is None:
                return None
            found.update({name.removeprefix(ERASED): count for name, count in marks.items()})
        return found

    def parts(self) -> list[Part]:
        """The parts of both tables, of the versions that everything else here is about."""
        return [*tables.parts_of(self._data), *tables.parts_of(self._rejected)]

    def commit(self, summaries: Sequence[ShardSummary]) -> int:
        """Make shards durable; return how many were not in yet."""
        if not summaries:
            return 0
        rejected = [self._append(s, s.rejected_parts, note=_note(s.parts)) for s in summaries]
        decided = {append.transaction for append in tables.append(self._rejected, rejected, REJECTED)}
        data = [self._append(s, s.parts) for s in summaries]
        late = [append.transaction for append in data if append.transaction not in decided]
        theirs = self._decided(name for name in late if self._data.transaction_version(name) is None)
        return len(tables.append(self._data, [theirs.get(own.transaction, own) for own in data], self.schema))

    def totals(self) -> Totals:
        """Counts over the tables as they are now, by this and earlier attempts of the run."""
        reasons: dict[str, int] = {}
        for batch in tables.read_batches(self.rejected_uri, ["reason"], batch_rows=65536):
            for count in batch.column("reason").value_counts().to_pylist():
                reasons[count["values"]] = reasons.get(count["values"], 0) + count["counts"]
        rows = sum(part.rows for part in tables.list_parts(self.data_uri))
        return Totals(rows, sum(reasons.values()), reasons)

    def _decided(self, transactions: Iterable[str]) -> dict[str, Append]:
        """What the rejected table's log notes of the shards' data, where all parts are still there."""
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
    """How the parts of a shard are named, before the attempt and the checksum."""
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
            f"{uri}: expected the properties of this run, found others: {', '.join(others)}; another program changed "
            "them: choose another --output"
        )
