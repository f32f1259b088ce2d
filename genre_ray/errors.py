"""The exceptions that genre_ray raises, with the exit code of each.

A message says what is wrong and what to do about it. A bad row does not raise an exception: it becomes a
`genre_ray.outcomes.Rejection`.
"""


class GenreRayError(Exception):
    """Base class. A job that fails with it logs the message without a traceback and exits with `exit_code`."""

    exit_code = 1


class ConfigurationError(GenreRayError):
    """The configuration or the command line is invalid."""

    exit_code = 2


class InputError(GenreRayError):
    """A whole input cannot be used, e.g. a malformed ground truth, an empty folder or a bundle for other features."""

    exit_code = 2


class OutputTakenError(GenreRayError):
    """The output already contains another run."""

    exit_code = 4


class StorageError(GenreRayError):
    """An operation on a file system or object store failed, after all retries."""


class NotFoundError(StorageError):
    """An object does not exist, or this process may not access it. It is not retried."""

    exit_code = 2
