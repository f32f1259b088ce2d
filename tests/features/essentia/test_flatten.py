"""Guards the numbers: every value of real documents lands in its column, and every fault is named by its column.

The reference walks the parsed JSON by each column's own dotted name, apart from any plan.
"""

import json
import tarfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from genre_ray.features.essentia.columns import FEATURE_COLUMNS, missing_columns
from genre_ray.features.essentia.flatten import flatten
from genre_ray.outcomes import Reason, Rejection
from genre_ray.sources.documents.parse import Document, DocumentVersion, parse_document

DATA = Path(__file__).parents[2] / "data"
OLDER = sorted((DATA / "acousticbrainz").glob("*.json"))
SHARPS = {"Ab": "G#", "Bb": "A#", "Eb": "D#"}
LEVELS = ("mean", "median", "min", "max")


@cache
def newer() -> dict[str, bytes]:
    """The Emotify documents, read with nothing of genre_ray."""
    with (DATA / "emotify" / "documents.tar.zst").open("rb") as stored:
        content = zstandard.ZstdDecompressor().stream_reader(stored)
        with tarfile.open(fileobj=content, mode="r|") as archive:
            return {member.name: archive.extractfile(member).read() for member in archive}


def reference_value(content, column):
    room, name, *path = column.split(".")
    field = content[room]
    is_newer = "key_temperley" in content["tonal"]
    for category in ("key_key", "chords_key", "key_scale", "chords_scale"):
        if name.startswith(f"{category}_"):
            if is_newer and category.startswith("key_"):
                value = content["tonal"]["key_temperley"][category.removeprefix("key_")]
            else:
                value = field[category]
            return float(SHARPS.get(value, value) == name.removeprefix(f"{category}_"))
    if is_newer and name == "key_strength":
        return content["tonal"]["key_temperley"]["strength"]
    if is_newer and name == "bpm_histogram_first_peak_spread":
        return np.nan
    if is_newer and name.startswith("bpm_histogram_"):
        return field[name] if path[0] in LEVELS else 0.0
    value = field[name]
    for key in path:
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def assert_equals_reference(name, payload):
    vector = flatten(parse_document(name, payload))
    assert vector.dtype == np.float32
    assert vector.shape == (2669,)
    content = json.loads(payload)
    expected = np.array([reference_value(content, column) for column in FEATURE_COLUMNS]).astype(np.float32)
    np.testing.assert_array_equal(vector, expected)


@pytest.mark.parametrize("path", OLDER, ids=lambda path: path.stem[:8])
def test_values_of_older_documents_are_those_of_the_json(path):
    assert_equals_reference(path.name, path.read_bytes())


def test_values_of_newer_documents_are_those_of_the_json():
    assert len(newer()) == 144
    for name, payload in newer().items():
        assert_equals_reference(name, payload)


def test_newer_documents_lack_nine_columns_and_no_others():
    for name, payload in newer().items():
        vector = flatten(parse_document(name, payload))
        lacking = [FEATURE_COLUMNS[place] for place in np.flatnonzero(np.isnan(vector))]
        assert lacking == list(missing_columns(DocumentVersion.MUSIC_2))


def content_of(version):
    return json.loads(OLDER[0].read_bytes() if version == "older" else next(iter(newer().values())))


def replaced(content, path, value):
    *parents, last = path.split(".")
    place = content
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place[key]
    if value is Ellipsis:
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    return content


def flattened(content):
    document = parse_document("song.json", json.dumps(content).encode())
    assert isinstance(document, Document), document
    return flatten(document)


@pytest.mark.parametrize("version", ["older", "newer"])
@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("lowlevel.average_loudness", ..., Reason.MISSING_VALUE),
        ("lowlevel.average_loudness", None, Reason.MISSING_VALUE),
        ("lowlevel.average_loudness", True, Reason.WRONG_TYPE),
        ("lowlevel.average_loudness", "0.5", Reason.WRONG_TYPE),
        ("lowlevel.average_loudness", [0.5], Reason.WRONG_SHAPE),
        ("lowlevel.average_loudness", {"mean": 0.5}, Reason.WRONG_SHAPE),
        ("lowlevel.average_loudness", float("nan"), Reason.NOT_FINITE),
        ("lowlevel.average_loudness", float("-inf"), Reason.NOT_FINITE),
        ("lowlevel.average_loudness", 1e39, Reason.NOT_FINITE),
        ("lowlevel.average_loudness", 10**400, Reason.NOT_FINITE),
        ("lowlevel.dissonance", 0.5, Reason.WRONG_SHAPE),
        ("lowlevel.dissonance", "mean", Reason.WRONG_SHAPE),
        ("lowlevel.dissonance", ..., Reason.MISSING_VALUE),
        ("lowlevel.dissonance.var", ..., Reason.MISSING_VALUE),
        ("lowlevel.melbands.mean", 0.5, Reason.WRONG_SHAPE),
        ("lowlevel.melbands.mean", [], Reason.WRONG_SHAPE),
        ("lowlevel.melbands.mean", [0.5] * 41, Reason.WRONG_SHAPE),
        ("lowlevel.melbands.mean", "x" * 40, Reason.WRONG_SHAPE),
        ("lowlevel.melbands.mean", {str(n): 0.5 for n in range(40)}, Reason.WRONG_SHAPE),
        ("lowlevel.melbands.mean.7", [0.5], Reason.WRONG_SHAPE),
        ("lowlevel.melbands.mean.7", None, Reason.MISSING_VALUE),
        ("lowlevel.melbands.mean.7", False, Reason.WRONG_TYPE),
        ("lowlevel.mfcc.cov", [[0.5] * 13] * 12, Reason.WRONG_SHAPE),
        ("lowlevel.mfcc.cov.3", [0.5] * 12, Reason.WRONG_SHAPE),
        ("lowlevel.mfcc.icov.12.12", float("inf"), Reason.NOT_FINITE),
        ("tonal.thpcp", 1, Reason.WRONG_SHAPE),
        ("tonal.chords_key", "H", Reason.UNKNOWN_KEY),
        ("tonal.chords_key", "Db", Reason.UNKNOWN_KEY),
        ("tonal.chords_key", "\ud800", Reason.UNKNOWN_KEY),
        ("tonal.chords_key", 3, Reason.WRONG_TYPE),
        ("tonal.chords_key", ["A"], Reason.WRONG_TYPE),
        ("tonal.chords_scale", "dorian", Reason.UNKNOWN_KEY),
        ("tonal.chords_scale", ..., Reason.MISSING_VALUE),
    ],
)
def test_a_fault_is_named_by_its_column(version, path, value, reason):
    rejection = flattened(replaced(content_of(version), path, value))
    assert isinstance(rejection, Rejection)
    assert rejection.reason is reason
    assert rejection.detail.startswith(f"{path}:") or rejection.detail.startswith(f"{path}.")
    assert rejection.recording_id == "song"


@pytest.mark.parametrize(
    ("path", "value", "reason", "column"),
    [
        ("tonal.key_temperley", ..., Reason.MISSING_VALUE, "tonal.key_strength"),
        ("tonal.key_temperley", "A", Reason.MISSING_VALUE, "tonal.key_strength"),
        ("tonal.key_temperley.key", "Gb", Reason.UNKNOWN_KEY, "tonal.key_key"),
        ("tonal.key_temperley.scale", ..., Reason.MISSING_VALUE, "tonal.key_scale"),
        ("rhythm.bpm_histogram_second_peak_bpm", ..., Reason.MISSING_VALUE, "rhythm.bpm_histogram_second_peak_bpm"),
        ("rhythm.bpm_histogram_second_peak_bpm", True, Reason.WRONG_TYPE, "rhythm.bpm_histogram_second_peak_bpm"),
        ("rhythm.bpm_histogram_second_peak_bpm", {}, Reason.WRONG_SHAPE, "rhythm.bpm_histogram_second_peak_bpm"),
    ],
)
def test_a_fault_in_what_newer_documents_keep_elsewhere(path, value, reason, column):
    rejection = flattened(replaced(content_of("newer"), path, value))
    assert rejection.reason is reason
    assert rejection.detail.startswith(column)


@pytest.mark.parametrize(("flat", "sharp"), SHARPS.items())
def test_keys_spelt_with_flats_are_those_with_sharps(flat, sharp):
    key = FEATURE_COLUMNS.index(f"tonal.key_key_{sharp}")
    vector = flattened(replaced(content_of("newer"), "tonal.key_temperley.key", flat))
    assert vector[key] == 1
    assert vector[[column.startswith("tonal.key_key_") for column in FEATURE_COLUMNS]].sum() == 1


def test_the_newer_version_never_supplies_the_absent_peak():
    # Otherwise which columns are missing would differ from document to document of one version.
    for stray in (3.0, float("nan"), {"mean": 1.0}, "x"):
        content = content_of("newer")
        content["rhythm"]["bpm_histogram_first_peak_spread"] = stray
        assert np.isnan(flattened(content)).sum() == 9


def test_ignored_fields_may_hold_anything():
    content = content_of("older")
    expected = flattened(content)
    content["rhythm"]["beats_position"] = "none"
    content["rhythm"]["beats_loudness_band_ratio"]["median"] = None
    content["lowlevel"]["novel"] = float("nan")
    content["highlevel"] = [True]
    np.testing.assert_array_equal(flattened(content), expected)


ODD_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=14) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), version=st.sampled_from(["older", "newer"]))
def test_mutated_documents_are_rejected_or_finite(data, version):
    """Whatever stands anywhere in a document, there is a full, finite vector or a rejection that names a column."""
    content = content_of(version)
    for _ in range(data.draw(st.integers(1, 3))):
        place = content
        while True:
            keys = sorted(place) if isinstance(place, dict) else range(len(place))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and data.draw(st.integers(0, 4)):
                place = place[key]
                continue
            value = data.draw(st.just(...) | ODD_VALUES)
            if value is not ...:
                place[key] = value
            else:
                del place[key]
            break
    document = parse_document("song.json", json.dumps(content).encode())
    if isinstance(document, Document):
        vector = flatten(document)
        if isinstance(vector, Rejection):
            assert vector.detail.split(".")[0] in ("lowlevel", "rhythm", "tonal")
        else:
            supplied = ~np.isin(FEATURE_COLUMNS, missing_columns(document.version))
            assert np.isfinite(vector[supplied]).all()
            assert np.isnan(vector[~supplied]).all()
