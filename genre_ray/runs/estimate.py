"""What a run would do and how long it would take, from a few rows that are read and computed but not written."""

import time
from collections.abc import Iterator, Sequence

from genre_ray.config import Execution
from genre_ray.runs.execute import Source, Step
from genre_ray.runs.plan import WorkItem

SAMPLE_ROWS = 256


def describe(items: Sequence[WorkItem], source: Source, step: Step, execution: Execution) -> Iterator[str]:
    """Say, a line each, what the work items are and how long they take.

    The time is that of one worker's reading and computing, divided by the workers; starting Ray is not in it.
    """
    size = sum(file.size for item in items for file in item.files)
    yield f"dry run: {len(items)} work items, {sum(len(item.files) for item in items)} inputs, {size / 2**20:.1f} MiB"
    for item in items[:10]:
        yield f"  {item.name}: {item.kind}, {item.files[0].uri}" + (" …" if len(item.files) > 1 else "")
    if len(items) > 10:
        yield f"  … and {len(items) - 10} more"
    rows, seconds = _measure(items, source, step)
    if rows:
        each = f"{1000 * seconds / rows:.2f} ms a row on one worker, measured on {rows} rows"
        known = [item.rows or len(item.files) for item in items if item.kind == "documents" or item.rows]
        if len(known) == len(items):
            total = sum(known) * seconds / rows / (execution.workers or 1)
            yield f"{each}; about {total:.0f} s for {sum(known)} rows with {execution.workers or 1} workers"
        else:
            yield f"{each}; how many rows an archive or a part holds is known when it is read"


def _measure(items: Sequence[WorkItem], source: Source, step: Step) -> tuple[int, float]:
    rows, started = 0, 0.0
    for item in items:
        for _, chunk in source.read(item, execution_rows := 10**9, 0):
            if not started:
                step(chunk)
                started = time.monotonic()
                continue
            step(chunk)
            rows += len(chunk)
            if rows >= SAMPLE_ROWS:
                return rows, time.monotonic() - started
        del execution_rows
    return rows, time.monotonic() - started if started else 0.0
