"""Archives to vectors: reading beside parsing on two cores."""

import io
import tarfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import zstandard
from documents import write_archive
from harness import Result, compare, seconds

from genre_ray.features.essentia.documents import ParseDocuments
from genre_ray.runs.ahead import read_ahead
from genre_ray.runs.allocation import keep_freed_memory
from genre_ray.runs.stages import ShardSize
from genre_ray.sources.documents.archives import read_archive
from genre_ray.sources.documents.source import DocumentSource

DOCUMENTS, SHARD = 4_000, ShardSize(5_000)


def benchmarks(scratch: Path) -> Iterator[Result]:
    keep_freed_memory()  # as workers do
    archive = write_archive(scratch / "documents.tar.zst", DOCUMENTS)
    source, parse = DocumentSource((str(archive),)), ParseDocuments().open()
    (item,) = source.cut(source.list_inputs(), SHARD.rows)
    # The parser is compiled, and the archive in the system's cache, before anything is measured.
    chunks = [outcome.accepted for _, outcome, _ in source.read(item, SHARD)]
    parse(chunks[0])

    def read() -> None:
        exhaust(source.read(item, SHARD))

    def parse_all() -> None:
        exhaust(map(parse, chunks))

    def both() -> None:
        with read_ahead(source.read(item, SHARD)) as ahead:
            exhaust(parse(outcome.accepted) for _, outcome, _ in ahead)

    yield compare(
        "tar.zst to vectors beside the slower of reading and parsing alone",
        lambda: seconds(both),
        lambda: max(seconds(read), seconds(parse_all)),
        unit="s",
        at_most=1.25,
        repetitions=15,
        note=f"{DOCUMENTS} documents, wall time",
    )
    yield compare(
        "tar.zst to vectors beside the sum of reading and parsing alone",
        lambda: core_seconds(both),
        lambda: core_seconds(read) + core_seconds(parse_all),
        unit="s",
        at_most=1.15,
        note="time of all cores",
    )
    packed = archive.read_bytes()
    yield compare(
        "tar.zst read, beside Python's tarfile over zstandard",
        lambda: DOCUMENTS / seconds(lambda: exhaust(read_archive(io.BytesIO(packed), archive.name))),
        lambda: DOCUMENTS / seconds(lambda: tarfile_read(packed)),
        unit="documents/s",
    )


def tarfile_read(packed: bytes) -> None:
    reader = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
    with tarfile.open(fileobj=reader, mode="r|") as archive:
        for member in archive:
            stream = archive.extractfile(member)
            assert stream is not None
            stream.read()


def core_seconds(work: Callable[[], object]) -> float:
    """Time of all threads of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def exhaust(values: Iterable[object]) -> None:
    deque(values, maxlen=0)
