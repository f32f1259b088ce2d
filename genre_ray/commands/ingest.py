"""`ingest`: AcousticBrainz documents → features table, rejected table."""

from pydantic import Field

from genre_ray.commands.settings import DocumentConfiguration
from genre_ray.features.essentia.columns import ESSENTIA
from genre_ray.features.essentia.documents import ParseDocuments
from genre_ray.runs.batch import run_batch


class IngestConfiguration(DocumentConfiguration):
    """Read AcousticBrainz documents into OUTPUT/features and OUTPUT/rejected."""

    inputs: tuple[str, ...] = Field(min_length=1, description="folders, archives or documents, local or s3://")


def run(configuration: IngestConfiguration) -> int:
    """Carry the job out; return its exit code."""
    return run_batch(
        configuration,
        job="ingest",
        table="features",
        source=configuration.document_source(configuration.inputs),
        stages=[ParseDocuments()],
        properties=ESSENTIA.properties(),
    )
