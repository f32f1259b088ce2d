"""The columns of the tables at rest. They are a contract with everyone who reads these tables."""

import json
from collections.abc import Sequence

import pyarrow as pa

REJECTED = pa.schema(
    [
        ("source_uri", pa.string()),
        ("recording_id", pa.string()),
        ("shard", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


def features_schema(columns: Sequence[str]) -> pa.Schema:
    """One row per submission of a recording; `features` is a float32 vector whose names are in the metadata."""
    return pa.schema(
        [
            ("recording_id", pa.string()),
            ("submission", pa.int32()),
            ("artist_ids", pa.list_(pa.string())),
            ("release_group_id", pa.string()),
            ("source_uri", pa.string()),
            ("extractor", pa.string()),
            ("features", pa.list_(pa.float32(), len(columns))),
        ],
        metadata={"genre_ray.columns": json.dumps(list(columns))},
    )


def predictions_schema(metadata: dict[str, str], *, all_scores: bool) -> pa.Schema:
    """One row per submission and taxonomy; `labels` has parents before children and `scores` has its order.

    Args:
        metadata: what a reader needs to understand the scores (`labels`, `thresholds`, `calibration`, `policy`,
            `taxonomy`).
        all_scores: whether the scores of all labels are kept too, float32 in the order of `labels` in the metadata and
            as the model gave them: the policy makes `labels` and `scores` of them.
    """
    fields = [
        ("recording_id", pa.string()),
        ("submission", pa.int32()),
        ("item_kind", pa.string()),
        ("taxonomy", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float32())),
        ("abstained", pa.bool_()),
        ("model_id", pa.string()),
    ]
    if all_scores:
        fields.append(("all_scores", pa.list_(pa.float32())))
    return pa.schema(fields, metadata={f"genre_ray.{key}": value for key, value in metadata.items()})
