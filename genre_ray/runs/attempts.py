"""Attempt markers: small objects beside the output by which a retried task recognises that a worker died before it.

A marker counts deaths within one *session*, the work of one driver. When a driver stops, Ray ends its workers; the next
driver has a session of its own and ignores the markers that they left.
"""

import json
from dataclasses import dataclass

from genre_ray.errors import GenreRayError
from genre_ray.storage import objects

MAX_DEATHS = 10
"""Workers that may die over one shard: rows that kill are rejected by then, so something else kills."""


@dataclass
class Attempt:
    """One attempt at a piece of work, marked as begun.

    Attributes:
        uri: the marker.
        name: what is attempted, for messages.
        deaths: workers that died at `shard` in earlier attempts.
        shard: the shard at which they died, or which is worked on now.
    """

    uri: str
    name: str
    deaths: int = 0
    shard: int = 0

    def advance(self, shard: int) -> None:
        """Record that all shards before `shard` are written; a shard's deaths end with it."""
        if shard > self.shard:
            self.deaths, self.shard = 0, shard
            self._write()

    def _write(self) -> None:
        objects.write_bytes(self.uri, json.dumps({"shard": self.shard, "deaths": self.deaths}).encode())


def begin_attempt(folder: str, name: str, shard: int = 0) -> Attempt:
    """Mark `name` as begun at `shard`, and count the deaths that earlier attempts of the session left marked.

    Args:
        folder: the session's folder of markers.
        name: what is attempted.
        shard: where a first attempt begins.

    Raises:
        GenreRayError: too many workers have died.
    """
    attempt = Attempt(objects.join(folder, f"{name}.json"), name, 0, shard)
    if objects.exists(attempt.uri):
        found = json.loads(objects.read_bytes(attempt.uri))
        attempt.deaths, attempt.shard = found["deaths"] + 1, found["shard"]
    if attempt.deaths >= MAX_DEATHS:
        raise GenreRayError(
            f"{name}/{attempt.shard}: {attempt.deaths} workers died over this shard, although rows that end their "
            "process are rejected. See the workers' logs (memory of the machine, drivers, disk), then --resume"
        )
    attempt._write()
    return attempt


def attempts_folder(output: str, session: str, segment: int) -> str:
    """Where a session's markers of one segment are."""
    return objects.join(output, "_run", "attempts", session, str(segment))
