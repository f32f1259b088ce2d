"""The columns of the tables at rest. They are a contract with everyone who reads these tables.

The types are those that Delta's schema gives for the tables: the elements of a list are called `element`, and none is
null. So the Arrow types in the Parquet files are the table's own, for every reader. What the values mean is stated in
the tables' Delta properties.
"""

import pyarrow as pa


def list_of(value: pa.DataType) -> pa.ListType:
    """A list whose elements are never null, as it is called in Delta's schema."""
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
"""One row per submission of a recording. All lists of `features` in a table are equally long."""


EXAMPLES = pa.schema(
    [
        ("recording_id", pa.string()),
        ("taxonomy", pa.string()),
        ("part", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("bundle", pa.string()),
    ]
)
"""What a bundle and the networks inside it learnt from: `examples.parquet`.

A recording has one row per taxonomy that annotated it, with the labels in that taxonomy's names and the part that it
had in the training: `train`, `validation` or `test`. `bundle` is null for the bundle's own examples. For those of a
network inside it, it is the id of the bundle which that network was taken from.
"""


def predictions_schema(*, all_scores: bool) -> pa.Schema:
    """One row per submission and taxonomy; `labels` has parents before children and `scores` has its order.

    Args:
        all_scores: whether the scores of all labels are kept too, float32 in the order of the property `labels` and
            as the model gave them: the policy makes `labels` and `scores` of them.
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
