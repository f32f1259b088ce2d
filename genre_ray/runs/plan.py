"""What a run has to do: its inputs, listed once and cut into work items, kept beside the output.

A *work item* is what one worker takes at a time: a stream (an archive) or a group of files. Its rows fall into
*shards* of `rows_per_shard` rows, numbered from 0 in the order they are read; a shard is what one commit makes durable.
How many shards a stream has is known when it ends. Inputs that came later are a further *generation* with a plan of
its own; work that is done stays done.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from genre_ray.errors import InputError, StorageError
from genre_ray.storage import objects
from genre_ray.storage.objects import StoredFile


@dataclass(frozen=True)
class WorkItem:
    """Files that one worker reads in order; `rows` bounds how many rows are taken from them."""

    name: str
    kind: str
    files: tuple[StoredFile, ...]
    rows: int | None = None

    def to_json(self) -> str:
        """The item as a line of a plan."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "WorkItem":
        """The item of a line that `to_json` wrote."""
        values: dict[str, Any] = json.loads(line)
        return cls(**{**values, "files": tuple(StoredFile(**file) for file in values["files"])})


@dataclass(frozen=True)
class Remainder:
    """What is left to do of a work item: everything from its shard `first_shard` on."""

    item: WorkItem
    rows_per_shard: int
    first_shard: int = 0


@dataclass(frozen=True)
class Plan:
    """The work items of one generation; all shards in it have `rows_per_shard` rows but the last of each item.

    `left_out` are the inputs that a limit left out: they are known, and no later generation takes them up.
    """

    generation: int
    rows_per_shard: int
    items: tuple[WorkItem, ...]
    left_out: tuple[str, ...] = ()


Cut = Callable[[Sequence[StoredFile], int], list[WorkItem]]


def settle_plans(output: str, listed: Sequence[StoredFile], cut: Cut, rows_per_shard: int) -> list[Plan]:
    """The plans of every generation, after adding one for the inputs that no plan has yet.

    Of several drivers that add a generation at once one wins, and all go on with its plan.

    Args:
        output: the run's output folder.
        listed: the inputs as they are now.
        cut: makes work items of new inputs, named within their generation.
        rows_per_shard: for a new generation; an earlier one keeps its own.

    Raises:
        InputError: an input changed under its name since it was planned, or a table's parts were rewritten.
    """
    while True:
        plans = read_plans(output)
        new = _not_planned(listed, plans)
        if plans and not new:
            return plans
        generation = len(plans)
        items = [replace(item, name=f"{generation:04d}-{item.name}") for item in cut(new, rows_per_shard)]
        taken = {file.uri for item in items for file in item.files}
        left_out = tuple(file.uri for file in new if file.uri not in taken)
        plan = Plan(generation, rows_per_shard, tuple(items), left_out)
        objects.put_if_absent(_plan_uri(output, generation), _encode(plan))


def read_plans(output: str) -> list[Plan]:
    """The stored plans, by generation.

    Raises:
        StorageError: a plan is damaged.
    """
    plans: list[Plan] = []
    while objects.exists(uri := _plan_uri(output, len(plans))):
        try:
            plans.append(_decode(objects.read_bytes(uri), len(plans)))
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{uri}: expected a stored plan, found: {error}; restore it") from None
    return plans


def _not_planned(listed: Sequence[StoredFile], plans: Sequence[Plan]) -> list[StoredFile]:
    planned = {file.uri: file for plan in plans for item in plan.items for file in item.files}
    left_out = {uri for plan in plans for uri in plan.left_out}
    changed = [file.uri for file in listed if file.uri in planned and _differs(file, planned[file.uri])]
    if changed:
        raise InputError(
            f"{len(changed)} inputs changed since this run was planned, the first is {changed[0]}; "
            "restore them, or start a new run with another --output"
        )
    now = {file.uri for file in listed}
    parts = {file.uri for plan in plans for item in plan.items if item.kind == "table" for file in item.files}
    rewritten = sorted(parts - now)
    if rewritten:
        # Rows of new parts that stand for old ones would come out a second time.
        raise InputError(
            f"{len(rewritten)} parts of the input table were rewritten since this run was planned (rows were erased, "
            f"or it was compacted), the first is {rewritten[0]}; start a new run with another --output"
        )
    return [file for file in listed if file.uri not in planned and file.uri not in left_out]


def _differs(now: StoredFile, then: StoredFile) -> bool:
    return (now.size, now.version) != (then.size, then.version)


def _plan_uri(output: str, generation: int) -> str:
    return objects.join(output, "_run", f"plan-{generation:04d}.jsonl.gz")


def _encode(plan: Plan) -> bytes:
    header = json.dumps({"rows_per_shard": plan.rows_per_shard, "left_out": plan.left_out})
    return gzip.compress("\n".join([header, *(item.to_json() for item in plan.items)]).encode(), mtime=0)


def _decode(content: bytes, generation: int) -> Plan:
    first, *lines = gzip.decompress(content).decode().split("\n")
    header = json.loads(first)
    items = tuple(WorkItem.from_json(line) for line in lines)
    return Plan(generation, header["rows_per_shard"], items, tuple(header["left_out"]))
