"""The methods of the table: bundles that the jobs leave, and logistic regression on the very same rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scoring import Scored
from sklearn.linear_model import LogisticRegression

from genre_ray.bundles.examples import own_examples, read_examples
from genre_ray.bundles.files import read_bundle, read_manifest
from genre_ray.bundles.predictor import Predictor
from genre_ray.bundles.targets import read_targets
from genre_ray.features.scaling import fit_scaling
from genre_ray.labels.space import label_matrix
from genre_ray.labels.taxonomy import Taxonomy
from genre_ray.storage import tables

Matrix = np.ndarray[Any, Any]

CLIP_SD, LOGISTIC_C = 8.0, 0.01


class Rows:
    """The features of a table, by recording; each recording has one row."""

    def __init__(self, features_uri: str) -> None:
        batches = list(tables.read_batches(features_uri, ["recording_id", "features"]))
        ids = [recording for batch in batches for recording in batch.column("recording_id").to_pylist()]
        self.place = {recording: row for row, recording in enumerate(ids)}
        self.values = np.concatenate([tables.vectors(batch.column("features")) for batch in batches])

    def of(self, recordings: Sequence[str]) -> Matrix:
        """(recordings, columns)."""
        return self.values[[self.place[recording] for recording in recordings]]


class Truth:
    """What a bundle learnt from: the recordings of each part, and their labels in one taxonomy's order.

    `tree` says what is above a label; its name does where there is none.
    """

    def __init__(self, bundle_uri: str, taxonomy: str, tree: Taxonomy | None = None) -> None:
        examples = [row for row in own_examples(read_examples(bundle_uri)).to_pylist() if row["taxonomy"] == taxonomy]
        self.taxonomy = taxonomy
        self.labels = read_manifest(bundle_uri)[1].targets[taxonomy].labels
        self.pairs = (tree or Taxonomy.of_names(self.labels)).edges(self.labels)
        self.recordings: dict[str, list[str]] = {}
        self.matrices: dict[str, Any] = {}
        for part in ("train", "validation", "test"):
            chosen = [row for row in examples if row["part"] == part]
            self.recordings[part] = [row["recording_id"] for row in chosen]
            self.matrices[part] = label_matrix([row["labels"] for row in chosen], self.labels)

    def scored(self, scores: Mapping[str, Matrix]) -> Scored:
        """With the `scores` of the parts `validation` and `test`."""
        matrices = self.matrices
        return Scored(
            self.labels, self.pairs, matrices["validation"], scores["validation"], matrices["test"], scores["test"]
        )


def of_bundle(bundle_uri: str, rows: Rows, truth: Truth) -> Scored:
    """A bundle's raw scores."""
    bundle = read_bundle(bundle_uri)
    predictor, target = Predictor.of(bundle), read_targets(bundle)[truth.taxonomy]
    return truth.scored(
        {part: target.select(predictor.scores(rows.of(truth.recordings[part]))) for part in ("validation", "test")}
    )


def of_logistic_regression(rows: Rows, truth: Truth) -> Scored:
    """One logistic regression a label on standardised features that are bounded like the networks' own."""
    features = {part: rows.of(recordings) for part, recordings in truth.recordings.items()}
    scaling = fit_scaling([features["train"]])
    inputs = {
        part: np.clip(np.nan_to_num((values - scaling.mean) * scaling.scale), -CLIP_SD, CLIP_SD)
        for part, values in features.items()
    }
    targets = truth.matrices["train"].toarray()
    models = [
        LogisticRegression(C=LOGISTIC_C, max_iter=2000).fit(inputs["train"], targets[:, label])
        for label in range(targets.shape[1])
    ]
    return truth.scored(
        {
            part: np.stack([model.predict_proba(inputs[part])[:, 1] for model in models], axis=1)
            for part in ("validation", "test")
        }
    )
