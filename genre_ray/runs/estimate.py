"""What a run would do, about how long, for how much money and memory, and to how many bytes, from rows that are tried.

The sample is read, computed and encoded as a run does it, but not written. What it cannot see is assumed: how long Ray
takes to start, and that workers do not hinder each other.
"""

import logging
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pyarrow as pa

from genre_ray.config import Execution
from genre_ray.outcomes import Outcome
from genre_ray.runs import cluster, resources
from genre_ray.runs.dataflow import Chain, describe_segments, outline
from genre_ray.runs.plan import WorkItem
from genre_ray.runs.stages import Compute, Resources, ShardSize, compute, open_stages
from genre_ray.storage import streams, tables

logger = logging.getLogger(__name__)

SAMPLE_ROWS, SAMPLE_ITEMS, SAMPLE_S = 512, 4, 10.0
SHOWN_ITEMS = 10

RAY_START_S = 9.0
"""Starting Ray and its workers on one machine, and ending them, measured on two cores."""


@dataclass
class Sample:
    """What the tried rows took: `sizes` are (rows, bytes read, whether the item ended) of archives."""

    rows: int = 0
    reading_s: float = 0.0
    stages_s: dict[str, float] = field(default_factory=dict)
    encoding_s: float = 0.0
    warm_up_s: float = 0.0
    table_bytes: int = 0
    output_bytes: int = 0
    sizes: dict[str, tuple[int, int, bool]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """All of it, but the warming up."""
        return self.reading_s + sum(self.stages_s.values()) + self.encoding_s


@dataclass(frozen=True)
class Estimate:
    """A run as foreseen: rows, seconds, hours of one worker, bytes of memory of each worker, bytes of output."""

    rows: float
    seconds: float
    worker_hours: float
    worker_bytes: float
    output_bytes: float


def describe(items: Sequence[WorkItem], chain: Chain, execution: Execution) -> Iterator[str]:
    """Say, a line each, what the work items are, how long they take and how large they come out."""
    size = sum(file.size for item in items for file in item.files)
    yield f"dry run: {len(items)} work items, {sum(len(item.files) for item in items)} inputs, {size / 2**20:.1f} MiB"
    for item in items[:SHOWN_ITEMS]:
        yield f"  {item.name}: {item.kind}, {item.files[0].uri}" + (" …" if len(item.files) > 1 else "")
    if len(items) > SHOWN_ITEMS:
        yield f"  … and {len(items) - SHOWN_ITEMS} more"
    yield f"chain: {describe_segments(outline(chain, execution))}"
    sample = measure(items, chain)
    if not sample.rows:
        yield "no rows were found to measure"
        return
    foreseen = estimate(items, sample, execution)
    workers, assumed = worker_count(items, execution)
    each = 1000 * sample.seconds / sample.rows
    yield f"{each:.2f} ms a row to read, compute and encode, measured here on {sample.rows} rows"
    shares = {chain.source.name: sample.reading_s, **sample.stages_s, "encode": sample.encoding_s}
    ordered = sorted(shares, key=shares.__getitem__, reverse=True)
    yield "of it " + ", ".join(f"{name} {shares[name] / sample.seconds:.0%}" for name in ordered)
    yield describe_cost(foreseen, execution)
    yield f"about {foreseen.worker_bytes / 2**20:.0f} MiB of memory for each worker"
    yield f"about {foreseen.output_bytes / 2**20:.1f} MiB of output"
    counted = "about " if any(item.kind == "archive" for item in items) else ""
    running = f"{workers} worker{'s' if workers > 1 else ''}"
    yield f"about {foreseen.seconds:.1f} s for {counted}{foreseen.rows:.0f} rows with {running} ({assumed})"


def describe_cost(foreseen: Estimate, execution: Execution) -> str:
    """The hours of CPUs and GPUs, and what they cost where a price is given."""
    cores, gpus = execution.cpus_per_worker, execution.gpus_per_worker
    said = f"about {foreseen.worker_hours * cores:.3g} core-hours"
    if gpus:
        said += f" and {foreseen.worker_hours * gpus:.3g} GPU-hours"
    prices = (execution.core_hour_price, execution.gpu_hour_price)
    if prices == (None, None):
        return said
    price = foreseen.worker_hours * (cores * (prices[0] or 0) + gpus * (prices[1] or 0))
    return f"{said}, {price:.3g} at the prices given"


def estimate(items: Sequence[WorkItem], sample: Sample, execution: Execution) -> Estimate:
    """The whole from a sample that has rows."""
    rows = [_rows(item, sample) for item in items]
    total, row_s = sum(rows), sample.seconds / sample.rows
    # An item is one worker's: the longest one bounds the run from below.
    working_s = max(total * row_s / worker_count(items, execution)[0], max(rows) * row_s)
    shard = min(execution.rows_per_shard, max(rows)) / sample.rows
    # A shard is held as tables, once more as one, and as the encoded part.
    held = shard * (2 * sample.table_bytes + sample.output_bytes)
    return Estimate(
        rows=total,
        seconds=RAY_START_S + sample.warm_up_s + working_s,
        worker_hours=total * row_s / 3600,
        worker_bytes=_resident_bytes() + held,
        output_bytes=total * sample.output_bytes / sample.rows,
    )


def worker_count(items: Sequence[WorkItem], execution: Execution) -> tuple[int, str]:
    """Return how many workers will run at the same time, and why so many.

    That is `execution.workers`, else as many as the cluster can run; but not more than there are work items.
    """
    if execution.workers is not None:
        workers, assumed = execution.workers, f"execution.workers is {execution.workers}"
    else:
        workers, assumed = _workers_of_cluster(Resources(execution.cpus_per_worker, execution.gpus_per_worker))
    if workers >= len(items):
        workers, assumed = len(items), "one per work item"
    return max(1, workers), assumed


def _workers_of_cluster(worker: Resources) -> tuple[int, str]:
    # A dry run joins the cluster that the job would run on, but starts none.
    if os.environ.get("RAY_ADDRESS"):
        try:
            cluster.connect()
        except ConnectionError as error:
            logger.warning("the cluster at RAY_ADDRESS does not answer: %s", error)
    capacity = resources.possible()
    count = capacity.workers(worker, spare_gpus=True)
    if capacity.is_maximum:
        return count, f"as many as {capacity.origin} has room for"
    return count, f"as many as {capacity.origin} has room for now; it may grow"


def measure(items: Sequence[WorkItem], chain: Chain) -> Sample:
    """Try the first rows of a few items, after a chunk that only warms up model and codec."""
    sample = Sample()
    started = time.monotonic()
    opened = open_stages(chain.stages)
    for chunk in islice((chunk for item in items for chunk in chain.source.read(item, ShardSize(SAMPLE_ROWS))), 1):
        tables.encode(compute(opened, chunk.outcome.accepted).accepted)
    sample.warm_up_s = time.monotonic() - started
    tried = _spread(items)
    for item in tried:
        _try(item, chain, opened, sample, SAMPLE_ROWS // len(tried), SAMPLE_S / len(tried))
    return sample


def _try(item: WorkItem, chain: Chain, opened: Sequence[Compute], sample: Sample, rows: int, seconds: float) -> None:
    outcomes: list[Outcome] = []
    count, ended, started = 0, True, time.monotonic()
    since = started
    with streams.metered() as meter:
        for chunk in chain.source.read(item, ShardSize(SAMPLE_ROWS)):
            sample.reading_s += time.monotonic() - since
            count += chunk.outcome.num_rows
            outcomes.append(_timed(chunk.outcome, chain, opened, sample))
            since = time.monotonic()
            if count >= rows or since - started >= seconds:
                ended = False
                break
    # What the reader of an item that ended did last is lost in what follows: it is next to nothing.
    for column in zip(*outcomes, strict=True):
        whole = pa.concat_tables(column)
        sample.table_bytes += whole.nbytes
        sample.output_bytes += tables.encode(whole).size if whole.num_rows else 0
    sample.encoding_s += time.monotonic() - since
    sample.rows += count
    sample.sizes[item.name] = (count, meter.bytes_read, ended)


def _timed(read: Outcome, chain: Chain, opened: Sequence[Compute], sample: Sample) -> Outcome:
    rows, rejected = read.accepted, [read.rejected]
    for stage, call in zip(chain.stages, opened, strict=True):
        started = time.monotonic()
        rows, more = call(rows)
        rejected.append(more)
        sample.stages_s[stage.name] = sample.stages_s.get(stage.name, 0.0) + time.monotonic() - started
    return Outcome(rows, pa.concat_tables(rejected))


def _spread(items: Sequence[WorkItem]) -> list[WorkItem]:
    """A few items, evenly from the first to the last."""
    count = min(SAMPLE_ITEMS, len(items))
    return [items[number * (len(items) - 1) // max(1, count - 1)] for number in range(count)]


def _rows(item: WorkItem, sample: Sample) -> float:
    """The rows of an item; an archive's by its size, as many for a byte as those that were tried."""
    if item.kind != "archive":
        return len(item.files) if item.rows is None else item.rows
    count, _, ended = sample.sizes.get(item.name, (0, 0, False))
    if ended:
        return count
    sizes = [(rows, read) for rows, read, _ in sample.sizes.values() if read]
    rows_per_byte = sum(rows for rows, _ in sizes) / max(1, sum(read for _, read in sizes))
    return min(sum(file.size for file in item.files) * rows_per_byte, item.rows or float("inf"))


def _resident_bytes() -> int:
    """The memory that this process holds, which has imported and loaded what a worker does."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
