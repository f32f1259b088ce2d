"""The job `ingest`: read AcousticBrainz documents and write a features table and a rejected table."""

from pydantic import Field

from genre_ray.config import JobConfiguration
from genre_ray.features.essentia.columns import ESSENTIA
from genre_ray.features.essentia.documents import ParseDocuments
from genre_ray.runs.batch import run_batch
from genre_ray.sources.documents.archives import MAX_DOCUMENT_BYTES, MAX_EXPANSION, MAX_MEMBERS
from genre_ray.sources.documents.source import DocumentSource, refuse_output_among


class IngestConfiguration(JobConfiguration):
    """Read AcousticBrainz documents; write the tables OUTPUT/features and OUTPUT/rejected."""

    inputs: tuple[str, ...] = Field(min_length=1, description="folders, archives or .json documents, local or s3://")
    max_document_bytes: int = Field(MAX_DOCUMENT_BYTES, ge=1, description="reject documents larger than this")
    max_members: int = Field(MAX_MEMBERS, ge=1, description="read at most this many members per archive")
    max_expansion: float = Field(
        MAX_EXPANSION,
        gt=0,
        description="stop reading an archive whose content is more than this many times its compressed size",
    )


def run(configuration: IngestConfiguration) -> int:
    """Run the job and return its exit code."""
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
