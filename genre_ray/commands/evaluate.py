"""The job `evaluate`: compare predictions with a ground truth and write `report.json` and `report.html`.

`report.json` is written last, and only if it does not exist. A report is complete when it exists.
"""

import hashlib
import json
import logging
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from genre_ray import __version__
from genre_ray.bundles.files import read_manifest
from genre_ray.commands.settings import IdentifierConfiguration
from genre_ray.config import Settings
from genre_ray.reports.evaluation import evaluate
from genre_ray.reports.groups import read_groups, roll_up
from genre_ray.reports.html import render
from genre_ray.reports.inputs import (
    predictions_of_run,
    predictions_of_table,
    truth_of_examples,
    truth_of_file,
)
from genre_ray.reports.result import EvaluationResult
from genre_ray.runs.identity import make_identity
from genre_ray.runs.output import Document, Output
from genre_ray.storage import objects, tables
from genre_ray.truth.identifiers import Identifiers

logger = logging.getLogger(__name__)

PartName = Literal["train", "validation", "test"]
Level = Literal["recording", "release_group", "artist"]


class EvaluationSettings(Settings):
    """The predictions of one evaluation, and the ground truth to compare them with.

    A job has these settings once, for a single evaluation, or in a list of evaluations.
    """

    name: str | None = Field(None, min_length=1, description="name of the evaluation in the report")
    predictions: str | None = Field(None, description="predictions table")
    run: str | None = Field(None, description="run TSV to evaluate instead of a predictions table")
    ground_truth: str | None = Field(None, description="ground truth TSV; all its recordings are evaluated")
    examples: str | None = Field(None, description="bundle whose examples are the ground truth")
    part: PartName | None = Field(
        None, description="part of the bundle's examples: train, validation or test (default)"
    )
    taxonomy: str | None = Field(None, description="taxonomy of the examples; default: that of the predictions")
    level: Level | None = Field(None, description="unit to evaluate: recording (default), release_group or artist")
    groups: str | None = Field(None, description="features table with the release groups and artists of recordings")


class Evaluation(EvaluationSettings):
    """One evaluation, with the defaults of its settings."""

    name: str = Field("evaluation", min_length=1)
    part: PartName = "test"
    level: Level = "recording"

    @model_validator(mode="after")
    def _sources(self) -> Self:
        for one, other in (("predictions", "run"), ("examples", "ground_truth")):
            given = [name for name in (one, other) if getattr(self, name) is not None]
            if len(given) != 1:
                found = "both" if given else "neither"
                raise ValueError(f"evaluation {self.name!r} needs exactly one of {one} and {other}, found {found}")
        if self.level == "recording" and self.groups is not None:
            raise ValueError(f"evaluation {self.name!r} has the level recording, which takes no groups; remove them")
        if self.level != "recording" and self.groups is None:
            raise ValueError(
                f"evaluation {self.name!r} has the level {self.level}, which needs groups; give the features table "
                f"that has the {self.level} of each recording"
            )
        return self


class EvaluateConfiguration(EvaluationSettings, IdentifierConfiguration):
    """Compare predictions with a ground truth; write OUTPUT/report.json and OUTPUT/report.html.

    The YAML can list several evaluations under `evaluations`. A single one can be given by flags.
    """

    evaluations: list[Evaluation] = Field([], description="list of evaluations, in the order of the report")
    title: str = Field("Evaluation", description="title of the report")
    seed: int = Field(0, ge=0, description="seed of the random baseline")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        single = [name for name in EvaluationSettings.model_fields if getattr(self, name) is not None]
        if self.evaluations and single:
            raise ValueError(f"give either evaluations or {', '.join(single)}, not both")
        names = [evaluation.name for evaluation in self.wanted()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"evaluations need distinct names, found {', '.join(twice)} more than once")
        return self

    def wanted(self) -> list[Evaluation]:
        """The evaluations, from the list or from the single settings."""
        if self.evaluations:
            return self.evaluations
        single = {name: getattr(self, name) for name in EvaluationSettings.model_fields}
        return [Evaluation(**{name: value for name, value in single.items() if value is not None})]


def run(configuration: EvaluateConfiguration) -> int:
    """Evaluate and write `report.json` and `report.html`; return the exit code.

    Raises:
        InputError: an input cannot be evaluated. Nothing is written.
        OutputTakenError: the output contains the report of another run, or of this run without `--resume`.
    """
    if configuration.dry_run:
        for evaluation in configuration.wanted():
            logger.info("would evaluate %s", evaluation.model_dump(exclude_none=True))
        return 0
    sources = {evaluation.name: _contents(evaluation) for evaluation in configuration.wanted()}
    named = configuration.identifier_files()
    names = {"names": [_sha256(uri) for uri in named]} if named else {}
    identity = make_identity("evaluate", configuration.identity(), sources=sources, **names)
    output = Output(configuration.output, identity, configuration.resume)
    report = Document(configuration.output, "report.json")
    page = objects.join(output.uri, "report.html")
    if output.is_complete(report):
        logger.info("the report: %s", page)
        return 0
    identifiers = configuration.read_identifiers()
    results = [_evaluate(evaluation, configuration, identifiers) for evaluation in configuration.wanted()]
    document = {
        "genre_ray": __version__,
        "run_id": output.run,
        "identity": identity,
        "evaluations": [result.as_dict() for result in results],
    }
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    output.claim(report)
    objects.write_bytes(page, render(results, configuration.title, __version__).encode())
    output.complete(report, lambda: objects.put_if_absent(report.uri, text.encode()))
    logger.info("wrote a report of %d evaluations: %s", len(results), page)
    return 0


def _contents(evaluation: Evaluation) -> dict[str, Any]:
    """The versions of an evaluation's inputs: hashes of files, and the run and version of tables."""
    if evaluation.predictions is not None:
        table = tables.open_table(evaluation.predictions)
        writer = tables.properties_of(table).get("run_id") or str(table.metadata().id)
        predictions = {"predictions_run": writer, "predictions_version": table.version()}
    else:
        predictions = {"run_sha256": _sha256(str(evaluation.run))}
    if evaluation.groups is not None:
        predictions["groups_version"] = tables.open_table(evaluation.groups).version()
    if evaluation.examples is not None:
        return {**predictions, "bundle": read_manifest(evaluation.examples)[0]}
    return {**predictions, "ground_truth_sha256": _sha256(str(evaluation.ground_truth))}


def _sha256(uri: str) -> str:
    return hashlib.sha256(objects.read_bytes(uri)).hexdigest()


def _taxonomy(evaluation: Evaluation) -> str | None:
    if evaluation.taxonomy is None and evaluation.predictions is not None:
        return tables.properties(evaluation.predictions).get("taxonomy")
    return evaluation.taxonomy


def _evaluate(
    evaluation: Evaluation, configuration: EvaluateConfiguration, identifiers: Identifiers
) -> EvaluationResult:
    if evaluation.examples is not None:
        truth = truth_of_examples(evaluation.examples, evaluation.part, _taxonomy(evaluation))
    else:
        truth = truth_of_file(str(evaluation.ground_truth), identifiers)
    truth = truth.first(configuration.limit)
    if evaluation.predictions is not None:
        predictions = predictions_of_table(evaluation.predictions, truth.recording_ids, identifiers)
    else:
        predictions = predictions_of_run(str(evaluation.run), truth.recording_ids, identifiers)
    if evaluation.level != "recording":
        groups = read_groups(str(evaluation.groups), truth.recording_ids, evaluation.level, identifiers)
        predictions, truth = roll_up(predictions, truth, groups, evaluation.level)
    result = evaluate(evaluation.name, predictions, truth, seed=configuration.seed)
    logger.info(
        "%s: %d %ss evaluated, %d without a prediction",
        evaluation.name,
        result.coverage.evaluated,
        result.level.replace("_", " "),
        result.coverage.missing,
    )
    return result
