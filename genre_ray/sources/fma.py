"""FMA's `features.csv` as a source of rows (Free Music Archive, Defferrard et al. 2017): a line of text per track.

The file has three header rows (feature, statistics, number), a row that names the index, and a row of numbers for each
track, which begins with its id. Quotation marks do not occur. Lines are read forwards, so a file may be of any size.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath

import pyarrow as pa

from genre_ray.errors import InputError
from genre_ray.outcomes import Outcome, Rejection, rejections
from genre_ray.runs.plan import WorkItem
from genre_ray.runs.stages import Chunk, ShardCounter, ShardSize
from genre_ray.sources.documents.compression import DAMAGE, decompressed
from genre_ray.sources.documents.names import bounded, identifier
from genre_ray.storage import objects
from genre_ray.storage.files import StoredFile

HEADERS = ("feature", "statistics", "number")
CHUNK_LINES = 256
MAX_LINE_BYTES = 2**20
"""A line of the published file has some 6 kB."""

LINES = pa.schema([("source_uri", pa.string()), ("recording_id", pa.string()), ("line", pa.binary())])


@dataclass(frozen=True)
class FmaFeatures:
    """The tracks of one or several `features.csv`, also compressed as their suffix says.

    Attributes:
        inputs: the files, or folders that have a `features.csv`.
        limit: take only so many tracks from each file.
    """

    name = "read features.csv"
    schema = LINES

    inputs: tuple[str, ...]
    limit: int | None = None

    def list_inputs(self) -> Iterator[StoredFile]:
        """The files.

        Raises:
            InputError: an input has none.
        """
        for uri in self.inputs:
            found = [
                file for file in objects.list_files(uri) if PurePosixPath(file.name).name.startswith("features.csv")
            ]
            if not found:
                raise InputError(
                    f"{uri}: expected FMA's features.csv, also .bz2, .gz or .zst, found none; give its path"
                )
            yield from found

    def columns(self) -> tuple[str, ...]:
        """The names of the measurements, e.g. `mfcc_mean_01`.

        Raises:
            InputError: a file has another header, or not the columns of the others.
            StorageError: a file cannot be read.
        """
        found = {file.uri: _columns(file.uri, _lines(file.uri)) for file in self.list_inputs()}
        first, *others = found
        for uri in others:
            if found[uri] != found[first]:
                raise InputError(f"{uri}: expected the columns of {first}, found others; ingest them into two outputs")
        return found[first]

    def cut(self, files: Iterable[StoredFile], rows_per_shard: int) -> Iterator[WorkItem]:
        """One work item per file."""
        return (WorkItem(f"f{number:06d}", "tracks", (file,), self.limit) for number, file in enumerate(files))

    def read(
        self,
        item: WorkItem,
        size: ShardSize,
        first_shard: int = 0,
        failed: Mapping[int, Rejection] | None = None,
        *,
        singly: bool = False,
    ) -> Iterator[Chunk]:
        """Yield up to 256 tracks at a time; see `genre_ray.runs.stages.Source`. A row has the bytes of its line."""
        (file,) = item.files
        lines = _lines(file.uri, file)
        _columns(file.uri, lines)
        counter, failed = ShardCounter(size), failed or {}
        chunk = _Chunk(file.uri)
        place, last = (-1, 0), -1
        for position, line in enumerate(islice(lines, item.rows)):
            last = counter.add(len(line))
            if last < first_shard:
                continue
            if (counter.shard, counter.piece) != place or chunk.num_rows == (1 if singly else CHUNK_LINES):
                if chunk.num_rows:
                    yield Chunk(place[0], chunk.finish(), place[1])
                place = counter.shard, counter.piece
            chunk.add(line, failed.get(position))
        objects.require_unchanged(file)
        if last < first_shard > 0:
            raise InputError(
                f"{file.uri}: it ends before shard {first_shard}, although earlier runs read further; restore it, "
                "then --resume; or start a new run with another --output"
            )
        if chunk.num_rows:
            yield Chunk(place[0], chunk.finish(), place[1])


class _Chunk:
    """Makes tables of lines, and of rejected rows."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._rows: list[tuple[str, str, bytes]] = []
        self._rejected: list[tuple[str, Rejection]] = []

    @property
    def num_rows(self) -> int:
        return len(self._rows) + len(self._rejected)

    def add(self, line: bytes, why: Rejection | None) -> None:
        track = identifier(bounded(line.partition(b",")[0].decode("utf-8", "surrogateescape")))
        uri = f"{bounded(self._uri)}#{track}"
        if why is None:
            self._rows.append((uri, track, line))
        else:
            self._rejected.append((uri, why))

    def finish(self) -> Outcome:
        columns = zip(*self._rows, strict=True) if self._rows else ([], [], [])
        arrays = [pa.array(column, kind) for column, kind in zip(columns, LINES.types, strict=True)]
        outcome = Outcome(pa.Table.from_arrays(arrays, schema=LINES), rejections(self._rejected))
        self._rows, self._rejected = [], []
        return outcome


def _columns(uri: str, lines: Iterator[bytes]) -> tuple[str, ...]:
    """The names of the columns; takes the header rows from `lines`."""
    rows = [line.decode("utf-8", "replace").split(",") for line in islice(lines, len(HEADERS) + 1)]
    names = [row[0] for row in rows]
    # The corner of the published file names the axis `feature`, that of an extract may have another name.
    if len(rows) <= len(HEADERS) or names[1:3] != list(HEADERS[1:]) or names[3] != "track_id":
        raise InputError(
            f"{uri}: expected the header rows {', '.join(HEADERS)} and track_id, found "
            f"{bounded(', '.join(names), 200) or 'an empty file'}; give FMA's own file"
        )
    if len({len(row) for row in rows}) > 1 or len(rows[0]) < 2:
        raise InputError(f"{uri}: expected header rows of one length, found {[len(row) for row in rows]}; restore it")
    return tuple("_".join(column) for column in zip(*(row[1:] for row in rows[:3]), strict=True))


def _lines(uri: str, planned: StoredFile | None = None) -> Iterator[bytes]:
    """The lines of the file, without their ends.

    Raises:
        InputError: it is damaged, has a line that is too long, or is not the planned one.
    """
    with objects.open_stream(uri, planned) as stream:
        rest = b""
        try:
            for content in decompressed(stream, uri):
                *lines, rest = (rest + content).split(b"\n")
                yield from (line.removesuffix(b"\r") for line in lines)
                if len(rest) > MAX_LINE_BYTES:
                    raise InputError(f"{uri}: expected lines of at most {MAX_LINE_BYTES} bytes, found a longer one")
        except DAMAGE as error:
            raise InputError(f"{uri}: expected a whole file, found: {error}; copy it again") from None
    if rest:
        yield rest
