"""A chain of stages as one dataset of Ray Data: which stages run together, and what their workers reserve.

Neighbours with equal resources are one segment, which moves no rows between processes. Where resources differ, pieces
of shards stream through Ray's object store, and a slow segment holds back the one before it.

A segment that is alone, or that reserves GPUs, has actors. They keep their models and take items from queues of their
own, without waiting for Ray. Any other segment has tasks: Ray shares the CPUs among such segments, whereas actors would
hold theirs until the end.
"""

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from genre_ray.config import Execution
from genre_ray.runs import resources
from genre_ray.runs.plan import RemainingWork
from genre_ray.runs.segment import Segment, Session
from genre_ray.runs.stages import Resources, Source, Stage
from genre_ray.runs.watchdog import Limits

ONE_ROW = 1
"""Bytes after which Ray hands a block on: each row, which is a piece, is a block of its own."""


ITEMS_TO_QUEUE = 4
"""Items per worker from which on an actor gets its next item before it has done the one before. Ray hands out an item
in a tenth of a second; where items are few, one that waits behind a long one would cost more than that."""

WORKERS_PER_ITEM = 4
"""How many workers the rows of one item keep busy: reading them takes at least a quarter of the time of computing."""


@dataclass(frozen=True)
class Chain:
    """Where rows come from, and what is done with them before they are written."""

    source: Source
    stages: tuple[Stage, ...]

    @property
    def schema(self) -> pa.Schema:
        """The columns of the rows that are written."""
        return self.stages[-1].schema


def segments(chain: Chain, session: Session, execution: Execution) -> list[Segment]:
    """Cut a chain into segments.

    Args:
        chain: the source and the stages.
        session: what the workers share.
        execution: says what a worker reserves where a stage does not.
    """
    default = Resources(execution.cpus_per_worker)
    groups: list[tuple[Resources, list[Stage]]] = [(default, [])]
    for stage in chain.stages:
        needs = stage.resources or default
        if needs != groups[-1][0]:
            groups.append((needs, []))
        groups[-1][1].append(stage)
    found: list[Segment] = []
    schema = chain.source.schema
    for index, (needs, stages) in enumerate(groups):
        schema = stages[-1].schema if stages else schema
        source = chain.source if index == 0 else None
        # Parts are small beside what they are made of: whoever has computed the rows writes them.
        writes = index == len(groups) - 1
        found.append(Segment(session, index, source, tuple(stages), schema, writes, needs))
    return found


def outline(chain: Chain, execution: Execution) -> list[Segment]:
    """The segments of a chain that is only looked at, not run."""
    return segments(chain, Session("", ("", "", chain.schema, ""), Limits()), execution)


def describe_segments(found: Sequence[Segment]) -> str:
    """What each segment does and what one of its workers reserves, in one line."""
    return " | ".join(f"{segment.name} ({segment.resources})" for segment in found)


def workers_of(segment: Segment, execution: Execution, items: int) -> int:
    """How many workers of a segment to have at the same time."""
    most = items if segment.source or segment.resources.gpus else WORKERS_PER_ITEM * items
    return resources.most_workers(segment.resources, execution.workers, most)


@contextmanager
def rows_written(
    parts: Sequence[Segment], remaining: Sequence[RemainingWork], execution: Execution
) -> Iterator[Iterator[dict[str, Any]]]:
    """Run the segments over the remaining work; gives the rows of `pieces.WRITTEN` as they come.

    All workers end with the block.
    """
    # Here, not above: it takes seconds to import, which a job that finds nothing to do need not wait for.
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # its import sets another level
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = ONE_ROW
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # segments have a watchdog of their own, and nodes may take long
    with ray.data.DataContext.current(context):
        work = [left._asdict() for left in remaining]
        data = ray.data.from_items(work, override_num_blocks=len(work))
        for segment in parts:
            workers = workers_of(segment, execution, len(work))
            as_actors = len(parts) == 1 or segment.resources.gpus > 0
            queue = 2 if segment.source is None or len(work) > ITEMS_TO_QUEUE * workers else 1
            data = _added(data, segment, workers, queue if as_actors else 0)
        with closing(_rows(data)) as rows:
            yield rows


def _rows(data: Any) -> Generator[dict[str, Any]]:
    batches = data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for batch in batches:
        yield from batch.to_pylist()


def _added(data: Any, segment: Segment, workers: int, queue: int) -> Any:
    """The dataset after a segment, whose workers are actors with a queue of so many inputs; tasks without one."""
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    needs: dict[str, Any] = {"num_cpus": segment.resources.cpus}
    if segment.resources.gpus:
        needs["num_gpus"] = segment.resources.gpus
    if segment.resources.memory_mib:
        needs["memory"] = segment.resources.memory_mib * 2**20
    if queue:
        # A pool does not grow from a smaller size in time, and actors that get no place hold nothing up.
        compute: Any = ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=queue)
        worker = type(segment.name, (_SegmentActor,), {})
        needs["fn_constructor_args"] = [segment]
    else:
        worker, compute = _named(segment), TaskPoolStrategy(size=workers)
    return data.map_batches(worker, batch_size=1, batch_format="pyarrow", compute=compute, **needs)


def _named(segment: Segment) -> Any:
    def run(batch: pa.Table) -> Iterator[pa.Table]:
        return segment(batch)

    # Ray shows it in its dashboard, its logs and the titles of its processes.
    run.__name__ = run.__qualname__ = segment.name
    return run


class _SegmentActor:
    """A segment whose stages stay open between calls."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        return self._segment(batch)
