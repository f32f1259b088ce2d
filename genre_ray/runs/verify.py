"""Verify that tables and runs are complete and undamaged.

The log of a table contains the size and the number of rows of each part. The checksum of a part is in its name, or in
the log for compacted parts (`genre_ray.runs.compact`). Parts of other programs have no checksum. Their size, rows and
pages are checked instead, and they are counted separately.
"""

import hashlib
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from genre_ray.errors import GenreRayError, NotFoundError, StorageError
from genre_ray.runs.ledger import Ledger, shard_name
from genre_ray.runs.plan import WorkItem, read_plans
from genre_ray.storage import history, objects, tables
from genre_ray.storage.files import StoredFile
from genre_ray.storage.tables import Part
from genre_ray.storage.transactions import LOG, Table

THREADS = 4
_SHARD = re.compile(r"\d{4}-.+-\d{5,}")
"""Matches the result of `shard_name`. The name of an item is `generation-name`. Compacted parts are named `part-…`."""


@dataclass
class Finding:
    """The result of verifying one table, bundle or run. It is undamaged if `damage` is empty.

    Attributes:
        uri: the table, bundle or run.
        kind: `table`, `bundle` or `run`.
        counts: the numbers that were counted, e.g. `rows`, `parts`, `by_checksum`.
        damage: one sentence per damage.
        orphans: part files that no version of the table refers to.
        unfinished: whether one sentence in `damage` only says that the run is not complete.
    """

    uri: str
    kind: str
    counts: dict[str, Any] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    unfinished: bool = False

    @property
    def is_broken(self) -> bool:
        """Whether there is damage that a resume cannot repair."""
        return len(self.damage) > self.unfinished

    def summary(self) -> dict[str, Any]:
        """The finding as JSON values."""
        state = "damaged" if self.damage else "sound"
        return {"uri": self.uri, "kind": self.kind, "state": state, **self.counts, "orphans": len(self.orphans)}


def verify(uri: str, limit: int | None = None) -> Iterator[Finding]:
    """Verify all tables and runs in a folder.

    Args:
        uri: a table, the output of a run, or a folder that contains them.
        limit: maximum number of parts to read per table; None for all.
    """
    files = objects.list_files(uri)
    logs = roots(files, f"{LOG}/")
    for name in logs:
        yield verify_table(objects.join(uri, name) if name else uri, below(files, name), limit)
    for name in roots(files, "_run/plan-"):
        prefix = f"{name}/" if name else ""
        inside = {log.removeprefix(prefix) for log in logs if log.startswith(prefix)} - {"rejected"}
        yield verify_run(objects.join(uri, name) if name else uri, sorted(inside))


def roots(files: Sequence[StoredFile], mark: str) -> list[str]:
    """Return the folders, relative to the listed one, that contain a file whose relative name starts with `mark`."""
    found = set()
    for file in files:
        place = f"/{file.name}".find(f"/{mark}")
        if place >= 0:
            found.add(file.name[: max(place - 1, 0)])
    return sorted(found)


def below(files: Sequence[StoredFile], folder: str) -> list[StoredFile]:
    """Return the listed files inside a folder, with names relative to it."""
    prefix = f"{folder}/" if folder else ""
    return [
        StoredFile(file.uri, file.name.removeprefix(prefix), file.size, file.version)
        for file in files
        if file.name.startswith(prefix)
    ]


def verify_table(uri: str, listed: Sequence[StoredFile], limit: int | None = None) -> Finding:
    """Verify a table: compare its log with its files.

    Args:
        uri: the table.
        listed: its files, listed before the log is read, so that a new file is not taken for an orphan.
        limit: maximum number of parts to read; None for all.
    """
    finding = Finding(uri, "table")
    try:
        table = tables.open_table(uri)
        parts, named = tables.parts_of(table), history.named_parts(uri) | _promised(uri)
    except (GenreRayError, ValueError) as error:
        finding.damage.append(f"{uri}: the table's log cannot be read: {error}")
        return finding
    unnamed = (f for f in listed if f.name.endswith(".parquet") and not f.name.startswith(f"{LOG}/"))
    finding.orphans = [file.uri for file in unnamed if file.name not in named]
    checked = parts[:limit]
    recorded = recorded_checksums(table, checked)
    finding.damage += parts_damage(uri, checked, recorded)
    by_checksum = sum(part.path in recorded or history.named_checksum(part.path) is not None for part in checked)
    finding.counts = {"rows": sum(part.rows or 0 for part in parts), "parts": len(parts), "by_checksum": by_checksum}
    finding.counts["by_size_and_rows"] = len(checked) - by_checksum
    return finding


def _promised(uri: str) -> set[str]:
    """The data parts of shards of which only the rejected rows are committed. A resume will commit them."""
    rejected = objects.join(uri.rstrip("/").rpartition("/")[0] or ".", "rejected")
    return history.noted_parts(rejected) if tables.is_table(rejected) else set()


def recorded_checksums(table: Table, parts: Iterable[Part]) -> dict[str, int]:
    """Return the checksums in the table's log, by path, of parts whose names contain none."""
    unnamed = [part.path for part in parts if history.named_checksum(part.path) is None]
    versions = {path: table.transaction_version(history.checksum_mark(path)) for path in unnamed}
    return {path: version for path, version in versions.items() if version is not None}


def parts_damage(uri: str, parts: Sequence[Part], recorded: Mapping[str, int]) -> list[str]:
    """Return a sentence for each part that differs from the log or from its checksum."""
    with ThreadPoolExecutor(THREADS) as pool:
        damage = list(pool.map(lambda part: _part_damage(uri, part, recorded.get(part.path)), parts))
    return [f"{objects.join(uri, part.path)}: {why}" for part, why in zip(parts, damage, strict=True) if why]


def _part_damage(uri: str, part: Part, recorded: int | None) -> str | None:
    try:
        content = objects.read_bytes(objects.join(uri, part.path))
    except NotFoundError:
        return "missing"
    except StorageError as error:
        return f"unreadable: {error}"
    if len(content) != part.size:
        return f"expected {part.size} bytes, found {len(content)}"
    named = history.named_checksum(part.path)
    if named is not None and hashlib.sha256(content).hexdigest()[:32] != named:
        return f"changed: its SHA-256 does not start with {named}"
    if recorded is not None and history.checksum(content) != recorded:
        return "changed: its SHA-256 differs from the one in the log"
    try:
        parquet = pq.ParquetFile(pa.BufferReader(content))
        by_checksum = named is not None or recorded is not None
        batches = () if by_checksum else parquet.iter_batches(batch_size=tables.ROW_GROUP_ROWS)
        rows = parquet.metadata.num_rows if by_checksum else sum(batch.num_rows for batch in batches)
    except (pa.ArrowException, OSError) as error:
        return f"not a valid Parquet file: {error}"
    return None if rows == part.rows else f"expected {part.rows} rows, found {rows}"


def verify_run(output: str, names: Sequence[str]) -> Finding:
    """Verify a run: every shard of the plan is committed once, with the number of rows that the log states.

    If compaction merged parts of several shards, only the total number of rows of both tables is compared.

    Args:
        output: the output of the run.
        names: the tables in it, except for the rejected table. A run has one.
    """
    finding = Finding(output, "run")
    if len(names) != 1:
        found = ", ".join(names) or "none"
        finding.damage.append(f"{output}: expected one table besides the rejected table, found {found}")
        return finding
    try:
        ledger, plans = Ledger.open(output, names[0]), read_plans(output)
        finding.counts = {"run_id": ledger.run, "items": 0, "shards": 0, "items_left": 0}
        stated: dict[str, int] = {}
        for item, size in ((item, plan.rows_per_shard) for plan in plans for item in plan.items()):
            shards, complete = ledger.progress(item.name)
            finding.counts["items"] += 1
            finding.counts["shards"] += shards
            finding.counts["items_left"] += not complete
            rows_in = [ledger.rows_in(item.name, index) or 0 for index in range(shards)]
            finding.damage += _statement_damage(output, item, size, rows_in, complete)
            stated |= {shard_name(item.name, index): count for index, count in enumerate(rows_in)}
        finding.counts["rows_of_shards"], damage = _rows_damage(ledger, stated)
        finding.damage += damage
    except (GenreRayError, ValueError, KeyError) as error:
        finding.damage.append(f"{output}: the run's tables or plans cannot be read: {error}")
        return finding
    if finding.counts["items_left"]:
        finding.damage.append(
            f"{output}: {finding.counts['items_left']} work items are not complete; continue the run with --resume"
        )
        finding.unfinished = True
    return finding


def old_orphans(finding: Finding, age_days: float) -> list[str]:
    """Return the orphans that are older than `age_days`, which no running job will commit any more."""
    latest = time.time() - age_days * 86400
    return [uri for uri in finding.orphans if (written := objects.modified_s(uri)) is not None and written <= latest]


def _statement_damage(
    output: str, item: WorkItem, rows_per_shard: int, rows_in: Sequence[int], complete: bool
) -> Iterator[str]:
    """Yield what is wrong with the numbers of rows that the log states for the shards of an item."""
    for index, count in enumerate(rows_in):
        if count > rows_per_shard:
            shard = shard_name(item.name, index)
            yield f"{output}: shard {shard}: expected at most {rows_per_shard} rows, the log states {count}"
    if complete and item.is_counted and sum(rows_in) != item.rows:
        yield f"{output}: item {item.name}: expected {item.rows} rows, the log states {sum(rows_in)}"


def _rows_damage(ledger: Ledger, stated: Mapping[str, int]) -> tuple[str, list[str]]:
    """Compare the numbers of rows in the parts of a run with those in its log.

    Args:
        ledger: the ledger of the run.
        stated: number of rows of each committed shard, by the log.

    Returns:
        How they were compared, and what is wrong.
    """
    by_shard: Counter[str] = Counter()
    others = []  # rows of parts that contain several shards
    for part in ledger.parts():
        name = history.shard_of(part.path)
        if _SHARD.fullmatch(name) and history.named_checksum(part.path) is not None:
            by_shard[name] += part.rows
        else:
            others.append(part.rows)
    erased = ledger.erased_by_name()
    erased_of_others = sum(count for name, count in (erased or {}).items() if not _SHARD.fullmatch(name))
    compacted = bool(others or erased_of_others)
    damage: list[str] = []
    for shard in sorted(stated.keys() | by_shard.keys()):
        found = by_shard[shard] + ledger.erased(shard)
        fewest, most = (stated[shard],) * 2 if shard in stated else (0, _rows_of_uncommitted(ledger, shard))
        # A shard without its own part may be in a compacted part.
        if found > most or (found < fewest and not compacted):
            damage.append(f"{ledger.output}: shard {shard}: {_expected(fewest, most)}, found {found}")
    if not compacted:
        return "checked", damage
    bounds = ledger.bounds()
    if None in others or bounds is None or erased is None:
        return "unknown, another program wrote parts or checkpoints", damage
    found = by_shard.total() + sum(others) + erased.total()
    if not bounds[0] <= found <= bounds[1]:
        damage.append(f"{ledger.output}: {_expected(*bounds)} in both tables, found {found}")
    return "checked in total, parts were compacted", damage


def _rows_of_uncommitted(ledger: Ledger, shard: str) -> int:
    """The maximum number of rows of a shard that the plan does not count as committed."""
    item, _, index = shard.rpartition("-")
    return ledger.rows_in(item, int(index)) or ledger.rows_to_commit(item, int(index))


def _expected(fewest: int, most: int) -> str:
    count = str(most) if fewest == most else f"{fewest} to {most}"
    return f"expected {count} rows (accepted, rejected or erased)"
