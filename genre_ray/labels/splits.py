"""Split recordings into training, validation and test parts by a hash of their release group or artist.

The part of a recording depends only on its group and the seed. So it is the same for all taxonomies, and it stays the
same when recordings are added.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

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


def part_of(group: str, seed: int, fractions: Sequence[float]) -> str:
    """Return the part that all recordings of a group belong to.

    Args:
        group: id of a release group, an artist or a recording.
        seed: different seeds give independent splits.
        fractions: expected shares of train, validation and test, which sum to 1.
    """
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    for part, share in zip(PARTS, fractions, strict=True):
        if position < share:
            return part
        position -= share
    return PARTS[-1]


def labels_with_enough(
    examples: Iterable[tuple[str, Sequence[str]]], least_train: int, least_other: int
) -> tuple[str, ...]:
    """Return the labels that have enough recordings in every part, sorted. Empty parts are ignored.

    The organisers of the MediaEval task required 20 recordings in train and 10 in the other part. Here `least_other`
    applies to validation and to test.

    Args:
        examples: (part, labels) of each recording.
        least_train: minimum number of recordings in train.
        least_other: minimum number of recordings in validation, and in test.
    """
    counts: Mapping[str, Counter[str]] = {part: Counter() for part in PARTS}
    used: set[str] = set()
    for part, labels in examples:
        used.add(part)
        counts[part].update(labels)
    needed = {part: least_train if part == "train" else least_other for part in PARTS if part in used}
    known = {label for counter in counts.values() for label in counter}
    return tuple(sorted(x for x in known if all(counts[part][x] >= max(n, 1) for part, n in needed.items())))
