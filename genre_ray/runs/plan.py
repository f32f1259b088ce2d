"""What a run has to do: its inputs, listed once and cut into work items, kept beside the output.

A *work item* is what one worker takes at a time: a stream (an archive) or a group of files. Its rows fall into
*shards* of `rows_per_shard` rows, numbered from 0 in the order they are read; a shard is what one commit makes durable.
How many shards a stream has is known when it ends. Inputs that came later are a further *generation* with a plan of
its own; work that is done stays done.

A plan is a header and lines in one object, which is written only if absent: of several drivers one wins. A long one has
most of its lines in *chunks* before it, named by their content. So nobody holds more of it than a chunk.
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
"""A chunk ends with the line that reaches so many files: about 2 MB before compression."""


@dataclass(frozen=True)
class WorkItem:
    """Files that one worker reads in order.

    Attributes:
        name: unique in its plan.
        kind: what the files are, in the words of their source.
        files: what is read.
        rows: how many rows are taken from them at most.
        is_counted: whether `rows` is how many rows there are.
    """

    name: str
    kind: str
    files: tuple[StoredFile, ...]
    rows: int | None = None
    is_counted: bool = False

    @property
    def is_remote(self) -> bool:
        """Whether reading it waits for an object store."""
        return any(objects.is_remote(file.uri) for file in self.files)

    @property
    def walk_s(self) -> float:
        """More seconds than reading all of it takes: a slow core decompresses a MB per second."""
        return sum(file.size for file in self.files) / 1e6

    def to_json(self) -> str:
        """The item as a line of a plan."""
        return json.dumps({**vars(self), "files": [vars(file) for file in self.files]})

    @classmethod
    def from_json(cls, line: str) -> "WorkItem":
        """The item of a line that `to_json` wrote."""
        return _item(json.loads(line))


class RemainingWork(NamedTuple):
    """What is left to do of a work item: everything from its shard `first_shard` on.

    Attributes:
        item: its name.
        chunk: the address of the object that holds it.
        rows_per_shard: rows that end a shard, as the item's plan has it.
        bytes_per_shard: bytes that do, likewise.
        first_shard: the first that is left.
        folder: where relative addresses of files begin. Workers have working directories of their own. Plans keep
            addresses as given: a resume may be in another directory, and must find its inputs in the plan.
    """

    item: str
    chunk: str
    rows_per_shard: int
    bytes_per_shard: int
    first_shard: int
    folder: str

    def read_item(self, session: str) -> WorkItem:
        """Read the item from its plan; its addresses become absolute.

        Args:
            session: whose work it is: within one session a plan is read once.

        Raises:
            StorageError: it cannot be read.
        """
        item = _items_of(self.chunk, session).get(self.item)
        if item is None:
            raise StorageError(f"{self.chunk}: expected the work item {self.item}, found none of this name; restore it")
        return replace(item, files=tuple(replace(f, uri=objects.absolute(f.uri, self.folder)) for f in item.files))


@dataclass(frozen=True)
class Plan:
    """The work items of one generation, and when their shards end.

    `chunks` are the addresses of the objects that hold its lines, in order.
    """

    generation: int
    rows_per_shard: int
    bytes_per_shard: int
    chunks: tuple[str, ...]

    def items(self) -> Iterator[WorkItem]:
        """Every work item."""
        return (item for _, chunk in self._read() for item in chunk.items)

    def remaining(self, shards_done: Callable[[str], int | None]) -> Iterator[RemainingWork]:
        """What is left of every item, given by its name how many shards are done, or None for all."""
        folder = os.getcwd()
        for uri, chunk in self._read():
            for item in chunk.items:
                if (done := shards_done(item.name)) is not None:
                    yield RemainingWork(item.name, uri, self.rows_per_shard, self.bytes_per_shard, done, folder)

    def left_out(self) -> Iterator[str]:
        """Inputs that a limit left out: they are known, and no later generation takes them up."""
        return (uri for _, chunk in self._read() for uri in chunk.left_out)

    def add_to(self, inventory: Inventory) -> None:
        """Let the inventory know what is planned."""
        for _, chunk in self._read():
            for item in chunk.items:
                inventory.add_planned(item.files, parts=item.kind == "table")
            inventory.add_left_out(chunk.left_out)

    def _read(self) -> Iterator[tuple[str, "_Chunk"]]:
        return ((uri, _read_chunk(uri)) for uri in self.chunks)


Cut = Callable[[Iterable[StoredFile], int], Iterable[WorkItem]]


def settle_plans(
    output: str, inventory: Inventory, cut: Cut, rows_per_shard: int, bytes_per_shard: int = 2**29
) -> list[Plan]:
    """The plans of every generation, after adding one for the inputs that no plan has yet.

    Of several drivers that add a generation at once one wins, and all go on with its plan.

    Args:
        output: the run's output folder.
        inventory: the inputs as they are now; takes note of what is planned.
        cut: makes work items of new inputs, named within their generation.
        rows_per_shard: for a new generation; an earlier one keeps its own.
        bytes_per_shard: likewise.

    Raises:
        InputError: an input changed under its name since it was planned, or a table's parts were rewritten.
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
        _write_plan(output, len(plans), size, _lines(inventory, cut, rows_per_shard, len(plans)))


def read_plans(output: str) -> list[Plan]:
    """The stored plans, by generation.

    Raises:
        StorageError: a plan is damaged.
    """
    plans: list[Plan] = []
    while objects.exists(uri := _plan_uri(output, len(plans))):
        own = _read_chunk(uri)
        if not (own.rows_per_shard and own.bytes_per_shard):
            raise StorageError(f"{uri}: expected a plan that states when a shard ends, found none; restore it")
        chunks = (objects.join(scratch(output), name) for name in own.chunks)
        plans.append(Plan(len(plans), own.rows_per_shard, own.bytes_per_shard, (*chunks, uri)))
    return plans


def _lines(inventory: Inventory, cut: Cut, rows_per_shard: int, generation: int) -> Iterator[tuple[int, str]]:
    """A plan of what is new, as lines, each with the number of files that it is about."""
    for item in cut(inventory.new(), rows_per_shard):
        inventory.add_planned(item.files)
        yield len(item.files), replace(item, name=f"{generation:04d}-{item.name}").to_json()
    left_out = inventory.new()
    while uris := [file.uri for file in islice(left_out, CHUNK_FILES)]:
        yield len(uris), json.dumps({"left_out": uris})


def _write_plan(output: str, generation: int, size: dict[str, int], lines: Iterable[tuple[int, str]]) -> None:
    """Write a plan unless there is one; what was written of a plan that lost is named by nobody."""
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
    """What an object of a plan holds; the header's values are those of the plan's own object."""

    items: list[WorkItem]
    left_out: list[str]
    rows_per_shard: int = 0
    bytes_per_shard: int = 0
    chunks: Sequence[str] = ()


@lru_cache(maxsize=2)
def _items_of(chunk: str, session: str) -> dict[str, WorkItem]:
    """The items of a chunk by name: a worker's next item is mostly in the same one."""
    return {item.name: item for item in _read_chunk(chunk).items}


def _read_chunk(uri: str) -> _Chunk:
    """Read an object of a plan.

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
        raise StorageError(f"{uri}: expected a stored plan, found: {error}; restore it") from None
