"""Guards what every job does with what it cannot use: a rejected row with its reason, or exit code 2 and a remedy.

Never a traceback, and never a good row lost beside a bad one.
"""

import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from genre_ray.bundles.files import write_bundle
from genre_ray.commands import evaluate, fuse, ingest, pipeline, predict, train
from genre_ray.features.essentia.columns import ESSENTIA, FEATURE_COLUMNS
from genre_ray.features.spec import FeatureSpec
from genre_ray.storage import tables
from genre_ray.storage.schemas import EXAMPLES as EXAMPLES_SCHEMA
from tests.manifests import make_manifest

REPOSITORY = Path(__file__).resolve().parents[2]
ENDS_EARLY = "catalog.tar.gz"
HEADER = b"recordingmbid\treleasegroupmbid\tgenre1\n"


def with_value(document, value, *path):
    """The document with another value at `path`; None removes what is there."""
    changed = json.loads(document)
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return json.dumps(changed).encode()


def bad_documents(good):
    """Contents by the reason that they are to be rejected for; a second one of a reason has a digit behind it."""
    melbands = ("lowlevel", "melbands", "mean")
    return {
        "empty": b"",
        "not_json": good[: len(good) // 2],
        "not_json2": b"<html>not here</html>",
        "not_utf8": good.replace(b'"rhythm"', b'"\xff\xfe": 0, "rhythm"', 1),
        "not_an_object": b"[" + good + b"]",
        "no_lowlevel": with_value(good, None, "lowlevel"),
        "not_finite": with_value(good, float("nan"), "lowlevel", "average_loudness"),
        "not_finite2": with_value(good, float("-inf"), "rhythm", "bpm"),
        "not_finite3": good.replace(b'"average_loudness":', b'"average_loudness": 1e999, "was":', 1),
        "wrong_shape": with_value(good, [0.5] * 39, *melbands),
        "wrong_shape2": with_value(good, [0.5] * 41, *melbands),
        "wrong_type": with_value(good, "loud", "lowlevel", "average_loudness"),
        "missing_value": with_value(good, None, *melbands),
        "too_large": good[:-2] + b', "more": "' + b"x" * 50 * 2**20 + b'"}',
        "too_deep": b'{"lowlevel": ' + b"[" * 1000 + b"]" * 1000 + b"}",
        "too_deep2": b'{"a":' * 1000 + b"1" + b"}" * 1000,
    }


@pytest.fixture(scope="module")
def catalog(tmp_path_factory, sample, ray_cluster):
    """A catalog with something of everything, ingested in one run: the folder, the good ids, the run's outcome."""
    folder = tmp_path_factory.mktemp("catalog")
    documents = sorted((sample / "acousticbrainz").glob("*.json"))
    good = documents[0].read_bytes()
    for number, (reason, content) in enumerate(bad_documents(good).items()):
        # Between the good ones in the order of reading.
        beside = documents[number % len(documents)].stem
        (folder / f"{beside}-{reason}.json").write_bytes(content)
    for document in documents:
        (folder / document.name).write_bytes(document.read_bytes())
    stored = io.BytesIO()
    with tarfile.open(fileobj=stored, mode="w:gz", compresslevel=1) as archive:
        for number, content in enumerate([good, b"broken", good, good]):
            info = tarfile.TarInfo(f"member{number}.json")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    whole = stored.getvalue()
    (folder / ENDS_EARLY).write_bytes(whole[: int(len(whole) * 0.8)])
    output = str(tmp_path_factory.mktemp("ingested") / "output")
    done = subprocess.run(
        [sys.executable, "jobs/ingest.py", "--inputs", str(folder), "--output", output],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return {"inputs": str(folder), "output": output, "good": [document.stem for document in documents], "done": done}


def rejected(catalog):
    """(file or member, reason, detail) of every rejected row."""
    rows = tables.dataset(f"{catalog['output']}/rejected").to_table().to_pylist()
    return [(re.split("[/#]", row["source_uri"])[-1], row["reason"], row["detail"]) for row in rows]


def test_ingest_ends_well_and_says_what_it_rejected(catalog):
    done = catalog["done"]

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "8 rows, 18 rejected (archive_truncated 1, empty 1, missing_value 1" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("exit code 0")


def test_no_good_document_is_lost(catalog):
    rows = tables.dataset(f"{catalog['output']}/features").to_table(columns=["recording_id", "submission"]).to_pylist()

    expected = [*catalog["good"], "member0", "member2"]
    assert sorted(row["recording_id"] for row in rows) == sorted(expected)


def test_every_bad_document_is_a_row_with_its_reason(catalog):
    reasons = {name: reason for name, reason, _ in rejected(catalog)}
    expected = {
        name: reason
        for name in (path.name for path in Path(catalog["inputs"]).glob("*.json"))
        if (reason := name.removesuffix(".json")[37:].rstrip("23"))
    }

    assert len(expected) == 16
    assert reasons == {**expected, "member1.json": "not_json", ENDS_EARLY: "archive_truncated"}
    details = [detail for _, _, detail in rejected(catalog)]
    assert [detail for detail in details if not re.match(r".*expected .*found ", detail)] == []


def test_bad_values_are_named_by_their_column(catalog):
    details = {name[37:].removesuffix(".json"): detail for name, _, detail in rejected(catalog)}

    assert "lowlevel.average_loudness" in details["not_finite"]
    assert "rhythm.bpm" in details["not_finite2"]
    assert "lowlevel.melbands.mean" in details["wrong_shape"]
    assert "39" in details["wrong_shape"]


def test_more_rejections_than_allowed_end_with_3(catalog, job):
    argv = ("--inputs", catalog["inputs"], "--output", catalog["output"], "--resume", "--max-rejected", "17")
    code, log = job(ingest, ingest.IngestConfiguration, *argv)

    assert code == 3
    assert "18 rows were rejected, but --max-rejected allows 17" in log


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Folders that are not the bundle that is asked for: `other` of another schema, `altered`, `begun`, `foreign`."""
    folder = tmp_path_factory.mktemp("bundles")
    columns = [*FEATURE_COLUMNS[1:], "lowlevel.loudness_of_tomorrow"]
    manifest = make_manifest(inputs={"audio": FeatureSpec.of_columns(ESSENTIA.kind, columns)})
    for name in ("other", "altered"):
        write_bundle(
            str(folder / name), manifest, {"w": np.zeros(1, np.float32)}, EXAMPLES_SCHEMA.empty_table(), "the card"
        )
    weights = folder / "altered" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    (folder / "begun").mkdir()
    (folder / "begun" / "README.md").write_text("written before model.json")
    (folder / "foreign").mkdir()
    (folder / "foreign" / "model.json").write_text("{broken")
    return folder


@pytest.fixture
def refused(job, tmp_path):
    """`refused(command, *argv)`: the job's log, once it has ended with 2, without traceback and without output."""

    def run(command, *argv):
        (configuration,) = (
            value
            for name, value in vars(command).items()
            if name == f"{command.__name__.rpartition('.')[2].title()}Configuration"
        )
        output = tmp_path / "output"
        code, log = job(command, configuration, "--output", str(output), *argv)
        assert code == 2, log
        assert "Traceback" not in log
        assert log.splitlines()[-1].endswith("exit code 2")
        assert not output.exists()
        return log

    return run


def test_an_empty_folder(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    log = refused(ingest, "--inputs", str(tmp_path / "empty"))

    assert "expected documents (.json) or archives of them" in log
    assert "found nothing; check the path" in log


def test_a_folder_of_something_else(refused, tmp_path):
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / "song.mp3").write_bytes(b"ID3")

    assert "found 1 .mp3" in refused(ingest, "--inputs", str(tmp_path / "songs"))


def test_an_output_inside_of_the_inputs(job, sample):
    inside = f"{sample}/acousticbrainz/output"
    code, log = job(ingest, ingest.IngestConfiguration, "--inputs", f"{sample}/acousticbrainz/", "--output", inside)

    assert code == 2
    assert "choose an --output outside of the inputs" in log
    assert not Path(inside).exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"recordingmbid\treleasegroupmbid\tgenre1\tmood\n", r"line 1: expected .*genre2.*found .*mood"),
        (b"id\tlabels\na\tpop\n", r"line 1: expected .*recordingmbid.*found .*id"),
        (HEADER + b"a\tg\tpop\ttoo\tmany\n", r"line 2: expected at most 3 fields, found 5"),
        (HEADER + b"a\tg\t\xff\n", r"line 2: expected UTF-8, found byte 0xff"),
        (b"", r"expected .*recordingmbid"),
        (
            HEADER + b"elsewhere\tg\tpop\n",
            r"expected recordings of the ground truth.*found none of its 1",
        ),
    ],
)
def test_ground_truths_that_cannot_be_used(refused, catalog, tmp_path, content, message):
    truth = tmp_path / "truth.tsv"
    truth.write_bytes(content)
    features = f"{catalog['output']}/features"

    log = refused(train, "--features", features, "--taxonomy", "folder", "--ground-truth", str(truth))
    assert re.search(message, log)


def test_a_ground_truth_that_is_not_there(refused, catalog, tmp_path):
    features, missing = f"{catalog['output']}/features", str(tmp_path / "missing.tsv")

    assert missing in refused(train, "--features", features, "--taxonomy", "folder", "--ground-truth", missing)


@pytest.mark.parametrize("source", ["features", "inputs"])
def test_a_bundle_of_another_schema(refused, catalog, bundles, source):
    given = f"{catalog['output']}/features" if source == "features" else catalog["inputs"]
    log = refused(predict, "--bundle", str(bundles / "other"), f"--{source}", given)

    assert f"the features differ from those that the bundle {bundles / 'other'} was trained on" in log
    assert f"missing columns: lowlevel.loudness_of_tomorrow; unknown columns: {FEATURE_COLUMNS[0]}; use" in log


def test_a_bundle_of_another_schema_is_not_fused(refused, catalog, bundles, sample):
    truth = str(sample / "emotify" / "folder.tsv")
    argv = ["--features", f"{catalog['output']}/features", "--taxonomy", "folder", "--ground-truth", truth]

    assert "the features differ from those that the bundle" in refused(fuse, *argv, "--bundles", str(bundles / "other"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "expected a bundle (a folder with model.json), found none; train one or correct the path"),
        ("begun", "expected a bundle (a folder with model.json), found none"),
        ("foreign", "expected JSON, found"),
        ("altered", "this file was changed"),
    ],
)
def test_a_bundle_path_that_is_none(refused, catalog, bundles, name, message):
    features = f"{catalog['output']}/features"

    assert message in refused(predict, "--bundle", str(bundles / name), "--features", features)


def test_a_features_address_that_is_no_table(refused, catalog, bundles, sample, tmp_path):
    truth = str(sample / "emotify" / "folder.tsv")
    for address in (str(tmp_path / "nowhere"), catalog["output"]):
        message = f"{address}: there is no Delta table; give the table itself"
        assert message in refused(train, "--features", address, "--taxonomy", "folder", "--ground-truth", truth)
        assert message in refused(predict, "--features", address, "--bundle", str(bundles / "other"))
    other = f"{catalog['output']}/rejected"
    log = refused(train, "--features", other, "--taxonomy", "folder", "--ground-truth", truth)
    assert f"{other}: expected a features table" in log


def test_predictions_that_are_none(refused, catalog, sample, tmp_path):
    truth = str(sample / "emotify" / "folder.tsv")
    run = tmp_path / "run.tsv"
    run.write_text("song\n")

    assert "there is no Delta table" in refused(evaluate, "--predictions", str(tmp_path), "--ground-truth", truth)
    assert "at least one label" in refused(evaluate, "--run", str(run), "--ground-truth", truth)


def test_unknown_keys_are_told_with_the_nearest(refused, tmp_path):
    config = tmp_path / "job.yaml"
    config.write_text("inputs: [x]\nexecution: {wrokers: 2}\n")
    assert "unknown key 'execution.wrokers'; did you mean 'workers'?" in refused(ingest, "--config", str(config))

    config.write_text("steps: [{ingest: {inpts: [x], output: y}}]\n")
    log = refused(pipeline, "--config", str(config))
    assert "steps.1 (ingest): " in log
    assert "unknown key 'inpts'; did you mean 'inputs'?" in log

    config.write_text("steps: [{ingst: {inputs: [x]}}]\n")
    assert "steps.1: expected one job (ingest, train" in refused(pipeline, "--config", str(config))

    config.write_text("steps: [{ingest: {inputs: [x], output: y, execution: fast}}]\n")
    assert "'execution'" in refused(pipeline, "--config", str(config))

    assert "did you mean 'split'" in refused(train, "--set", "splitt.seed=3")


def test_a_configuration_file_that_is_none(refused, tmp_path):
    missing, broken = tmp_path / "missing.yaml", tmp_path / "broken.yaml"
    broken.write_text("steps: [")

    assert f"{missing}: cannot read this file" in refused(pipeline, "--config", str(missing))
    assert f"{tmp_path}: cannot read this file" in refused(pipeline, "--config", str(tmp_path))
    assert f"{broken}: not valid YAML: " in refused(pipeline, "--config", str(broken))


def test_unknown_flags_and_values(refused, capsys):
    refused(ingest, "--input", "x")
    assert "'limit'" in refused(ingest, "--inputs", "x", "--limit", "none")
    assert "'inputs' is required" in refused(ingest)
