"""The systems that live in the tests alone, made known to the processes of a cluster."""

from genre_ray.systems.system import SYSTEMS

KNOWN = {"windowed": "tests.systems.windowed", "two-tasks": "tests.systems.two_tasks"}


def register() -> None:
    """Make them known in this process."""
    SYSTEMS.update(KNOWN)
