"""What a run would do and how long it would take, from a few rows that are read and computed but not written."""

import time
from collections.abc import Iterator, Sequence
from itertools import islice

from genre_ray.config import Execution
from genre_ray.runs.plan import WorkItem
from genre_ray.runs.worker import Chunk, Source, Step

SAMPLE_ROWS = 256
SHOWN_ITEMS = 10


def describe(items: Sequence[WorkItem], source: Source, step: Step, execution: Execution) -> Iterator[str]:
    """Say, a line each, what the work items are and how long they take.

    The time is that of reading and computing, measured here on one process; starting Ray and writing are not in it.
    """
    size = sum(file.size for item in items for file in item.files)
    yield f"dry run: {len(items)} work items, {sum(len(item.files) for item in items)} inputs, {size / 2**20:.1f} MiB"
    for item in items[:SHOWN_ITEMS]:
        yield f"  {item.name}: {item.kind}, {item.files[0].uri}" + (" …" if len(item.files) > 1 else "")
    if len(items) > SHOWN_ITEMS:
        yield f"  … and {len(items) - SHOWN_ITEMS} more"
    rows, seconds = _measure(items, source, step)
    if not rows:
        yield "no rows were found to measure"
        return
    yield f"{1000 * seconds / rows:.2f} ms a row to read and compute, measured here on {rows} rows"
    unknown = sum(item.kind == "archive" for item in items)
    if unknown:
        yield f"no estimate of the whole: how many rows an archive holds is known when it is read ({unknown} archives)"
        return
    total = sum(_rows(item) for item in items)
    workers = min(execution.workers or 1, len(items))
    yield f"about {total * seconds / rows / workers:.1f} s for {total} rows on {workers} of such workers"


def _rows(item: WorkItem) -> int:
    """The rows of an item that is no archive: a table's part says how many it has, a file is one."""
    return len(item.files) if item.rows is None else item.rows


def _measure(items: Sequence[WorkItem], source: Source, step: Step) -> tuple[int, float]:
    """(rows, seconds) over the first rows, after a chunk of them that only warms up: a step loads its model then."""

    def chunks() -> Iterator[Chunk]:
        return (chunk for item in items for _, chunk in source.read(item, SAMPLE_ROWS, 0))

    for chunk in islice(chunks(), 1):
        step(chunk)
    rows, started = 0, time.monotonic()
    for chunk in chunks():
        step(chunk)
        rows += len(chunk)
        if rows >= SAMPLE_ROWS:
            break
    return rows, time.monotonic() - started
