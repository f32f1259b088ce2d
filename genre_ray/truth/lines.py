"""Tab-separated text with line numbers, plain or bzip2: what ground truths and runs are written in."""

import bz2
import io
from collections.abc import Iterator
from typing import NoReturn

from genre_ray.errors import InputError
from genre_ray.storage.objects import open_stream


def read_rows(uri: str) -> Iterator[tuple[int, list[str]]]:
    """The lines of the file as fields, numbered from 1; they end as on Unix or on Windows.

    Raises:
        InputError: the file is not UTF-8 text, or is not whole, valid bzip2 where its name says so.
        StorageError: it is not there or cannot be read.
    """
    number = 0
    with open_stream(uri) as stored:
        # Buffered for its lines, too: a stream from an object store has none.
        stream = io.BufferedReader(bz2.BZ2File(stored) if uri.lower().endswith(".bz2") else stored)  # type: ignore[type-var]
        try:
            for number, line in enumerate(stream, start=1):
                yield number, line.decode("utf-8").removesuffix("\n").removesuffix("\r").split("\t")
        except UnicodeDecodeError as error:
            found = f"byte 0x{error.object[error.start]:02x} at {error.start}"
            refuse(uri, number, "UTF-8", found, "convert the file to UTF-8")
        except EOFError:
            refuse(uri, number, "a whole bzip2 file", "that it ends early", "copy the file again")
        except OSError as error:
            refuse(uri, number, "a readable file", str(error), "copy the file again")


def refuse(uri: str, number: int, expected: str, found: str, remedy: str) -> NoReturn:
    """Raise the InputError for a line."""
    raise InputError(f"{uri}, line {number}: expected {expected}, found {found}; {remedy}.")
