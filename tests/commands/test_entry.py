"""Guards the exit code of every way in which a job can end, and that its last log line states it."""

import pytest

from genre_ray.config import JobConfiguration
from genre_ray.errors import (
    ConfigurationError,
    GenreRayError,
    InputError,
    NotFoundError,
    OutputTakenError,
    StorageError,
)


class Example(JobConfiguration):
    """A job for these tests."""


class Command:
    """A job that ends with what it is given: an exit code, or an error that it raises."""

    def __init__(self, end):
        self.end = end

    def run(self, configuration):
        if isinstance(self.end, BaseException):
            raise self.end
        return self.end


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (0, 0),
        (3, 3),
        (GenreRayError("what happened"), 1),
        (StorageError("what happened"), 1),
        (ConfigurationError("what happened"), 2),
        (InputError("what happened"), 2),
        (NotFoundError("what happened"), 2),
        (OutputTakenError("what happened"), 4),
        (SystemExit(2), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_end_and_its_code(job, end, code):
    found, log = job(Command(end), Example, "--output", "out")
    assert found == code
    assert log.splitlines()[-1].endswith(f" INFO exit code {code}")
    assert "Traceback" not in log
    assert ("what happened" in log) == isinstance(end, GenreRayError)


def test_a_fault_of_the_program_keeps_its_traceback(job):
    code, log = job(Command(ZeroDivisionError("a fault")), Example, "--output", "out")
    assert code == 1
    assert "Traceback" in log
    assert "ZeroDivisionError: a fault" in log
    assert log.splitlines()[-1].endswith(" INFO exit code 1")


def test_arguments_that_cannot_be_read_end_before_the_job_starts(job):
    code, log = job(Command(ZeroDivisionError("started")), Example, "--outptu", "out")
    assert code == 2
    assert "started" not in log
