"""Guards the way to an answer in the other taxonomy: reconcile, correct, predict with one of the demo's bundles."""

import json

import numpy as np
import pytest

from genre_ray.commands import predict, reconcile
from genre_ray.commands.predict import PredictConfiguration
from genre_ray.commands.reconcile import ReconcileConfiguration
from genre_ray.predictions.rows import policy_of_table
from genre_ray.storage import tables
from genre_ray.truth.mapping_table import read_mapping


@pytest.fixture
def mapping(job, sample, tmp_path):
    """A mapping table of Emotify's two taxonomies, corrected: electro rock is electronic too."""
    config = tmp_path / "reconcile.yaml"
    truths = {name: {"ground_truth": [str(sample / "emotify" / f"{name}.tsv")]} for name in ("folder", "tags")}
    config.write_text(json.dumps({"output": str(tmp_path / "mapping"), "taxonomies": truths}))
    assert job(reconcile, ReconcileConfiguration, "--config", str(config))[0] == 0
    table = tmp_path / "mapping" / "mapping.tsv"
    added = "tags\trock---electro rock\tfolder\telectronic\toverlaps\t1\t0\t1\t0\t0\t0\t0\tcorrected\n"
    table.write_text(table.read_text() + added)
    return table


def test_the_corrected_table_is_used(demo, job, mapping, tmp_path):
    assert demo.job.code == 0, demo.job.log
    argv = ["--bundle", f"{demo.output}/bundles/tags", "--features", f"{demo.output}/catalog/features"]
    argv += ["--target", "folder", "--mapping", str(mapping), "--all-scores", "--output", str(tmp_path / "out")]
    code, log = job(predict, PredictConfiguration, *argv)
    assert code == 0, log
    found = {row["recording_id"]: row for row in tables.dataset(f"{tmp_path}/out/predictions").to_table().to_pylist()}
    stored = f"{demo.output}/predictions/tags/predictions"
    own = tables.dataset(stored).to_table()
    raw = tables.vectors(own["all_scores"])
    policy = policy_of_table(stored, raw.shape[1])
    calibrated = policy.probabilities(raw)
    answered = json.loads(tables.properties(f"{tmp_path}/out/predictions")["labels"])
    weights = {
        pair: w for pair, w in read_mapping(str(mapping)).weights["tags", "folder"].items() if pair[0] in policy.labels
    }
    assert weights["rock---electro rock", "electronic"] == 1
    assert answered == ["classical", "electronic", "pop", "rock"]
    assert len(found) == len(own) == 144
    for recording, row in zip(own["recording_id"].to_pylist(), calibrated.tolist(), strict=True):
        scores = dict(zip(policy.labels, row, strict=True))
        expected = [max(scores[a] * w for (a, b), w in weights.items() if b == label) for label in answered]
        np.testing.assert_allclose(found[recording]["all_scores"], expected, rtol=1e-5)
    # A table that was corrected once more makes another run.
    mapping.write_text(mapping.read_text().replace("\toverlaps\t1\t0\t1", "\toverlaps\t0.5\t0\t1"))
    code, log = job(predict, PredictConfiguration, *argv, "--resume")
    assert code == 4
    assert "mapping_sha256" in log


@pytest.mark.parametrize(
    ("change", "argv", "message"),
    [
        (
            lambda text: text.replace("\toverlaps\t1\t0\t1", "\toverlaps\t2\t0\t1"),
            ["--target", "folder"],
            "line 18: expected a weight",
        ),
        (str, [], "--mapping needs --target"),
    ],
)
def test_a_mapping_that_cannot_be_used(job, mapping, tmp_path, change, argv, message):
    mapping.write_text(change(mapping.read_text()))
    argv = [*argv, "--bundle", "b", "--features", "f", "--mapping", str(mapping), "--output", str(tmp_path / "out")]
    code, log = job(predict, PredictConfiguration, *argv)
    assert code == 2
    assert message in log
