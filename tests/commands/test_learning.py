"""`train` and `fuse` leave a bundle that stands for itself, once, and refuse to write over another's."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from genre_ray.commands import fuse, learning, train
from genre_ray.errors import ConfigurationError, InputError, OutputTakenError
from genre_ray.inference.predictor import Predictor
from genre_ray.storage.bundles import is_bundle, read_bundle, read_examples
from genre_ray.training.learner import Learner
from genre_ray.training.loop import Fitted


@pytest.fixture
def trainings(monkeypatch):
    """Where each training kept its checkpoints; they run in this process, without Ray."""
    storages = []

    def fit(task, storage_uri, execution):
        assert Path(task.features_uri).is_absolute(), "workers have working directories of their own"
        storages.append(storage_uri)
        Path(storage_uri).mkdir(parents=True)
        learner = Learner(task, torch.device("cpu"))
        learner.train(lambda: None)
        return Fitted(learner.best, learner.progress.history, learner.progress.best_epoch)

    monkeypatch.setattr(learning, "fit", fit)
    monkeypatch.setattr(learning.cluster, "connect", lambda: None)
    return storages


@pytest.fixture
def settings(write_features, tmp_path):
    """What train needs, but for the output; every fourth row is a second submission."""
    generator = np.random.default_rng(2)
    recordings = [f"r{n:03d}" for n in range(60)] + [f"r{n:03d}" for n in range(20)]
    values = generator.normal(size=(80, 5))
    lines = ["recordingmbid\treleasegroupmbid\tgenre1\tgenre2"]
    for n in range(60):
        labels = [name for column, name in enumerate(("jazz", "rock")) if values[n, column] > 0] or ["soul"]
        lines.append("\t".join([recordings[n], "", *labels]))
    truth = tmp_path / "truth.tsv"
    truth.write_text("\n".join(lines) + "\n")
    uri = write_features(
        values,
        recording_id=recordings,
        submission=[0] * 60 + [1] * 20,
        extractor=["one"] * 50 + ["two"] * 30,
        parts=3,
    )
    return {
        "features": uri,
        "taxonomy": "folders",
        "ground_truth": str(truth),
        "split": {"least_train": 3, "least_other": 1, "fractions": [0.5, 0.3, 0.2]},
        "rules": {"max_epochs": 3, "batch": 8},
        "network": {"branches": {"units": 6}},
    }


def run_train(settings, output, **changes):
    return train.run(train.TrainConfiguration.from_mapping({**settings, "output": str(output), **changes}))


def test_a_bundle_says_where_it_comes_from(trainings, settings, tmp_path):
    assert run_train(settings, tmp_path / "bundle") == 0
    bundle, examples = read_bundle(str(tmp_path / "bundle")), read_examples(str(tmp_path / "bundle")).to_pylist()
    model = bundle.model
    assert model["labels"] == sorted({label for row in examples for label in row["labels"]})
    assert len(model["thresholds"]) == len(model["labels"])
    assert model["data"]["recordings"] == {
        part: sum(row["part"] == part for row in examples) for part in ("test", "train", "validation")
    }
    training = {row["recording_id"] for row in examples if row["part"] == "train"}
    rows = [*range(60), *range(20)]
    counted = {"one": 0, "two": 0}
    for place, n in enumerate(rows):
        counted["one" if place < 50 else "two"] += f"r{n:03d}" in training
    assert model["data"]["extractors"] == {name: count for name, count in counted.items() if count}
    assert model["lineage"]["identity"]["features_version"] == 1
    assert len(model["metrics"]["history"]) == model["metrics"]["epochs"] == 3
    best = min(range(3), key=lambda epoch: model["metrics"]["history"][epoch]["validation_loss"])
    assert model["metrics"]["best_epoch"] == best + 1
    assert (tmp_path / "bundle" / "README.md").read_text().startswith("#")
    # The checkpoints are gone, and were below the run's own id.
    assert Path(trainings[0]).name == model["lineage"]["run_id"]
    assert not (tmp_path / "bundle" / "_run").exists()
    assert Predictor(bundle, "cpu").scores(np.zeros((2, 5), np.float32)).shape == (2, len(model["labels"]))


def test_a_finished_run_is_joined_only_on_request_and_only_with_its_settings(trainings, settings, tmp_path):
    output = tmp_path / "bundle"
    run_train(settings, output)
    before = (output / "model.json").read_bytes()
    with pytest.raises(OutputTakenError, match="pass --resume"):
        run_train(settings, output)
    assert run_train(settings, output, resume=True, execution={"workers": 7}) == 0
    with pytest.raises(OutputTakenError, match=r"settings.clip_sd: null there, 9.0 here"):
        run_train(settings, output, resume=True, clip_sd=9)
    assert len(trainings) == 1
    assert (output / "model.json").read_bytes() == before


def test_an_output_is_claimed_before_training(trainings, settings, tmp_path, monkeypatch):
    """Two trainings at once once mixed their files in one bundle, which no reader then took."""
    output, fit = tmp_path / "bundle", learning.fit

    def break_off(task, storage_uri, execution):
        raise KeyboardInterrupt

    monkeypatch.setattr(learning, "fit", break_off)
    with pytest.raises(KeyboardInterrupt):
        run_train(settings, output)
    with pytest.raises(OutputTakenError, match=r"settings.clip_sd: null there, 9.0 here"):
        run_train(settings, output, clip_sd=9)
    with pytest.raises(OutputTakenError, match="pass --resume"):
        run_train(settings, output)
    monkeypatch.setattr(learning, "fit", fit)
    assert run_train(settings, output, resume=True) == 0
    assert is_bundle(str(output))
    assert not (output / "_run").exists()


def test_dry_run_trains_nothing(trainings, settings, tmp_path):
    assert run_train(settings, tmp_path / "bundle", dry_run=True) == 0
    assert not trainings
    assert not (tmp_path / "bundle").exists()


def test_limit_takes_fewer_examples(trainings, settings, tmp_path):
    run_train(settings, tmp_path / "bundle", limit=40)
    model = json.loads((tmp_path / "bundle" / "model.json").read_text())
    assert 30 < model["data"]["rows"] <= 40


@pytest.mark.parametrize("wrong", [{"rules": {"bach": 3}}, {"network": {"brnches": {}}}, {"system": "S9"}])
def test_what_is_not_understood_is_refused_before_any_work(trainings, settings, tmp_path, wrong):
    with pytest.raises(ConfigurationError):
        run_train(settings, tmp_path / "bundle", **wrong)
    assert not (tmp_path / "bundle").exists()


def test_a_fusion_holds_its_sources_and_is_not_fused_again(trainings, settings, tmp_path):
    for name, seed in (("one", 0), ("two", 1)):
        run_train(settings, tmp_path / name, rules={**settings["rules"], "seed": seed})
    common = {**settings, "network": {}, "bundles": [str(tmp_path / "one"), str(tmp_path / "two")]}
    fusing = fuse.FuseConfiguration.from_mapping({**common, "output": str(tmp_path / "fused")})
    assert fuse.run(fusing) == 0
    fused = read_bundle(str(tmp_path / "fused"))
    features = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    parts = []
    for name in ("one", "two"):
        source = Predictor(read_bundle(str(tmp_path / name)), "cpu")
        with torch.no_grad():
            embedding = source.network.embed(source.preparation(torch.from_numpy(features)))
        parts.append(embedding / embedding.norm(dim=1, keepdim=True).clamp_min(1e-12))
    weight, bias = (torch.from_numpy(fused.tensors[f"network.head.1.{name}"]) for name in ("weight", "bias"))
    expected = torch.sigmoid(torch.cat(parts, dim=1) @ weight.T + bias).numpy()
    np.testing.assert_allclose(Predictor(fused, "cpu").scores(features), expected, rtol=1e-5)
    again = fuse.FuseConfiguration.from_mapping(
        {**common, "bundles": [str(tmp_path / "fused")], "output": str(tmp_path / "again")}
    )
    with pytest.raises(InputError, match="expected a bundle of the system essentia to fuse, found fusion"):
        fuse.run(again)
    assert not is_bundle(str(tmp_path / "again"))


def test_addresses_may_be_relative(trainings, settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = str(Path(settings["features"]).relative_to(tmp_path))
    assert run_train({**settings, "features": relative}, "bundle") == 0
    assert is_bundle(str(tmp_path / "bundle"))


def test_a_fusion_is_not_validated_on_what_its_sources_learnt(trainings, settings, tmp_path):
    run_train(settings, tmp_path / "one")
    split = {**settings["split"], "seed": 1}
    fusing = {**settings, "network": {}, "split": split, "bundles": [str(tmp_path / "one")]}
    with pytest.raises(InputError, match=r"not learnt from this fusion's validation and test recordings, found [1-9]"):
        fuse.run(fuse.FuseConfiguration.from_mapping({**fusing, "output": str(tmp_path / "fused")}))
    assert not is_bundle(str(tmp_path / "fused"))


def test_a_test_file_needs_a_validation_file(settings, tmp_path):
    with pytest.raises(ConfigurationError, match="test_ground_truth needs validation_ground_truth"):
        run_train(settings, tmp_path / "bundle", test_ground_truth="test.tsv")
