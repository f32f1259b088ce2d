"""The schemas of all tables. They are a contract with everyone who reads the tables.

The Arrow types are those of Delta's schema, so every reader sees the same types: the elements of a list are called
`element` and are never null. Delta properties of the tables say what the values mean.
"""

import pyarrow as pa


def list_of(value: pa.DataType) -> pa.ListType:
    """Return the type of a list in a Delta table, whose elements are never null."""
    return pa.list_(pa.field("element", value, nullable=False))


REJECTED = pa.schema(
    [
        ("source_uri", pa.string()),
        ("recording_id", pa.string()),
        ("shard", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


FEATURES = pa.schema(
    [
        ("recording_id", pa.string()),
        ("submission", pa.int32()),
        ("artist_ids", list_of(pa.string())),
        ("release_group_id", pa.string()),
        ("source_uri", pa.string()),
        ("extractor", pa.string()),
        ("features", list_of(pa.float32())),
    ]
)
"""The schema of a features table, with one row per submission. All `features` of a table have the same length."""


EXAMPLES = pa.schema(
    [
        ("recording_id", pa.string()),
        ("taxonomy", pa.string()),
        ("part", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("bundle", pa.string()),
    ]
)
"""The schema of `examples.parquet`: the examples of a bundle and of the networks inside it.

A recording has one row per taxonomy that annotates it, with its labels and its part: `train`, `validation` or `test`.
`bundle` is null for examples of the bundle's own network. For examples of a network inside it, `bundle` is the id of
the bundle that the network comes from.
"""


def predictions_schema(*, all_scores: bool) -> pa.Schema:
    """Return the schema of a predictions table, which has one row per submission.

    `labels` has parents before children, and `scores` contains their probabilities in the same order.

    Args:
        all_scores: whether the table has the column `all_scores` with the model's own scores of all labels, in the
            order of the property `labels`.
    """
    fields = [
        ("recording_id", pa.string()),
        ("submission", pa.int32()),
        ("item_kind", pa.string()),
        ("taxonomy", pa.string()),
        ("labels", list_of(pa.string())),
        ("scores", list_of(pa.float32())),
        ("abstained", pa.bool_()),
        ("model_id", pa.string()),
    ]
    if all_scores:
        fields.append(("all_scores", list_of(pa.float32())))
    return pa.schema(fields)
