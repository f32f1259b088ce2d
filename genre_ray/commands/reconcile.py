"""The job `reconcile`: learn how the labels of several taxonomies relate, from recordings that they all annotate.

OUTPUT/mapping.tsv lists related labels, OUTPUT/conflicts.tsv lists contradictions. OUTPUT/reconcile.json is written
last and says what was compared. People may correct mapping.tsv before `predict --mapping` reads it.
"""

import hashlib
import itertools
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from pydantic import Field, field_validator

from genre_ray import __version__
from genre_ray.commands.settings import IdentifierConfiguration
from genre_ray.config import Settings
from genre_ray.errors import InputError
from genre_ray.labels.co_occurrence import BLOCK_RECORDINGS, CoOccurrence
from genre_ray.labels.conflicts import Conflict, name_conflicts, parent_conflicts, without_counterpart
from genre_ray.labels.mapping import Relations, Rule
from genre_ray.labels.space import label_matrix
from genre_ray.labels.taxonomy import Taxonomy
from genre_ray.labels.taxonomy_files import read_taxonomy
from genre_ray.runs.identity import make_identity
from genre_ray.runs.output import Document, Output
from genre_ray.storage import objects
from genre_ray.truth.ground_truth import read_ground_truth
from genre_ray.truth.identifiers import Identifiers
from genre_ray.truth.mapping_table import MappingRow, format_mapping, format_table

logger = logging.getLogger(__name__)


class Source(Settings):
    """A taxonomy and the ground truth that uses it."""

    ground_truth: tuple[str, ...] = Field(min_length=1, description="ground truth TSVs, plain or .bz2")
    taxonomy: str | None = Field(
        None, description="file with the hierarchy (.yaml or FMA's .csv); default: from names such as rock---punk"
    )


class ReconcileConfiguration(IdentifierConfiguration):
    """Learn how the labels of several taxonomies relate; write OUTPUT/mapping.tsv and OUTPUT/conflicts.tsv."""

    taxonomies: dict[str, Source] = Field(description="name of each taxonomy → its ground_truth and taxonomy file")
    confidence: float = Field(0.95, gt=0, lt=1, description="confidence level of the two-sided intervals")
    inclusion: float = Field(
        0.5, gt=0, lt=1, description="minimum share of a label's recordings with another label to be part of it"
    )
    least: int = Field(5, ge=1, description="minimum number of common recordings of two related labels")
    least_weight: float = Field(0.05, ge=0, le=1, description="leave out overlaps with a smaller weight than this")

    @field_validator("taxonomies")
    @classmethod
    def _two(cls, taxonomies: dict[str, Source]) -> dict[str, Source]:
        if len(taxonomies) < 2 or not all(taxonomies):
            raise ValueError("expected at least two taxonomies with names that are not empty")
        return taxonomies


@dataclass(frozen=True)
class Annotations:
    """A taxonomy, and the labels of each recording with all their ancestors."""

    taxonomy: Taxonomy
    labels: Mapping[str, tuple[str, ...]]


def run(configuration: ReconcileConfiguration) -> int:
    """Run the job and return its exit code."""
    identifiers = configuration.read_identifiers()
    sources = {
        name: _read(name, source, identifiers, configuration.limit) for name, source in configuration.taxonomies.items()
    }
    pairs = list(itertools.combinations(sources, 2))
    for ours, theirs in pairs:
        shared = len(sources[ours].labels.keys() & sources[theirs].labels.keys())
        logger.info("%s and %s both annotate %d recordings", ours, theirs, shared)
    if configuration.dry_run:
        return 0
    identity = make_identity("reconcile", configuration.identity(), sources=_contents(configuration))
    output = Output(configuration.output, identity, configuration.resume)
    document = Document(configuration.output, "reconcile.json")
    if output.is_complete(document):
        return 0
    rows: list[MappingRow] = []
    found: list[Conflict] = []
    summary = []
    for ours, theirs in pairs:
        new_rows, new_conflicts, recordings = _reconcile(ours, theirs, sources, configuration)
        rows += new_rows
        found += new_conflicts
        summary.append(_summary(ours, theirs, recordings, new_rows, new_conflicts))
        logger.info("%s and %s: %s", ours, theirs, summary[-1])
    text = json.dumps(
        {"genre_ray": __version__, "run_id": output.run, "identity": identity, "pairs": summary},
        indent=1,
        ensure_ascii=False,
    )
    output.claim(document)
    _write(configuration.output, rows, found)
    output.complete(document, lambda: objects.put_if_absent(document.uri, text.encode()))
    return 0


def _read(name: str, source: Source, identifiers: Identifiers, limit: int | None) -> Annotations:
    stated: dict[str, tuple[str, ...]] = {}
    for uri in source.ground_truth:
        truth = identifiers.truth(read_ground_truth(uri))
        for recording, labels in zip(truth.recording_ids, truth.labels, strict=True):
            if recording in stated:
                raise InputError(
                    f"{uri}: recording {recording} is also in another ground truth file of {name}; remove one of them"
                )
            stated[recording] = labels
    stated = dict(sorted(stated.items())[:limit])
    if source.taxonomy is None:
        taxonomy = Taxonomy.of_names({label for labels in stated.values() for label in labels}, name)
    else:
        taxonomy = read_taxonomy(source.taxonomy)
    closed: dict[tuple[str, ...], tuple[str, ...]] = {}
    for own in stated.values():
        if own not in closed:
            closed[own] = taxonomy.with_parents(taxonomy.resolve(label) for label in own)
    logger.info("%s: %d recordings, %d labels", name, len(stated), len(taxonomy))
    return Annotations(taxonomy, {recording: closed[own] for recording, own in stated.items()})


def _reconcile(
    ours: str, theirs: str, sources: Mapping[str, Annotations], configuration: ReconcileConfiguration
) -> tuple[list[MappingRow], list[Conflict], int]:
    """Compare two taxonomies.

    Returns:
        The mapping rows in both directions, the conflicts, and the number of recordings that both annotate.
    """
    first, second = sources[ours], sources[theirs]
    counts = CoOccurrence.count(first.taxonomy.labels, second.taxonomy.labels, _blocks(first, second))
    rule = Rule(configuration.confidence, configuration.inclusion, configuration.least, configuration.least_weight)
    there = Relations(counts, second.taxonomy, rule)
    back = Relations(counts.swapped, first.taxonomy, rule)
    found = [
        *name_conflicts(ours, theirs, there),
        *parent_conflicts(ours, theirs, there, first.taxonomy),
        *parent_conflicts(theirs, ours, back, second.taxonomy),
        *without_counterpart(ours, theirs, there),
        *without_counterpart(theirs, ours, back),
    ]
    return [*there.rows(ours, theirs), *back.rows(theirs, ours)], found, counts.recordings


def _blocks(first: Annotations, second: Annotations) -> Iterator[tuple[Any, Any]]:
    shared = sorted(first.labels.keys() & second.labels.keys())
    for start in range(0, len(shared), BLOCK_RECORDINGS):
        block = shared[start : start + BLOCK_RECORDINGS]
        yield _matrix(first, block), _matrix(second, block)


def _matrix(side: Annotations, recordings: Sequence[str]) -> Any:
    return label_matrix([side.labels[recording] for recording in recordings], side.taxonomy.labels)


def _summary(
    ours: str, theirs: str, recordings: int, rows: Sequence[MappingRow], found: Sequence[Conflict]
) -> dict[str, Any]:
    there = Counter(row.relation for row in rows if row.from_taxonomy == ours)
    return {
        "from": ours,
        "to": theirs,
        "recordings": recordings,
        "relations": dict(sorted(there.items())),
        "conflicts": dict(sorted(Counter(conflict.reason for conflict in found).items())),
    }


def _contents(configuration: ReconcileConfiguration) -> dict[str, str]:
    uris = [uri for source in configuration.taxonomies.values() for uri in (*source.ground_truth, source.taxonomy)]
    named = [uri for uri in uris if uri is not None] + configuration.identifier_files()
    return {uri: hashlib.sha256(objects.read_bytes(uri)).hexdigest() for uri in named}


def _write(output: str, rows: Sequence[MappingRow], found: Sequence[Conflict]) -> None:
    names = [field.name for field in fields(Conflict)]
    objects.write_bytes(objects.join(output, "conflicts.tsv"), format_table(names, (asdict(x).values() for x in found)))
    objects.write_bytes(objects.join(output, "mapping.tsv"), format_mapping(rows))
    logger.info("%s: wrote %d rows to mapping.tsv and %d rows to conflicts.tsv", output, len(rows), len(found))
