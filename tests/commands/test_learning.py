"""`train` and `fuse` leave a bundle that stands for itself, once, and refuse to write over another's."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from scipy.sparse import csr_array

from genre_ray.bundles.examples import own_examples, read_examples
from genre_ray.bundles.files import is_bundle, read_bundle
from genre_ray.bundles.manifest import SourceDescription
from genre_ray.bundles.predictor import Predictor
from genre_ray.bundles.targets import read_targets
from genre_ray.commands import erase, fuse, learning, train
from genre_ray.decisions.thresholds import plug_in_thresholds
from genre_ray.errors import ConfigurationError, InputError, OutputTakenError
from genre_ray.features.essentia.columns import FEATURE_COLUMNS
from genre_ray.features.essentia.melbands import melband_places
from genre_ray.features.spec import read_spec
from genre_ray.storage import tables
from genre_ray.training.learner import Learner
from genre_ray.training.loop import Fitted


@pytest.fixture
def trainings(monkeypatch):
    """Where each training kept its checkpoints; they run in this process, without Ray."""
    storages = []

    def fit(task, storage_uri, execution):
        assert Path(task.features[0].uri).is_absolute(), "workers have working directories of their own"
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
    manifest = bundle.manifest
    assert list(manifest.labels) == sorted({label for row in examples for label in row["labels"]})
    (target,) = manifest.targets.values()
    assert (target.labels, target.columns) == (manifest.labels, tuple(range(len(manifest.labels))))
    assert len(target.policy.thresholds) == len(manifest.labels)
    assert manifest.inputs == {"audio": read_spec(settings["features"])}
    assert manifest.data.recordings == {
        part: sum(row["part"] == part for row in examples) for part in ("test", "train", "validation")
    }
    training = {row["recording_id"] for row in examples if row["part"] == "train"}
    rows = [*range(60), *range(20)]
    counted = {"one": 0, "two": 0}
    for place, n in enumerate(rows):
        counted["one" if place < 50 else "two"] += f"r{n:03d}" in training
    assert manifest.data.extractors == {name: count for name, count in counted.items() if count}
    assert manifest.lineage.identity["features_versions"] == {"audio": 1}
    assert len(manifest.metrics.history) == 3
    best = min(range(3), key=lambda epoch: manifest.metrics.history[epoch]["validation_loss"])
    assert manifest.metrics.best_epoch == best + 1
    assert (tmp_path / "bundle" / "README.md").read_text().startswith("#")
    # The checkpoints are gone, and were below the run's own id.
    assert Path(trainings[0]).name == manifest.lineage.run_id
    assert not (tmp_path / "bundle" / "_run").exists()
    assert Predictor.of(bundle, "cpu").scores(np.zeros((2, 5), np.float32)).shape == (2, len(manifest.labels))


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
    assert 30 < read_bundle(str(tmp_path / "bundle")).manifest.data.rows <= 40


@pytest.mark.parametrize("wrong", [{"rules": {"bach": 3}}, {"network": {"brnches": {}}}, {"system": "S9"}])
def test_what_is_not_understood_is_refused_before_any_work(trainings, settings, tmp_path, wrong):
    with pytest.raises(ConfigurationError):
        run_train(settings, tmp_path / "bundle", **wrong)
    assert not (tmp_path / "bundle").exists()


def test_a_fusion_holds_its_sources_and_can_be_fused_again(trainings, settings, tmp_path):
    for name, seed in (("one", 0), ("two", 1)):
        run_train(settings, tmp_path / name, rules={**settings["rules"], "seed": seed})
    common = {**settings, "network": {}, "bundles": [str(tmp_path / "one"), str(tmp_path / "two")]}
    fusing = fuse.FuseConfiguration.from_mapping({**common, "output": str(tmp_path / "fused")})
    assert fuse.run(fusing) == 0
    fused = read_bundle(str(tmp_path / "fused"))
    features = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    parts = []
    for name in ("one", "two"):
        source = Predictor.of(read_bundle(str(tmp_path / name)), "cpu")
        with torch.no_grad():
            embedding = source.model.network.embed(source.model.preparation(torch.from_numpy(features)))
        parts.append(embedding / embedding.norm(dim=1, keepdim=True).clamp_min(1e-12))
    weight, bias = (torch.from_numpy(fused.tensors[f"network.head.1.{name}"]) for name in ("weight", "bias"))
    expected = torch.sigmoid(torch.cat(parts, dim=1) @ weight.T + bias).numpy()
    np.testing.assert_allclose(Predictor.of(fused, "cpu").scores(features), expected, rtol=1e-5)
    again = fuse.FuseConfiguration.from_mapping(
        {**common, "bundles": [str(tmp_path / "fused")], "output": str(tmp_path / "again")}
    )
    assert fuse.run(again) == 0
    found = Predictor.of(read_bundle(str(tmp_path / "again")), "cpu").model.preparation
    inner = torch.cat(parts, dim=1)
    with torch.no_grad():
        torch.testing.assert_close(found(torch.from_numpy(features)), inner / inner.norm(dim=1, keepdim=True))


def test_a_fusion_names_what_the_networks_inside_it_learnt_from(trainings, settings, tmp_path, caplog):
    """`erase` once passed over a fusion whose own target lacked a recording that a network inside it knew."""
    run_train(settings, tmp_path / "one")
    inner = read_bundle(str(tmp_path / "one"))
    lines = Path(settings["ground_truth"]).read_text().splitlines()
    fewer = tmp_path / "fewer.tsv"
    fewer.write_text("\n".join(lines[:1] + lines[11:]) + "\n")  # r000 … r009 are unknown to the fusion
    fusing = {**settings, "network": {}, "ground_truth": str(fewer), "bundles": [inner.uri]}
    fuse.run(fuse.FuseConfiguration.from_mapping({**fusing, "output": str(tmp_path / "fused")}))
    fused = read_bundle(str(tmp_path / "fused"))
    assert fused.manifest.lineage.inner == (inner.bundle_id,)
    examples = read_examples(fused.uri)
    gone = {f"r{n:03d}" for n in range(10)}
    assert not gone & set(own_examples(examples)["recording_id"].to_pylist())
    inside = examples.filter(pc.equal(examples["bundle"], inner.bundle_id))
    assert inside.drop_columns("bundle").equals(read_examples(inner.uri).drop_columns("bundle"))

    known = sorted(gone & set(inside["recording_id"].to_pylist()))
    assert known
    erasing = {"inputs": [settings["features"]], "recordings": known[:1], "bundles": [fused.uri], "dry_run": True}
    with caplog.at_level("WARNING"):
        erase.run(erase.EraseConfiguration.from_mapping(erasing))
    assert f"bundle {fused.uri} was trained, validated or tested on 1 of the recordings (its own network on 0)" in (
        caplog.text
    )


def test_licences_are_in_the_manifest_and_the_card(trainings, settings, tmp_path):
    run_train(settings, tmp_path / "bundle", licences={"weights": "CC-BY-4.0"})
    licences = read_bundle(str(tmp_path / "bundle")).manifest.licences
    assert (licences.data, licences.weights) == (None, "CC-BY-4.0")
    card = (tmp_path / "bundle" / "README.md").read_text().splitlines()
    assert {"| training data | not stated |", "| weights | CC-BY-4.0 |"} <= {*card}


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


def write_truth(path, label_sets):
    """`label_sets`: recording → labels."""
    width = max(map(len, label_sets.values()))
    header = ["recordingmbid", "releasegroupmbid", *(f"genre{n + 1}" for n in range(width))]
    rows = [[recording, "", *labels] for recording, labels in label_sets.items()]
    path.write_text("".join("\t".join(row) + "\n" for row in [header, *rows]))
    return {"ground_truth": str(path)}


@pytest.fixture
def joined_settings(settings, tmp_path):
    """Two taxonomies, of the first 45 and the last 45 of 60 recordings; what both call hip hop they spell otherwise."""
    values = np.random.default_rng(2).normal(size=(80, 5))  # as the table's
    spelling = {"squashed": ("hiphop", "jazz", "soul"), "spelt": ("Hip Hop", "Zouk", "jazz")}
    recordings = {"squashed": range(45), "spelt": range(15, 60)}
    sources = {
        taxonomy: write_truth(
            tmp_path / f"{taxonomy}.tsv",
            {
                f"r{n:03d}": [name for name, value in zip(names, values[n], strict=False) if value > 0] or [names[2]]
                for n in recordings[taxonomy]
            },
        )
        for taxonomy, names in spelling.items()
    }
    alone = {key: value for key, value in settings.items() if key not in ("taxonomy", "ground_truth")}
    return {**alone, "sources": sources, "decisions": {"calibration": "none", "least_positives": 1}}


@pytest.mark.parametrize("unlabelled", ["negative", "masked"])
def test_a_joined_bundle_answers_in_every_taxonomys_own_names(trainings, joined_settings, tmp_path, unlabelled):
    assert run_train(joined_settings, tmp_path / "bundle", unlabelled=unlabelled) == 0
    bundle = read_bundle(str(tmp_path / "bundle"))
    targets = read_targets(bundle)
    assert bundle.manifest.labels == ("hiphop", "jazz", "soul", "zouk")
    assert {name: (target.labels, target.columns.tolist()) for name, target in targets.items()} == {
        "spelt": (("Hip Hop", "Zouk", "jazz"), [0, 3, 1]),
        "squashed": (("hiphop", "jazz", "soul"), [0, 1, 2]),
    }
    assert bundle.manifest.taxonomy == "spelt"

    # Thresholds follow from the validation recordings that the taxonomy annotated itself, and from its own labels.
    batches = tables.read_batches(joined_settings["features"], ["features"])
    features = np.concatenate([tables.vectors(batch.column("features")) for batch in batches])
    scores = Predictor.of(bundle, "cpu").scores(features)
    means = {f"r{n:03d}": (scores[n] + scores[60 + n]) / 2 if n < 20 else scores[n] for n in range(60)}
    examples = read_examples(bundle.uri).to_pylist()
    for taxonomy, target in targets.items():
        rows = [row for row in examples if row["taxonomy"] == taxonomy and row["part"] == "validation"]
        truth = np.array([[label in row["labels"] for label in target.labels] for row in rows])
        own = np.stack([means[row["recording_id"]][target.columns] for row in rows])
        np.testing.assert_allclose(target.policy.thresholds, plug_in_thresholds(csr_array(truth), own), rtol=1e-5)
        assert bundle.manifest.metrics.targets[taxonomy].recordings == len(rows)
        assert {label for row in rows for label in row["labels"]} <= set(target.labels)
    parts = {}
    for row in examples:
        parts.setdefault(row["recording_id"], set()).add(row["part"])
    assert len(parts) == 60
    assert {len(found) for found in parts.values()} == {1}


def test_each_source_has_the_labels_and_parts_that_it_has_alone(trainings, joined_settings, tmp_path):
    run_train(joined_settings, tmp_path / "joined")
    together = read_examples(str(tmp_path / "joined"))
    for taxonomy, source in joined_settings["sources"].items():
        alone = {key: value for key, value in joined_settings.items() if key != "sources"}
        run_train({**alone, "taxonomy": taxonomy, **source}, tmp_path / taxonomy)
        own = together.filter(pc.equal(together["taxonomy"], taxonomy))
        assert read_examples(str(tmp_path / taxonomy)).equals(own)


def test_masked_labels_change_what_is_learnt(trainings, joined_settings, tmp_path):
    for unlabelled in ("negative", "masked"):
        run_train(joined_settings, tmp_path / unlabelled, unlabelled=unlabelled)
    one, other = (read_bundle(str(tmp_path / name)) for name in ("negative", "masked"))
    assert one.manifest.labels == other.manifest.labels
    assert not np.allclose(one.tensors["network.head.1.bias"], other.tensors["network.head.1.bias"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ground_truth": "t.tsv"}, "sources cannot be combined with ground_truth"),
        ({"taxonomy": "other"}, "expected taxonomy to be one of squashed, spelt, found other"),
        ({"sources": {}}, "give taxonomy and ground_truth, or sources; taxonomy and ground_truth missing"),
        ({"sources": {"a": {"ground_truht": "t"}}}, "did you mean 'ground_truth'"),
        (
            {"sources": {"a": {"ground_truth": "t", "test_ground_truth": "t"}}},
            "needs validation_ground_truth; give both",
        ),
        (
            {"sources": {"a": {"ground_truth": "t", "validation_ground_truth": "v"}, "b": {"ground_truth": "t"}}},
            "validation_ground_truth for all sources or for none",
        ),
        ({"unlabelled": "ignored"}, "unlabelled"),
    ],
)
def test_sources_that_cannot_be_meant(joined_settings, tmp_path, wrong, message):
    with pytest.raises(ConfigurationError, match=message):
        run_train(joined_settings, tmp_path / "bundle", **wrong)


def test_melband_learns_from_the_mel_bands_alone(trainings, settings, write_features, tmp_path):
    generator = np.random.default_rng(4)
    recordings = [f"r{n:03d}" for n in range(60)]
    values = generator.random((60, len(FEATURE_COLUMNS))).astype(np.float32)
    uri = write_features(values, name="essentia", names=FEATURE_COLUMNS, recording_id=recordings)
    changes = {"system": "melband", "features": uri, "network": {"filters": [8, 8]}}
    run_train(settings, tmp_path / "bundle", **changes)
    bundle = read_bundle(str(tmp_path / "bundle"))
    assert (bundle.manifest.preprocessing.kind, bundle.manifest.architecture.inputs) == ("melbands", 360)
    predictor = Predictor.of(bundle, "cpu")
    other = np.full_like(values, np.nan)
    places = melband_places(FEATURE_COLUMNS)
    other[:, places] = values[:, places]
    np.testing.assert_array_equal(predictor.scores(other), predictor.scores(values))
    other[:, places[0]] += 1
    assert (predictor.scores(other) != predictor.scores(values)).any()


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"system": "melband"}, InputError, "expected a features table with the 360 columns of lowlevel.melbands"),
        ({"system": "melband", "clip_sd": 8}, ConfigurationError, "clip_sd bounds standardised values"),
        ({"system": "fusion"}, ConfigurationError, "use the job fuse"),
    ],
)
def test_systems_are_given_only_what_they_can_take(trainings, settings, tmp_path, wrong, error, message):
    with pytest.raises(error, match=message):
        run_train(settings, tmp_path / "bundle", **{"network": {}, **wrong})
    assert not trainings


def test_a_bundle_says_what_share_of_its_ground_truth_was_lost(trainings, settings, tmp_path):
    truth = Path(settings["ground_truth"])
    truth.write_text(truth.read_text().replace("\nr0", "\nsong-0") + "".join(f"lost{n}\t\trock\t\n" for n in range(20)))
    own = tmp_path / "own.csv"
    own.write_text("own_id,recording_id\n" + "".join(f"song-0{n:02d},r0{n:02d}\n" for n in range(60)))
    assert run_train(settings, tmp_path / "bundle", identifiers=str(own)) == 0
    data = read_bundle(str(tmp_path / "bundle")).manifest.data
    assert data.sources == {"folders": SourceDescription(recordings=80, unmatched_share=0.25)}
    assert sum(data.recordings.values()) == 60


def test_a_network_without_an_embedding_is_not_fused(trainings, settings, write_features, tmp_path):
    values = np.random.default_rng(4).random((60, len(FEATURE_COLUMNS))).astype(np.float32)
    recordings = [f"r{n:03d}" for n in range(60)]
    uri = write_features(values, name="essentia", names=FEATURE_COLUMNS, recording_id=recordings)
    melband = {**settings, "system": "melband", "features": uri, "network": {"filters": [8, 8]}}
    run_train(melband, tmp_path / "melband")
    fusing = {**settings, "features": uri, "network": {}, "bundles": [str(tmp_path / "melband")]}
    with pytest.raises(
        InputError, match="expected a bundle whose network offers an embedding, found the system melband"
    ):
        fuse.run(fuse.FuseConfiguration.from_mapping({**fusing, "output": str(tmp_path / "fused")}))
    assert not is_bundle(str(tmp_path / "fused"))
