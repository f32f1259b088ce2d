"""Guards that a bundle is whole and unaltered, or refused: a model other than the one measured is worse than none."""

import concurrent.futures
import contextlib
import hashlib
import json
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genre_ray.errors import InputError, StorageError
from genre_ray.storage import bundles, objects
from genre_ray.storage.bundles import EXAMPLES_SCHEMA, read_bundle, read_examples, read_model, write_bundle

MODEL = {"system": "essentia", "labels": ["rock", "rock---männer"], "thresholds": [0.5, 0.25]}
TENSORS = {"network.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "preparation.mean": np.zeros(3)}
EXAMPLES = pa.table(
    {"recording_id": ["a", "b"], "taxonomy": ["t", "t"], "part": ["train", "test"], "labels": [["rock"], []]},
    EXAMPLES_SCHEMA,
)


def write(uri, **model):
    return write_bundle(uri, MODEL | model, TENSORS, EXAMPLES, "# A card\n")


@pytest.fixture(params=["local", "s3"])
def uri(request, tmp_path):
    return request.getfixturevalue("s3") + "/b" if request.param == "s3" else str(tmp_path / "b")


@pytest.fixture
def local(tmp_path):
    return str(tmp_path / "bundle")


def test_what_is_written_is_read(uri):
    assert not bundles.is_bundle(uri)
    assert write(uri)
    bundle = read_bundle(uri)
    assert {key: bundle.model[key] for key in MODEL} == MODEL
    assert bundle.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(bundle.tensors[name], tensor)
    assert read_examples(uri).equals(EXAMPLES)
    assert read_model(uri) == (bundle.bundle_id, bundle.model)
    names = [file.name for file in objects.list_files(uri)]
    assert names == ["README.md", "examples.parquet", "model.json", "model.safetensors"]


def test_examples_of_an_older_bundle_are_of_its_taxonomy(local):
    write(local, taxonomy="t")
    sink = pa.BufferOutputStream()
    pq.write_table(EXAMPLES.drop_columns("taxonomy"), sink)
    old = sink.getvalue().to_pybytes()
    model = read_model(local)[1]
    model["sha256"]["examples.parquet"] = hashlib.sha256(old).hexdigest()
    for name, content in (("examples.parquet", old), ("model.json", json.dumps(model).encode())):
        objects.write_bytes(f"{local}/{name}", content)
    assert read_examples(local).equals(EXAMPLES)


def test_the_second_writer_changes_nothing(uri):
    assert write(uri, run="first")
    before = read_bundle(uri)
    assert not write(uri, run="second")
    assert read_bundle(uri).bundle_id == before.bundle_id
    assert read_model(uri)[1]["run"] == "first"


def test_the_id_is_of_the_content(tmp_path):
    for folder, model in (("one", {}), ("same", {}), ("other", {"thresholds": [0.5, 0.5]})):
        write(str(tmp_path / folder), **model)
    ids = {folder: read_model(str(tmp_path / folder))[0] for folder in ("one", "same", "other")}
    assert ids["one"] == ids["same"] != ids["other"]


def test_an_incomplete_bundle_is_none_and_is_replaced(local):
    objects.write_bytes(f"{local}/model.safetensors", b"of an attempt that was killed")
    for read in (read_bundle, read_model, read_examples):
        with pytest.raises(InputError, match=r"expected a bundle \(a folder with model.json\), found none"):
            read(local)
    assert write(local)
    np.testing.assert_array_equal(read_bundle(local).tensors["network.weight"], TENSORS["network.weight"])


@pytest.mark.parametrize(("name", "read"), [("model.safetensors", read_bundle), ("examples.parquet", read_examples)])
def test_an_altered_file_is_refused(local, name, read):
    write(local)
    content = bytearray(objects.read_bytes(f"{local}/{name}"))
    content[len(content) // 2] ^= 1
    objects.write_bytes(f"{local}/{name}", bytes(content))
    with pytest.raises(InputError, match=f"{name}: expected SHA-256 .* the file was altered"):
        read(local)


@pytest.mark.parametrize("content", [b"{", b"[]", b'"model"', b'{"labels": []}', b"\xff"])
def test_a_model_that_is_no_description_is_refused(local, content):
    write(local)
    objects.write_bytes(f"{local}/model.json", content)
    with pytest.raises(InputError, match="restore the bundle"):
        read_bundle(local)


def test_a_file_that_is_gone_is_named(local, tmp_path):
    write(local)
    (tmp_path / "bundle" / "model.safetensors").unlink()
    with pytest.raises(StorageError, match=r"model\.safetensors"):
        read_bundle(local)


def test_racing_writers_leave_one_bundle_or_a_refusal(local):
    """Never the weights of one writer under the description of another."""
    start = threading.Barrier(4)

    def race(number):
        start.wait()
        tensors = {"weight": np.full(3, number, np.float32)}
        return write_bundle(local, {"number": number}, tensors, EXAMPLES, "")

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        won = list(pool.map(race, range(4)))
    assert won.count(True) == 1
    with contextlib.suppress(InputError):
        bundle = read_bundle(local)
        np.testing.assert_array_equal(bundle.tensors["weight"], np.full(3, bundle.model["number"]))


def test_a_bundle_knows_its_place_wherever_it_is_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("bundle")
    assert read_bundle("bundle").uri == str(tmp_path / "bundle")
