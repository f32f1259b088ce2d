"""Split recordings into training, validation and test parts by a hash of their release group or artist.

The part of a recording depends only on its group and the seed. So it is the same for all taxonomies, and it stays the
same when recordings are added.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

PARTS = ("train", "validation", "test")

GroupBy = Literal["release_group", "artist"]


def group_of(
    recording_id: str,
    release_group_id: str | None,
    artist_ids: Sequence[str],
    group_by: GroupBy = "release_group",
) -> str:
    """Return the group of a recording, which is never split between parts.

    It is the release group or the first artist, as `group_by` says; the other one if that is not known; and the
    recording itself if neither is known.
    """
    artist = artist_ids[0] if artist_ids else None
    wanted = (artist, release_group_id) if group_by == "artist" else (release_group_id, artist)
    return next((group for group in wanted if group), recording_id)


def hash_position(group: str, seed: int) -> int:
    """Where the hash puts a group: evenly distributed below 2**64.

    Args:
        group: a release group, an artist or a recording.
        seed: another seed gives an independent position.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}:{group}".encode()).digest()[:8], "big")


def parts_at(positions: NDArray[np.uint64], fractions: Sequence[float]) -> NDArray[np.int8]:
    """The parts of groups, as places in `PARTS`.

    Args:
        positions: (groups,) of each group, by `hash_position`.
        fractions: the expected shares of train, validation and test; they sum to 1.
    """
    left = positions / 2.0**64
    parts = np.full(len(positions), len(PARTS) - 1, dtype=np.int8)
    undecided = np.ones(len(positions), dtype=bool)
    for place, share in enumerate(fractions):
        parts[undecided & (left < share)] = place
        undecided &= left >= share
        left -= share
    return parts


def labels_with_enough(matrix: Any, parts: NDArray[np.int8], least_train: int, least_other: int) -> NDArray[np.bool_]:
    """Which labels have enough recordings in every part that has any, (labels,).

    The organisers of the MediaEval task required 20 recordings in train and 10 in the other part. Here `least_other`
    applies to validation and to test.

    Args:
        matrix: boolean CSR (recordings, labels).
        parts: (recordings,) places in `PARTS`.
        least_train: recordings that a label needs in train.
        least_other: recordings that it needs in validation, and in test.
    """
    enough = np.bincount(matrix.indices, minlength=matrix.shape[1]) > 0
    for place, part in enumerate(PARTS):
        inside = matrix[np.flatnonzero(parts == place)]
        if inside.shape[0]:
            needed = least_train if part == "train" else least_other
            enough &= np.bincount(inside.indices, minlength=matrix.shape[1]) >= needed
    return enough
