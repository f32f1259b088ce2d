"""Whether tables, bundles and runs at rest are what they were when they were written.

A part's name carries its checksum, the log its size and rows. Parts that another program rewrote have no checksum:
their size, rows and pages are checked, and they are counted apart.
"""

import hashlib
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from genre_ray.errors import GenreRayError, NotFoundError, StorageError
from genre_ray.runs.ledger import Ledger
from genre_ray.runs.plan import WorkItem, read_plans
from genre_ray.storage import bundles, history, objects, tables
from genre_ray.storage.history import shard_of
from genre_ray.storage.objects import StoredFile
from genre_ray.storage.tables import Part
from genre_ray.storage.transactions import LOG

THREADS = 4
_CHECKSUM = re.compile(r"-[0-9a-f]{12}-([0-9a-f]{32})\.parquet$")


@dataclass
class Finding:
    """What was found about one table, bundle or run; it is sound when there is no `damage`.

    Attributes:
        uri: what was looked at.
        kind: table, bundle or run.
        counts: what was counted, e.g. `rows`, `parts`, `by_checksum`.
        damage: a sentence each.
        orphans: files that no version names.
    """

    uri: str
    kind: str
    counts: dict[str, Any] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """The finding as plain JSON values."""
        state = "damaged" if self.damage else "sound"
        return {"uri": self.uri, "kind": self.kind, "state": state, **self.counts, "orphans": len(self.orphans)}


def verify(uri: str, limit: int | None = None) -> Iterator[Finding]:
    """Check every table, bundle and run at or below `uri`.

    Args:
        uri: a table, a bundle, a run's output or a folder with any of them.
        limit: read only so many parts of each table.
    """
    files = objects.list_files(uri)
    logs = roots(files, f"{LOG}/")
    for name in logs:
        yield verify_table(objects.join(uri, name) if name else uri, below(files, name), limit)
    for name in roots(files, bundles.MODEL):
        yield verify_bundle(objects.join(uri, name) if name else uri)
    for name in roots(files, "_run/plan-"):
        prefix = f"{name}/" if name else ""
        inside = {log.removeprefix(prefix) for log in logs if log.startswith(prefix)} - {"rejected"}
        yield verify_run(objects.join(uri, name) if name else uri, sorted(inside))


def roots(files: Sequence[StoredFile], mark: str) -> list[str]:
    """The folders, relative to what was listed, that have a file whose name there begins with `mark`."""
    found = set()
    for file in files:
        place = f"/{file.name}".find(f"/{mark}")
        if place >= 0 and (mark != bundles.MODEL or file.name.endswith(mark)):
            found.add(file.name[: max(place - 1, 0)])
    return sorted(found)


def below(files: Sequence[StoredFile], folder: str) -> list[StoredFile]:
    """The files below a folder of the listing, with names relative to it."""
    prefix = f"{folder}/" if folder else ""
    return [
        StoredFile(file.uri, file.name.removeprefix(prefix), file.size, file.version)
        for file in files
        if file.name.startswith(prefix)
    ]


def verify_table(uri: str, listed: Sequence[StoredFile], limit: int | None = None) -> Finding:
    """Compare a table's log with the files that were listed before it is read."""
    finding = Finding(uri, "table")
    try:
        parts, named = tables.list_parts(uri), history.named_parts(uri) | _promised(uri)
    except (GenreRayError, ValueError) as error:
        finding.damage.append(f"{uri}: expected a readable log, found: {error}")
        return finding
    unnamed = (f for f in listed if f.name.endswith(".parquet") and not f.name.startswith(f"{LOG}/"))
    finding.orphans = [file.uri for file in unnamed if file.name not in named]
    checked = parts[:limit]
    with ThreadPoolExecutor(THREADS) as pool:
        damage = list(pool.map(lambda part: _part_damage(uri, part), checked))
    found = zip(checked, damage, strict=True)
    finding.damage += [f"{objects.join(uri, part.path)}: {why}" for part, why in found if why]
    by_checksum = sum(_CHECKSUM.search(part.path) is not None for part in checked)
    finding.counts = {"rows": sum(part.rows or 0 for part in parts), "parts": len(parts), "by_checksum": by_checksum}
    finding.counts["by_size_and_rows"] = len(checked) - by_checksum
    return finding


def _promised(uri: str) -> set[str]:
    """Parts of a shard whose rejected rows are in and whose data a resume will commit."""
    rejected = objects.join(uri.rstrip("/").rpartition("/")[0] or ".", "rejected")
    return history.noted_parts(rejected) if tables.is_table(rejected) else set()


def _part_damage(uri: str, part: Part) -> str | None:
    try:
        content = objects.read_bytes(objects.join(uri, part.path))
    except NotFoundError:
        return "missing"
    except StorageError as error:
        return f"unreadable: {error}"
    if len(content) != part.size:
        return f"expected {part.size} bytes, found {len(content)}"
    named = _CHECKSUM.search(part.path)
    if named and hashlib.sha256(content).hexdigest()[:32] != named[1]:
        return f"altered: expected a SHA-256 that begins with {named[1]}"
    try:
        parquet = pq.ParquetFile(pa.BufferReader(content))
        rows = sum(batch.num_rows for batch in parquet.iter_batches()) if not named else parquet.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        return f"expected Parquet, found: {error}"
    return None if rows == part.rows else f"expected {part.rows} rows, found {rows}"


def verify_bundle(uri: str) -> Finding:
    """Compare a bundle's files with the checksums in its description."""
    finding = Finding(uri, "bundle")
    try:
        finding.counts["bundle_id"], model = bundles.read_model(uri)
    except GenreRayError as error:
        finding.damage.append(str(error))
        return finding
    for name in sorted({bundles.WEIGHTS, bundles.EXAMPLES, bundles.CARD} | set(model["sha256"])):
        try:
            bundles.read_file(uri, name, model)
        except GenreRayError as error:
            finding.damage.append(str(error))
    return finding


def verify_run(output: str, names: Sequence[str]) -> Finding:
    """Check the law of a run: every shard of the plan is in, each once, and no row of it is missing.

    Args:
        output: the run's.
        names: the tables in it, but for the rejected one: a run has one.
    """
    finding = Finding(output, "run")
    if len(names) != 1:
        found = ", ".join(names) or "none"
        finding.damage.append(f"{output}: expected one table beside the rejected one, found {found}")
        return finding
    try:
        ledger, plans = Ledger.open(output, names[0]), read_plans(output)
        rows = _rows_per_shard(ledger)
        finding.counts = {"run_id": ledger.run, "items": 0, "shards": 0, "items_left": 0}
        for item, size in ((item, plan.rows_per_shard) for plan in plans for item in plan.items()):
            shards, complete = ledger.progress(item.name)
            finding.counts["items"] += 1
            finding.counts["shards"] += shards
            finding.counts["items_left"] += not complete
            if rows is not None:
                finding.damage += _shard_damage(ledger, item, shards, complete, size, rows)
        finding.counts["rows_of_shards"] = "checked" if rows is not None else "unknown, parts were rewritten elsewhere"
    except (GenreRayError, ValueError, KeyError) as error:
        finding.damage.append(f"{output}: expected a run's tables and plan, found: {error}")
        return finding
    if finding.counts["items_left"]:
        finding.damage.append(f"{output}: {finding.counts['items_left']} work items are not complete; --resume the run")
    return finding


def old_orphans(finding: Finding, age_days: float) -> list[str]:
    """The orphans that no live run can still commit: those that were written more than `age_days` ago."""
    latest = time.time() - age_days * 86400
    return [uri for uri in finding.orphans if (written := objects.modified_s(uri)) is not None and written <= latest]


def _rows_per_shard(ledger: Ledger) -> Counter[str] | None:
    """Rows that the logs name for each shard; None when parts have names that do not tell their shard."""
    found: Counter[str] = Counter()
    for uri in (ledger.data_uri, ledger.rejected_uri):
        for part in tables.list_parts(uri):
            if not _CHECKSUM.search(part.path):
                return None
            found[shard_of(part.path)] += part.rows
    return found


def _shard_damage(
    ledger: Ledger, item: WorkItem, shards: int, complete: bool, size: int, rows: Counter[str]
) -> Iterator[str]:
    total = 0
    for index in range(shards):
        shard = f"{item.name}-{index:05d}"
        found = rows[shard] + ledger.erased(shard)
        total += found
        is_last = complete and index == shards - 1
        if found > size or (found < size and not is_last):
            yield f"{ledger.output}: shard {shard}: expected {size} rows kept, rejected or erased, found {found}"
    expected = item.rows if item.kind == "table" else len(item.files) if item.kind == "documents" else None
    if complete and expected is not None and total != expected:
        yield f"{ledger.output}: item {item.name}: expected {expected} rows kept, rejected or erased, found {total}"
