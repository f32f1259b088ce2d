"""Groups of settings that several jobs share."""

from collections.abc import Sequence

from pydantic import Field

from genre_ray.config import JobConfiguration
from genre_ray.sources.documents.archives import MAX_EXPANSION, MAX_MEMBERS
from genre_ray.sources.documents.raw import MAX_DOCUMENT_BYTES
from genre_ray.sources.documents.source import DocumentSource, refuse_output_among
from genre_ray.truth.identifiers import Identifiers, read_identifiers


class IdentifierConfiguration(JobConfiguration):
    """The settings of jobs that read ground truths with other ids than recording ids."""

    identifiers: str | None = Field(
        None, description="table that maps own_id or isrc to recording_id (.tsv, .csv or .parquet)"
    )
    redirects: str | None = Field(None, description="table that maps old_id to new_id, for merged MusicBrainz ids")

    def read_identifiers(self) -> Identifiers:
        """Read the tables; see `genre_ray.truth.identifiers.read_identifiers`."""
        return read_identifiers(self.identifiers, self.redirects)

    def identifier_files(self) -> list[str]:
        """Return the paths of the tables that are set."""
        return [uri for uri in (self.identifiers, self.redirects) if uri is not None]


class DocumentConfiguration(JobConfiguration):
    """The settings of jobs that read documents: limits on documents and archives."""

    max_document_bytes: int = Field(MAX_DOCUMENT_BYTES, ge=1, description="reject documents larger than this")
    max_members: int = Field(MAX_MEMBERS, ge=1, description="read at most this many members per archive")
    max_expansion: float = Field(
        MAX_EXPANSION,
        gt=0,
        description="stop reading an archive whose content is more than this many times its compressed size",
    )

    def document_source(self, inputs: Sequence[str]) -> DocumentSource:
        """Make the source of the documents under `inputs`.

        Raises:
            ConfigurationError: the output is inside an input.
        """
        refuse_output_among(inputs, self.output)
        return DocumentSource(tuple(inputs), self.limit, self.max_document_bytes, self.max_members, self.max_expansion)
