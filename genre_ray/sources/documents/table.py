"""Build Arrow tables of documents and of rejected rows."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from genre_ray.outcomes import Outcome, Rejection, rejections
from genre_ray.sources.documents.names import identify
from genre_ray.sources.documents.raw import RawDocument

CHUNK_DOCUMENTS, CHUNK_BYTES = 64, 2**24
"""A chunk ends when it reaches either limit. Several chunks are in memory at a time, because they are prefetched."""

DOCUMENTS = pa.schema(
    [
        ("name", pa.string()),
        ("source_uri", pa.string()),
        ("recording_id", pa.string()),
        ("payload", pa.large_binary()),
    ]
)
"""The schema of documents before they are parsed: `name` is the file name, `payload` the content."""


class DocumentsBuilder:
    """Builds tables of documents and rejected rows, document by document.

    Contents are copied when they are added. This releases the archive's chunk that they refer to, and the next chunk is
    decompressed into the same memory, which is still in the CPU's cache.
    """

    def __init__(self) -> None:
        self._capacity = 0
        self._begin()

    def _begin(self) -> None:
        # The size of the last table, because growing a buffer copies it.
        self._buffer = pa.allocate_buffer(self._capacity, resizable=True)
        self._content = memoryview(self._buffer).cast("B")
        self._offsets = [0]
        self._names: list[str] = []
        self._uris: list[str] = []
        self._rejected: list[tuple[str, Rejection]] = []

    @property
    def num_rows(self) -> int:
        """Number of documents and rejected rows since the last table."""
        return len(self._names) + len(self._rejected)

    @property
    def num_bytes(self) -> int:
        """Number of bytes of the documents since the last table."""
        return self._offsets[-1]

    def add(self, document: RawDocument) -> None:
        """Add a document or a rejected row."""
        payload = document.payload
        if isinstance(payload, Rejection):
            self._rejected.append((document.uri, payload))
            return
        start = self._offsets[-1]
        end = start + len(payload)
        if end > self._capacity:
            self._grow(end)
        self._content[start:end] = payload
        self._offsets.append(end)
        self._names.append(document.name)
        self._uris.append(document.uri)

    def finish(self) -> Outcome:
        """Return the documents (schema `DOCUMENTS`) and rejected rows that were added, and start a new table."""
        content = [None, pa.py_buffer(np.array(self._offsets, np.int64)), self._buffer.slice(0, self.num_bytes)]
        columns = [
            pa.array(self._names, pa.string()),
            pa.array(self._uris, pa.string()),
            pa.array([identify(name)[0] for name in self._names], pa.string()),
            pa.Array.from_buffers(pa.large_binary(), len(self._names), content),
        ]
        outcome = Outcome(pa.Table.from_arrays(columns, schema=DOCUMENTS), rejections(self._rejected))
        self._capacity = min(self.num_bytes * 5 // 4, CHUNK_BYTES)
        self._begin()
        return outcome

    def _grow(self, needed: int) -> None:
        self._capacity = max(needed, self._capacity * 2)
        larger = pa.allocate_buffer(self._capacity, resizable=True)
        content = memoryview(larger).cast("B")
        content[: self.num_bytes] = self._content[: self.num_bytes]
        self._buffer, self._content = larger, content


def documents_outcome(rows: Iterable[RawDocument]) -> Outcome:
    """Build the table of documents (schema `DOCUMENTS`) and the table of rejected rows."""
    builder = DocumentsBuilder()
    for row in rows:
        builder.add(row)
    return builder.finish()
