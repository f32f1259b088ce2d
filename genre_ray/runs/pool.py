"""Workers on Ray, each an actor: a task goes to whichever is free, and what tasks yield comes as they yield it.

Ray Data has such pools too, but what it is for is blocks, and here rows never travel: it costs every run the seconds in
which drivers and workers import it, and in which it plans.

A worker that dies is started again by Ray, which repeats its task from the start and knows what the task yields from
what it yielded before by nothing but its place. Ray does so without end.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray import ObjectRefGenerator

from genre_ray.runs.ahead import read_ahead

WITHOUT_END = -1
TOLD_AHEAD = 10_000
"""Outcomes that may wait for the driver; more of them wait in Ray."""


@contextmanager
def outcomes(
    worker: type, settings: dict[str, Any], tasks: Sequence[Any], *, size: int, cpus: float, gpus: float
) -> Iterator[Iterator[Any]]:
    """What `worker(**settings).outcomes(task)` yields, for every task, while the block runs; all workers end with it.

    Args:
        worker: a class with a method `outcomes`, a generator of small values.
        settings: the arguments of its constructor.
        tasks: what `outcomes` takes, small values.
        size: workers to ask for; the first that there is room for begins.
        cpus: CPUs that Ray reserves for each.
        gpus: GPUs likewise.
    """
    needs = {"num_cpus": cpus, "num_gpus": gpus}
    actor: Any = ray.remote(worker).options(**needs, max_restarts=WITHOUT_END, max_task_retries=WITHOUT_END)
    workers: list[Any] = [actor.remote(**settings) for _ in range(size)]
    # In a thread: who takes the outcomes stops for every commit, and a worker that is free must not wait for that.
    with read_ahead(_dispatched(workers, tasks), TOLD_AHEAD) as told:
        try:
            yield told
        finally:
            for each in workers:
                ray.kill(each)


def _dispatched(workers: Sequence[Any], tasks: Sequence[Any]) -> Iterator[Any]:
    waiting, unfinished = deque(tasks), len(tasks)
    # A worker that Ray has no room for never gets ready, and must have no task.
    at: dict[Any, Any] = {worker.__ray_ready__.options(max_task_retries=0).remote(): worker for worker in workers}
    while unfinished:
        (first,), _ = ray.wait(list(at), num_returns=1)
        if isinstance(first, ObjectRefGenerator):
            try:
                yield ray.get(next(first))
                continue
            except StopIteration:
                unfinished -= 1
        else:
            ray.get(first)
        worker = at.pop(first)
        if waiting:
            at[worker.outcomes.remote(waiting.popleft())] = worker
