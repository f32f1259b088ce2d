"""The source of documents: reads folders, single files and archives.

Guarantees: every document found becomes a row, valid or rejected, in a fixed order. Reading from a later shard skips
earlier rows without parsing them. An input that was removed or changed raises an error and never becomes a row.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import PurePosixPath

from genre_ray.errors import ConfigurationError, InputError
from genre_ray.outcomes import Reason, Rejection
from genre_ray.runs.ahead import map_ahead
from genre_ray.runs.plan import WorkItem
from genre_ray.runs.stages import Chunk, ShardCounter, ShardSize
from genre_ray.sources.documents.archives import MAX_EXPANSION, MAX_MEMBERS, about_archive, is_archive, read_archive
from genre_ray.sources.documents.files import open_planned, read_file, refused_file
from genre_ray.sources.documents.raw import MAX_DOCUMENT_BYTES, RawDocument, is_document
from genre_ray.sources.documents.table import CHUNK_BYTES, CHUNK_DOCUMENTS, DOCUMENTS, DocumentsBuilder
from genre_ray.storage import objects
from genre_ray.storage.files import MISSING, StoredFile

logger = logging.getLogger(__name__)

FILES_PER_ITEM = 256
READS_IN_FLIGHT = 16
"""Number of files that a worker reads concurrently. A store takes some 10 ms per file, however small it is."""


@dataclass(frozen=True)
class DocumentSource:
    """The documents in some folders, archives and files.

    Attributes:
        inputs: folders, archives or documents, local or `s3://`.
        limit: maximum number of documents per archive, and of all single files together.
        max_document_bytes: larger documents are rejected without reading them.
        max_members: maximum number of members per archive. More members give one rejected row.
        max_expansion: maximum ratio of an archive's content to its stored size. More content gives one rejected row.
    """

    name = "read documents"
    schema = DOCUMENTS

    inputs: tuple[str, ...]
    limit: int | None = None
    max_document_bytes: int = MAX_DOCUMENT_BYTES
    max_members: int = MAX_MEMBERS
    max_expansion: float = MAX_EXPANSION

    def list_inputs(self) -> Iterator[StoredFile]:
        """Yield the archives and documents in any order.

        Raises:
            InputError: an input contains none.
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
                    f"found {kinds}; check the path"
                )
            if others:
                logger.info("%s: ignoring %d files that are neither documents nor archives", uri, others.total())

    def make_work_items(self, files: Iterable[StoredFile], rows_per_shard: int) -> Iterator[WorkItem]:
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
                    yield _group(groups, group)
                    groups, documents, group = groups + 1, documents + len(group), []
        if group:
            yield _group(groups, group)

    def read(
        self,
        item: WorkItem,
        size: ShardSize,
        first_shard: int = 0,
        failed: Mapping[int, Rejection] | None = None,
        *,
        singly: bool = False,
    ) -> Iterator[Chunk]:
        """Yield up to 64 documents per chunk; see `genre_ray.runs.stages.Source`.

        The size of a document is the one in the archive's header or in the plan; 0 if it is rejected without reading
        it.
        """
        counter = ShardCounter(size)
        rows = self._rows(item, counter, first_shard, failed or {}, singly=singly)
        chunk, shard, piece = DocumentsBuilder(), -1, 0
        for document in islice(rows, item.rows):
            if document is None:
                continue
            if (counter.shard, counter.piece) != (shard, piece):
                if 0 <= shard < counter.shard:
                    _require_unchanged(item)
                if chunk.num_rows:
                    yield Chunk(shard, chunk.finish(), piece)
                shard, piece = counter.shard, counter.piece
            chunk.add(document)
            del document  # it refers to a chunk of the archive in memory
            if singly or chunk.num_rows == CHUNK_DOCUMENTS or chunk.num_bytes >= CHUNK_BYTES:
                yield Chunk(shard, chunk.finish(), piece)
        _require_unchanged(item)
        if shard < 0 and first_shard > 0:
            raise shorter_than_planned(item, first_shard)
        if chunk.num_rows:
            yield Chunk(shard, chunk.finish(), piece)

    def _rows(
        self, item: WorkItem, counter: ShardCounter, first_shard: int, failed: Mapping[int, Rejection], *, singly: bool
    ) -> Iterator[RawDocument | None]:
        """Yield every row of the item, or None before the first shard. `counter` is at the shard of the current row."""
        if item.kind != "archive":
            yield from self._files(item, counter, first_shard, failed, singly=singly)
            return
        (archive,) = item.files
        walk = self._members(archive, lambda row_bytes: counter.add(row_bytes) >= first_shard)
        for position in count():
            if position in failed:
                # The rest of the archive cannot be read without this row, so the item ends here.
                counter.shard = max(counter.add(0), first_shard)
                yield about_archive(archive.uri, failed[position])
                return
            try:
                yield next(walk)
            except StopIteration:
                return

    def _files(
        self, item: WorkItem, counter: ShardCounter, first_shard: int, failed: Mapping[int, Rejection], *, singly: bool
    ) -> Iterator[RawDocument | None]:
        sizes = [file.size if file.size <= self.max_document_bytes else 0 for file in item.files]
        first = 0
        while first < len(sizes) and counter.add(sizes[first]) < first_shard:
            first += 1
            yield None
        read = partial(self._read_file, failed=failed)
        numbered = list(enumerate(item.files))[first:]
        documents = map(read, numbered) if singly else map_ahead(read, numbered, READS_IN_FLIGHT)
        for (position, _), document in zip(numbered, documents, strict=True):
            if position > first:
                counter.add(sizes[position])
            yield document

    def _read_file(self, numbered: tuple[int, StoredFile], failed: Mapping[int, Rejection]) -> RawDocument:
        position, file = numbered
        if position in failed:
            return refused_file(file, failed[position])
        return read_file(file, self.max_document_bytes)

    def _members(self, archive: StoredFile, wanted: Callable[[int], bool]) -> Iterator[RawDocument | None]:
        opened = open_planned(archive)
        if isinstance(opened, str):
            wanted(0)
            yield about_archive(
                archive.uri, Rejection(Reason.ARCHIVE_UNREADABLE, f"expected a tar archive, found {opened}")
            )
            return
        with opened as stream:
            yield from read_archive(
                stream,
                archive.uri,
                max_document_bytes=self.max_document_bytes,
                max_members=self.max_members,
                max_expansion=self.max_expansion,
                wanted=wanted,
            )


def _group(number: int, files: Sequence[StoredFile]) -> WorkItem:
    return WorkItem(f"d{number:06d}", "documents", tuple(files), len(files), is_counted=True)


def shorter_than_planned(item: WorkItem, first_shard: int) -> InputError:
    """Make the error for an item that ends before the shard where reading should continue."""
    return InputError(
        f"{item.files[0].uri}: this input ends before shard {first_shard}, but it was longer when the run started. "
        "Restore it and run again with --resume, or start a new run with another --output"
    )


def _require_unchanged(item: WorkItem) -> None:
    """Check that an archive did not change while it was read. Single files are checked when they are read."""
    if item.kind == "archive" and item.files[0].version != MISSING:
        objects.require_unchanged(item.files[0])


def refuse_output_among(inputs: Sequence[str], output: str) -> None:
    """Check that the output is not inside an input, where a resume would list the run's own files as inputs.

    Raises:
        ConfigurationError: the output is inside an input.
    """
    for uri in inputs:
        if f"{objects.absolute(output)}/".startswith(f"{objects.absolute(uri).rstrip('/')}/"):
            raise ConfigurationError(
                f"the output {output} is inside the input {uri}; choose an --output outside of the inputs"
            )
