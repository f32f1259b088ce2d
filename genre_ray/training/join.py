"""Ground truths joined to the rows of a features table: examples with their labels, weight and part."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from pydantic import Field, field_validator

from genre_ray.config import Settings
from genre_ray.errors import ConfigurationError, InputError
from genre_ray.labels.space import LabelSpace
from genre_ray.labels.splits import PARTS, GroupBy, group_of, labels_with_enough, part_of
from genre_ray.storage import tables
from genre_ray.training.examples import Annotations, Array, Coverage, Examples
from genre_ray.truth.ground_truth import GroundTruth
from genre_ray.truth.identifiers import NO_IDENTIFIERS, Identifiers

logger = logging.getLogger(__name__)


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


def make_examples(
    features_uri: str,
    version: int,
    truths: Mapping[str, GroundTruth],
    split: Split,
    limit: int | None = None,
    identifiers: Identifiers = NO_IDENTIFIERS,
) -> Examples:
    """Join ground truths to the rows of a features table.

    Args:
        features_uri: the table.
        version: its version.
        truths: ground truths by part, or one under the key `all`, which is then split by hash of the group.
        split: settings of the split and of the labels.
        limit: take only the first so many rows that the truths know.
        identifiers: which recordings the names in the truths and in the table stand for.

    Raises:
        InputError: no recording of the truth is in the table, a recording is in two parts, or no label has enough
            recordings.
    """
    known = _index({part: identifiers.truth(truth) for part, truth in truths.items()})
    rows, groups = _join(features_uri, version, known, split.group_by, limit, identifiers)
    if not rows:
        raise InputError(
            f"expected recordings of the ground truth in {features_uri}, found none of its {len(known)} recordings; "
            "check that both name recordings by the same ids"
        )
    coverage = Coverage(len(known), len(groups))
    logger.info("%d recordings of the ground truth, %.1f %% of them not in the table", len(known), 100 * coverage.lost)
    matched = {
        recording: _Known(known[recording].part or part_of(group, split.seed, split.fractions), *known[recording][1:])
        for recording, (_, group) in groups.items()
    }
    space = labels_with_enough(
        ((str(found.part), found.labels) for found in matched.values()), split.least_train, split.least_other
    )
    if not space:
        raise InputError(
            f"expected labels with {split.least_train} recordings in train and {split.least_other} in each other part, "
            f"found none among {len(matched)} recordings; label more or lower split.least_train and split.least_other"
        )
    examples = replace(_examples(rows, matched, space), coverage=coverage)
    _refuse_empty(examples.parts, "")
    return examples


def join_taxonomies(sources: Mapping[str, Examples], *, masked: bool = False) -> Examples:
    """The examples of several taxonomies as those of one label space; those of a single one keep its names.

    A recording has the labels of all taxonomies that annotated it. Where they put it in different parts it belongs to
    the last of these (test, before validation, before train), so that nothing is learnt from what one holds out.

    Args:
        sources: the examples of each taxonomy, all of one version of one table; each with the labels that it would
            have alone.
        masked: see `Examples`.

    Raises:
        InputError: two labels of a taxonomy become the same name, or a taxonomy is left without train or validation.
    """
    space = LabelSpace.join({taxonomy: examples.labels for taxonomy, examples in sources.items()})
    rows, first = np.unique(np.concatenate([examples.rows for examples in sources.values()]), return_index=True)
    ids = np.concatenate([examples.recording_ids for examples in sources.values()])[first]
    _, recording = np.unique(ids, return_inverse=True)
    latest, earliest = np.zeros(recording.max() + 1, dtype=np.int64), np.full(recording.max() + 1, len(PARTS))
    taxonomies: dict[str, Annotations] = {}
    for taxonomy, examples in sources.items():
        place = np.searchsorted(rows, examples.rows)
        ranks = np.array([PARTS.index(part) for part in examples.parts.tolist()])
        np.maximum.at(latest, recording[place], ranks)
        np.minimum.at(earliest, recording[place], ranks)
        label_sets = np.empty(len(rows), dtype=object)
        label_sets.fill(())
        label_sets[place] = examples.label_sets
        taxonomies[taxonomy] = Annotations(examples.labels, space.columns[taxonomy], label_sets, examples.coverage)
    if moved := int((latest > earliest).sum()):
        logger.warning("%d recordings are in different parts of the taxonomies, the last of them counts", moved)
    parts = np.array(PARTS)[latest][recording]
    for taxonomy, annotations in taxonomies.items():
        _refuse_empty(parts[annotations.annotated], f" of {taxonomy}")
    weights = (1 / np.bincount(recording))[recording].astype(np.float32)
    return Examples(space.labels, rows, ids, parts, _union(space, taxonomies), weights, taxonomies, masked=masked)


def _union(space: LabelSpace, taxonomies: Mapping[str, Annotations]) -> Array:
    """(examples,) the labels of all taxonomies in the names of the space."""
    names = [
        {label: space.labels[column] for label, column in zip(found.labels, found.columns, strict=True)}
        for found in taxonomies.values()
    ]
    each = zip(*(found.label_sets for found in taxonomies.values()), strict=True)
    unions = [
        tuple(sorted({name[label] for name, labels in zip(names, own, strict=True) for label in labels}))
        for own in each
    ]
    label_sets = np.empty(len(unions), dtype=object)
    label_sets[:] = unions
    return label_sets


def _refuse_empty(parts: Array, whose: str) -> None:
    for part in ("train", "validation"):
        if part not in parts:
            raise InputError(
                f"expected recordings{whose} in the part {part}, found none; correct split.fractions or the files"
            )


class _Known(NamedTuple):
    """What a ground truth says of a recording; no part when the group's hash is to give it."""

    part: str | None
    release_group: str
    labels: tuple[str, ...]


def _index(truths: Mapping[str, GroundTruth]) -> dict[str, _Known]:
    known: dict[str, _Known] = {}
    for part, truth in truths.items():
        if part not in PARTS and not (part == "all" and len(truths) == 1):
            raise ConfigurationError(f"expected ground truths of {', '.join(PARTS)}, or one of all; found {part!r}")
        for recording, group, labels in zip(truth.recording_ids, truth.release_group_ids, truth.labels, strict=True):
            if recording in known:
                raise InputError(f"{truth.uri}: recording {recording} is in another part too; keep it in one file")
            known[recording] = _Known(None if part == "all" else part, group, labels)
    return known


def _join(
    features_uri: str,
    version: int,
    known: Mapping[str, _Known],
    group_by: GroupBy,
    limit: int | None,
    identifiers: Identifiers,
) -> tuple[list[tuple[int, str]], dict[str, tuple[int, str]]]:
    """(row, recording) of all known recordings, and each one's group, with the submission that names it.

    Submissions may name different groups: the first one's counts, so that a recording is whole in one part. The
    table's release group goes before the truth's, so that all taxonomies agree on it.
    """
    columns = ["recording_id", "submission", "artist_ids", "release_group_id"]
    rows: list[tuple[int, str]] = []
    groups: dict[str, tuple[int, str]] = {}
    start = 0
    for batch in tables.read_batches(features_uri, columns, version=version, batch_rows=8192):
        names, *others = (batch.column(name) for name in columns)
        values = zip(*(column.to_pylist() for column in (identifiers.column(names), *others)), strict=True)
        for row, (recording, submission, artists, release_group) in enumerate(values, start):
            if recording not in known:
                continue
            if len(rows) == limit:
                return rows, groups
            group = group_of(recording, release_group or known[recording].release_group, artists or (), group_by)
            rows.append((row, recording))
            groups[recording] = min(groups.get(recording, (submission, group)), (submission, group))
        start += batch.num_rows
    return rows, groups


def _examples(rows: Sequence[tuple[int, str]], matched: Mapping[str, _Known], space: tuple[str, ...]) -> Examples:
    in_space = frozenset(space)
    inside = {
        recording: labels
        for recording, found in matched.items()
        if (labels := tuple(label for label in found.labels if label in in_space))
    }
    kept = [(row, recording) for row, recording in rows if recording in inside]
    recordings = [recording for _, recording in kept]
    submissions = Counter(recordings)
    label_sets = np.empty(len(kept), dtype=object)
    label_sets[:] = [inside[recording] for recording in recordings]
    return Examples(
        space,
        np.array([row for row, _ in kept], dtype=np.int64),
        np.array(recordings),
        np.array([matched[recording].part for recording in recordings]),
        label_sets,
        np.array([1 / submissions[recording] for recording in recordings], dtype=np.float32),
    )
