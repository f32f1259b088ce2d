"""The job `predict`: label recordings with a bundle, from documents or from a features table."""

import logging
from collections.abc import Mapping

from pydantic import Field, model_validator

from genre_ray.bundles.files import Bundle, read_bundle
from genre_ray.bundles.inputs import check_input
from genre_ray.bundles.targets import Target, find_target
from genre_ray.commands.settings import DocumentConfiguration
from genre_ray.errors import ConfigurationError
from genre_ray.features.essentia.columns import ESSENTIA
from genre_ray.features.essentia.documents import ParseDocuments
from genre_ray.features.spec import read_spec
from genre_ray.predictions.aggregate import recording_labels
from genre_ray.predictions.mapped import MappedTarget, map_target
from genre_ray.predictions.modalities import PREFIX, AddModalities
from genre_ray.predictions.rows import predictions_properties
from genre_ray.predictions.score import ScoreStage
from genre_ray.runs.batch import run_batch
from genre_ray.runs.stages import Resources, Source, Stage
from genre_ray.sources.tables import TableRows
from genre_ray.storage import objects, tables
from genre_ray.training.reading import FeaturesTable
from genre_ray.truth.mapping_table import read_mapping
from genre_ray.truth.run_file import format_run

logger = logging.getLogger(__name__)


class PredictConfiguration(DocumentConfiguration):
    """Label recordings with a bundle; write the tables OUTPUT/predictions and OUTPUT/rejected."""

    bundle: str = Field(description="the bundle to predict with")
    inputs: tuple[str, ...] = Field((), description="documents: folders, archives or files, local or s3://")
    features: str | dict[str, str] | None = Field(
        None, description="a features table, instead of inputs; or for a bundle of several, by their modality"
    )
    target: str | None = Field(None, description="taxonomy to predict; the bundle's default when not given")
    mapping: str | None = Field(
        None, description="mapping.tsv from reconcile, for a --target that the bundle was not trained on"
    )
    all_scores: bool = Field(False, description="also store the scores of all labels")
    run_tsv: bool = Field(False, description="also write OUTPUT/run.tsv in the format of the MediaEval genre task")
    half_precision: bool = Field(
        False, description="multiply matrices in bfloat16, which is faster but changes scores by about 0.001"
    )

    @model_validator(mode="after")
    def _one_catalog(self) -> "PredictConfiguration":
        if bool(self.inputs) == (self.features is not None):
            raise ValueError("give exactly one of --inputs (documents) and --features (a table)")
        if self.mapping is not None and self.target is None:
            raise ValueError("--mapping needs --target, the taxonomy to predict")
        return self


def run(configuration: PredictConfiguration) -> int:
    """Run the job and return its exit code."""
    mapping = None if configuration.mapping is None else read_mapping(configuration.mapping)
    bundle = read_bundle(configuration.bundle)
    if mapping is None or configuration.target is None:
        target: Target | MappedTarget = find_target(bundle, configuration.target)
    else:
        target = map_target(bundle, configuration.target, mapping)
    execution = configuration.execution
    score = ScoreStage(
        bundle.uri,
        target,
        all_scores=configuration.all_scores,
        half_precision=configuration.half_precision,
        resources=Resources(execution.cpus_per_worker, execution.gpus_per_worker),
    )
    source: Source
    stages: list[Stage]
    versions: dict[str, int] = {}
    if configuration.features is None:
        check_input(bundle, ESSENTIA, "documents")
        source = configuration.document_source(configuration.inputs)
        stages = [ParseDocuments(), score]
    else:
        given = _features(configuration.features, bundle)
        first, *others = given
        source = TableRows(given[first], limit=configuration.limit, columns=ScoreStage.columns)
        stages = [score]
        if others:
            versions |= {modality: tables.open_table(given[modality]).version() for modality in others}
            stages = [_add_modalities(bundle, given, versions), score]
            score.features = ("features", *(PREFIX + modality for modality in others))
    code = run_batch(
        configuration,
        job="predict",
        table="predictions",
        source=source,
        stages=stages,
        properties=predictions_properties(target.policy, target.taxonomy),
        bundles=[bundle.bundle_id],
        **({"features_versions": versions} if versions else {}),
        **({} if mapping is None else {"mapping_sha256": mapping.sha256}),
    )
    if configuration.run_tsv and not configuration.dry_run:
        uri = objects.join(configuration.output, "run.tsv")
        objects.write_bytes(uri, format_run(recording_labels(objects.join(configuration.output, "predictions"))))
        logger.info("wrote %s", uri)
    return code


def _features(given: str | dict[str, str], bundle: Bundle) -> dict[str, str]:
    """The features tables by modality, in the order of the bundle's inputs.

    Raises:
        ConfigurationError: a modality is missing or unknown.
        InputError: a table holds other features than the bundle takes.
    """
    inputs = bundle.manifest.inputs
    found = dict.fromkeys(inputs, given) if isinstance(given, str) and len(inputs) == 1 else given
    if isinstance(found, str) or {*found} != {*inputs}:
        raise ConfigurationError(
            f"--features: the bundle {bundle.uri} takes {', '.join(inputs)}; name a features table for each of them, "
            "under features in a file of settings"
        )
    for modality, uri in found.items():
        check_input(bundle, read_spec(uri), uri, modality)
    return {modality: found[modality] for modality in inputs}


def _add_modalities(bundle: Bundle, given: Mapping[str, str], versions: Mapping[str, int]) -> AddModalities:
    others = {
        modality: FeaturesTable(objects.absolute(given[modality]), version, bundle.manifest.inputs[modality].values)
        for modality, version in versions.items()
    }
    return AddModalities(others, ScoreStage.columns)
