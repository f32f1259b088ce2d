"""The stage that applies another policy to stored scores, without running the model."""

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
    """A stage that relabels the rows of a predictions table with all scores by another policy.

    Attributes:
        policy: the policy to apply.
        taxonomy: taxonomy of the policy's labels.
        model_id: bundle id to write to the rows.
        resources: the resources that a worker of this stage reserves.
    """

    name = "relabel"
    columns = ("recording_id", "submission", "all_scores")
    """The columns that the stage reads."""

    policy: Policy
    taxonomy: str
    model_id: str
    rows_per_call: int | None = None
    resources: Resources | None = None

    def __post_init__(self) -> None:
        self.schema = predictions_schema(all_scores=True)

    def open(self) -> Compute:
        """Return the function that relabels a table of rows."""
        return self._relabel

    def _relabel(self, rows: pa.Table) -> Outcome:
        scores = tables.vectors(rows.column("all_scores"))
        return Outcome(
            predictions(self.policy, self.taxonomy, self.model_id, rows, scores, self.schema),
            rejections([]),
        )
