"""Read tab-separated text with line numbers, plain or compressed by bzip2."""

import bz2
import io
from collections.abc import Iterator
from typing import NoReturn

from genre_ray.errors import InputError
from genre_ray.storage.objects import open_stream


def read_rows(uri: str) -> Iterator[tuple[int, list[str]]]:
    r"""Yield the number of each line, from 1, and its fields. Lines end with `\n` or `\r\n`.

    Raises:
        InputError: the file is not UTF-8 text, or a `.bz2` file is damaged.
        StorageError: the file does not exist or cannot be read.
    """
    number = 0
    with open_stream(uri) as stored:
        # The buffer also splits lines, which a stream from an object store does not.
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
    """Raise an InputError that says what was expected and found in a line, and what to do."""
    raise InputError(f"{uri}, line {number}: expected {expected}, found {found}; {remedy}.")
