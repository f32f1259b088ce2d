"""Which of a system's tasks an epoch trains."""

from collections.abc import Callable

import numpy as np

TASK = 4
"""What is drawn, as a part of a seed: the numbers below it are drawn by `training.order`."""

TaskRule = Callable[[int, int, int], int]
"""(number of tasks, epoch, seed) → the place of the task that the epoch trains."""


def draw_at_random(tasks: int, epoch: int, seed: int) -> int:
    """Draw each task with the same probability, independently for each epoch (Kim, Won, Serra and Liem 2018)."""
    return int(np.random.SeedSequence((seed, epoch, TASK)).generate_state(1)[0] % tasks)


def take_turns(tasks: int, epoch: int, seed: int) -> int:
    """Take the tasks one after the other."""
    return epoch % tasks
