"""Estimate the time, cost, memory and output size of a run by processing a sample of its rows.

The sample is read, computed and encoded as in a run, but not written. The estimate assumes a fixed time for starting
Ray, and that workers do not slow each other down.
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
from genre_ray.runs import capacity, cluster
from genre_ray.runs.dataflow import Chain, describe_segments, outline
from genre_ray.runs.plan import WorkItem
from genre_ray.runs.stages import Compute, Resources, ShardSize, compute, open_stages
from genre_ray.storage import streams, tables

logger = logging.getLogger(__name__)

SAMPLE_ROWS, SAMPLE_ITEMS, SAMPLE_S = 512, 4, 10.0
SHOWN_ITEMS = 10

RAY_START_S = 9.0
"""Seconds to start and stop Ray and its workers on one machine, measured on two cores."""


@dataclass
class Sample:
    """The measurements of the sample. `sizes` has, per item, the rows, the bytes read, and whether the item ended."""

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
        """Total time without warming up."""
        return self.reading_s + sum(self.stages_s.values()) + self.encoding_s


@dataclass(frozen=True)
class Estimate:
    """The estimate of a run: rows, seconds, worker hours, bytes of memory per worker, and bytes of output."""

    rows: float
    seconds: float
    worker_hours: float
    worker_bytes: float
    output_bytes: float


def describe(items: Sequence[WorkItem], chain: Chain, execution: Execution) -> Iterator[str]:
    """Yield the lines of a dry run: the work items, and their estimated time, cost, memory and output size."""
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
    yield f"{each:.2f} ms per row to read, compute and encode, measured on {sample.rows} rows on this machine"
    shares = {chain.source.name: sample.reading_s, **sample.stages_s, "encode": sample.encoding_s}
    ordered = sorted(shares, key=shares.__getitem__, reverse=True)
    yield "share of this time: " + ", ".join(f"{name} {shares[name] / sample.seconds:.0%}" for name in ordered)
    yield describe_cost(foreseen, execution)
    yield f"about {foreseen.worker_bytes / 2**20:.0f} MiB of memory per worker"
    yield f"about {foreseen.output_bytes / 2**20:.1f} MiB of output"
    counted = "about " if not all(item.is_counted for item in items) else ""
    running = f"{workers} worker{'s' if workers > 1 else ''}"
    yield f"about {foreseen.seconds:.1f} s for {counted}{foreseen.rows:.0f} rows with {running} ({assumed})"


def describe_cost(foreseen: Estimate, execution: Execution) -> str:
    """Describe the hours of CPUs and GPUs, and their cost if a price is configured."""
    cores, gpus = execution.cpus_per_worker, execution.gpus_per_worker
    said = f"about {foreseen.worker_hours * cores:.3g} core-hours"
    if gpus:
        said += f" and {foreseen.worker_hours * gpus:.3g} GPU-hours"
    prices = (execution.core_hour_price, execution.gpu_hour_price)
    if prices == (None, None):
        return said
    price = foreseen.worker_hours * (cores * (prices[0] or 0) + gpus * (prices[1] or 0))
    return f"{said}, cost {price:.3g} at the configured prices"


def estimate(items: Sequence[WorkItem], sample: Sample, execution: Execution) -> Estimate:
    """Extrapolate from a sample, which must have rows, to all items."""
    rows = [_rows(item, sample) for item in items]
    total, row_s = sum(rows), sample.seconds / sample.rows
    # One worker processes an item, so the run takes at least as long as the longest item.
    working_s = max(total * row_s / worker_count(items, execution)[0], max(rows) * row_s)
    shard = min(execution.rows_per_shard, max(rows)) / sample.rows
    # A shard is in memory as several tables, as one concatenated table, and as the encoded part.
    held = shard * (2 * sample.table_bytes + sample.output_bytes)
    return Estimate(
        rows=total,
        seconds=RAY_START_S + sample.warm_up_s + working_s,
        worker_hours=total * row_s / 3600,
        worker_bytes=_resident_bytes() + held,
        output_bytes=total * sample.output_bytes / sample.rows,
    )


def worker_count(items: Sequence[WorkItem], execution: Execution) -> tuple[int, str]:
    """Return how many workers will run at the same time, and the reason in words.

    It is `execution.workers`, or as many as the cluster can run, but at most the number of work items.
    """
    if execution.workers is not None:
        workers, assumed = execution.workers, f"execution.workers is {execution.workers}"
    else:
        workers, assumed = _workers_of_cluster(Resources(execution.cpus_per_worker, execution.gpus_per_worker))
    if workers >= len(items):
        workers, assumed = len(items), "one per work item"
    return max(1, workers), assumed


def _workers_of_cluster(worker: Resources) -> tuple[int, str]:
    # A dry run joins the cluster of the job, but does not start one.
    if os.environ.get("RAY_ADDRESS"):
        try:
            cluster.connect()
        except ConnectionError as error:
            logger.warning("the cluster at RAY_ADDRESS does not respond: %s", error)
    found = capacity.possible()
    count = found.workers(worker, spare_gpus=True)
    if found.is_maximum:
        return count, f"the maximum of {found.origin}"
    return count, f"as many as {found.origin} can run now; it may grow"


def measure(items: Sequence[WorkItem], chain: Chain) -> Sample:
    """Process the first rows of a few items, after one chunk to warm up the model and the codec."""
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
    # The time after an item's last chunk counts as encoding, which is negligible.
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
    """Choose a few items, evenly spaced from the first to the last."""
    count = min(SAMPLE_ITEMS, len(items))
    return [items[number * (len(items) - 1) // max(1, count - 1)] for number in range(count)]


def _rows(item: WorkItem, sample: Sample) -> float:
    """The number of rows of an item, estimated from its size and the sample's rows per byte if it is not known."""
    if item.is_counted and item.rows is not None:
        return item.rows
    count, _, ended = sample.sizes.get(item.name, (0, 0, False))
    if ended:
        return count
    sizes = [(rows, read) for rows, read, _ in sample.sizes.values() if read]
    rows_per_byte = sum(rows for rows, _ in sizes) / max(1, sum(read for _, read in sizes))
    return min(sum(file.size for file in item.files) * rows_per_byte, item.rows or float("inf"))


def _resident_bytes() -> int:
    """The resident memory of this process, which has loaded the same code and models as a worker."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
