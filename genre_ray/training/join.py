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
from scipy import sparse

from genre_ray.errors import InputError
from genre_ray.labels.space import LabelSpace
from genre_ray.labels.splits import PARTS, labels_with_enough, parts_at
from genre_ray.runs.tasks import Result, start
from genre_ray.training.examples import Annotations, Coverage, Examples
from genre_ray.training.finding import Found, Split, find_rows
from genre_ray.training.passes import PASS_ROWS
from genre_ray.training.reading import ABSENT, FeaturesTable, Parts
from genre_ray.training.soft_targets import read_soft_targets
from genre_ray.training.truths import BY_HASH, KnownRecordings, TruthIndex, unite
from genre_ray.truth.identifiers import Identifiers

logger = logging.getLogger(__name__)


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
                start(
                    find_rows, parts.uris[group], parts.starts[group.start : group.stop + 1], known, split, identifiers
                )
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


@dataclass(frozen=True)
class _Plan:
    """What examples are made of; `tasks` counts the results of `find_rows` for each table."""

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
    """Make examples of what was found: `results` are those of `find_rows`, then the indexes of the taxonomies."""
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
        soft={task: read_soft_targets(*table, ids) for task, table in plan.soft.items()},
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
