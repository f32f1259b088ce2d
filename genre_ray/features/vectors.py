"""From documents' bytes to their vectors and whose they are: fast where a document is in order, else the plain way.

The plain way, `parse_document` and `flatten`, defines every outcome; the compiled scanner only answers for
documents on which the two cannot differ.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from genre_ray.catalog.documents import Provenance, parse_document, provenance, stated_version
from genre_ray.features.columns import FEATURE_COLUMNS
from genre_ray.features.flatten import flatten
from genre_ray.features.scan import MARGIN, scan
from genre_ray.features.scan_fields import (
    ABSENT,
    FIELDS,
    LAYOUTS,
    LEAVES_OF_GROUP,
    SLOTS,
    VERSIONS,
    ZERO,
    first_guess,
)
from genre_ray.outcomes import Rejection

AT_ONCE = 8
"""Documents of one call: few, because a thread that reads meanwhile waits for the interpreter after each call."""

Vectors = npt.NDArray[np.float32]

_guess = first_guess()


def read_vectors(documents: Sequence[tuple[str, bytes]], vectors: Vectors) -> list[Provenance | Rejection]:
    """Fill the rows of `vectors` with the values of `FEATURE_COLUMNS`, and tell whose they are.

    Values are as `genre_ray.features.flatten.flatten` gives them. The row of a rejected document has no meaning.

    Args:
        documents: file names and contents.
        vectors: float32 (documents, 2669).
    """
    scanned = scan_vectors(documents, vectors)
    return [
        _plain_vector(*document, vector) if about is None else about
        for document, vector, about in zip(documents, vectors, scanned, strict=True)
    ]


def scan_vectors(documents: Sequence[tuple[str, bytes]], vectors: Vectors) -> list[Provenance | None]:
    """As `read_vectors`, where the compiled scanner is sure of a document; None where it is not."""
    found: list[Provenance | None] = []
    for start in range(0, len(documents), AT_ONCE):
        some = documents[start : start + AT_ONCE]
        places = _scan([payload for _, payload in some], vectors[start : start + AT_ONCE])
        for (name, payload), (layout, first, after) in zip(some, places, strict=True):
            found.append(_provenance(name, payload[first:after], layout) if layout >= 0 else None)
    return found


def warm_up() -> None:
    """Load the compiled scanner, or compile it: seconds, once for a machine and a release."""
    scan_vectors([("", b"{}")], np.empty((1, len(FEATURE_COLUMNS)), np.float32))


def _scan(payloads: Sequence[bytes], vectors: Vectors) -> list[list[int]]:
    """The layout of each document, and where its metadata are; see `genre_ray.features.scan.scan`."""
    texts = np.frombuffer(memoryview((ctypes.c_char_p * len(payloads))(*payloads)).cast("B"), np.int64)
    lengths = np.fromiter(map(len, payloads), np.int64)
    copied = np.zeros(lengths.max() + 2 * MARGIN, np.uint8)
    values = np.empty(SLOTS, np.float32)
    values[ZERO], values[ABSENT] = 0.0, np.nan
    found: list[list[int]] = scan(
        texts, lengths, copied, FIELDS, LAYOUTS, LEAVES_OF_GROUP, _guess, values, vectors
    ).tolist()
    return found


def _provenance(name: str, stored: bytes, layout: int) -> Provenance | None:
    """What a document of a layout tells about itself; None where its metadata name another."""
    try:
        metadata: Any = orjson.loads(stored)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(metadata, dict) or stated_version(metadata) is not VERSIONS[layout]:
        return None
    return provenance(name, metadata)


def _plain_vector(name: str, payload: bytes, vector: Vectors) -> Provenance | Rejection:
    document = parse_document(name, payload)
    if isinstance(document, Rejection):
        return document
    values = flatten(document)
    if isinstance(values, Rejection):
        return values
    vector[:] = values
    return document
