"""Ground truths as arrays that workers look recordings up in.

Reading a ground truth of a million recordings takes hundreds of MiB of Python objects, so that a task does it. The
arrays of a `TruthIndex` are small, and tasks on one node share them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from genre_ray.errors import ConfigurationError, InputError
from genre_ray.labels.space import label_matrix
from genre_ray.labels.splits import PARTS
from genre_ray.runs.tasks import Result, start
from genre_ray.truth.ground_truth import GroundTruth, read_ground_truth
from genre_ray.truth.identifiers import Identifiers, read_identifiers

BY_HASH = -1
"""The part of a recording that the hash of its group gives a part."""


@dataclass(frozen=True)
class TruthIndex:
    """What one taxonomy's ground truths say.

    Attributes:
        recording_ids: (recordings,) strings, each once.
        release_group_ids: (recordings,) strings; empty if not known.
        parts: int8 (recordings,) places in `PARTS`, or `BY_HASH`.
        labels: (labels,) sorted.
        matrix: boolean CSR (recordings, labels).
    """

    recording_ids: pa.Array
    release_group_ids: pa.Array
    parts: NDArray[np.int8]
    labels: tuple[str, ...]
    matrix: Any

    def __len__(self) -> int:
        return len(self.recording_ids)


@dataclass(frozen=True)
class KnownRecordings:
    """The recordings of several taxonomies together.

    Attributes:
        ids: (recordings,) sorted.
        places: int32 (taxonomies, recordings), the place of each in a taxonomy's index; -1 if it is not there.
        release_group_ids: for each taxonomy, (recordings,) strings, null if not known.
        by_hash: for each taxonomy, whether the hash of the group gives recordings their parts.
    """

    ids: pa.Array
    places: NDArray[np.int32]
    release_group_ids: tuple[pa.Array, ...]
    by_hash: tuple[bool, ...]


def index_truths(truths: Mapping[str, GroundTruth], identifiers: Identifiers) -> TruthIndex:
    """One taxonomy's ground truths by part, or a single one under the key `all`, which is to be split by hash.

    Raises:
        ConfigurationError: a part is unknown.
        InputError: a recording is in two parts.
    """
    ids: list[str] = []
    groups: list[str] = []
    label_sets: list[tuple[str, ...]] = []
    parts: list[NDArray[np.int8]] = []
    for part, stated in truths.items():
        if part not in PARTS and not (part == "all" and len(truths) == 1):
            raise ConfigurationError(f"expected ground truths of {', '.join(PARTS)}, or one of all; found {part!r}")
        truth = identifiers.truth(stated) if identifiers.recordings else stated
        if both := set(ids).intersection(truth.recording_ids) if ids else set():
            raise InputError(f"{truth.uri}: recording {min(both)} is in another part too; keep it in one file")
        ids += truth.recording_ids
        groups += truth.release_group_ids
        label_sets += truth.labels
        parts.append(np.full(len(truth), PARTS.index(part) if part in PARTS else BY_HASH, dtype=np.int8))
    # Most recordings share their labels with many others: each combination becomes a row once.
    numbers: dict[tuple[str, ...], int] = {}
    codes = np.fromiter((numbers.setdefault(labels, len(numbers)) for labels in label_sets), np.int64, len(label_sets))
    labels = tuple(sorted({label for combination in numbers for label in combination}))
    return TruthIndex(
        pa.array(ids, pa.string()),
        pa.array(groups, pa.string()),
        np.concatenate(parts),
        labels,
        label_matrix(numbers, labels)[codes],
    )


def read_truths(
    sources: Mapping[str, Mapping[str, str]], identifiers: Result[Identifiers]
) -> dict[str, Result[TruthIndex]]:
    """Start to read the ground truths of several taxonomies.

    Args:
        sources: by taxonomy and part, the URI of a ground truth.
        identifiers: which recordings the names in them stand for.
    """
    # On this node: ground truths may be files of the driver's.
    return {taxonomy: start(_read, uris, identifiers, on_this_node=True) for taxonomy, uris in sources.items()}


def start_identifiers(identifiers: str | None, redirects: str | None) -> Result[Identifiers]:
    """Start to read the tables of other names; see `read_identifiers`."""
    return start(read_identifiers, identifiers, redirects, on_this_node=True)


def unite(*indexes: TruthIndex) -> KnownRecordings:
    """The recordings that any of several taxonomies knows."""
    ids = pc.unique(pa.chunked_array([index.recording_ids for index in indexes]))
    ids = ids.take(pc.sort_indices(ids))
    places = np.empty((len(indexes), len(ids)), dtype=np.int32)
    groups = []
    for row, index in zip(places, indexes, strict=True):
        found = pc.index_in(ids, value_set=index.recording_ids)
        row[:] = pc.fill_null(found, -1).to_numpy()
        groups.append(null_if_empty(index.release_group_ids.take(found)))
    return KnownRecordings(ids, places, tuple(groups), tuple(bool((i.parts == BY_HASH).any()) for i in indexes))


def null_if_empty(strings: pa.Array) -> pa.Array:
    """Strings with null in place of empty ones."""
    return pc.if_else(pc.equal(strings, ""), pa.scalar(None, pa.string()), strings)


def _read(uris: Mapping[str, str], identifiers: Identifiers) -> TruthIndex:
    return index_truths({part: read_ground_truth(uri) for part, uri in uris.items()}, identifiers)
