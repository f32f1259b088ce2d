"""Attempt markers: small files in the output by which a retried task knows that a worker died.

A marker counts deaths within one *session*, which is the work of one driver. When a driver stops, Ray kills its
workers. The next driver starts a new session and ignores the old markers.
"""

import json
from dataclasses import dataclass, field

from genre_ray.errors import GenreRayError
from genre_ray.outcomes import Reason, Rejection
from genre_ray.runs.output import scratch
from genre_ray.storage import objects

MAX_DEATHS = 10
"""Maximum number of worker deaths per shard. Rows that crash are rejected earlier, so something else is the cause."""


@dataclass
class Attempt:
    """One attempt at a work item or at a piece of a shard.

    Attributes:
        uri: the file of the marker.
        deaths: number of worker deaths per shard.
        failed: the rows that cannot be read, by their position in the item.
        shard: the current shard.
        is_finished: whether all work was done. A later attempt then only repeats results that were lost elsewhere.
        is_retry: whether there was an earlier attempt.
    """

    uri: str
    deaths: dict[int, int] = field(default_factory=dict)
    failed: dict[int, Rejection] = field(default_factory=dict)
    shard: int = 0
    is_finished: bool = False
    is_retry: bool = False

    def begin(self, shard: int) -> None:
        """Record that work on `shard` begins and that all earlier shards are done."""
        self.shard = shard
        self._write()

    def clear(self, shard: int) -> None:
        """Remove the deaths of a shard, none of whose rows crashes."""
        self.deaths.pop(shard, None)

    def finish(self) -> None:
        """Record that all work is done."""
        self.is_finished = True
        self._write()

    def _write(self) -> None:
        failed = {place: [why.reason.name, why.detail] for place, why in self.failed.items()}
        marker = {"shard": self.shard, "deaths": self.deaths, "failed": failed, "is_finished": self.is_finished}
        objects.write_bytes(self.uri, json.dumps(marker).encode())


def begin_attempt(folder: str, name: str, shard: int = 0) -> Attempt:
    """Write the marker of an attempt, and count the deaths that markers of earlier attempts show.

    Args:
        folder: the session's folder of markers.
        name: name of the work item or piece.
        shard: the first shard.

    Raises:
        GenreRayError: too many workers died.
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
                    f"{name}/{died_at}: {MAX_DEATHS} workers died while they processed this shard, although rows that "
                    "crash are rejected. Check the workers' logs (memory of the machine, GPU drivers, disk), then run "
                    "again with --resume"
                )
    attempt.begin(shard)
    return attempt


def attempts_folder(output: str, session: str, segment: int) -> str:
    """Return the folder of a session's attempt markers for one segment."""
    return objects.join(scratch(output), "attempts", session, str(segment))
