"""Functions that run as Ray tasks, for passes over data that are too large for a driver.

Where this process is connected to no cluster the calls run in it, one after the other: results are the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from genre_ray.errors import GenreRayError

T = TypeVar("T")


@dataclass(frozen=True)
class Result(Generic[T]):
    """What a task returns; an argument of another task that is a `Result` is passed without a way over the driver.

    Attributes:
        held: a reference to it in the cluster's object store, or where there is no cluster the result itself.
    """

    held: Any
    remote: bool

    def get(self) -> T:
        """Wait for the result.

        Raises:
            GenreRayError: the function raised it.
            ray.exceptions.RayError: the task failed otherwise, more often than Ray retries it.
        """
        if not self.remote:
            found: T = self.held
            return found
        try:
            found = ray.get(self.held)
        except RayTaskError as error:
            if isinstance(error.cause, GenreRayError):
                raise error.cause from None
            raise
        return found


def put(value: T) -> Result[T]:
    """A value as an argument of many tasks: it goes to the object store once."""
    return Result(ray.put(value), remote=True) if ray.is_initialized() else Result(value, remote=False)


def start(function: Callable[..., T], *arguments: Any, on_this_node: bool = False) -> Result[T]:
    """Run `function` as a task that reserves a CPU.

    Args:
        function: what to run; it can be pickled.
        arguments: its positional arguments, values or `Result`s.
        on_this_node: run it on the driver's node, whose files it reads, and reserve nothing: there may be no CPU there.
    """
    if not ray.is_initialized():
        return Result(function(*(_held(argument) for argument in arguments)), remote=False)
    options: dict[str, Any] = {}
    if on_this_node:
        node = ray.get_runtime_context().get_node_id()
        options = {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}
    task = ray.remote(function).options(**options)
    return Result(task.remote(*(_held(argument) for argument in arguments)), remote=True)


def _held(argument: Any) -> Any:
    return argument.held if isinstance(argument, Result) else argument
