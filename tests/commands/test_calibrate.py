"""`calibrate`: stored scores make a new bundle beside the old one, or new labels, and nothing is scored again."""

import json

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit

from genre_ray.bundles.examples import read_examples, with_inner
from genre_ray.bundles.files import read_bundle, write_bundle
from genre_ray.bundles.targets import find_target
from genre_ray.commands import calibrate
from genre_ray.commands.calibrate import CalibrateConfiguration
from genre_ray.decisions.fitting import DecisionSettings, fit_policy
from genre_ray.decisions.policy import Policy, PolicyDescription
from genre_ray.decisions.thresholds import decide
from genre_ray.errors import ConfigurationError, InputError, OutputTakenError
from genre_ray.predictions.rows import predictions, predictions_properties
from genre_ray.storage import tables
from genre_ray.storage.schemas import EXAMPLES as EXAMPLES_SCHEMA
from genre_ray.storage.schemas import predictions_schema
from tests.manifests import make_manifest

LABELS = ("jazz", "rock", "rock---indie")
RECORDINGS, PART = 900, {0: "train", 1: "validation", 2: "test"}


def write_table(uri, policy, model_id, ids, scores):
    schema = predictions_schema(all_scores=True)
    rows = pa.table({"recording_id": ids, "submission": pa.array([0] * len(ids), pa.int32())})
    tables.create_table(uri, schema, predictions_properties(policy, "folders"))
    part = tables.write_part(uri, "part", predictions(policy, "folders", model_id, rows, scores, schema))
    tables.append(tables.open_table(uri), [tables.Append("run/0", [part])], schema)


@pytest.fixture
def stored(tmp_path):
    """A bundle as they were before calibration, and its predictions: log-odds twice as large as they should be."""
    generator = np.random.default_rng(0)
    odds = generator.normal(size=(RECORDINGS, 3)) * 1.5 - np.array([0.5, 0, 1])
    truth = generator.random(odds.shape) < expit(odds)
    truth[:, 1] |= truth[:, 2] | ~truth.any(axis=1)
    scores = expit(2 * odds).astype(np.float32)
    ids = [f"r{n:03d}" for n in range(RECORDINGS)]
    examples = pa.table(
        {
            "recording_id": ids,
            "taxonomy": ["folders"] * RECORDINGS,
            "part": [PART[n % 3] for n in range(RECORDINGS)],
            "labels": [[label for label, has in zip(LABELS, row, strict=True) if has] for row in truth],
            "bundle": [None] * RECORDINGS,
        },
        EXAMPLES_SCHEMA,
    )
    bundle = str(tmp_path / "bundle")
    write_bundle(bundle, make_manifest(LABELS), {"w": np.arange(3, dtype=np.float32)}, examples, "card")
    write_table(
        str(tmp_path / "predictions"),
        Policy.of(LABELS, PolicyDescription(thresholds=(0.5,) * 3)),
        read_bundle(bundle).bundle_id,
        ids,
        scores,
    )
    return {"folder": tmp_path, "truth": truth, "scores": scores, "ids": ids, "examples": examples}


def run(stored, **given):
    folder = stored["folder"]
    wanted = {"bundle": f"{folder}/bundle", "predictions": f"{folder}/predictions", "output": f"{folder}/new"}
    return calibrate.run(CalibrateConfiguration.from_mapping({**wanted, **given}))


def test_a_new_bundle_decides_as_validation_says_and_the_old_one_stays(stored):
    folder = stored["folder"]
    before = (folder / "bundle" / "model.json").read_bytes()
    assert run(stored, decisions={"coverage": 0.9, "max_labels": 2}) == 0
    old, new = read_bundle(str(folder / "bundle")), read_bundle(str(folder / "new"))
    validation = np.arange(RECORDINGS) % 3 == 1
    settings = DecisionSettings(coverage=0.9, max_labels=2)
    truth, scores = stored["truth"][validation], stored["scores"][validation]
    expected = fit_policy(LABELS, [(2, 1)], truth, scores, settings).policy
    target = find_target(new)
    assert target.policy.describe() == expected.describe()
    assert set(target.policy.calibration.kinds) != {"none"}
    np.testing.assert_array_equal(new.tensors["w"], old.tensors["w"])
    assert read_examples(new.uri).equals(stored["examples"])
    assert new.manifest.lineage.model_of == (old.bundle_id,)
    assert new.manifest.lineage.trained_by == {"job": "train"}
    metrics = new.manifest.metrics.targets["folders"]
    assert metrics.recordings == 300
    assert metrics.calibration_error < metrics.calibration_error_before
    assert new.manifest.metrics.history == old.manifest.metrics.history
    assert "calibrated by auto" in (folder / "new" / "README.md").read_text()
    assert (folder / "bundle" / "model.json").read_bytes() == before
    assert not (folder / "new" / "_run").exists()


def test_a_calibrated_bundle_can_be_calibrated_again_from_the_same_scores(stored):
    run(stored)
    folder = stored["folder"]
    assert run(stored, bundle=f"{folder}/new", output=f"{folder}/newer", decisions={"thresholds": "recording_f"}) == 0
    newer = read_bundle(f"{folder}/newer")
    assert newer.manifest.lineage.model_of == tuple(
        read_bundle(f"{folder}/{name}").bundle_id for name in ("bundle", "new")
    )
    assert len(set(find_target(newer).policy.thresholds.tolist())) == 1


def test_truth_of_ones_own_leaves_out_what_the_model_has_learnt(stored, caplog):
    truth = stored["folder"] / "truth.tsv"
    lines = [f"r{n:03d}\tg\t{'jazz' if n % 2 else 'rock'}" for n in range(200)]
    truth.write_text("\n".join(["recordingmbid\treleasegroupmbid\tgenre1", *lines]) + "\n")
    with caplog.at_level("INFO"):
        assert run(stored, ground_truth=str(truth)) == 0
    assert "ignoring 67 recordings that the model was trained on" in caplog.text
    manifest = read_bundle(str(stored["folder"] / "new")).manifest
    assert manifest.metrics.targets["folders"].recordings == 133


def test_truth_of_ones_own_leaves_out_what_an_inner_network_was_trained_on(stored, caplog):
    """A fusion's own examples once hid what the networks inside it had learnt, and its policy was fitted on that."""
    inner = stored["folder"] / "inner"
    learnt = {n: "train" if n < 50 else "validation" for n in range(1, 200, 3)}
    rows = [
        {"recording_id": f"r{n:03d}", "taxonomy": "tags", "part": part, "labels": ["x"]} for n, part in learnt.items()
    ]
    write_bundle(str(inner), make_manifest(["x"]), {}, pa.Table.from_pylist(rows, EXAMPLES_SCHEMA), "card")
    fused, predictions_uri = str(stored["folder"] / "fused"), str(stored["folder"] / "fused-predictions")
    examples = with_inner(stored["examples"].to_reader(), [read_bundle(str(inner))]).read_all()
    write_bundle(fused, make_manifest(LABELS, source="fused"), {}, examples, "card")
    policy = Policy.of(LABELS, PolicyDescription(thresholds=(0.5,) * 3))
    write_table(predictions_uri, policy, read_bundle(fused).bundle_id, stored["ids"], stored["scores"])
    truth = stored["folder"] / "truth.tsv"
    lines = [f"r{n:03d}\tg\t{'jazz' if n % 2 else 'rock'}" for n in range(200)]
    truth.write_text("\n".join(["recordingmbid\treleasegroupmbid\tgenre1", *lines]) + "\n")
    with caplog.at_level("INFO"):
        assert run(stored, bundle=fused, predictions=predictions_uri, ground_truth=str(truth)) == 0
    own, inside = len(range(0, 200, 3)), len(range(1, 50, 3))
    assert f"ignoring {own + inside} recordings that the model was trained on" in caplog.text
    new = read_bundle(str(stored["folder"] / "new"))
    assert new.manifest.metrics.targets["folders"].recordings == 200 - own - inside
    assert read_examples(new.uri).equals(examples)


def test_a_finished_run_is_joined_only_on_request_and_only_with_its_settings(stored):
    run(stored)
    with pytest.raises(OutputTakenError, match="pass --resume"):
        run(stored)
    assert run(stored, resume=True) == 0
    with pytest.raises(OutputTakenError, match=r"settings.decisions.max_labels: null there, 2 here"):
        run(stored, resume=True, decisions={"max_labels": 2})


def test_dry_run_writes_nothing(stored, caplog):
    with caplog.at_level("INFO"):
        assert run(stored, dry_run=True) == 0
    assert "would fit folders on 300 recordings" in caplog.text
    assert not (stored["folder"] / "new").exists()


def test_scores_of_another_model_are_refused(stored):
    folder = stored["folder"]
    policy = Policy.of(LABELS, PolicyDescription(thresholds=(0.5,) * 3))
    write_table(f"{folder}/others", policy, "another", stored["ids"], stored["scores"])
    with pytest.raises(InputError, match=r"found scores computed by another; give the bundle that computed them"):
        run(stored, predictions=f"{folder}/others")
    assert not (folder / "new").exists()


def test_scores_of_other_labels_are_refused(stored):
    folder = stored["folder"]
    policy = Policy.of("abc", PolicyDescription(thresholds=(0.5,) * 3))
    write_table(f"{folder}/others", policy, read_bundle(f"{folder}/bundle").bundle_id, stored["ids"], stored["scores"])
    with pytest.raises(InputError, match="expected the scores of all 3 labels of folders, which the table"):
        run(stored, predictions=f"{folder}/others")


def test_truth_of_ones_own_may_have_ids_of_its_own(stored):
    truth, own = stored["folder"] / "truth.tsv", stored["folder"] / "own.tsv"
    lines = [f"song-{n}\tg\t{'jazz' if n % 2 else 'rock'}" for n in range(200)]
    truth.write_text("\n".join(["recordingmbid\treleasegroupmbid\tgenre1", *lines]) + "\n")
    own.write_text("own_id\trecording_id\n" + "".join(f"song-{n}\tr{n:03d}\n" for n in range(200)))
    assert run(stored, ground_truth=str(truth), identifiers=str(own)) == 0
    manifest = read_bundle(str(stored["folder"] / "new")).manifest
    assert manifest.metrics.targets["folders"].recordings == 133


def test_a_truth_of_other_recordings_is_refused(stored):
    truth = stored["folder"] / "truth.tsv"
    truth.write_text("recordingmbid\treleasegroupmbid\tgenre1\nelsewhere\tg\tjazz\n")
    with pytest.raises(InputError, match=r"None of the 1 recordings.*predict these"):
        run(stored, ground_truth=str(truth))
    assert not (stored["folder"] / "new" / "model.json").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"relabel": True, "decisions": {"max_labels": 2}},
            "--relabel uses the bundle as it is and cannot be combined",
        ),
        ({"decisions": {"risk": 0.1, "coverage": 0.5}}, "decisions.risk and decisions.coverage cannot be combined"),
    ],
)
def test_configurations_that_cannot_be_meant(given, message):
    with pytest.raises(ConfigurationError, match=message):
        CalibrateConfiguration.from_mapping({"bundle": "b", "predictions": "p", "output": "o", **given})


def test_stored_scores_get_new_labels(stored, ray_cluster):
    folder = stored["folder"]
    run(stored, decisions={"max_labels": 1})
    given = {"relabel": True, "run_tsv": True, "bundle": f"{folder}/new", "output": f"{folder}/again"}
    assert run(stored, **given, execution={"workers": 1}) == 0
    new = read_bundle(f"{folder}/new")
    policy = find_target(new).policy
    rows = tables.dataset(f"{folder}/again/predictions").to_table().sort_by("recording_id").to_pylist()
    assert [row["recording_id"] for row in rows] == stored["ids"]
    decided = policy.decide(policy.probabilities(stored["scores"])).labels
    assert [row["labels"] for row in rows] == [[LABELS[n] for n in np.flatnonzero(row)] for row in decided]
    assert (decided.sum(axis=1) == 1).all()
    assert (decided != decide(stored["scores"], np.full(3, 0.5))).any()
    np.testing.assert_array_equal(np.float32([row["all_scores"] for row in rows]), stored["scores"])
    assert {row["model_id"] for row in rows} == {new.bundle_id}
    told = json.loads(tables.properties(f"{folder}/again/predictions")["policy"])
    assert told["max_labels"] == 1
    assert len((folder / "again" / "run.tsv").read_text().splitlines()) == RECORDINGS
