"""The errors that genre_ray raises on purpose, and the exit code a job ends with for each.

A message says what was expected, what was found and what to do. A bad row is never an error: it is a
`genre_ray.outcomes.Rejection`.
"""


class GenreRayError(Exception):
    """Something genre_ray can explain; the job ends with `exit_code` and the message, without a traceback."""

    exit_code = 1


class ConfigurationError(GenreRayError):
    """The configuration or the arguments cannot be used."""

    exit_code = 2


class InputError(GenreRayError):
    """An input cannot be used as a whole: a malformed ground truth, an empty folder, a bundle of another schema."""

    exit_code = 2


class OutputTakenError(GenreRayError):
    """The output holds the work of another run."""

    exit_code = 4


class StorageError(GenreRayError):
    """A store refused or lost an operation after all retries."""


class NotFoundError(StorageError):
    """What is named is not there, or closed to this process, which trying again does not change."""

    exit_code = 2
