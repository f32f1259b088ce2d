"""Rows in = rows predicted + rows rejected, and every prediction can be read on its own."""

import json
import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genre_ray.catalog.archives import RawDocument
from genre_ray.decisions.thresholds import decide
from genre_ray.features.columns import FEATURE_COLUMNS
from genre_ray.features.table import FeaturesStep
from genre_ray.inference.batch import PredictDocuments, PredictRows
from genre_ray.inference.predictor import Predictor
from genre_ray.inference.target import find_target
from genre_ray.outcomes import Reason, Rejection
from genre_ray.storage.schemas import features_schema

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
        features_schema(COLUMNS),
    )


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("all_scores", [False, True])
def test_predictions_hold_what_was_decided(make_bundle, fused, all_scores):
    bundle, _, _ = make_bundle(fused=fused)
    values = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32) * 20
    step = PredictRows(bundle.uri, find_target(bundle.model, bundle.uri), all_scores=all_scores)
    predicted, rejected = step(rows_of(values))
    assert predicted.schema.equals(step.schema, check_metadata=True)
    assert rejected.num_rows == 0
    scores = Predictor(bundle).scores(values)
    decided = decide(scores, find_target(bundle.model, bundle.uri).policy.thresholds)
    for n, row in enumerate(predicted.to_pylist()):
        assert (row["recording_id"], row["submission"]) == (f"r{n}", n % 3)
        assert (row["item_kind"], row["taxonomy"], row["abstained"]) == ("recording", "folders", False)
        assert row["model_id"] == bundle.bundle_id
        assert row["labels"] == [bundle.model["labels"][column] for column in np.flatnonzero(decided[n])] != []
        np.testing.assert_array_equal(np.float32(row["scores"]), scores[n][decided[n]])
        if all_scores:
            np.testing.assert_array_equal(np.float32(row["all_scores"]), scores[n])
        else:
            assert "all_scores" not in row
        for place, label in enumerate(row["labels"]):
            if "---" in label and label.split("---")[0] in row["labels"]:
                assert label.split("---")[0] in row["labels"][:place]
    metadata = step.schema.metadata
    assert json.loads(metadata[b"genre_ray.labels"]) == bundle.model["labels"]
    assert json.loads(metadata[b"genre_ray.thresholds"]) == bundle.model["targets"]["folders"]["thresholds"]
    assert (metadata[b"genre_ray.calibration"], metadata[b"genre_ray.taxonomy"]) == (b"none", b"folders")


@pytest.fixture
def overflowing(make_bundle):
    """A step whose network infinite features overflow."""
    bundle, _, _ = make_bundle(clip_sd=None)
    return PredictRows(bundle.uri, find_target(bundle.model, bundle.uri), all_scores=True)


def test_no_more_than_its_columns_is_needed(make_bundle):
    bundle, _, _ = make_bundle()
    step = PredictRows(bundle.uri, find_target(bundle.model, bundle.uri), all_scores=True)
    rows = rows_of(np.random.default_rng(1).normal(size=(4, 6)))
    for everything, needed in zip(step(rows), step(rows.select(step.columns)), strict=True):
        assert needed.equals(everything)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(bad=st.lists(st.booleans(), max_size=12), as_batch=st.booleans())
def test_rows_are_conserved_and_scores_that_are_not_finite_rejected(overflowing, bad, as_batch):
    values = np.ones((len(bad), 6), dtype=np.float32)
    values[np.array(bad, dtype=bool), 0] = np.inf
    rows = rows_of(values)
    if as_batch and bad:
        rows = rows.to_batches()[0]
    predicted, rejected = overflowing(rows)
    ids = [f"r{n}" for n in range(len(bad))]
    assert predicted["recording_id"].to_pylist() == [r for r, broken in zip(ids, bad, strict=True) if not broken]
    assert rejected["recording_id"].to_pylist() == [r for r, broken in zip(ids, bad, strict=True) if broken]
    assert set(rejected["reason"].to_pylist()) <= {Reason.NOT_FINITE}
    assert all(uri.startswith("s3://b/") for uri in rejected["source_uri"].to_pylist())
    assert all(predicted["labels"].to_pylist())


def test_a_step_travels_without_its_model(make_bundle):
    bundle, _, _ = make_bundle()
    step = PredictRows(bundle.uri, find_target(bundle.model, bundle.uri), all_scores=True)
    values = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
    before, _ = step(rows_of(values))
    sent = pickle.dumps(step)
    assert len(sent) < 5_000
    after, _ = pickle.loads(sent)(rows_of(values))
    assert after.equals(before)


def test_documents_go_through_in_one_pass(make_bundle, sample):
    bundle, _, _ = make_bundle(FEATURE_COLUMNS)
    files = sorted((sample / "acousticbrainz").glob("*.json"))
    raw = [RawDocument(file.name, str(file), file.read_bytes()) for file in files]
    raw.insert(2, RawDocument("broken.json", "broken.json", b"{"))
    raw.insert(4, RawDocument("lost.json", "lost.json", Rejection(Reason.TOO_LARGE, "10 bytes")))
    predicted, rejected = PredictDocuments(bundle.uri, find_target(bundle.model, bundle.uri), all_scores=True)(raw)
    assert (predicted.num_rows, rejected.num_rows) == (6, 2)
    assert rejected["source_uri"].to_pylist() == ["broken.json", "lost.json"]
    features, _ = FeaturesStep()(raw)
    through_the_table, _ = PredictRows(bundle.uri, find_target(bundle.model, bundle.uri), all_scores=True)(features)
    assert predicted.equals(through_the_table)
    assert all(predicted["labels"].to_pylist())
    nothing, nothing_rejected = PredictDocuments(bundle.uri, find_target(bundle.model, bundle.uri), all_scores=True)([])
    assert (nothing.num_rows, nothing_rejected.num_rows) == (0, 0)
