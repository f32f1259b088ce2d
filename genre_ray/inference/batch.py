"""Steps that write the predictions table: rows of features, or documents at once, through a bundle's model."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from genre_ray.catalog.archives import RawDocument
from genre_ray.features.table import FeaturesStep
from genre_ray.inference.answers import answers, answers_schema
from genre_ray.inference.mapped import MappedTarget
from genre_ray.inference.target import Target
from genre_ray.outcomes import Reason, Rejection, rejections
from genre_ray.storage import tables
from genre_ray.storage.bundles import read_bundle

if TYPE_CHECKING:
    from genre_ray.inference.predictor import Predictor


class PredictRows:
    """Rows of a features table → rows of the predictions table.

    A row whose scores are not finite (its features overflow the network) is rejected. The table is in the target's
    labels, whatever else the network knows.

    Attributes:
        columns: what is read of the features table.
    """

    columns = ("recording_id", "submission", "source_uri", "features")
    gains_from_gpu = True

    def __init__(
        self, bundle_uri: str, target: Target | MappedTarget, *, all_scores: bool, half_precision: bool = False
    ) -> None:
        self.bundle_uri, self.all_scores, self.target = bundle_uri, all_scores, target
        self.half_precision = half_precision
        self.schema = answers_schema(target.policy, target.taxonomy, all_scores=all_scores)

    def __getstate__(self) -> dict[str, Any]:
        """Without the model, which every worker loads for itself."""
        return {name: value for name, value in self.__dict__.items() if name != "predictor"}

    @cached_property
    def predictor(self) -> "Predictor":
        """The model, loaded when it is first needed: where a step is only made and sent, torch is not imported."""
        from genre_ray.inference.predictor import Predictor

        return Predictor(read_bundle(self.bundle_uri), half_precision=self.half_precision)

    def __call__(self, rows: pa.RecordBatch | pa.Table) -> tuple[pa.Table, pa.Table]:
        """See `genre_ray.runs.worker.Step`."""
        rows = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
        scores = self.target.select(self.predictor.scores(tables.vectors(rows.column("features"))))
        finite = np.isfinite(scores).all(axis=1)
        # Features are most of a row, and no longer wanted: nothing here is to copy them.
        rows = rows.drop_columns(["features"])
        kept = rows.filter(finite)
        answered = answers(
            self.target.policy, self.target.taxonomy, self.predictor.bundle_id, kept, scores[finite], self.schema
        )
        return answered, self._rejected(rows.filter(~finite))

    def _rejected(self, rows: pa.Table) -> pa.Table:
        detail = f"expected finite scores, found others with the bundle {self.bundle_uri}"
        uris, recordings = rows.column("source_uri").to_pylist(), rows.column("recording_id").to_pylist()
        return rejections(
            [
                (uri, Rejection(Reason.NOT_FINITE, detail, recording))
                for uri, recording in zip(uris, recordings, strict=True)
            ]
        )


class PredictDocuments(PredictRows):
    """Raw documents → rows of the predictions table, in one pass."""

    def __init__(
        self, bundle_uri: str, target: Target | MappedTarget, *, all_scores: bool, half_precision: bool = False
    ) -> None:
        super().__init__(bundle_uri, target, all_scores=all_scores, half_precision=half_precision)
        self.features = FeaturesStep()

    def __call__(self, rows: Sequence[RawDocument]) -> tuple[pa.Table, pa.Table]:
        """See `genre_ray.runs.worker.Step`."""
        features, unread = self.features(rows)
        predicted, unscored = super().__call__(features)
        return predicted, pa.concat_tables([unread, unscored])
