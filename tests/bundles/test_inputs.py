"""A bundle takes features of its own specification only, and says what differs in others."""

import re

import pytest

from genre_ray.bundles.files import Bundle
from genre_ray.bundles.inputs import check_input
from genre_ray.errors import InputError
from genre_ray.features.spec import Axis, FeatureSpec
from genre_ray.systems.description import AUDIO
from tests.manifests import make_manifest

LETTERS = FeatureSpec.of_columns("test", "abcdef")
MEL = FeatureSpec("log-mel", (Axis("mels", 96), Axis("frames", 128)), parameters={"sample_rate_hz": 16000, "hop": 256})


def bundle_of(spec):
    return Bundle("b", "id", make_manifest(inputs={AUDIO: spec}), {})


@pytest.mark.parametrize("spec", [LETTERS, MEL])
def test_its_own_features_are_taken(spec):
    check_input(bundle_of(spec), FeatureSpec.from_dict(spec.as_dict()), "t")


@pytest.mark.parametrize(
    ("expected", "found", "differences"),
    [
        (LETTERS, FeatureSpec.of_columns("test", "abcde"), "(5 columns) instead of (6 columns); missing columns: f;"),
        (LETTERS, FeatureSpec.of_columns("test", "abcdefg"), "(6 columns); unknown columns: g;"),
        (LETTERS, FeatureSpec.of_columns("test", "abcdeg"), ": missing columns: f; unknown columns: g;"),
        (LETTERS, FeatureSpec.of_columns("test", "bacdef"), ": the same columns in another order;"),
        (LETTERS, FeatureSpec.of_columns("test", "zyxwvutsrqponmlkjihg"), "missing columns: a, b, c, d, e and 1 more;"),
        (LETTERS, FeatureSpec.of_columns("essentia-2669", "abcdef"), ": kind essentia-2669 instead of test;"),
        (
            MEL,
            FeatureSpec(MEL.kind, MEL.shape[::-1], parameters=MEL.parameters),
            "(128 frames, 96 mels) instead of (96",
        ),
        (
            MEL,
            FeatureSpec(MEL.kind, MEL.shape, "float16", parameters=MEL.parameters),
            "dtype float16 instead of float32",
        ),
        (MEL, FeatureSpec(MEL.kind, MEL.shape, parameters={"hop": 512}), "hop 512 instead of 256; sample_rate_hz None"),
    ],
)
def test_others_are_refused_with_what_differs(expected, found, differences):
    with pytest.raises(
        InputError,
        match=rf"^t: the features differ from those that the bundle b was trained on.*{re.escape(differences)}",
    ):
        check_input(bundle_of(expected), found, "t")


def test_another_modality_is_refused():
    with pytest.raises(InputError, match="the bundle b was trained on audio, not on text"):
        check_input(bundle_of(LETTERS), LETTERS, "t", "text")
