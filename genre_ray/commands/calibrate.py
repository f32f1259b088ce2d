"""The job `calibrate`: fit a bundle's calibration and thresholds again, from stored scores.

With `--relabel` it applies a bundle's calibration and thresholds to stored scores instead. Neither runs the network.
"""

import json
import logging
from dataclasses import replace
from typing import Self

import pyarrow.compute as pc
from pydantic import Field, model_validator

from genre_ray.bundles.examples import read_examples, trained_on
from genre_ray.bundles.files import Bundle, read_bundle, write_bundle
from genre_ray.bundles.manifest import Lineage, Manifest
from genre_ray.bundles.targets import Target, find_target
from genre_ray.commands.learning import bundle_document
from genre_ray.commands.settings import IdentifierConfiguration
from genre_ray.decisions.fitting import DecisionSettings, fit_policy, validation_metrics
from genre_ray.errors import InputError
from genre_ray.labels.space import label_matrix
from genre_ray.predictions.aggregate import recording_labels
from genre_ray.predictions.relabel import RelabelStage
from genre_ray.predictions.rows import predictions_properties
from genre_ray.reports.card import card
from genre_ray.reports.inputs import Truth, predictions_of_table, truth_of_examples, truth_of_file
from genre_ray.runs.batch import run_batch
from genre_ray.runs.identity import Identity, make_identity, run_id
from genre_ray.runs.output import Output
from genre_ray.sources.tables import TableRows
from genre_ray.storage import objects, tables
from genre_ray.truth.run_file import format_run

logger = logging.getLogger(__name__)


class CalibrateConfiguration(IdentifierConfiguration):
    """Fit a bundle's calibration and thresholds again, from stored scores, and write a new bundle to OUTPUT.

    With --relabel, apply the bundle's calibration and thresholds to the stored scores and write OUTPUT/predictions. The
    scores must come from this bundle or from one with the same network.
    """

    bundle: str = Field(description="folder or s3:// URI of the bundle that computed the scores")
    predictions: str = Field(description="predictions table written with --all-scores")
    target: str | None = Field(None, description="taxonomy of the labels; default: that of the bundle")
    ground_truth: str | None = Field(
        None, description="ground truth TSV to fit on; default: the validation part of the bundle's examples"
    )
    decisions: DecisionSettings = DecisionSettings()
    relabel: bool = Field(False, description="label the stored scores with the bundle as it is; do not fit")
    run_tsv: bool = Field(
        False, description="with --relabel: also write OUTPUT/run.tsv in the format of the MediaEval genre task"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        fitting = [
            name for name in ("ground_truth", "identifiers", "redirects", "decisions") if name in self.model_fields_set
        ]
        if self.relabel and fitting:
            raise ValueError(
                f"--relabel uses the bundle as it is and cannot be combined with {', '.join(fitting)}; calibrate "
                "first, then relabel with the new bundle"
            )
        return self


def run(configuration: CalibrateConfiguration) -> int:
    """Run the job and return its exit code."""
    bundle = read_bundle(configuration.bundle)
    target = find_target(bundle, configuration.target)
    _refuse_other_model(configuration.predictions, bundle, target)
    return _relabel(configuration, bundle, target) if configuration.relabel else _fit(configuration, bundle, target)


def _relabel(configuration: CalibrateConfiguration, bundle: Bundle, target: Target) -> int:
    code = run_batch(
        configuration,
        job="calibrate",
        table="predictions",
        source=TableRows(configuration.predictions, limit=configuration.limit, columns=RelabelStage.columns),
        stages=[RelabelStage(target.policy, target.taxonomy, bundle.bundle_id)],
        properties=predictions_properties(target.policy, target.taxonomy),
        bundles=[bundle.bundle_id],
    )
    if configuration.run_tsv and not configuration.dry_run:
        uri = objects.join(configuration.output, "run.tsv")
        objects.write_bytes(uri, format_run(recording_labels(objects.join(configuration.output, "predictions"))))
        logger.info("wrote %s", uri)
    return code


def _fit(configuration: CalibrateConfiguration, bundle: Bundle, target: Target) -> int:
    truth = _truth(configuration, bundle, target)
    if configuration.dry_run:
        found = f"{len(truth.recording_ids)} recordings of {truth.uri}"
        logger.info("would fit %s on %s with %s", target.taxonomy, found, configuration.decisions)
        return 0
    identity = make_identity(
        "calibrate",
        configuration.identity(),
        bundles=[bundle.bundle_id],
        predictions_version=tables.open_table(configuration.predictions).version(),
    )
    output = Output(configuration.output, identity, configuration.resume)
    document = bundle_document(output.uri)
    if output.is_complete(document):
        return 0
    manifest = _decided_anew(configuration, bundle, target, truth, identity)
    examples = read_examples(bundle.uri)
    output.claim(document)
    output.complete(document, lambda: write_bundle(output.uri, manifest, bundle.tensors, examples, card(manifest)))
    logger.info("wrote the bundle %s with a new policy for %s", configuration.output, target.taxonomy)
    return 0


def _truth(configuration: CalibrateConfiguration, bundle: Bundle, target: Target) -> Truth:
    """The labels to fit on, without recordings that the model or a network inside it was trained on."""
    if configuration.ground_truth is None:
        return truth_of_examples(bundle.uri, "validation", target.taxonomy).first(configuration.limit)
    given = truth_of_file(configuration.ground_truth, configuration.read_identifiers())
    learnt = trained_on(read_examples(bundle.uri))
    kept = [item for item in zip(given.recording_ids, given.labels, strict=True) if item[0] not in learnt]
    if len(kept) < len(given.labels):
        logger.info(
            "%s: ignoring %d recordings that the model was trained on", given.uri, len(given.labels) - len(kept)
        )
    ids, labels = tuple(recording for recording, _ in kept), tuple(label_set for _, label_set in kept)
    return Truth(given.uri, None, ids, labels).first(configuration.limit)


def _decided_anew(
    configuration: CalibrateConfiguration, bundle: Bundle, target: Target, truth: Truth, identity: Identity
) -> Manifest:
    """Fit a new policy for the target; return the bundle's manifest with the policy and its lineage."""
    labels = target.labels
    known = dict(zip(truth.recording_ids, truth.labels, strict=True))
    predictions = predictions_of_table(configuration.predictions, known, configuration.read_identifiers())
    matrix = label_matrix([known[recording] for recording in predictions.recording_ids], labels)
    labelled = matrix.sum(axis=1) > 0
    if predictions.scores is None or predictions.scores.raw is None or not labelled.any():
        raise InputError(
            f"{configuration.predictions}: no scores of labelled recordings. None of the {len(known)} recordings of "
            f"{truth.uri} has a label of {target.taxonomy} and stored scores; predict these with --all-scores"
        )
    truths, scores = matrix[labelled], predictions.scores.raw[labelled]
    logger.info("%s: fitted on %d of %d recordings", target.taxonomy, len(scores), len(known))
    fitted = fit_policy(labels, target.hierarchy, truths, scores, configuration.decisions)
    manifest, taxonomy = bundle.manifest, target.taxonomy
    metrics, lineage = manifest.metrics, manifest.lineage
    return manifest.model_copy(
        update={
            "targets": {**manifest.targets, taxonomy: replace(target, policy=fitted.policy).describe()},
            "metrics": metrics.model_copy(
                update={"targets": {**metrics.targets, taxonomy: validation_metrics(fitted, truths, scores)}}
            ),
            "lineage": Lineage(
                run_id=run_id(identity),
                identity=identity,
                inner=lineage.inner,
                model_of=(*lineage.model_of, bundle.bundle_id),
                trained_by=lineage.trained_by or lineage.identity,
            ),
        }
    )


def _refuse_other_model(predictions: str, bundle: Bundle, target: Target) -> None:
    """Refuse scores of another network or of other labels."""
    models = {bundle.bundle_id, *bundle.manifest.lineage.model_of}
    found = {
        str(model)
        for batch in tables.read_batches(predictions, ["model_id"])
        for model in pc.unique(batch[0]).to_pylist()
    }
    if not found <= models:
        raise InputError(
            f"{predictions}: expected scores computed by {bundle.uri} ({', '.join(sorted(models))}), found scores "
            f"computed by {', '.join(sorted(found - models))}; give the bundle that computed them"
        )
    table = tables.open_table(predictions)
    labels = json.loads(tables.properties_of(table).get("labels", "[]"))
    if tuple(labels) != target.labels or "all_scores" not in tables.schema_of(table).names:
        raise InputError(
            f"{predictions}: expected the scores of all {len(target.labels)} labels of {target.taxonomy}, which the "
            f"table does not have; predict with --all-scores --target {target.taxonomy}"
        )
