"""The rows of a features table whose recordings a ground truth contains, found by tasks that each read some parts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, field_validator

from genre_ray.config import Settings
from genre_ray.labels.splits import GroupBy, hash_position
from genre_ray.storage import tables
from genre_ray.training.truths import KnownRecordings, null_if_empty
from genre_ray.truth.identifiers import Identifiers

COLUMNS = ("recording_id", "submission", "artist_ids", "release_group_id", "extractor")


class Split(Settings):
    """How recordings are split into parts, and which labels are used."""

    seed: int = Field(0, ge=0, description="seed of the hash that assigns groups to parts")
    group_by: GroupBy = Field(
        "release_group", description="keep the recordings of a release_group or of an artist in one part"
    )
    fractions: tuple[float, float, float] = Field((0.8, 0.1, 0.1), description="shares of train, validation and test")
    least_train: int = Field(20, ge=1, description="minimum number of training recordings per label")
    least_other: int = Field(10, ge=1, description="minimum number of recordings per label in validation, and in test")

    @field_validator("fractions")
    @classmethod
    def _sum_to_one(cls, fractions: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
            raise ValueError("expected three shares of at least 0 that sum to 1")
        return fractions


@dataclass(frozen=True)
class Found:
    """Rows of a features table whose recording a ground truth knows.

    Attributes:
        rows: int64 (rows,) positions in the table.
        recordings: int32 (rows,) places in the known recordings.
        submissions: int32 (rows,)
        positions: uint64 (taxonomies, rows), where the hash puts the row's group; 0 for a taxonomy with parts.
        extractors: (rows,) dictionary of strings.
    """

    rows: NDArray[np.int64]
    recordings: NDArray[np.int32]
    submissions: NDArray[np.int32]
    positions: NDArray[np.uint64]
    extractors: pa.Array


def find_rows(
    uris: Sequence[str], starts: NDArray[np.int64], known: KnownRecordings, split: Split, identifiers: Identifiers
) -> Found:
    """The known recordings' rows of parts that begin at `starts`."""
    rows, kept = [], []
    for uri, first in zip(uris, starts.tolist(), strict=False):
        with tables.open_part(uri) as file:
            # Any writer's strings, e.g. string views, become plain ones.
            table = file.read(columns=list(COLUMNS), use_threads=False)
        names = identifiers.column(table["recording_id"].combine_chunks().cast(pa.string()))
        place = pc.index_in(names, value_set=known.ids)
        there = pc.is_valid(place)
        rows.append(np.flatnonzero(there.to_numpy(zero_copy_only=False)) + first)
        table = table.set_column(0, "recording_id", names).append_column("place", place)
        kept.append(table.filter(there))
    table = pa.concat_tables(kept)
    places = table["place"].combine_chunks().to_numpy().astype(np.int32)
    return Found(
        np.concatenate(rows),
        places,
        table["submission"].combine_chunks().to_numpy().astype(np.int32),
        _positions(table, places, known, split),
        pc.dictionary_encode(pc.fill_null(table["extractor"].cast(pa.string()), "unknown")).combine_chunks(),
    )


def _positions(table: pa.Table, places: NDArray[np.int32], known: KnownRecordings, split: Split) -> NDArray[np.uint64]:
    """Where the hash puts the group of each row, for each taxonomy; see `Found`."""
    names, artists, groups = (
        table[name].combine_chunks() for name in ("recording_id", "artist_ids", "release_group_id")
    )
    artist = null_if_empty(_first(artists))
    own = null_if_empty(groups.cast(pa.string()))
    positions = np.zeros((len(known.by_hash), len(table)), dtype=np.uint64)
    for row, stated, by_hash in zip(positions, known.release_group_ids, known.by_hash, strict=True):
        if by_hash:
            # The table's release group goes before the truth's, so that all taxonomies agree on it.
            group = pc.coalesce(own, stated.take(pa.array(places)))
            wanted = (artist, group) if split.group_by == "artist" else (group, artist)
            encoded = pc.coalesce(*wanted, names).dictionary_encode()
            hashes = np.fromiter(
                (hash_position(group, split.seed) for group in encoded.dictionary.to_pylist()), dtype=np.uint64
            )
            row[:] = hashes[encoded.indices.to_numpy()]
    return positions


def _first(lists: pa.Array) -> pa.Array:
    """The first string of each list, null for one without."""
    starts = lists.offsets.to_numpy()[:-1]
    filled = pc.fill_null(pc.greater(pc.list_value_length(lists), 0), False)
    places = pa.array(starts, mask=~filled.to_numpy(zero_copy_only=False))
    return lists.values.cast(pa.string()).take(places)
