"""The plan of a run: its inputs, grouped into work items and stored in the output.

A *work item* is what one worker processes at a time: an archive or a group of files. Its rows form *shards* of
`rows_per_shard` rows, numbered from 0 in reading order. A shard is committed as a whole. The number of shards of an
archive is known when it has been read. Inputs that are added later form another *generation* with its own plan;
committed work is kept.

A plan is a file with a header and lines. It is written only if it does not exist, so of several drivers one wins. Most
lines of a long plan are in separate files, its *chunks*, named by their content. So no process needs more than a chunk
in memory.
"""

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

from genre_ray.errors import StorageError
from genre_ray.runs.inventory import Inventory
from genre_ray.runs.output import scratch
from genre_ray.storage import objects
from genre_ray.storage.files import StoredFile

CHUNK_FILES = 10_000
"""A chunk ends when it contains this many files, which are about 2 MB before compression."""


@dataclass(frozen=True)
class WorkItem:
    """Files that one worker reads in order.

    Attributes:
        name: name of the item, unique in its plan.
        kind: the kind of the files, which only their source interprets.
        files: the files.
        rows: maximum number of rows to read from them; None for no limit.
        is_counted: whether `rows` is the exact number of rows.
    """

    name: str
    kind: str
    files: tuple[StoredFile, ...]
    rows: int | None = None
    is_counted: bool = False

    @property
    def is_remote(self) -> bool:
        """Whether any of its files is in an object store."""
        return any(objects.is_remote(file.uri) for file in self.files)

    @property
    def walk_s(self) -> float:
        """An upper bound of the seconds to read all its files. A slow core decompresses 1 MB per second."""
        return sum(file.size for file in self.files) / 1e6

    def to_json(self) -> str:
        """Return the item as a line of a plan."""
        return json.dumps({**vars(self), "files": [vars(file) for file in self.files]})

    @classmethod
    def from_json(cls, line: str) -> "WorkItem":
        """Make an item from a line that `to_json` returned."""
        return _item(json.loads(line))


class RemainingWork(NamedTuple):
    """The remaining work of an item: all its shards from `first_shard` on.

    Attributes:
        item: name of the item.
        chunk: the file of the plan that contains the item.
        rows_per_shard: maximum number of rows per shard in the item's plan.
        bytes_per_shard: maximum number of bytes per shard in the item's plan.
        first_shard: the first shard that is not committed.
        folder: the folder that relative paths of files start from, because workers have other working directories.
            Plans store paths as the user wrote them, so a resume finds them again.
    """

    item: str
    chunk: str
    rows_per_shard: int
    bytes_per_shard: int
    first_shard: int
    folder: str

    def read_item(self, session: str) -> WorkItem:
        """Read the item from its plan, and make its paths absolute.

        Args:
            session: name of the session. Within a session a file of a plan is read once.

        Raises:
            StorageError: the plan cannot be read or is damaged.
        """
        item = _items_of(self.chunk, session).get(self.item)
        if item is None:
            raise StorageError(f"{self.chunk}: the work item {self.item} is missing in this plan; restore the file")
        return replace(item, files=tuple(replace(f, uri=objects.absolute(f.uri, self.folder)) for f in item.files))


@dataclass(frozen=True)
class Plan:
    """The work items of one generation, and the sizes of their shards.

    `chunks` are the files that contain its lines, in order.
    """

    generation: int
    rows_per_shard: int
    bytes_per_shard: int
    chunks: tuple[str, ...]

    def items(self) -> Iterator[WorkItem]:
        """Yield all work items."""
        return (item for _, chunk in self._read() for item in chunk.items)

    def remaining(self, shards_done: Callable[[str], int | None]) -> Iterator[RemainingWork]:
        """Yield the remaining work of all items.

        Args:
            shards_done: returns the number of committed shards of an item, by its name; None if all are committed.
        """
        folder = os.getcwd()
        for uri, chunk in self._read():
            for item in chunk.items:
                if (done := shards_done(item.name)) is not None:
                    yield RemainingWork(item.name, uri, self.rows_per_shard, self.bytes_per_shard, done, folder)

    def left_out(self) -> Iterator[str]:
        """Yield the inputs that a limit left out. Later generations do not add them."""
        return (uri for _, chunk in self._read() for uri in chunk.left_out)

    def add_to(self, inventory: Inventory) -> None:
        """Add the planned files to the inventory."""
        for _, chunk in self._read():
            for item in chunk.items:
                inventory.add_planned(item.files, parts=item.kind == "table")
            inventory.add_left_out(chunk.left_out)

    def _read(self) -> Iterator[tuple[str, "_Chunk"]]:
        return ((uri, _read_chunk(uri)) for uri in self.chunks)


MakeWorkItems = Callable[[Iterable[StoredFile], int], Iterable[WorkItem]]


def load_or_extend_plans(
    output: str, inventory: Inventory, make_work_items: MakeWorkItems, rows_per_shard: int, bytes_per_shard: int = 2**29
) -> list[Plan]:
    """Return the plans of all generations, after adding a generation for new inputs.

    If several drivers add a generation at the same time, one wins, and all use its plan.

    Args:
        output: the run's output folder.
        inventory: the inputs as they are now; takes note of what is planned.
        make_work_items: makes work items of new inputs, named within their generation.
        rows_per_shard: for a new generation; an earlier one keeps its own.
        bytes_per_shard: likewise.

    Raises:
        InputError: the content of an input changed since it was planned, or parts of a table were rewritten.
    """
    while True:
        plans = read_plans(output)
        inventory.forget_plans()
        for plan in plans:
            plan.add_to(inventory)
        inventory.refuse_changes()
        if plans and next(inventory.new(), None) is None:
            return plans
        size = {"rows_per_shard": rows_per_shard, "bytes_per_shard": bytes_per_shard}
        _write_plan(output, len(plans), size, _lines(inventory, make_work_items, rows_per_shard, len(plans)))


def read_plans(output: str) -> list[Plan]:
    """Read the stored plans, in the order of generations.

    Raises:
        StorageError: a plan is damaged.
    """
    plans: list[Plan] = []
    while objects.exists(uri := _plan_uri(output, len(plans))):
        own = _read_chunk(uri)
        if not (own.rows_per_shard and own.bytes_per_shard):
            raise StorageError(f"{uri}: this plan is damaged (it lacks the size of shards); restore the file")
        chunks = (objects.join(scratch(output), name) for name in own.chunks)
        plans.append(Plan(len(plans), own.rows_per_shard, own.bytes_per_shard, (*chunks, uri)))
    return plans


def _lines(
    inventory: Inventory, make_work_items: MakeWorkItems, rows_per_shard: int, generation: int
) -> Iterator[tuple[int, str]]:
    """A plan of what is new, as lines, each with the number of files that it is about."""
    for item in make_work_items(inventory.new(), rows_per_shard):
        inventory.add_planned(item.files)
        yield len(item.files), replace(item, name=f"{generation:04d}-{item.name}").to_json()
    left_out = inventory.new()
    while uris := [file.uri for file in islice(left_out, CHUNK_FILES)]:
        yield len(uris), json.dumps({"left_out": uris})


def _write_plan(output: str, generation: int, size: dict[str, int], lines: Iterable[tuple[int, str]]) -> None:
    """Write a plan unless it exists. If another driver wins, the chunks written here are not referenced."""
    chunks: list[str] = []
    held: list[str] = []
    files = 0
    for count, line in lines:
        held.append(line)
        files += count
        if files >= CHUNK_FILES:
            content = _encode(held)
            chunks.append(f"plan-{generation:04d}-{hashlib.sha256(content).hexdigest()[:32]}.jsonl.gz")
            objects.write_bytes(objects.join(scratch(output), chunks[-1]), content)
            held, files = [], 0
    header = json.dumps({**size, "chunks": chunks})
    objects.put_if_absent(_plan_uri(output, generation), _encode([header, *held]))


def _plan_uri(output: str, generation: int) -> str:
    return objects.join(scratch(output), f"plan-{generation:04d}.jsonl.gz")


def _encode(lines: Iterable[str]) -> bytes:
    return gzip.compress("\n".join(lines).encode(), compresslevel=6, mtime=0)


def _item(values: dict[str, Any]) -> WorkItem:
    return WorkItem(**{**values, "files": tuple(StoredFile(**file) for file in values["files"])})


@dataclass(frozen=True)
class _Chunk:
    """The content of a file of a plan. Only the plan's main file has header values."""

    items: list[WorkItem]
    left_out: list[str]
    rows_per_shard: int = 0
    bytes_per_shard: int = 0
    chunks: Sequence[str] = ()


@lru_cache(maxsize=2)
def _items_of(chunk: str, session: str) -> dict[str, WorkItem]:
    """The items of a chunk by name. They are cached, because a worker's next item is usually in the same chunk."""
    return {item.name: item for item in _read_chunk(chunk).items}


def _read_chunk(uri: str) -> _Chunk:
    """Read a file of a plan.

    Raises:
        StorageError: it is damaged.
    """
    try:
        lines = [json.loads(line) for line in gzip.decompress(objects.read_bytes(uri)).decode().split("\n")]
        header = lines.pop(0) if "rows_per_shard" in lines[0] else {}
        left_out = [uri for line in lines for uri in line.get("left_out", ())]
        items = [_item(line) for line in lines if "left_out" not in line]
        return _Chunk(items, left_out, **header)
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{uri}: this plan is damaged ({error}); restore the file") from None
