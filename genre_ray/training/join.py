"""Ground truths joined to the rows of a features table: examples with their labels, weight and part.

One pass over the table serves all taxonomies. It is shared by tasks, and another task puts their results together, so
that the driver only receives the finished examples.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, field_validator
from scipy import sparse

from genre_ray.config import Settings
from genre_ray.errors import InputError
from genre_ray.labels.space import LabelSpace
from genre_ray.labels.splits import PARTS, GroupBy, hash_position, labels_with_enough, parts_at
from genre_ray.runs.tasks import Result, start
from genre_ray.storage import tables
from genre_ray.training.examples import Annotations, Coverage, Examples
from genre_ray.training.passes import PASS_ROWS
from genre_ray.training.reading import ABSENT, FeaturesTable, Parts
from genre_ray.training.truths import BY_HASH, KnownRecordings, TruthIndex, null_if_empty, unite
from genre_ray.truth.identifiers import Identifiers

logger = logging.getLogger(__name__)

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


def make_examples(
    features: Sequence[FeaturesTable],
    truths: Mapping[str, Result[TruthIndex]],
    split: Split,
    *,
    identifiers: Result[Identifiers],
    limit: int | None = None,
    masked: bool = False,
    soft: Mapping[str, tuple[str, int]] | None = None,
) -> Examples:
    """Join the ground truths of one or several taxonomies to the rows of features tables.

    Each taxonomy has the labels that it would have alone. A recording has the labels of all taxonomies that annotated
    it. Where they put it in different parts it belongs to the last of these (test, before validation, before train), so
    that nothing is learnt from what one holds out. Labels of a single taxonomy keep their names.

    Of several tables, the first one that has a recording gives its examples, one per submission. Each of the others
    adds the row of the recording's first submission, if it has any.

    Args:
        features: the tables.
        truths: the ground truths of each taxonomy.
        split: settings of the split and of the labels.
        identifiers: which recordings the names in the tables stand for.
        limit: of each taxonomy, take only the first so many rows that it knows.
        masked: see `Examples`.
        soft: by task, a table of `recording_id` and `values` and its version.

    Raises:
        InputError: a taxonomy has no recording in the tables, no label with enough recordings, two labels that become
            the same name, or nothing in train or validation.
    """
    truths = dict(sorted(truths.items()))
    known = start(unite, *truths.values())
    found: list[list[Result[Found]]] = []
    for table in features:
        parts = Parts(table.uri, table.version)
        found.append(
            [
                start(_find, parts.uris[group], parts.starts[group.start : group.stop + 1], known, split, identifiers)
                for group in parts.groups(PASS_ROWS)
            ]
        )
    counts = tuple(map(len, found))
    plan = _Plan(tuple(table.uri for table in features), split, limit, masked, tuple(truths), soft or {}, counts)
    held = start(_put_together, plan, known, *chain.from_iterable(found), *truths.values())
    examples = held.get()
    for taxonomy, annotations in examples.taxonomies.items():
        logger.info(
            "%s: %d labels; %d recordings of the ground truth, %.1f %% of them not in the table",
            taxonomy,
            len(annotations.labels),
            annotations.coverage.stated,
            100 * annotations.coverage.lost,
        )
    if examples.moved:
        logger.warning(
            "%d recordings are in different parts of the taxonomies, the last of them counts", examples.moved
        )
    return replace(examples, held=held)


def _find(
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


@dataclass(frozen=True)
class _Plan:
    """What examples are made of; `tasks` counts the results of `_find` for each table."""

    uris: tuple[str, ...]
    split: Split
    limit: int | None
    masked: bool
    taxonomies: tuple[str, ...]
    soft: Mapping[str, tuple[str, int]]
    tasks: tuple[int, ...]


@dataclass(frozen=True)
class _Taxonomy:
    """What a taxonomy alone makes of the rows.

    Attributes:
        rows: (rows,) whether it is an example, of the rows that were found.
        recordings: (its recordings,) places in the known recordings, rising.
        parts: int8 (its recordings,)
        labels: its labels that have enough recordings.
        matrix: boolean CSR (its recordings, labels).
        coverage: of its ground truth.
    """

    rows: NDArray[np.bool_]
    recordings: NDArray[np.int64]
    parts: NDArray[np.int8]
    labels: tuple[str, ...]
    matrix: Any
    coverage: Coverage


def _put_together(plan: _Plan, known: KnownRecordings, *results: Any) -> Examples:
    """The examples from what was found in the tables; `results` are those of `_find`, then the taxonomies' indexes."""
    pieces, indexes = iter(results[: sum(plan.tasks)]), results[sum(plan.tasks) :]
    each_table = [_concatenate(list(islice(pieces, count))) for count in plan.tasks]
    rows, found = _side_by_side(each_table)
    each = {
        name: _alone(name, found, known.places[number], found.positions[number], index, plan)
        for number, (name, index) in enumerate(zip(plan.taxonomies, indexes, strict=True))
    }
    space = LabelSpace.join({name: taxonomy.labels for name, taxonomy in each.items()})
    kept = np.flatnonzero(np.logical_or.reduce([taxonomy.rows for taxonomy in each.values()]))
    recordings, inverse = np.unique(found.recordings[kept], return_inverse=True)
    latest = np.zeros(len(recordings), dtype=np.int8)
    earliest = np.full(len(recordings), len(PARTS), dtype=np.int8)
    annotations = {}
    union = sparse.csr_array((len(recordings), len(space.labels)), dtype=np.int32)
    for name, taxonomy in each.items():
        place = np.searchsorted(recordings, taxonomy.recordings)
        latest[place] = np.maximum(latest[place], taxonomy.parts)
        earliest[place] = np.minimum(earliest[place], taxonomy.parts)
        matrix = _at(taxonomy.matrix, place, len(recordings))
        annotations[name] = Annotations(taxonomy.labels, space.columns[name], matrix, taxonomy.coverage)
        union = union + _to_columns(matrix, space.columns[name], len(space.labels))
    moved = int((latest > earliest).sum())
    for name, annotated in annotations.items():
        _refuse_empty(latest[annotated.annotated], name, moved)
    ids = known.ids.take(pa.array(recordings))
    return Examples(
        labels=space.labels,
        recording_ids=ids,
        parts=latest,
        matrix=union.astype(bool),
        rows=rows[:, kept],
        recordings=inverse.astype(np.int32),
        weights=(1 / np.bincount(inverse))[inverse].astype(np.float32),
        taxonomies=annotations,
        masked=plan.masked,
        soft={task: _soft_targets(*table, ids) for task, table in plan.soft.items()},
        extractors=_count(found.extractors.take(pa.array(kept[latest[inverse] == PARTS.index("train")]))),
        moved=moved,
    )


def _concatenate(found: Sequence[Found]) -> Found:
    return Found(
        np.concatenate([part.rows for part in found]),
        np.concatenate([part.recordings for part in found]),
        np.concatenate([part.submissions for part in found]),
        np.concatenate([part.positions for part in found], axis=1),
        _concatenate_dictionaries([part.extractors for part in found]),
    )


def _concatenate_dictionaries(arrays: Sequence[pa.Array]) -> pa.Array:
    return pa.chunked_array(arrays).unify_dictionaries().combine_chunks()


def _side_by_side(each: Sequence[Found]) -> tuple[NDArray[np.int64], Found]:
    """(tables, examples) positions in each table, and what was found in the first table that has the recording."""
    if len(each) == 1:
        return each[0].rows[None], each[0]
    firsts = [_first_submissions(found) for found in each]
    columns, chosen = [], []
    seen = np.empty(0, dtype=np.int32)
    for table, found in enumerate(each):
        here = np.flatnonzero(~np.isin(found.recordings, seen))
        seen = np.union1d(seen, found.recordings)
        rows = np.full((len(each), len(here)), ABSENT, dtype=np.int64)
        rows[table] = found.rows[here]
        for other, (recordings, positions) in enumerate(firsts[table + 1 :], table + 1):
            place = np.minimum(np.searchsorted(recordings, found.recordings[here]), len(recordings) - 1)
            there = recordings[place] == found.recordings[here]
            rows[other, there] = positions[place[there]]
        columns.append(rows)
        chosen.append(
            Found(
                found.rows[here],
                found.recordings[here],
                found.submissions[here],
                found.positions[:, here],
                found.extractors.take(pa.array(here)),
            )
        )
    return np.concatenate(columns, axis=1), _concatenate(chosen)


def _first_submissions(found: Found) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The recordings of a table, rising, and the position of the row of each one's first submission."""
    order = np.lexsort((found.rows, found.submissions, found.recordings))
    recordings, first = np.unique(found.recordings[order], return_index=True)
    return recordings, found.rows[order[first]]


def _soft_targets(uri: str, version: int, ids: pa.Array) -> NDArray[np.float32]:
    """(recordings, values) of a table of soft targets; NaN for a recording that it lacks.

    Raises:
        InputError: the table has other columns, or a recording's values are no distribution.
    """
    table = tables.open_table(uri, version)
    if missing := {"recording_id", "values"} - {*tables.schema_of(table).names}:
        raise InputError(f"{uri}: expected the columns recording_id and values, found no {', '.join(sorted(missing))}")
    batches = list(tables.read_batches(uri, ["recording_id", "values"], version=version))
    rows = pa.Table.from_batches(batches)
    values = tables.vectors(rows["values"])
    if not (np.isfinite(values).all() and (values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=1e-3)):
        raise InputError(f"{uri}: expected values of at least 0 that sum to 1 for each recording, found others")
    place = pc.index_in(ids, value_set=rows["recording_id"].combine_chunks().cast(pa.string()))
    there = pc.is_valid(place).to_numpy(zero_copy_only=False)
    targets = np.full((len(ids), values.shape[1]), np.nan, dtype=np.float32)
    targets[there] = values[place.drop_null().to_numpy()]
    return targets


def _alone(
    name: str,
    found: Found,
    places: NDArray[np.int32],
    positions: NDArray[np.uint64],
    index: TruthIndex,
    plan: _Plan,
) -> _Taxonomy:
    split = plan.split
    there = places[found.recordings] >= 0
    if plan.limit is not None:
        there &= np.cumsum(there) <= plan.limit
    rows = np.flatnonzero(there)
    if not len(rows):
        raise InputError(
            f"expected recordings of the ground truth of {name} in {', '.join(plan.uris)}, found none of its "
            f"{len(index)} recordings; check that both name recordings by the same ids"
        )
    # Submissions may name different groups: the first one's counts, so that a recording is whole in one part.
    order = rows[np.lexsort((positions[rows], found.submissions[rows], found.recordings[rows]))]
    recordings, first = np.unique(found.recordings[order], return_index=True)
    own = places[recordings]
    by_hash = parts_at(positions[order[first]], split.fractions)
    parts = np.where(index.parts[own] == BY_HASH, by_hash, index.parts[own]).astype(np.int8)
    matrix = index.matrix[own]
    enough = labels_with_enough(matrix, parts, split.least_train, split.least_other)
    if not enough.any():
        raise InputError(
            f"expected labels of {name} with {split.least_train} recordings in train and {split.least_other} in each "
            f"other part, found none among {len(recordings)} recordings; label more or lower split.least_train and "
            "split.least_other"
        )
    matrix = matrix[:, np.flatnonzero(enough)]
    labelled = np.diff(matrix.indptr) > 0
    inside = np.zeros(len(places), dtype=bool)
    inside[recordings[labelled]] = True
    labels = tuple(label for label, kept in zip(index.labels, enough.tolist(), strict=True) if kept)
    _refuse_empty(parts[labelled], name)
    return _Taxonomy(
        there & inside[found.recordings],
        recordings[labelled],
        parts[labelled],
        labels,
        matrix[np.flatnonzero(labelled)],
        Coverage(len(index), len(recordings)),
    )


def _at(matrix: Any, places: NDArray[np.int64], rows: int) -> Any:
    """A CSR matrix of `rows` rows, with those of `matrix` at rising `places`."""
    lengths = np.zeros(rows, dtype=np.int64)
    lengths[places] = np.diff(matrix.indptr)
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(matrix.indptr.dtype)
    return sparse.csr_array((matrix.data, matrix.indices, indptr), shape=(rows, matrix.shape[1]))


def _to_columns(matrix: Any, columns: NDArray[np.int64], width: int) -> Any:
    """A CSR matrix with its columns moved to `columns` of `width`, as numbers."""
    moved = columns.astype(matrix.indices.dtype)[matrix.indices]
    values = np.ones(len(moved), dtype=np.int32)
    return sparse.csr_array((values, moved, matrix.indptr), shape=(matrix.shape[0], width))


def _count(values: pa.Array) -> dict[str, int]:
    """How often each string is there, the most frequent first."""
    counts = [(str(count["values"]), int(count["counts"])) for count in pc.value_counts(values).to_pylist()]
    return dict(sorted(counts, key=lambda item: (-item[1], item[0])))


def _refuse_empty(parts: NDArray[np.int8], taxonomy: str, moved: int = 0) -> None:
    for part in ("train", "validation"):
        if PARTS.index(part) not in parts:
            why = f" ({moved} recordings are in another part of another taxonomy, and the last part counts)"
            raise InputError(
                f"expected recordings of {taxonomy} in the part {part}, found none{why if moved else ''}; correct "
                "split.fractions or the files"
            )
