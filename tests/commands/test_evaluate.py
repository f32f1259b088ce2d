"""The evaluate job: from tables, bundles and files to a report whose numbers are the metrics' own."""

import json
import logging

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from genre_ray.bundles.files import write_bundle
from genre_ray.commands.evaluate import EvaluateConfiguration, run
from genre_ray.config import load_configuration
from genre_ray.errors import ConfigurationError, InputError, OutputTakenError
from genre_ray.storage import tables
from genre_ray.storage.schemas import EXAMPLES as EXAMPLES_SCHEMA
from genre_ray.storage.schemas import predictions_schema
from tests.manifests import make_manifest

LABELS = ["jazz", "rock", "rock---indie"]
PARTS = ["train", "validation", "test"]


def label_sets(matrix):
    return [[label for label, given in zip(LABELS, row, strict=True) if given] for row in matrix]


@pytest.fixture
def catalog(tmp_path):
    """A bundle's examples, and a predictions table over them and one more recording, as `predict` writes it."""
    generator = np.random.default_rng(3)
    truth = generator.random((90, 3)) < 0.5
    truth[:, 1] |= ~truth[:, 0]
    scores = (0.4 * truth + 0.6 * generator.random(truth.shape)).astype(np.float32)
    ids = [f"recording-{number:03}" for number in range(90)]
    parts = [PARTS[number % 3] for number in range(90)]
    columns = {
        "recording_id": ids,
        "taxonomy": ["folders"] * 90,
        "part": parts,
        "labels": label_sets(truth),
        "bundle": [None] * 90,
    }
    examples = pa.table(columns, EXAMPLES_SCHEMA)
    weights = {"w": np.zeros(1, dtype=np.float32)}
    write_bundle(str(tmp_path / "bundle"), make_manifest(LABELS), weights, examples, "card")

    properties = {
        "labels": json.dumps(LABELS),
        "thresholds": json.dumps([0.5, 0.5, 0.5]),
        "policy": json.dumps({"calibration": None}),
        "taxonomy": "folders",
        "calibration": "none",
    }
    schema = predictions_schema(all_scores=True)
    rows = [
        {
            "recording_id": recording_id,
            "submission": 0,
            "item_kind": "recording",
            "taxonomy": "folders",
            "labels": [label for label, score in zip(LABELS, row, strict=True) if score >= 0.5],
            "scores": [float(score) for score in row if score >= 0.5],
            "abstained": False,
            "model_id": "0123456789abcdef",
            "all_scores": row.tolist(),
        }
        for recording_id, row in zip([*ids, "unknown"], [*scores, scores[0]], strict=True)
    ]
    uri = str(tmp_path / "predictions")
    tables.create_table(uri, schema, properties)
    part = tables.write_part(uri, "part", pa.Table.from_pylist(rows, schema))
    tables.append(tables.open_table(uri), [tables.Append("run/0", [part])], schema)
    return {"folder": tmp_path, "truth": truth, "scores": scores, "ids": ids, "parts": np.array(parts)}


def settings(catalog, **given):
    folder = catalog["folder"]
    one = {"name": "single", "predictions": f"{folder}/predictions", "examples": f"{folder}/bundle"}
    return EvaluateConfiguration.from_mapping({"output": f"{folder}/report", **one, **given})


def report(catalog):
    return json.loads((catalog["folder"] / "report" / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("part", PARTS)
def test_numbers_equal_scikit_learn_on_the_part(catalog, part):
    assert run(settings(catalog, part=part)) == 0
    [found] = report(catalog)["evaluations"]
    rows = catalog["parts"] == part
    truth, scores = catalog["truth"][rows], catalog["scores"][rows]
    given = scores >= 0.5
    system = found["system"]
    official = system["official"]
    assert official["recording_all"]["f_score"]["mean"] == pytest.approx(
        f1_score(truth, given, average="samples", zero_division=0)
    )
    per_label = f1_score(truth, given, average=None, zero_division=0)
    assert official["label_all"]["f_score"]["mean"] == pytest.approx(per_label.mean())
    assert official["label_all"]["f_score"]["sd"] == pytest.approx(per_label.std(ddof=1))
    assert official["label_genres"]["f_score"]["mean"] == pytest.approx(per_label[:2].mean())
    assert official["label_subgenres"]["f_score"] == pytest.approx({"mean": per_label[2], "sd": None, "count": 1})
    for average in ("macro", "micro"):
        assert system["roc_auc"][average] == pytest.approx(roc_auc_score(truth, scores, average=average))
        assert system["average_precision"][average] == pytest.approx(
            average_precision_score(truth, scores, average=average)
        )
    assert found["coverage"] == {"truth": 30, "evaluated": 30, "missing": 0, "unknown": 61}
    assert (found["taxonomy"], found["part"], found["model_ids"]) == ("folders", part, ["0123456789abcdef"])


def test_popularity_is_the_most_frequent_genre_of_the_training_part(catalog):
    run(settings(catalog))
    [found] = report(catalog)["evaluations"]
    training = catalog["truth"][catalog["parts"] == "train"]
    test = catalog["truth"][catalog["parts"] == "test"]
    popular = np.zeros_like(test)
    popular[:, training[:, :2].sum(axis=0).argmax()] = True
    expected = f1_score(test, popular, average="samples", zero_division=0)
    assert found["baselines"]["popularity"]["official"]["recording_all"]["f_score"]["mean"] == pytest.approx(expected)
    assert found["baselines"]["popularity"]["roc_auc"]["macro"] == 0.5


def test_several_evaluations_share_one_report(catalog):
    folder = catalog["folder"]
    truth, answers = folder / "truth.tsv", folder / "run.tsv"
    truth.write_text(
        "recordingmbid\treleasegroupmbid\tgenre1\tgenre2\nrecording-001\tg\tjazz\t\nrecording-002\tg\trock\t\n"
    )
    answers.write_text("recording-001\tjazz\nrecording-002\tjazz\trock\n")
    evaluations = [
        {"name": "table", "predictions": f"{folder}/predictions", "examples": f"{folder}/bundle"},
        {"name": "file", "run": str(answers), "ground_truth": str(truth)},
    ]
    run(EvaluateConfiguration.from_mapping({"output": f"{folder}/report", "evaluations": evaluations}))
    table, file = report(catalog)["evaluations"]
    assert (table["name"], file["name"]) == ("table", "file")
    assert file["system"]["official"]["recording_all"]["f_score"]["mean"] == pytest.approx((1 + 2 / 3) / 2)
    assert file["system"]["roc_auc"] == "not available"
    assert any("baselines are fitted to the truth itself" in note for note in file["notes"])
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert all(f">{text}</a>" in page for text in ("table", "file"))


def test_limit_takes_the_first_recordings(catalog):
    run(settings(catalog, limit=5))
    [found] = report(catalog)["evaluations"]
    assert found["coverage"]["truth"] == found["coverage"]["evaluated"] == 5


def test_dry_run_writes_nothing(catalog, caplog):
    with caplog.at_level(logging.INFO):
        assert run(settings(catalog, dry_run=True)) == 0
    assert "would evaluate" in caplog.text
    assert not (catalog["folder"] / "report").exists()


def test_examples_are_of_the_predictions_taxonomy_unless_another_is_named(catalog):
    with pytest.raises(InputError, match=r"expected examples of 'styles', found examples of folders"):
        run(settings(catalog, taxonomy="styles"))
    assert run(settings(catalog, taxonomy="folders")) == 0


def test_truth_of_another_catalog_is_refused_and_nothing_written(catalog):
    truth = catalog["folder"] / "truth.tsv"
    truth.write_text("recordingmbid\treleasegroupmbid\tgenre1\nelsewhere\tg\tjazz\n")
    with pytest.raises(InputError, match=r"none of its 91 recordings is among the 1 recordings"):
        run(settings(catalog, examples=None, ground_truth=str(truth)))
    assert not (catalog["folder"] / "report").exists()


def test_table_of_no_predictions_is_refused(catalog):
    empty = str(catalog["folder"] / "empty")
    write_deltalake(empty, predictions_schema(all_scores=True).empty_table())
    with pytest.raises(InputError, match="table of predictions is empty"):
        run(settings(catalog, predictions=empty))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs exactly one of predictions and run, found neither"),
        ({"predictions": "p", "run": "r", "examples": "b"}, "needs exactly one of predictions and run, found both"),
        ({"predictions": "p"}, "needs exactly one of examples and ground_truth, found neither"),
        ({"predictions": "p", "evaluations": [{"run": "r", "examples": "b"}]}, "either evaluations or predictions"),
        ({"evaluations": [{"run": "r", "examples": "b"}] * 2}, "distinct names, found evaluation more than once"),
        ({"evaluations": [{"rum": "r"}]}, "did you mean 'run'"),
    ],
)
def test_configurations_that_cannot_be_meant(given, message):
    with pytest.raises(ConfigurationError, match=message):
        EvaluateConfiguration.from_mapping({"output": "o", **given})


def test_flags_of_a_single_evaluation():
    flags = ["--output", "o", "--run", "r.tsv", "--examples", "b", "--part", "validation"]
    [evaluation] = load_configuration(EvaluateConfiguration, flags).wanted()
    assert (evaluation.run, evaluation.examples, evaluation.part) == ("r.tsv", "b", "validation")


def modified(catalog):
    return {path.name: path.stat().st_mtime_ns for path in (catalog["folder"] / "report").iterdir()}


def test_resume_of_a_complete_report_writes_nothing(catalog, caplog):
    run(settings(catalog))
    before = modified(catalog)
    with caplog.at_level(logging.INFO):
        assert run(settings(catalog, resume=True)) == 0
    assert modified(catalog) == before
    assert f"run {report(catalog)['run_id']} is already complete" in caplog.text


def test_a_complete_report_is_not_replaced_unless_resumed(catalog):
    run(settings(catalog))
    with pytest.raises(OutputTakenError, match="pass --resume"):
        run(settings(catalog))


def test_another_run_is_refused_with_what_differs(catalog):
    run(settings(catalog))
    before = modified(catalog)
    with pytest.raises(OutputTakenError, match=r'settings\.part: null there, "train" here'):
        run(settings(catalog, part="train", resume=True))
    table = tables.open_table(f"{catalog['folder']}/predictions")
    tables.append(table, [tables.Append("run/1")], predictions_schema(all_scores=True))
    with pytest.raises(OutputTakenError, match=r"sources\.single\.predictions_version: 1 there, 2 here"):
        run(settings(catalog, resume=True))
    assert modified(catalog) == before


def test_a_foreign_file_in_the_reports_place_stays(catalog):
    foreign = catalog["folder"] / "report" / "report.json"
    foreign.parent.mkdir()
    foreign.write_text("[1]")
    with pytest.raises(OutputTakenError, match="choose another --output"):
        run(settings(catalog, resume=True))
    assert foreign.read_text() == "[1]"


def test_artists_are_evaluated_by_the_mean_of_their_recordings(catalog, write_features):
    ids = catalog["ids"]
    groups = write_features(
        np.zeros((90, 2)), recording_id=ids, artist_ids=[[f"artist-{n % 3}-{n % 7}"] for n in range(90)]
    )
    assert run(settings(catalog, level="artist", groups=groups)) == 0
    [found] = report(catalog)["evaluations"]
    artists = {}
    for n in np.flatnonzero(catalog["parts"] == "test"):
        artists.setdefault(n % 7, []).append(n)
    truth = np.array([catalog["truth"][rows].any(axis=0) for rows in artists.values()])
    means = np.array([catalog["scores"][rows].mean(axis=0) for rows in artists.values()])
    given = means >= 0.5
    empty = np.flatnonzero(~given.any(axis=1))
    given[empty, means[empty].argmax(axis=1)] = True
    assert (found["level"], found["coverage"]["evaluated"]) == ("artist", 7)
    assert found["system"]["official"]["recording_all"]["f_score"]["mean"] == pytest.approx(
        f1_score(truth, given, average="samples", zero_division=0)
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [({"level": "artist"}, "artist, which needs groups"), ({"groups": "features"}, "recording, which takes no groups")],
)
def test_levels_and_their_groups_go_together(catalog, given, message):
    with pytest.raises(ConfigurationError, match=message):
        settings(catalog, **given)
