"""Guards that every task is done once by whoever is free, and that no worker is waited for in vain."""

import os
import sys
from pathlib import Path

import pytest
import ray
import ray.cloudpickle

from genre_ray.runs import cluster, pool

# Workers cannot import a test.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Counter:
    """Tells the numbers below a task, and dies once at `fatal`."""

    def __init__(self, folder: str, fatal: int | None = None) -> None:
        if fatal is not None and fatal < 0:
            raise ValueError("a worker that cannot be made")
        self.mark, self.fatal = Path(folder) / "died", fatal

    def outcomes(self, task):
        for number in range(task):
            if number == self.fatal and not self.mark.exists():
                self.mark.touch()
                os._exit(1)
            yield (task, number)


def told(tasks, size, **settings):
    cluster.connect()
    with pool.outcomes(Counter, settings, tasks, size=size, cpus=1, gpus=0) as outcomes:
        return sorted(outcomes)


def test_more_workers_than_there_is_room_for_hold_nothing_up(ray_cluster, tmp_path):
    assert told([3, 1, 0, 4, 2], 5, folder=str(tmp_path)) == [(t, n) for t in range(5) for n in range(t)]


def test_a_task_whose_worker_died_tells_everything_once(ray_cluster, tmp_path):
    assert told([6, 2], 2, folder=str(tmp_path), fatal=4) == [(t, n) for t in (2, 6) for n in range(t)]
    assert (tmp_path / "died").exists()


def test_a_worker_that_cannot_be_made_ends_the_run(ray_cluster, tmp_path):
    with pytest.raises(ray.exceptions.RayError, match="a worker that cannot be made"):
        told([1], 1, folder=str(tmp_path), fatal=-1)


def test_what_is_not_asked_for_is_not_waited_for(ray_cluster, tmp_path):
    cluster.connect()
    tasks = [10**9, 10**9]
    with pool.outcomes(Counter, {"folder": str(tmp_path)}, tasks, size=2, cpus=1, gpus=0) as outcomes:
        assert next(outcomes)[1] == 0
