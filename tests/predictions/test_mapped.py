"""Guards answers in a taxonomy that the bundle was not trained for: its scores, by the mapping, from one half on."""

import json
import pickle

import numpy as np
import pyarrow as pa
import pytest

from genre_ray.bundles.files import Bundle
from genre_ray.bundles.manifest import TargetDescription
from genre_ray.bundles.predictor import Predictor
from genre_ray.bundles.targets import find_target
from genre_ray.decisions.policy import PolicyDescription
from genre_ray.errors import ConfigurationError, InputError
from genre_ray.predictions.mapped import map_target
from genre_ray.predictions.rows import predictions_properties
from genre_ray.predictions.score import ScoreStage
from genre_ray.storage.schemas import FEATURES
from genre_ray.systems.description import GENRES
from genre_ray.truth.mapping_table import MappingTable

WEIGHTS = {("jazz", "Jazz"): 0.9, ("soul", "R&B"): 0.75, ("rock", "R&B"): 0.25, ("rock---indie", "Indie"): 1.0}
TABLE = MappingTable("m.tsv", "hash", {("folders", "shop"): WEIGHTS, ("tags", "shop"): {("x", "y"): 1.0}})


def test_rows_are_answered_in_the_other_taxonomy(make_bundle):
    bundle, _, _ = make_bundle()
    values = np.random.default_rng(1).normal(size=(30, 6)).astype(np.float32) * 20
    rows = [
        {"recording_id": f"r{n}", "submission": 0, "artist_ids": [], "source_uri": "", "extractor": "", "features": row}
        for n, row in enumerate(values.tolist())
    ]
    step = ScoreStage(bundle.uri, map_target(bundle, "shop", TABLE), all_scores=True)
    predicted, rejected = pickle.loads(pickle.dumps(step)).open()(pa.Table.from_pylist(rows, FEATURES))
    assert rejected.num_rows == 0
    properties = predictions_properties(step.target.policy, step.target.taxonomy)
    assert json.loads(properties["labels"]) == ["Indie", "Jazz", "R&B"]
    assert json.loads(properties["thresholds"]) == [0.5] * 3
    jazz, rock, indie, soul = Predictor.of(bundle).scores(values).T
    expected = np.stack(
        [indie, jazz * np.float32(0.9), np.maximum(soul * np.float32(0.75), rock * np.float32(0.25))], 1
    )
    np.testing.assert_array_equal(np.float32(predicted["all_scores"].to_pylist()), expected)
    for row, scores in zip(predicted.to_pylist(), expected, strict=True):
        likely = [label for label, score in zip(["Indie", "Jazz", "R&B"], scores, strict=True) if score >= 0.5]
        assert row["labels"] == (likely or [["Indie", "Jazz", "R&B"][scores.argmax()]])
        assert row["taxonomy"] == "shop"


def test_every_taxonomy_of_the_bundle_has_its_say(make_bundle):
    bundle, _, _ = make_bundle()
    policy = PolicyDescription(thresholds=(0.5, 0.5))
    own = TargetDescription(task=GENRES, labels=("y", "x"), columns=(0, 3), hierarchy=(), policy=policy)
    targets = {**bundle.manifest.targets, "tags": own}
    joined = Bundle(bundle.uri, "", bundle.manifest.model_copy(update={"targets": targets}), {})
    weights = {("folders", "shop"): {("soul", "y"): 0.5}, ("tags", "shop"): {("x", "y"): 1.0, ("gone", "y"): 1.0}}
    target = map_target(joined, "shop", MappingTable("m.tsv", "", weights))
    np.testing.assert_allclose(target.select(np.float32([[0.1, 0.2, 0.3, 0.4]])), [[0.4]])
    assert target.translation.unknown == ("gone",)


def test_a_mapping_that_leads_nowhere_is_refused(make_bundle):
    bundle, _, _ = make_bundle()
    with pytest.raises(ConfigurationError, match="'folders' and needs no mapping for it; remove --mapping"):
        map_target(bundle, "folders", TABLE)
    with pytest.raises(InputError, match="map labels of folders to library, found folders → shop, tags → shop"):
        map_target(bundle, "library", TABLE)
    with pytest.raises(ConfigurationError, match="or give a --mapping to"):
        find_target(bundle, "shop")
