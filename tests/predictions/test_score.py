"""Rows in = rows predicted + rows rejected, and every prediction can be read on its own."""

import json
import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genre_ray.bundles.predictor import Predictor
from genre_ray.bundles.targets import find_target
from genre_ray.decisions.thresholds import decide
from genre_ray.features.essentia.columns import FEATURE_COLUMNS
from genre_ray.features.essentia.documents import ParseDocuments
from genre_ray.outcomes import Reason
from genre_ray.predictions.rows import predictions_properties
from genre_ray.predictions.score import ScoreStage
from genre_ray.runs.stages import Resources, ShardSize, open_stages
from genre_ray.sources.documents.source import DocumentSource
from genre_ray.storage.schemas import FEATURES

COLUMNS = tuple("abcdef")


def rows_of(values):
    return pa.Table.from_pylist(
        [
            {
                "recording_id": f"r{n}",
                "submission": n % 3,
                "artist_ids": [],
                "source_uri": f"s3://b/{n}",
                "extractor": "test",
                "features": row.tolist(),
            }
            for n, row in enumerate(values)
        ],
        FEATURES,
    )


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("all_scores", [False, True])
def test_predictions_hold_what_was_decided(make_bundle, fused, all_scores):
    bundle, _, _ = make_bundle(fused=fused)
    values = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32) * 20
    step = ScoreStage(bundle.uri, find_target(bundle), all_scores=all_scores)
    predicted, rejected = step.open()(rows_of(values))
    assert predicted.schema.equals(step.schema, check_metadata=True)
    assert rejected.num_rows == 0
    scores = Predictor.of(bundle).scores(values)
    decided = decide(scores, find_target(bundle).policy.thresholds)
    for n, row in enumerate(predicted.to_pylist()):
        assert (row["recording_id"], row["submission"]) == (f"r{n}", n % 3)
        assert (row["item_kind"], row["taxonomy"], row["abstained"]) == ("recording", "folders", False)
        assert row["model_id"] == bundle.bundle_id
        assert row["labels"] == [bundle.manifest.labels[column] for column in np.flatnonzero(decided[n])] != []
        np.testing.assert_array_equal(np.float32(row["scores"]), scores[n][decided[n]])
        if all_scores:
            np.testing.assert_array_equal(np.float32(row["all_scores"]), scores[n])
        else:
            assert "all_scores" not in row
        for place, label in enumerate(row["labels"]):
            if "---" in label and label.split("---")[0] in row["labels"]:
                assert label.split("---")[0] in row["labels"][:place]
    properties = predictions_properties(step.target.policy, step.target.taxonomy)
    assert json.loads(properties["labels"]) == list(bundle.manifest.labels)
    assert json.loads(properties["thresholds"]) == list(bundle.manifest.targets["folders"].policy.thresholds)
    assert (properties["calibration"], properties["taxonomy"]) == ("none", "folders")


@pytest.fixture
def overflowing(make_bundle):
    """A step whose network infinite features overflow."""
    bundle, _, _ = make_bundle(clip_sd=None)
    return ScoreStage(bundle.uri, find_target(bundle), all_scores=True).open()


def test_no_more_than_its_columns_is_needed(make_bundle):
    bundle, _, _ = make_bundle()
    step = ScoreStage(bundle.uri, find_target(bundle), all_scores=True)
    rows = rows_of(np.random.default_rng(1).normal(size=(4, 6)))
    score = step.open()
    for everything, needed in zip(score(rows), score(rows.select(step.columns)), strict=True):
        assert needed.equals(everything)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(bad=st.lists(st.booleans(), min_size=1, max_size=12), chunks=st.integers(1, 3))
def test_rows_are_conserved_and_scores_that_are_not_finite_rejected(overflowing, bad, chunks):
    values = np.ones((len(bad), 6), dtype=np.float32)
    values[np.array(bad, dtype=bool), 0] = np.inf
    rows = rows_of(values)
    every = -(-len(bad) // chunks)
    rows = pa.concat_tables([rows.slice(start, every) for start in range(0, len(bad), every)])
    predicted, rejected = overflowing(rows)
    ids = [f"r{n}" for n in range(len(bad))]
    assert predicted["recording_id"].to_pylist() == [r for r, broken in zip(ids, bad, strict=True) if not broken]
    assert rejected["recording_id"].to_pylist() == [r for r, broken in zip(ids, bad, strict=True) if broken]
    assert set(rejected["reason"].to_pylist()) <= {Reason.NOT_FINITE}
    assert all(uri.startswith("s3://b/") for uri in rejected["source_uri"].to_pylist())
    assert all(predicted["labels"].to_pylist())


def test_a_stage_travels_without_its_model(make_bundle):
    bundle, _, _ = make_bundle()
    stage = ScoreStage(bundle.uri, find_target(bundle), all_scores=True, resources=Resources(gpus=0.5))
    assert (stage.name, str(stage.resources), stage.rows_per_call) == ("score", "1 CPU, 0.5 GPU", 1024)
    values = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
    before, _ = stage.open()(rows_of(values))
    sent = pickle.dumps(stage)
    assert len(sent) < 5_000
    after, _ = pickle.loads(sent).open()(rows_of(values))
    assert after.equals(before)


def test_documents_are_parsed_and_then_scored(make_bundle, sample):
    bundle, _, _ = make_bundle(FEATURE_COLUMNS)
    source = DocumentSource((str(sample / "acousticbrainz"),))
    (item,) = source.cut(source.list_inputs(), 10)
    ((_, documents, _),) = source.read(item, ShardSize(10))
    parsed = ParseDocuments().open()(documents.accepted)
    stage = ScoreStage(bundle.uri, find_target(bundle), all_scores=True)
    assert set(stage.columns) <= set(ParseDocuments.schema.names)
    (score,) = open_stages([stage])
    predicted, rejected = score(parsed.accepted)
    assert (predicted.num_rows, rejected.num_rows) == (6, 0)
    assert all(predicted["labels"].to_pylist())
    nothing, nothing_rejected = score(ParseDocuments.schema.empty_table())
    assert (nothing.num_rows, nothing_rejected.num_rows) == (0, 0)
    assert nothing.schema.equals(stage.schema, check_metadata=True)
