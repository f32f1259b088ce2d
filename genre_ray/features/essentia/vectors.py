"""Convert the bytes of documents to feature vectors and provenances.

`parse_document` and `flatten` define the result of every document. A compiled scanner is faster. It is used for a
document only if it certainly gives the same result; otherwise the document goes through `parse_document` and `flatten`.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from genre_ray.features.essentia.columns import FEATURE_COLUMNS
from genre_ray.features.essentia.flatten import flatten
from genre_ray.features.essentia.scan.fields import (
    ABSENT,
    FIELDS,
    LAYOUTS,
    LEAVES_OF_GROUP,
    SLOTS,
    VERSIONS,
    ZERO,
    first_guess,
)
from genre_ray.features.essentia.scan.scanner import MARGIN, scan
from genre_ray.outcomes import Rejection
from genre_ray.sources.documents.parse import Provenance, parse_document, provenance, stated_version

AT_ONCE = 8
"""Documents per call of the scanner. Few, because a prefetching thread can run Python code only between calls."""

Vectors = npt.NDArray[np.float32]
Payloads: TypeAlias = pa.LargeBinaryArray

_guess = first_guess()


def read_vectors(names: Sequence[str], payloads: Payloads, vectors: Vectors) -> list[Provenance | Rejection]:
    """Write the feature vectors of documents to `vectors`, and return their provenances.

    Values are equal to those of `genre_ray.features.essentia.flatten.flatten`.

    Args:
        names: file names, (documents,).
        payloads: contents, (documents,); they are not copied.
        vectors: float32 (documents, 2669), overwritten. The row of a rejected document is undefined.

    Returns:
        The provenance of each document, or why it is rejected, (documents,).
    """
    scanned = scan_vectors(names, payloads, vectors)
    return [
        _plain_vector(name, payloads[place].as_py() or b"", vectors[place]) if about is None else about
        for place, (name, about) in enumerate(zip(names, scanned, strict=True))
    ]


def scan_vectors(names: Sequence[str], payloads: Payloads, vectors: Vectors) -> list[Provenance | None]:
    """Like `read_vectors`, but only with the compiled scanner; None for a document that the scanner is unsure about."""
    if not len(payloads):
        return []
    _, stored_offsets, content = payloads.buffers()
    offsets = np.frombuffer(stored_offsets, np.int64)[payloads.offset : payloads.offset + len(payloads) + 1]
    starts, lengths = offsets[:-1], np.diff(offsets)
    # An array in which all contents are empty may have no data buffer.
    content = pa.py_buffer(b"") if content is None else content
    copied = np.zeros(lengths.max() + 2 * MARGIN, np.uint8)
    values = np.empty(SLOTS, np.float32)
    values[ZERO], values[ABSENT] = 0.0, np.nan
    found: list[Provenance | None] = []
    for begin in range(0, len(names), AT_ONCE):
        some = slice(begin, begin + AT_ONCE)
        addresses = content.address + starts[some]
        places = scan(
            addresses, lengths[some], copied, FIELDS, LAYOUTS, LEAVES_OF_GROUP, _guess, values, vectors[some]
        ).tolist()
        for name, start, (layout, first, after) in zip(names[some], starts[some].tolist(), places, strict=True):
            metadata = content[start + first : start + after] if layout >= 0 else None
            found.append(None if metadata is None else _provenance(name, memoryview(metadata), layout))
    return found


def warm_up() -> None:
    """Load the compiled scanner. The first process on a machine compiles it, which takes some seconds."""
    scan_vectors([""], pa.array([b"{}"], pa.large_binary()), np.empty((1, len(FEATURE_COLUMNS)), np.float32))


def _provenance(name: str, stored: memoryview, layout: int) -> Provenance | None:
    """Read a document's provenance from its metadata; None if the metadata state another version than its layout."""
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
