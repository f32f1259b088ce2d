"""The mark that a shard is begun, kept beside the output: where it is left over, a worker died over the shard.

Two small objects a shard and none a row: what the row was is found out by the next attempt, on whatever node, which
computes the shard in a child. A machine that was lost and a second driver at the same shard leave the same mark; these
shards are done in a child once, which is slower and just as right.
"""

import contextlib
import json
from collections.abc import Iterator

from genre_ray.errors import GenreRayError, StorageError
from genre_ray.storage import objects

MAX_DEATHS = 10
"""Workers that may die over one shard: rows that kill are rejected by then, so something else does."""


class Attempts:
    """The attempts at the shards of an output; `uri` is the folder of their marks."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def deaths(self, item: str, index: int) -> int:
        """How many workers died over a shard."""
        uri = self._mark(item, index)
        return int(json.loads(objects.read_bytes(uri))["deaths"]) if objects.exists(uri) else 0

    @contextlib.contextmanager
    def attempt(self, item: str, index: int) -> Iterator[int]:
        """Mark a shard as begun for as long as the block runs; gives how many workers died over it before.

        A block that ends by an exception did not kill its worker, and takes its mark back.

        Raises:
            GenreRayError: too many workers have died.
        """
        uri, deaths = self._mark(item, index), self.deaths(item, index)
        if deaths >= MAX_DEATHS:
            raise GenreRayError(
                f"{item}/{index}: expected the shard to be written, found that {deaths} workers died over it; see "
                f"their logs, then remove {uri} and --resume"
            )
        _write(uri, deaths + 1)
        try:
            yield deaths
        except BaseException:
            with contextlib.suppress(StorageError):
                _write(uri, deaths)
            raise
        _write(uri, 0)

    def _mark(self, item: str, index: int) -> str:
        return objects.join(self.uri, f"{item}-{index:05d}.json")


def _write(uri: str, deaths: int) -> None:
    objects.write_bytes(uri, json.dumps({"deaths": deaths}).encode())
