"""Documents as a source of rows: folders, single files and archives, listed once and read as streams.

Guarantees: everything found is a row, good or not, in an order that does not change; reading from a later
shard on walks over what came before without parsing it.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from genre_ray.catalog.archives import (
    MAX_DOCUMENT_BYTES,
    MAX_EXPANSION,
    MAX_MEMBERS,
    RawDocument,
    about_archive,
    is_archive,
    is_document,
    open_regular,
    read_archive,
    read_file,
)
from genre_ray.errors import ConfigurationError, InputError, NotFoundError
from genre_ray.outcomes import Reason, Rejection
from genre_ray.runs.ahead import map_ahead
from genre_ray.runs.inventory import Inventory
from genre_ray.runs.plan import WorkItem
from genre_ray.storage import objects
from genre_ray.storage.objects import StoredFile

if TYPE_CHECKING:
    from ray.data import Dataset

logger = logging.getLogger(__name__)

CHUNK_DOCUMENTS, CHUNK_BYTES = 64, 2**24
"""A chunk ends with the document that reaches one of them: a few are held at once, read ahead."""
FILES_PER_ITEM = 256
READS_IN_FLIGHT = 16
"""Files that a worker reads at once: a store answers each in some hundredths of a second, however small it is."""

Raw = list[RawDocument]


@dataclass(frozen=True)
class DocumentSource:
    """Documents below some inputs.

    Attributes:
        inputs: folders, archives or documents, local or `s3://`.
        limit: take only so many documents from each archive, and of all single files together.
        max_document_bytes: a larger document is rejected unread.
        max_members: an archive with more members ends there, with a row that says so.
        max_expansion: so does one whose content is more than so many times its stored size.
    """

    inputs: tuple[str, ...]
    limit: int | None = None
    max_document_bytes: int = MAX_DOCUMENT_BYTES
    max_members: int = MAX_MEMBERS
    max_expansion: float = MAX_EXPANSION

    def list_inputs(self) -> Iterator[StoredFile]:
        """The archives and documents, as they are found.

        Raises:
            InputError: an input has none.
        """
        for uri in self.inputs:
            found, others = 0, Counter[str]()
            for file in objects.scan_files(uri):
                if is_archive(file.name) or is_document(file.name):
                    found += 1
                    yield file
                else:
                    others[PurePosixPath(file.name).suffix[:10] or "without a suffix"] += 1
            if not found:
                kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common(5)) or "nothing"
                raise InputError(
                    f"{uri}: expected documents (.json) or archives of them (.tar, .tar.gz, .tar.bz2, .tar.zst), "
                    f"found {kinds}; check the address"
                )
            if others:
                logger.info("%s: passing over %d files that are no documents or archives", uri, others.total())

    def cut(self, files: Iterable[StoredFile], rows_per_shard: int) -> Iterator[WorkItem]:
        """One work item an archive, and groups of single documents that grow with how many came before."""
        archives = documents = groups = 0
        group: list[StoredFile] = []
        for file in files:
            if is_archive(file.name):
                yield WorkItem(f"a{archives:06d}", "archive", (file,), self.limit)
                archives += 1
            elif self.limit is None or documents + len(group) < self.limit:
                group.append(file)
                if len(group) >= min(rows_per_shard, max(FILES_PER_ITEM, documents // 8)):
                    yield WorkItem(f"d{groups:06d}", "documents", tuple(group))
                    groups, documents, group = groups + 1, documents + len(group), []
        if group:
            yield WorkItem(f"d{groups:06d}", "documents", tuple(group))

    def read(self, item: WorkItem, rows_per_shard: int, first_shard: int) -> Iterator[tuple[int, Raw]]:
        """Yield (shard, up to 64 documents) from `first_shard` on."""
        first = first_shard * rows_per_shard
        rows = islice(self._documents(item, first), item.rows)
        chunk: Raw = []
        size = 0
        for position, document in enumerate(rows):
            if document is None or position < first:
                continue
            chunk.append(document)
            size += len(document.payload) if isinstance(document.payload, bytes) else 0
            if len(chunk) == CHUNK_DOCUMENTS or size >= CHUNK_BYTES or (position + 1) % rows_per_shard == 0:
                yield position // rows_per_shard, chunk
                chunk, size = [], 0
        if chunk:
            yield position // rows_per_shard, chunk

    def _documents(self, item: WorkItem, first: int) -> Iterator[RawDocument | None]:
        if item.kind != "archive":
            yield from (None for _ in item.files[:first])
            read = partial(read_file, max_document_bytes=self.max_document_bytes)
            yield from map_ahead(read, (file.uri for file in item.files[first:]), READS_IN_FLIGHT)
            return
        (archive,) = item.files
        try:
            opened = open_regular(archive.uri)
        except NotFoundError as error:
            yield about_archive(archive.uri, Rejection(Reason.ARCHIVE_UNREADABLE, f"expected a tar archive: {error}"))
            return
        with opened as stream:
            yield from read_archive(
                stream,
                archive.uri,
                max_document_bytes=self.max_document_bytes,
                max_members=self.max_members,
                max_expansion=self.max_expansion,
                wanted=lambda position: position >= first,
            )


def refuse_output_among(inputs: Sequence[str], output: str) -> None:
    """Refuse an output below an input: a later listing would take the run's own files for documents.

    Raises:
        ConfigurationError: names the input.
    """
    for uri in inputs:
        if f"{objects.absolute(output)}/".startswith(f"{objects.absolute(uri).rstrip('/')}/"):
            raise ConfigurationError(
                f"expected an output outside of the inputs, found {output} inside of {uri}; choose another --output"
            )


def read_documents(*inputs: str) -> "Dataset":
    """The documents below `inputs` as they are stored: `name`, `uri`, `payload` (null where there is none), `reason`.

    For people who chain steps of their own; the jobs read through `DocumentSource`.
    """
    import ray.data

    source = DocumentSource(inputs)
    with Inventory(source.list_inputs()) as files:
        items = [{"item": item.to_json()} for item in source.cut(files, rows_per_shard=FILES_PER_ITEM)]

    def rows(item: dict[str, str]) -> Iterator[dict[str, object]]:
        for _, chunk in source.read(WorkItem.from_json(item["item"]), FILES_PER_ITEM, 0):
            for document in chunk:
                payload = document.payload if isinstance(document.payload, bytes) else None
                reason = None if isinstance(document.payload, bytes) else str(document.payload.reason)
                yield {"name": document.name, "uri": document.uri, "payload": payload, "reason": reason}

    return ray.data.from_items(items).flat_map(rows)
