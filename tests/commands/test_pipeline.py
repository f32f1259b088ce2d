"""Guards the main job end to end on real documents: from an archive to a report, everything on an object store."""

import json
import os

import duckdb
import numpy as np
import pytest
from scipy.special import expit, logit

from genre_ray.bundles.examples import own_examples, read_examples
from genre_ray.bundles.files import read_bundle
from genre_ray.commands import pipeline
from genre_ray.features.essentia.columns import ESSENTIA
from genre_ray.features.spec import read_spec
from genre_ray.storage import objects, tables
from genre_ray.truth.ground_truth import read_ground_truth
from genre_ray.truth.run_file import read_run

BUNDLES = ["folder", "tags", "folder-fusion", "tags-fusion"]
EVALUATIONS = ["folder, single", "folder, fused", "tags, single", "tags, fused"]
FOLDER_GENRES = ["classical", "electronic", "pop", "rock"]
SECRETS = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]


@pytest.fixture(scope="module")
def output(demo):
    assert demo.job.code == 0, demo.job.log
    return demo.output


@pytest.fixture(scope="module")
def vocabularies(sample):
    truths = {name: read_ground_truth(str(sample / "emotify" / f"{name}.tsv")) for name in ("folder", "tags")}
    return {name: {label for labels in truth.labels for label in labels} for name, truth in truths.items()}


@pytest.fixture(scope="module")
def recordings(sample):
    return read_ground_truth(str(sample / "emotify" / "folder.tsv")).recording_ids


def predictions(output, name):
    """As pandas reads the table through Delta's Arrow dataset."""
    return tables.dataset(f"{output}/predictions/{name}/predictions").to_table().to_pandas()


def properties(output, name):
    """What the table's log states of its scores, read without genre_ray's own reader."""
    found = tables.open_table(f"{output}/predictions/{name}/predictions").metadata().configuration
    return {key.removeprefix("genre_ray."): value for key, value in found.items()}


def test_every_document_is_a_row_of_2669_columns(output, recordings):
    features = tables.open_table(f"{output}/catalog/features").to_pyarrow_dataset().to_table()

    assert sorted(features["recording_id"].to_pylist()) == sorted(recordings)
    assert tables.vectors(features["features"]).shape == (144, 2669)
    assert read_spec(f"{output}/catalog/features") == ESSENTIA
    assert tables.dataset(f"{output}/catalog/rejected").count_rows() == 0


@pytest.mark.parametrize("name", BUNDLES)
def test_pandas_and_duckdb_read_the_predictions(output, recordings, name):
    frame = predictions(output, name)
    source = tables.dataset(f"{output}/predictions/{name}/predictions")  # DuckDB finds it by its name
    answer = duckdb.sql(
        "SELECT recording_id, unnest(labels) AS label, unnest(scores) AS score FROM source ORDER BY recording_id, label"
    ).fetchall()

    assert sorted(frame["recording_id"]) == sorted(recordings)
    assert set(frame["taxonomy"]) == {name.removesuffix("-fusion")}
    assert set(frame["item_kind"]) == {"recording"}
    assert source.schema.names == list(frame.columns)
    expected = [
        (row.recording_id, label, score)
        for row in frame.itertuples()
        for label, score in zip(row.labels, row.scores, strict=True)
    ]
    assert answer == sorted(expected)


@pytest.mark.parametrize("name", BUNDLES)
def test_labels_follow_from_all_scores_and_the_policy(output, name):
    """One answer at a time, from what the table itself says: maps, parents, thresholds, at least one, parents added."""
    told = properties(output, name)
    labels, thresholds, policy = (json.loads(told[key]) for key in ("labels", "thresholds", "policy"))
    assert told["calibration"] == "auto"
    maps = policy["calibration"]
    assert not maps["knots"], "so small a validation supports lines at most"

    def closed(columns):
        return {*columns} | {above for child, above in policy["pairs"] if child in {*columns}}

    undecidable = 0
    for row in predictions(output, name).itertuples():
        odds = logit(np.clip(row.all_scores.astype(np.float64), 1e-38, 1 - 2**-24))
        scores = expit(np.array(maps["slopes"]) * odds + np.array(maps["intercepts"]))
        for child, above in policy["pairs"]:
            scores[child] = min(scores[child], scores[above])
        ratios = scores / np.array(thresholds)
        # A threshold is the score of some validation recording, which float32 and float64 may put on either side of it.
        near = np.abs(ratios - 1) < 1e-6
        undecidable += int(near.sum())
        certain, possible = np.flatnonzero((ratios >= 1) & ~near), np.flatnonzero((ratios >= 1) | near)
        if not possible.size:
            certain = possible = np.array([ratios.argmax()])
        chosen = row.labels.tolist()
        columns = {labels.index(label) for label in chosen}

        assert chosen == [labels[column] for column in sorted(columns)]
        assert columns
        assert closed(certain.tolist()) <= columns <= closed(possible.tolist())
        np.testing.assert_allclose(row.scores, scores[sorted(columns)], rtol=1e-5)
        assert not row.abstained
        for place, label in enumerate(chosen):
            parent = label.partition("---")[0]
            assert parent == label or parent in chosen[:place] or parent not in labels
    assert undecidable <= 2 * len(labels)


@pytest.mark.parametrize("name", BUNDLES)
def test_the_run_would_be_accepted(output, recordings, vocabularies, name):
    vocabulary = vocabularies[name.removesuffix("-fusion")]
    run = read_run(f"{output}/predictions/{name}/run.tsv", vocabulary=vocabulary, recording_ids=recordings)
    stored = dict(predictions(output, name)[["recording_id", "labels"]].itertuples(index=False))

    assert {recording: set(labels) for recording, labels in run.items()} == {
        recording: set(labels) for recording, labels in stored.items()
    }


@pytest.mark.parametrize("name", BUNDLES)
def test_bundles_are_complete(output, name):
    uri = f"{output}/bundles/{name}"
    bundle = read_bundle(uri)

    files = [file.name for file in objects.list_files(uri)]
    assert files == ["README.md", "examples.parquet", "model.json", "model.safetensors"]
    card = objects.read_bytes(f"{uri}/README.md").decode()
    assert all(label in card for label in bundle.manifest.labels)
    assert set(predictions(output, name)["model_id"]) == {bundle.bundle_id}
    assert set(read_examples(uri)["part"].to_pylist()) == {"train", "validation", "test"}
    assert all(np.isfinite(tensor).all() for tensor in bundle.tensors.values())


def test_a_recording_has_the_same_part_in_both_taxonomies(output):
    folder, tags = (
        dict(
            own_examples(read_examples(f"{output}/bundles/{name}")).select(["recording_id", "part"]).to_pandas().values
        )
        for name in ("folder", "tags")
    )

    shared = folder.keys() & tags.keys()
    assert len(shared) > 100
    assert [recording for recording in shared if folder[recording] != tags[recording]] == []


def test_the_report_shows_both_taxonomies_single_and_fused(output):
    report = json.loads(objects.read_bytes(f"{output}/report/report.json"))
    page = objects.read_bytes(f"{output}/report/report.html").decode()

    assert [evaluation["name"] for evaluation in report["evaluations"]] == EVALUATIONS
    for evaluation in report["evaluations"]:
        assert evaluation["coverage"]["missing"] == 0
        assert {"popularity", "random"} <= evaluation["baselines"].keys()
        assert evaluation["system"]["roc_auc"]["macro"] > 0.5
        if evaluation["name"].startswith("folder"):
            assert {label["label"]: label["count"] > 0 for label in evaluation["labels"]} == dict.fromkeys(
                FOLDER_GENRES, True
            )
    assert all(text in page for text in [*EVALUATIONS, *FOLDER_GENRES, "popularity"])
    assert "http://" not in page.replace("http://www.w3.org", ""), "the page must need nothing but itself"


def test_the_log_ends_by_naming_the_report(demo, output):
    lines = [line for line in demo.job.log.splitlines() if " INFO " in line]

    assert lines[-2].endswith(f"{output}/report/report.html")
    assert lines[-1].endswith("exit code 0")


def test_no_credentials_are_written(demo, output):
    secrets = [os.environ[name].encode() for name in SECRETS]
    contents = {file.name: objects.read_bytes(file.uri) for file in objects.list_files(output)}

    assert len(contents) > 30
    contents["the log"] = demo.job.log.encode()
    assert [name for name, content in contents.items() if any(secret in content for secret in secrets)] == []


def test_limit_and_dry_run_reach_the_steps(job, tmp_path, sample):
    config = tmp_path / "pipeline.yaml"
    documents = sample / "acousticbrainz"
    config.write_text(f"steps: [{{ingest: {{inputs: [{documents}], output: '{{output}}/catalog'}}}}]")
    output = tmp_path / "output"
    argv = ("--config", str(config), "--output", str(output), "--dry-run", "--limit", "3")
    code, log = job(pipeline, pipeline.PipelineConfiguration, *argv)

    assert code == 0, log
    assert f"step 1 of 1: ingest → {output}/catalog" in log
    assert "for 3 rows" in log
    assert not output.exists()
