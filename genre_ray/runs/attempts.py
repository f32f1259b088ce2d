"""Attempt markers: small objects beside the output by which a retried task recognises that a worker died before it.

A marker counts deaths within one *session*, the work of one driver. When a driver stops, Ray ends its workers; the next
driver has a session of its own and ignores the markers that they left.
"""

import json
from dataclasses import dataclass, field

from genre_ray.errors import GenreRayError
from genre_ray.outcomes import Reason, Rejection
from genre_ray.runs.output import scratch
from genre_ray.storage import objects

MAX_DEATHS = 10
"""Workers that may die over one shard: rows that kill are rejected by then, so something else kills."""


@dataclass
class Attempt:
    """One attempt at a piece of work: a work item, or a piece of a shard.

    Attributes:
        uri: the marker.
        deaths: for each shard at which a worker died, how many did.
        failed: the rows that cannot be read, by their position in the item.
        shard: the shard that is worked on now.
        is_finished: whether nothing is left to do: an attempt that comes later repeats what was lost elsewhere.
        is_retry: whether there was an attempt before it.
    """

    uri: str
    deaths: dict[int, int] = field(default_factory=dict)
    failed: dict[int, Rejection] = field(default_factory=dict)
    shard: int = 0
    is_finished: bool = False
    is_retry: bool = False

    def begin(self, shard: int) -> None:
        """Record that `shard` is worked on, and all shards before it are done."""
        self.shard = shard
        self._write()

    def clear(self, shard: int) -> None:
        """Forget the deaths at a shard: no row of it kills."""
        self.deaths.pop(shard, None)

    def finish(self) -> None:
        """Record that all is done."""
        self.is_finished = True
        self._write()

    def _write(self) -> None:
        failed = {place: [why.reason.name, why.detail] for place, why in self.failed.items()}
        marker = {"shard": self.shard, "deaths": self.deaths, "failed": failed, "is_finished": self.is_finished}
        objects.write_bytes(self.uri, json.dumps(marker).encode())


def begin_attempt(folder: str, name: str, shard: int = 0) -> Attempt:
    """Mark `name` as begun, and count the deaths that earlier attempts of the session left marked.

    Args:
        folder: the session's folder of markers.
        name: what is attempted.
        shard: where a first attempt begins.

    Raises:
        GenreRayError: too many workers have died.
    """
    uri = objects.join(folder, f"{name}.json")
    attempt = Attempt(uri, shard=shard)
    if objects.exists(uri):
        attempt.is_retry = True
        found = json.loads(objects.read_bytes(uri))
        attempt.deaths = {int(place): count for place, count in found["deaths"].items()}
        attempt.failed = {
            int(place): Rejection(Reason[why], detail) for place, (why, detail) in found["failed"].items()
        }
        if not found["is_finished"]:
            died_at = found["shard"]
            attempt.deaths[died_at] = attempt.deaths.get(died_at, 0) + 1
            if attempt.deaths[died_at] >= MAX_DEATHS:
                raise GenreRayError(
                    f"{name}/{died_at}: {MAX_DEATHS} workers died over this shard, although rows that end their "
                    "process are rejected. See the workers' logs (memory of the machine, drivers, disk), then --resume"
                )
    attempt.begin(shard)
    return attempt


def attempts_folder(output: str, session: str, segment: int) -> str:
    """Where a session's markers of one segment are."""
    return objects.join(scratch(output), "attempts", session, str(segment))
