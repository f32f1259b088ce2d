"""`model.json` is read back as it was written, and anything else is refused with what is wrong."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from genre_ray.bundles.manifest import (
    Architecture,
    Licences,
    Lineage,
    Manifest,
    Metrics,
    TargetDescription,
    TaskDescription,
)
from genre_ray.decisions.calibration import CalibrationDescription
from genre_ray.decisions.fitting import ValidationMetrics
from genre_ray.decisions.policy import PolicyDescription
from genre_ray.errors import InputError
from genre_ray.features.spec import Axis, FeatureSpec
from genre_ray.models.description import PreparationDescription
from genre_ray.systems.description import AUDIO, GENRES
from tests.manifests import make_manifest

DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "bundle.md"

finite = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
free = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
settings = st.dictionaries(names, free, max_size=3)
axes = st.lists(st.builds(Axis, names, st.integers(1, 10**6)), min_size=1, max_size=3).map(tuple)
parameters = st.dictionaries(names, names | st.integers() | st.booleans() | finite, max_size=3)
specs = st.builds(FeatureSpec, names, axes, st.sampled_from(["float32", "uint8"]), parameters=parameters) | st.builds(
    FeatureSpec.of_columns, names, st.lists(names, min_size=1, max_size=4, unique=True)
)


@st.composite
def policies(draw, labels):
    each = {"min_size": labels, "max_size": labels}
    single = st.floats(width=32, allow_nan=False, allow_infinity=False)
    floats, maps = st.lists(single, **each).map(tuple), st.lists(names, **each).map(tuple)
    knots = st.tuples(*[st.lists(single, min_size=2, max_size=2).map(tuple)] * 2)
    calibration = st.builds(
        CalibrationDescription,
        method=st.sampled_from(["auto", "platt"]),
        kinds=maps,
        slopes=floats,
        intercepts=floats,
        knots=st.dictionaries(st.integers(0, labels - 1).map(str), knots, max_size=2),
    )
    return PolicyDescription(
        thresholds=draw(st.lists(st.floats(1e-30, 3e38), **each).map(tuple)),
        calibration=draw(st.none() | calibration),
        pairs=draw(st.sampled_from([(), ((1, 0),)])) if labels > 1 else (),
        max_labels=draw(st.none() | st.integers(1, 9)),
        least_confidence=draw(st.none() | finite),
    )


@st.composite
def manifests(draw):
    task = draw(st.lists(names, min_size=1, max_size=5, unique=True).map(tuple))
    targets = {}
    for taxonomy in draw(st.lists(names, min_size=1, max_size=3, unique=True)):
        columns = draw(st.lists(st.integers(0, len(task) - 1), min_size=1, max_size=5, unique=True).map(tuple))
        labels = tuple(task[column] for column in columns)
        policy = draw(policies(len(labels)))
        targets[taxonomy] = TargetDescription(
            task=GENRES, labels=labels, columns=columns, hierarchy=policy.pairs, policy=policy
        )
    errors = st.none() | finite
    measured = st.builds(
        ValidationMetrics,
        recordings=st.integers(0, 9),
        roc_auc=errors,
        average_precision=errors,
        calibration_error=errors,
        calibration_error_before=errors,
        calibration_maps=st.dictionaries(names, st.integers(0, 9), max_size=2),
        coverage_risk=st.lists(st.tuples(finite, finite), max_size=2).map(tuple),
    )
    return make_manifest(
        system=draw(names),
        source=draw(names),
        taxonomy=next(iter(targets)),
        inputs=draw(st.dictionaries(names, specs, min_size=1, max_size=2)),
        preprocessing=PreparationDescription(kind=draw(names), settings=draw(settings)),
        architecture=Architecture(inputs=draw(st.integers(1, 10**6)), network=draw(settings)),
        rules=draw(settings),
        tasks={GENRES: TaskDescription(kind="multi_label", output="sigmoid", labels=task)},
        targets=targets,
        metrics=Metrics(targets={taxonomy: draw(measured) for taxonomy in targets}, best_epoch=1, history=()),
        lineage=Lineage(run_id=draw(names), identity=draw(settings), trained_by=draw(st.none() | settings)),
        licences=Licences(data=draw(st.none() | names), weights=draw(st.none() | names)),
        sha256={"model.safetensors": draw(names)},
    )


@given(manifests())
def test_what_is_written_is_read(manifest):
    content = manifest.to_json()
    again = Manifest.from_json(content, "m")
    assert again == manifest
    assert again.to_json() == content


def changed(path, value=None, *, remove=False):
    """The content of a good manifest with another value, or none, at a path of keys."""
    content = json.loads(make_manifest(sha256={"README.md": "0"}).to_json())
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if remove:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return json.dumps(content).encode()


def refused(content, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        Manifest.from_json(content, "somewhere/model.json")
    text = str(caught.value)
    assert text.startswith("somewhere/model.json: ")
    assert len(text) < 1000
    return text


@pytest.mark.parametrize("key", [key for key in Manifest.model_fields if key != "sha256"])
def test_a_missing_key_is_named(key):
    refused(
        changed([key], remove=True), f"expected the manifest of a bundle: {key}: Field required; restore the bundle"
    )


POLICY = ("targets", "folders", "policy")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["system"], 3, "system: Input should be a valid string, found 3"),
        (["colour"], "red", "colour: Extra inputs are not permitted"),
        (["architecture", "inputs"], "2", "architecture.inputs: Input should be a valid integer, found '2'"),
        (["architecture", "inputs"], 0, "architecture.inputs: "),
        (["architecture", "inputs"], True, "architecture.inputs: "),
        (["architecture", "inputs"], 2.0, "architecture.inputs: "),
        (["tasks"], [], "tasks: "),
        (["tasks", GENRES, "labels"], "jazz", f"tasks.{GENRES}.labels: "),
        (["tasks", GENRES, "labels"], [], f"tasks.{GENRES}.labels: "),
        (["tasks", GENRES, "output"], "relu", f"tasks.{GENRES}.output: "),
        (["tasks", GENRES, "labels"], ["jazz"], "the target 'folders' has an unknown task"),
        (["targets", "folders", "task"], "moods", "the target 'folders' has an unknown task"),
        (["taxonomy"], "tags", "expected a target 'tags', found folders"),
        (["targets", "folders"], None, "targets.folders: "),
        (["targets", "folders", "columns"], [0], "expected 2 different columns, one per label"),
        (["targets", "folders", "columns"], [1, 1], "expected 2 different columns, one per label"),
        (["targets", "folders", "columns"], [0, -1], "has an unknown task, or columns that its task does not have"),
        (["targets", "folders", "columns"], [0, 2], "has an unknown task, or columns that its task does not have"),
        (["targets", "folders", "hierarchy"], [[0, 2]], "pairs of columns from 0 to 1"),
        (["targets", "folders", "hierarchy"], [[0, 1], [1, 0]], "the hierarchy of labels contains a cycle"),
        ([*POLICY, "thresholds"], [0.5], "expected 2 thresholds"),
        ([*POLICY, "thresholds"], [0.5, 0.0], "expected thresholds above 0"),
        ([*POLICY, "thresholds"], [0.5, math.nan], "finite number"),
        ([*POLICY, "thresholds"], [0.5, math.inf], "finite number"),
        ([*POLICY, "thresholds"], [0.5, 10**400], "finite number"),
        ([*POLICY, "thresholds"], [0.5, 3.5e38], "thresholds.1: Input should be less than"),
        ([*POLICY, "thresholds"], [0.5, "x" * 10**6], "found 'xxx"),
        ([*POLICY, "pairs"], [[0, 1], [1, 0]], "the hierarchy of labels contains a cycle"),
        ([*POLICY, "calibration"], "none", "calibration: "),
        ([*POLICY, "max_labels"], 0, "max_labels: "),
        (["metrics", "history"], [{"loss": math.nan}], "finite number"),
        (["rules", "learning_rate"], math.nan, "rules"),
        (["lineage", "identity", "seed"], math.inf, "lineage.identity"),
        (["data", "rows"], -1, "data.rows: "),
        (["licences", "code"], "MIT", "licences.code: Extra inputs are not permitted"),
        (["inputs"], {}, "inputs: "),
        (["inputs", AUDIO, "kind"], "log-mel", "inputs.audio: its hash is"),
        (["inputs", AUDIO, "kind"], 3, "inputs.audio: kind: Input should be a valid string"),
        (["inputs", AUDIO, "unit"], "dB", "inputs.audio: it has unknown keys"),
        (["inputs", AUDIO, "hash"], None, "instead of None"),
        (["inputs", AUDIO], "features", "inputs.audio: expected a mapping, found str"),
        (["inputs", AUDIO, "shape"], [{"name": "columns", "size": 10**30}], "inputs.audio: "),
        (["sha256", "README.md"], None, "sha256.README.md: "),
    ],
)
def test_a_wrong_value_is_named_with_what_was_found(path, value, message):
    refused(changed(path, value), message)


@pytest.mark.parametrize("version", [0, 2, "1", None, 1.5, [1]])
def test_another_version_is_refused_as_such_whatever_else_it_has(version):
    content = json.dumps({"version": version, "unheard_of": {}}).encode()
    refused(content, f"expected version 1 of a bundle's manifest, found {version!r}; use the version of genre_ray")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'"model"', b"3", b"\xff", b"[" * 10**6, b'{"version": 1', b'{"labels": []}', b"null\0"],
)
def test_what_is_no_manifest_is_refused(content):
    refused(content, "restore the bundle")


@given(st.binary(max_size=200) | free.map(lambda value: json.dumps(value).encode()))
def test_no_content_ends_in_another_error(content):
    with pytest.raises(InputError, match=r"^model\.json: "):
        Manifest.from_json(content, "model.json")


def test_many_errors_are_shown_in_part():
    text = refused(b"{}", "; and ")
    assert text.count("Field required") == 3


def test_a_manifest_is_as_strict_when_it_is_made():
    with pytest.raises(ValidationError, match="finite number"):
        make_manifest(thresholds=[0.5, np.inf])
    with pytest.raises(ValidationError, match="Extra inputs"):
        make_manifest(colour="red")
