"""The stage that scores rows of a features table with a bundle and labels them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from genre_ray.bundles.files import read_bundle
from genre_ray.bundles.targets import Target
from genre_ray.outcomes import Outcome, Reason, Rejection, rejections
from genre_ray.predictions.mapped import MappedTarget
from genre_ray.predictions.rows import predictions
from genre_ray.runs.stages import Compute, Resources
from genre_ray.storage import tables
from genre_ray.storage.schemas import predictions_schema

if TYPE_CHECKING:
    from genre_ray.bundles.predictor import Predictor


@dataclass
class ScoreStage:
    """A stage that reads rows of a features table and returns rows of the predictions table.

    A row with a score that is not finite is rejected. This happens if its features are too large for the network.

    Attributes:
        bundle_uri: the bundle, which each worker loads.
        target: the taxonomy of the labels, and how scores become labels.
        all_scores: whether the rows hold the scores of all labels too.
        half_precision: whether the network multiplies in bfloat16.
        features: the columns of the features of each modality, in the order of the bundle's inputs.
        resources: what a worker reserves; it computes on a GPU only if it reserves one.
    """

    name = "score"
    columns = ("recording_id", "submission", "source_uri", "features")
    """The columns that the stage reads."""

    bundle_uri: str
    target: Target | MappedTarget
    all_scores: bool
    half_precision: bool = False
    features: tuple[str, ...] = ("features",)
    resources: Resources | None = None
    rows_per_call: int | None = 1024

    def __post_init__(self) -> None:
        self.schema = predictions_schema(all_scores=self.all_scores)

    def open(self) -> Compute:
        """Load the model and return the function that scores a table of rows."""
        # Imported here, so that the driver does not import torch.
        from genre_ray.bundles.predictor import Predictor

        bundle = read_bundle(self.bundle_uri)
        predictor = Predictor.of(bundle, half_precision=self.half_precision)
        return partial(
            self._score, bundle.bundle_id, predictor, [spec.values for spec in bundle.manifest.inputs.values()]
        )

    def _score(self, bundle_id: str, predictor: "Predictor", widths: Sequence[int], rows: pa.Table) -> Outcome:
        columns = zip(self.features, widths, strict=True)
        scores = self.target.select(predictor.scores(*(_vectors(rows.column(name), width) for name, width in columns)))
        finite = np.isfinite(scores).all(axis=1)
        # Features are most of a row. Dropped here, they are not copied by the filters below.
        rows = rows.drop_columns(list(self.features))
        kept = rows.filter(finite)
        accepted = predictions(self.target.policy, self.target.taxonomy, bundle_id, kept, scores[finite], self.schema)
        return Outcome(accepted, self._rejected(rows.filter(~finite)))

    def _rejected(self, rows: pa.Table) -> pa.Table:
        detail = f"expected finite scores, found NaN or infinity with the bundle {self.bundle_uri}"
        uris, recordings = rows.column("source_uri").to_pylist(), rows.column("recording_id").to_pylist()
        return rejections(
            [
                (uri, Rejection(Reason.NOT_FINITE, detail, recording))
                for uri, recording in zip(uris, recordings, strict=True)
            ]
        )


def _vectors(column: pa.ChunkedArray, width: int) -> tables.Vectors:
    """(rows, width), NaN for a row without features."""
    if not column.null_count:
        return tables.vectors(column)
    vectors = np.full((len(column), width), np.nan, dtype=np.float32)
    if column.null_count < len(column):
        vectors[column.is_valid().to_numpy()] = tables.vectors(column.drop_null())
    return vectors
