"""Two systems that only these tests know go through `train`, bundle, `predict` and `evaluate` like any other.

One has windows, random crops and one label per recording over a tensor table; the other two tasks that share layers, of
which one has soft targets. Nothing in the learner, the predictor or the bundle is theirs.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from torch.nn.functional import normalize

from genre_ray.bundles.files import read_bundle
from genre_ray.bundles.predictor import Predictor
from genre_ray.commands import evaluate, fuse, predict, train
from genre_ray.features.spec import Axis, FeatureSpec
from genre_ray.storage import tables
from genre_ray.systems.system import SYSTEMS
from tests.systems.known import KNOWN, register
from tests.systems.windowed import HOP, SIZE
from tests.training.joining import soft_table

pytestmark = pytest.mark.slow

CLASSES, MELS, FRAMES, RECORDINGS = ("jazz", "rock", "soul"), 4, 20, 90
NAMES = [f"r{n:03d}" for n in range(RECORDINGS)]
LOG_MEL = FeatureSpec("log-mel", (Axis("mels", MELS), Axis("frames", FRAMES)), parameters={"hop_s": 0.02})


@pytest.fixture
def known_systems(ray_cluster, monkeypatch):
    """A connection to the cluster whose workers know the systems of the tests."""
    for name, module in KNOWN.items():
        monkeypatch.setitem(SYSTEMS, name, module)
    ray.shutdown()
    ray.init(runtime_env={"worker_process_setup_hook": register}, log_to_driver=False)
    yield
    ray.shutdown()


def run(job, cls, output, **settings):
    """Run a job; return its output."""
    assert job.run(cls.from_mapping({**settings, "output": str(output)})) == 0
    return str(output)


def learning(path, label_sets):
    """Settings of a training on a ground truth with the labels of each recording."""
    width = max(map(len, label_sets))
    header = ["recordingmbid", "releasegroupmbid", *(f"genre{n + 1}" for n in range(width))]
    lines = [header, *([name, "", *labels] for name, labels in zip(NAMES, label_sets, strict=True))]
    path.write_text("".join("\t".join(line) + "\n" for line in lines))
    split = {"least_train": 1, "least_other": 1, "fractions": [0.6, 0.2, 0.2]}
    return {"taxonomy": "t", "ground_truth": str(path), "split": split}


def predict_all(output, bundle, features):
    """The rows of the predictions table by recording."""
    run(predict, predict.PredictConfiguration, output, bundle=bundle, features=features, all_scores=True)
    batches = tables.read_batches(f"{output}/predictions", ["recording_id", "labels", "all_scores"])
    rows = {row["recording_id"]: row for batch in batches for row in batch.to_pylist()}
    assert sorted(rows) == NAMES
    return [rows[name] for name in NAMES]


def report_of(output, predicted, bundle):
    run(evaluate, evaluate.EvaluateConfiguration, output, predictions=f"{predicted}/predictions", examples=bundle)
    return json.loads((Path(output) / "report.json").read_text())


def scores_of(rows):
    return np.array([row["all_scores"] for row in rows])


def write_log_mels(write_features, generator):
    """Log-mel spectrograms in which the mel band of the recording's class is louder: (URI, values, classes)."""
    classes = generator.integers(0, len(CLASSES), RECORDINGS)
    values = generator.normal(size=(RECORDINGS, MELS, FRAMES)).astype(np.float32)
    values[np.arange(RECORDINGS), classes] += 2.5
    return write_features(values.reshape(RECORDINGS, -1), spec=LOG_MEL, recording_id=NAMES), values, classes


def test_windows_of_a_tensor_table(known_systems, write_features, tmp_path):
    uri, values, classes = write_log_mels(write_features, np.random.default_rng(0))
    settings = learning(tmp_path / "truth.tsv", [[CLASSES[place]] for place in classes])
    output = tmp_path / "bundle"
    bundle_uri = run(train, train.TrainConfiguration, output, system="windowed", features=uri, **settings)
    bundle = read_bundle(bundle_uri)
    assert (bundle.manifest.task.kind, bundle.manifest.task.output) == ("single_label", "softmax")
    assert bundle.manifest.inputs["audio"] == LOG_MEL
    rows = predict_all(tmp_path / "predicted", bundle_uri, uri)

    # A recording's scores are the mean of the softmax over its windows, cut here by hand.
    network = Predictor.of(bundle, "cpu").model.network
    starts = range(0, FRAMES - SIZE + 1, HOP)
    with torch.no_grad():
        windows = [network(torch.from_numpy(values[:, :, start : start + SIZE])).softmax(dim=1) for start in starts]
    expected = torch.stack(windows).mean(dim=0).numpy()
    np.testing.assert_allclose(scores_of(rows), expected, rtol=1e-4, atol=1e-6)
    # One label each: the most probable one, which is mostly right.
    assert [row["labels"] for row in rows] == [[CLASSES[place]] for place in expected.argmax(axis=1)]
    assert np.mean(expected.argmax(axis=1) == classes) > 0.9
    assert report_of(tmp_path / "report", tmp_path / "predicted", bundle_uri)


def test_windows_are_fused_with_another_table_that_lacks_recordings(known_systems, write_features, tmp_path):
    generator = np.random.default_rng(2)
    uri, values, classes = write_log_mels(write_features, generator)
    few = generator.normal(size=(RECORDINGS - 30, 5)).astype(np.float32)
    other = write_features(few, name="other", recording_id=NAMES[:29:-1])
    settings = learning(tmp_path / "truth.tsv", [[CLASSES[place]] for place in classes])
    settings["rules"] = {"max_epochs": 2}
    tables_of = {"windowed": uri, "essentia": other}
    bundles = [
        run(train, train.TrainConfiguration, tmp_path / system, system=system, features=features, **settings)
        for system, features in tables_of.items()
    ]
    features = {"audio": uri, "other": other}
    fused = run(fuse, fuse.FuseConfiguration, tmp_path / "fused", bundles=bundles, features=features, **settings)
    rows = predict_all(tmp_path / "predicted", fused, dict(reversed(features.items())))
    assert read_bundle(fused).manifest.data.rows == RECORDINGS

    model = Predictor.of(read_bundle(fused), "cpu").model
    one, two = model.preparation.models
    with torch.no_grad():
        ours = normalize(one.embed(torch.from_numpy(values.reshape(RECORDINGS, -1))), dim=1)
        theirs = torch.zeros(RECORDINGS, 256)
        theirs[30:] = normalize(two.embed(torch.from_numpy(few[::-1].copy())), dim=1)
        expected = model.network(torch.cat([ours, theirs], dim=1)).sigmoid().numpy()
    np.testing.assert_allclose(scores_of(rows), expected, rtol=1e-4, atol=1e-6)


def test_two_tasks_that_share_layers(known_systems, write_features, tmp_path):
    generator = np.random.default_rng(1)
    values = generator.normal(size=(RECORDINGS, 6)).astype(np.float32)
    label_sets = [[name for name, value in zip(CLASSES, row, strict=False) if value > 0] or ["soul"] for row in values]
    uri = write_features(values, recording_id=NAMES)
    powers = np.exp(2 * values[:, 3:])
    topics = powers / powers.sum(axis=1, keepdims=True)
    # A quarter of the recordings have no topics.
    known = {name: row.tolist() for n, (name, row) in enumerate(zip(NAMES, topics, strict=True)) if n % 4}
    settings = learning(tmp_path / "truth.tsv", label_sets)
    settings["soft_targets"] = {"topics": soft_table(str(tmp_path / "topics"), known)}
    output = tmp_path / "bundle"
    bundle_uri = run(train, train.TrainConfiguration, output, system="two-tasks", features=uri, **settings)
    bundle = read_bundle(bundle_uri)
    tasks = {name: (task.output, len(task.labels)) for name, task in bundle.manifest.tasks.items()}
    assert tasks == {"genres": ("cosine", 3), "topics": ("softmax", 3)}
    history = bundle.manifest.metrics.history
    assert {epoch["task"] for epoch in history} == {0, 1}
    for name, share in (("validation_loss", 0.7), ("validation_loss.topics", 0.9)):
        assert min(epoch[name] for epoch in history) < share * history[0][name]
    rows = predict_all(tmp_path / "predicted", bundle_uri, uri)

    # Scores are cosines to the label factors that the bundle holds, moved to [0, 1].
    model = Predictor.of(bundle, "cpu").model
    with torch.no_grad():
        vectors = model.network(model.preparation(torch.from_numpy(values)), "genres").numpy()
    factors = bundle.tensors["outputs.genres.factors"]
    lengths = np.linalg.norm(vectors, axis=1)[:, None] * np.linalg.norm(factors, axis=1)
    np.testing.assert_allclose(scores_of(rows), (1 + vectors @ factors.T / lengths) / 2, rtol=1e-4, atol=1e-5)
    assert bundle.manifest.metrics.targets["t"].roc_auc > 0.8
    assert any(len(row["labels"]) > 1 for row in rows)
    assert report_of(tmp_path / "report", tmp_path / "predicted", bundle_uri)
