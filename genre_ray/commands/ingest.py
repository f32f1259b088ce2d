"""The job `ingest`: read AcousticBrainz documents and write a features table and a rejected table."""

from pydantic import Field

from genre_ray.commands.settings import DocumentConfiguration
from genre_ray.features.essentia.columns import ESSENTIA
from genre_ray.features.essentia.documents import ParseDocuments
from genre_ray.runs.batch import run_batch


class IngestConfiguration(DocumentConfiguration):
    """Read AcousticBrainz documents; write the tables OUTPUT/features and OUTPUT/rejected."""

    inputs: tuple[str, ...] = Field(min_length=1, description="folders, archives or .json documents, local or s3://")


def run(configuration: IngestConfiguration) -> int:
    """Run the job and return its exit code."""
    return run_batch(
        configuration,
        job="ingest",
        table="features",
        source=configuration.document_source(configuration.inputs),
        stages=[ParseDocuments()],
        properties=ESSENTIA.properties(),
    )
