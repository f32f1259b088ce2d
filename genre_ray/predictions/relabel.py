"""The stage that gives stored scores the labels of another policy, without inference."""

from dataclasses import dataclass

import pyarrow as pa

from genre_ray.decisions.policy import Policy
from genre_ray.outcomes import Outcome, rejections
from genre_ray.predictions.rows import predictions
from genre_ray.runs.stages import Compute, Resources
from genre_ray.storage import tables
from genre_ray.storage.schemas import predictions_schema


@dataclass
class RelabelStage:
    """A stage: rows of a predictions table with all scores → the same rows with the labels of another policy.

    Attributes:
        policy: how scores become labels.
        taxonomy: the policy's.
        model_id: the bundle that the rows name as their model.
        resources: what a worker reserves.
    """

    name = "relabel"
    columns = ("recording_id", "submission", "all_scores")
    """The columns that it reads."""

    policy: Policy
    taxonomy: str
    model_id: str
    rows_per_call: int | None = None
    resources: Resources | None = None

    def __post_init__(self) -> None:
        self.schema = predictions_schema(all_scores=True)

    def open(self) -> Compute:
        """Nothing needs to be loaded."""
        return self._relabel

    def _relabel(self, rows: pa.Table) -> Outcome:
        scores = tables.vectors(rows.column("all_scores"))
        return Outcome(
            predictions(self.policy, self.taxonomy, self.model_id, rows, scores, self.schema),
            rejections([]),
        )
