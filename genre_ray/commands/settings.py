"""Groups of settings that several jobs have, and what each group is read as."""

from collections.abc import Sequence

from pydantic import Field

from genre_ray.config import JobConfiguration
from genre_ray.sources.documents.archives import MAX_EXPANSION, MAX_MEMBERS
from genre_ray.sources.documents.raw import MAX_DOCUMENT_BYTES
from genre_ray.sources.documents.source import DocumentSource, refuse_output_among
from genre_ray.truth.identifiers import Identifiers, read_identifiers


class IdentifierConfiguration(JobConfiguration):
    """Settings of the jobs that read annotations: other names of recordings."""

    identifiers: str | None = Field(None, description="table of own_id or isrc → recording_id: .tsv, .csv or .parquet")
    redirects: str | None = Field(None, description="table of old_id → new_id, ids that MusicBrainz merged")

    def read_identifiers(self) -> Identifiers:
        """Read the tables that are given; see `genre_ray.truth.identifiers.read_identifiers`."""
        return read_identifiers(self.identifiers, self.redirects)

    def identifier_files(self) -> list[str]:
        """The addresses of the tables that are given."""
        return [uri for uri in (self.identifiers, self.redirects) if uri is not None]


class DocumentConfiguration(JobConfiguration):
    """Settings of the jobs that read documents: limits on what is read."""

    max_document_bytes: int = Field(MAX_DOCUMENT_BYTES, ge=1, description="a larger document is rejected unread")
    max_members: int = Field(MAX_MEMBERS, ge=1, description="an archive with more members ends there")
    max_expansion: float = Field(MAX_EXPANSION, gt=0, description="so does one with a larger ratio of content to size")

    def document_source(self, inputs: Sequence[str]) -> DocumentSource:
        """The documents below `inputs`.

        Raises:
            ConfigurationError: the output is inside of an input.
        """
        refuse_output_among(inputs, self.output)
        return DocumentSource(tuple(inputs), self.limit, self.max_document_bytes, self.max_members, self.max_expansion)
