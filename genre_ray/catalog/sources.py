"""Documents as a source of rows: folders, single files and archives, listed once and read as streams.

Guarantees: everything found is a row, good or not, in an order that does not change; reading from a later
shard on walks over what came before without parsing it.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from genre_ray.catalog.rejection import Reason, Rejection
from genre_ray.errors import ConfigurationError, InputError, NotFoundError
from genre_ray.runs.plan import WorkItem
from genre_ray.storage import objects
from genre_ray.storage.objects import StoredFile

if TYPE_CHECKING:
    from ray.data import Dataset

logger = logging.getLogger(__name__)

CHUNK_DOCUMENTS = 64
FILES_PER_ITEM = 256

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

    def list_inputs(self) -> list[StoredFile]:
        """The archives and documents, sorted by address.

        Raises:
            InputError: an input has none.
        """
        listed: dict[str, StoredFile] = {}
        for uri in self.inputs:
            files = objects.list_files(uri)
            wanted = [file for file in files if is_archive(file.name) or is_document(file.name)]
            others = Counter(PurePosixPath(file.name).suffix or file.name for file in files if file not in wanted)
            if not wanted:
                found = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5)) or "nothing"
                raise InputError(
                    f"{uri}: expected documents (.json) or archives of them (.tar, .tar.gz, .tar.bz2, .tar.zst), "
                    f"found {found}; check the address"
                )
            if others:
                logger.info("%s: passing over %d files that are no documents or archives", uri, others.total())
            listed |= {file.uri: file for file in wanted}
        return sorted(listed.values(), key=lambda file: file.uri)

    def cut(self, files: Sequence[StoredFile], rows_per_shard: int) -> list[WorkItem]:
        """One work item an archive, and groups of single documents."""
        archives = [file for file in files if is_archive(file.name)]
        documents = [file for file in files if not is_archive(file.name)][: self.limit]
        items = [WorkItem(f"a{n:06d}", "archive", (file,), self.limit) for n, file in enumerate(archives)]
        size = min(rows_per_shard, max(FILES_PER_ITEM, -(-len(documents) // 8)))
        groups = [tuple(documents[start : start + size]) for start in range(0, len(documents), size)]
        return items + [WorkItem(f"d{n:06d}", "documents", group) for n, group in enumerate(groups)]

    def read(self, item: WorkItem, rows_per_shard: int, first_shard: int) -> Iterator[tuple[int, Raw]]:
        """Yield (shard, up to 64 documents) from `first_shard` on."""
        first = first_shard * rows_per_shard
        rows = islice(self._documents(item, first), item.rows)
        chunk: Raw = []
        for position, document in enumerate(rows):
            if document is None or position < first:
                continue
            chunk.append(document)
            if len(chunk) == CHUNK_DOCUMENTS or (position + 1) % rows_per_shard == 0:
                yield position // rows_per_shard, chunk
                chunk = []
        if chunk:
            yield position // rows_per_shard, chunk

    def _documents(self, item: WorkItem, first: int) -> Iterator[RawDocument | None]:
        if item.kind != "archive":
            for position, file in enumerate(item.files):
                yield read_file(file.uri, self.max_document_bytes) if position >= first else None
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
    items = source.cut(source.list_inputs(), rows_per_shard=FILES_PER_ITEM)

    def rows(item: dict[str, str]) -> Iterator[dict[str, object]]:
        for _, chunk in source.read(WorkItem.from_json(item["item"]), FILES_PER_ITEM, 0):
            for document in chunk:
                payload = document.payload if isinstance(document.payload, bytes) else None
                reason = None if isinstance(document.payload, bytes) else str(document.payload.reason)
                yield {"name": document.name, "uri": document.uri, "payload": payload, "reason": reason}

    return ray.data.from_items([{"item": item.to_json()} for item in items]).flat_map(rows)
