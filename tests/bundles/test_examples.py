"""A bundle lists what it and every network inside it learnt from, each network's examples once."""

import pyarrow as pa

from genre_ray.bundles.examples import own_examples, read_examples, trained_on, with_inner
from genre_ray.bundles.files import read_bundle, write_bundle
from genre_ray.storage.schemas import EXAMPLES
from tests.manifests import make_manifest


def examples_of(parts, bundle=None):
    """`parts`: recording → part."""
    rows = [
        {"recording_id": recording, "taxonomy": "t", "part": part, "labels": ["rock"], "bundle": bundle}
        for recording, part in parts.items()
    ]
    return pa.Table.from_pylist(rows, EXAMPLES)


def write(uri, examples):
    write_bundle(str(uri), make_manifest(source=uri.name), {}, examples, "")
    return read_bundle(str(uri))


def test_every_network_inside_is_listed_once_however_deep(tmp_path):
    one = write(tmp_path / "one", examples_of({"a": "train", "b": "test"}))
    two = write(tmp_path / "two", examples_of({"a": "validation", "c": "train"}))
    fused = write(tmp_path / "fused", with_inner(examples_of({"d": "train"}), [one, two]))
    again = write(tmp_path / "again", with_inner(examples_of({"e": "test"}), [fused, one]))

    examples = read_examples(again.uri)
    assert examples.schema.equals(EXAMPLES)
    assert [(row["recording_id"], row["part"], row["bundle"]) for row in examples.to_pylist()] == [
        ("e", "test", None),
        ("d", "train", fused.bundle_id),
        ("a", "train", one.bundle_id),
        ("b", "test", one.bundle_id),
        ("a", "validation", two.bundle_id),
        ("c", "train", two.bundle_id),
    ]
    assert own_examples(examples)["recording_id"].to_pylist() == ["e"]
    assert trained_on(examples) == {"a", "c", "d"}


def test_a_single_network_has_its_own_examples_alone():
    examples = examples_of({"a": "train", "b": "validation"})
    assert with_inner(examples, []).equals(examples)
    assert own_examples(examples).equals(examples)
    assert trained_on(examples) == {"a"}
