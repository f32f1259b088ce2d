"""The stage that converts AcousticBrainz documents to rows of the features table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from genre_ray.features.essentia.columns import FEATURE_COLUMNS
from genre_ray.outcomes import Outcome, Rejection, rejections
from genre_ray.runs.stages import Compute, Resources
from genre_ray.sources.documents.parse import Provenance
from genre_ray.storage.schemas import FEATURES

Vectors = np.ndarray[Any, np.dtype[np.float32]]


@dataclass
class ParseDocuments:
    """A stage that parses documents and returns rows of the features table.

    Attributes:
        resources: the resources that a worker of this stage reserves.
    """

    name = "parse"
    schema = FEATURES
    rows_per_call: int | None = None
    resources: Resources | None = None

    def open(self) -> Compute:
        """Load the compiled scanner and return the function that processes a table of documents."""
        # Imported here, because jobs that only read tables do not need the compiler.
        from genre_ray.features.essentia.vectors import warm_up

        warm_up()
        return parse_documents


def parse_documents(documents: pa.Table) -> Outcome:
    """Parse documents.

    Args:
        documents: with the schema `genre_ray.sources.documents.table.DOCUMENTS`.

    Returns:
        Accepted rows of the features table, and rejected rows.
    """
    # Batch by batch, because combining batches would copy the documents.
    outcomes = [_parse(batch) for batch in documents.to_batches() if batch.num_rows]
    if not outcomes:
        return Outcome(ParseDocuments.schema.empty_table(), rejections([]))
    return Outcome(
        pa.Table.from_batches([rows for rows, _ in outcomes]), pa.concat_tables([rejected for _, rejected in outcomes])
    )


def _parse(documents: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.Table]:
    from genre_ray.features.essentia.vectors import read_vectors

    vectors = np.empty((documents.num_rows, len(FEATURE_COLUMNS)), np.float32)
    read = read_vectors(documents.column("name").to_pylist(), documents.column("payload"), vectors)
    uris = documents.column("source_uri").to_pylist()
    accepted = [(uri, about) for uri, about in zip(uris, read, strict=True) if not isinstance(about, Rejection)]
    rejected = [(uri, why) for uri, why in zip(uris, read, strict=True) if isinstance(why, Rejection)]
    if rejected:
        vectors = vectors[[not isinstance(about, Rejection) for about in read]]
    return _rows(accepted, vectors), rejections(rejected)


def _rows(accepted: Sequence[tuple[str, Provenance]], vectors: Vectors) -> pa.RecordBatch:
    values = [
        [about.recording_id for _, about in accepted],
        [about.submission for _, about in accepted],
        [about.artist_ids for _, about in accepted],
        [about.release_group_id for _, about in accepted],
        [uri for uri, _ in accepted],
        [about.extractor for _, about in accepted],
    ]
    columns = [pa.array(column, kind) for column, kind in zip(values, FEATURES.types[:-1], strict=True)]
    ends = pa.array(np.arange(len(vectors) + 1) * vectors.shape[1], pa.int32())
    kind = FEATURES.field("features").type
    columns.append(pa.ListArray.from_arrays(ends, pa.array(vectors.reshape(-1)), type=kind))
    return pa.RecordBatch.from_arrays(columns, schema=FEATURES)
