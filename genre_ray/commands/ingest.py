"""`ingest`: AcousticBrainz documents → features table, rejected table."""

from pydantic import Field

from genre_ray.config import JobConfiguration
from genre_ray.features.essentia.columns import ESSENTIA
from genre_ray.features.essentia.documents import ParseDocuments
from genre_ray.runs.batch import run_batch
from genre_ray.sources.documents.archives import MAX_DOCUMENT_BYTES, MAX_EXPANSION, MAX_MEMBERS
from genre_ray.sources.documents.source import DocumentSource, refuse_output_among


class IngestConfiguration(JobConfiguration):
    """Read AcousticBrainz documents into OUTPUT/features and OUTPUT/rejected."""

    inputs: tuple[str, ...] = Field(min_length=1, description="folders, archives or documents, local or s3://")
    max_document_bytes: int = Field(MAX_DOCUMENT_BYTES, ge=1, description="a larger document is rejected unread")
    max_members: int = Field(MAX_MEMBERS, ge=1, description="an archive with more members ends there")
    max_expansion: float = Field(MAX_EXPANSION, gt=0, description="so does one with a larger ratio of content to size")


def run(configuration: IngestConfiguration) -> int:
    """Carry the job out; return its exit code."""
    refuse_output_among(configuration.inputs, configuration.output)
    source = DocumentSource(
        configuration.inputs,
        configuration.limit,
        configuration.max_document_bytes,
        configuration.max_members,
        configuration.max_expansion,
    )
    return run_batch(
        configuration,
        job="ingest",
        table="features",
        source=source,
        stages=[ParseDocuments()],
        properties=ESSENTIA.properties(),
    )
