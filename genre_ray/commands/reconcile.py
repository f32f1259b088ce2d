"""`reconcile`: several taxonomies + the recordings they share → a mapping table to correct, and their conflicts.

OUTPUT/mapping.tsv has the relations of labels, OUTPUT/conflicts.tsv the contradictions, and OUTPUT/reconcile.json,
written last, what was compared. People correct mapping.tsv, where it is or as a copy, for `predict --mapping`.
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
    """A taxonomy and the recordings that it annotates."""

    ground_truth: tuple[str, ...] = Field(min_length=1, description="TSVs of the task, also .bz2")
    taxonomy: str | None = Field(None, description="its tree, as .yaml or FMA's .csv; the labels' names when not given")


class ReconcileConfiguration(IdentifierConfiguration):
    """Learn how the labels of several taxonomies relate from the recordings that they share."""

    taxonomies: dict[str, Source] = Field(description="name → ground_truth, and taxonomy where names do not spell it")
    confidence: float = Field(0.95, gt=0, lt=1, description="of every interval, two-sided")
    inclusion: float = Field(0.5, gt=0, lt=1, description="a label is within another with at least this share in it")
    least: int = Field(5, ge=1, description="recordings that two labels share before they are related")
    least_weight: float = Field(0.05, ge=0, le=1, description="leave out overlaps of a smaller share")

    @field_validator("taxonomies")
    @classmethod
    def _two(cls, taxonomies: dict[str, Source]) -> dict[str, Source]:
        if len(taxonomies) < 2 or not all(taxonomies):
            raise ValueError("expected at least two taxonomies, each with a name")
        return taxonomies


@dataclass(frozen=True)
class Annotations:
    """A taxonomy, and the labels of each recording closed upwards in it."""

    taxonomy: Taxonomy
    labels: Mapping[str, tuple[str, ...]]


def run(configuration: ReconcileConfiguration) -> int:
    """Carry the job out; return its exit code."""
    identifiers = configuration.read_identifiers()
    sources = {
        name: _read(name, source, identifiers, configuration.limit) for name, source in configuration.taxonomies.items()
    }
    pairs = list(itertools.combinations(sources, 2))
    for ours, theirs in pairs:
        shared = len(sources[ours].labels.keys() & sources[theirs].labels.keys())
        logger.info("%s and %s share %d recordings", ours, theirs, shared)
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
                raise InputError(f"{uri}: recording {recording} is in another file of {name} too; keep it in one")
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
    """The rows both ways, the conflicts, and the number of recordings they come from."""
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
    logger.info("%s: %d rows of mapping.tsv and %d of conflicts.tsv to look through", output, len(rows), len(found))
