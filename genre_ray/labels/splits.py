"""Which part of the data a recording belongs to: by a hash of its group, so all taxonomies and growth agree."""

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
    """What must not be split: the release group, or the first artist, or for want of both the recording itself."""
    artist = artist_ids[0] if artist_ids else None
    wanted = (artist, release_group_id) if group_by == "artist" else (release_group_id, artist)
    return next((group for group in wanted if group), recording_id)


def part_of(group: str, seed: int, fractions: Sequence[float]) -> str:
    """The part of all recordings of `group`.

    Args:
        group: a release group, an artist or a recording.
        seed: another seed gives an independent split.
        fractions: the expected shares of train, validation and test; they sum to 1.
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
    """The labels, sorted, that have enough recordings in every part that has any.

    The organisers' rule (20 in train, 10 in the other part), with validation and test held to the same minimum.

    Args:
        examples: (part, labels) of each recording.
        least_train: recordings that a label needs in train.
        least_other: recordings that it needs in validation, and in test.
    """
    counts: Mapping[str, Counter[str]] = {part: Counter() for part in PARTS}
    used: set[str] = set()
    for part, labels in examples:
        used.add(part)
        counts[part].update(labels)
    needed = {part: least_train if part == "train" else least_other for part in PARTS if part in used}
    known = {label for counter in counts.values() for label in counter}
    return tuple(sorted(x for x in known if all(counts[part][x] >= max(n, 1) for part, n in needed.items())))
