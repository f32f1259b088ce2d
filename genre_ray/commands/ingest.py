"""`ingest`: AcousticBrainz documents, or FMA's published features → features table, rejected table."""

from typing import Literal

from pydantic import Field

from genre_ray.commands.settings import DocumentConfiguration
from genre_ray.features import fma
from genre_ray.features.essentia.columns import ESSENTIA
from genre_ray.features.essentia.documents import ParseDocuments
from genre_ray.runs.batch import run_batch
from genre_ray.runs.stages import Source, Stage
from genre_ray.sources.fma import FmaFeatures


class IngestConfiguration(DocumentConfiguration):
    """Read AcousticBrainz documents, or FMA's features, into OUTPUT/features and OUTPUT/rejected."""

    inputs: tuple[str, ...] = Field(
        min_length=1, description="folders, archives or documents, or FMA's features.csv; local or s3://"
    )
    format: Literal["acousticbrainz", "fma"] = Field(
        "acousticbrainz", description="what the inputs are: documents of acousticbrainz, or features.csv of fma"
    )


def run(configuration: IngestConfiguration) -> int:
    """Carry the job out; return its exit code."""
    source: Source
    stage: Stage
    if configuration.format == "fma":
        source = FmaFeatures(configuration.inputs, configuration.limit)
        spec = fma.spec(source.columns())
        stage = fma.ParseMeasurements(spec.columns)
    else:
        source, spec, stage = configuration.document_source(configuration.inputs), ESSENTIA, ParseDocuments()
    return run_batch(
        configuration,
        job="ingest",
        table="features",
        source=source,
        stages=[stage],
        properties=spec.properties(),
    )
