"""What a run has to do: its inputs, listed once and cut into work items, kept beside the output.

A *work item* is what one worker takes at a time: a stream (an archive) or a group of files. Its rows fall into
*shards* of `rows_per_shard` rows, numbered from 0 in the order they are read; a shard is what one commit makes durable.
How many shards a stream has is known when it ends. Inputs that came later are a further *generation* with a plan of
its own; work that is done stays done.
"""

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from genre_ray.errors import InputError
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
class Plan:
    """The work items of one generation; all shards in it have `rows_per_shard` rows but the last of each item."""

    generation: int
    rows_per_shard: int
    items: tuple[WorkItem, ...]


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
        InputError: an input changed under its name since it was planned.
    """
    plans = read_plans(output)
    planned = {file.uri: file for plan in plans for item in plan.items for file in item.files}
    changed = [file.uri for file in listed if file.uri in planned and _differs(file, planned[file.uri])]
    if changed:
        raise InputError(
            f"{len(changed)} inputs changed since this run was planned, the first is {changed[0]}; "
            "restore them, or start a new run with another --output"
        )
    new = [file for file in listed if file.uri not in planned]
    if new or not plans:
        generation = len(plans)
        named = tuple(
            WorkItem(f"{generation:04d}-{item.name}", item.kind, item.files, item.rows)
            for item in cut(new, rows_per_shard)
        )
        objects.put_if_absent(_plan_uri(output, generation), _encode(Plan(generation, rows_per_shard, named)))
        plans = read_plans(output)
    return plans


def read_plans(output: str) -> list[Plan]:
    """The stored plans, by generation."""
    plans: list[Plan] = []
    while objects.exists(uri := _plan_uri(output, len(plans))):
        plans.append(_decode(objects.read_bytes(uri), len(plans)))
    return plans


def _differs(now: StoredFile, then: StoredFile) -> bool:
    return (now.size, now.version) != (then.size, then.version)


def _plan_uri(output: str, generation: int) -> str:
    return objects.join(output, "_run", f"plan-{generation:04d}.jsonl.gz")


def _encode(plan: Plan) -> bytes:
    lines = [json.dumps({"rows_per_shard": plan.rows_per_shard}), *(item.to_json() for item in plan.items)]
    return gzip.compress("\n".join(lines).encode(), mtime=0)


def _decode(content: bytes, generation: int) -> Plan:
    header, *lines = gzip.decompress(content).decode().split("\n")
    return Plan(generation, json.loads(header)["rows_per_shard"], tuple(WorkItem.from_json(line) for line in lines))
