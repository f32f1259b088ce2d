"""Guards that a bundle is whole and unaltered, or refused: a model other than the one measured is worse than none."""

import concurrent.futures
import contextlib
import hashlib
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genre_ray.bundles.examples import read_examples
from genre_ray.bundles.files import bundle_folders, is_bundle, read_bundle, read_manifest, write_bundle
from genre_ray.errors import InputError, StorageError
from genre_ray.storage import objects
from genre_ray.storage.schemas import EXAMPLES as EXAMPLES_SCHEMA
from tests.manifests import make_manifest

MANIFEST = make_manifest(["rock", "rock---männer"], thresholds=[0.5, 0.25])
TENSORS = {"network.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "preparation.mean": np.zeros(3)}
EXAMPLES = pa.table(
    {
        "recording_id": ["a", "b"],
        "taxonomy": ["t", "t"],
        "part": ["train", "test"],
        "labels": [["rock"], []],
        "bundle": [None, "inner"],
    },
    EXAMPLES_SCHEMA,
)


def write(uri, **changes):
    return write_bundle(uri, MANIFEST.model_copy(update=changes), TENSORS, EXAMPLES, "# A card\n")


@pytest.fixture(params=["local", "s3"])
def uri(request, tmp_path):
    return request.getfixturevalue("s3") + "/b" if request.param == "s3" else str(tmp_path / "b")


@pytest.fixture
def local(tmp_path):
    return str(tmp_path / "bundle")


def test_what_is_written_is_read(uri):
    assert not is_bundle(uri)
    assert write(uri)
    bundle = read_bundle(uri)
    assert bundle.manifest.model_copy(update={"sha256": {}}) == MANIFEST
    assert bundle.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(bundle.tensors[name], tensor)
    assert read_examples(uri).equals(EXAMPLES)
    assert read_manifest(uri) == (bundle.bundle_id, bundle.manifest)
    files = objects.list_files(uri)
    assert [file.name for file in files] == ["README.md", "examples.parquet", "model.json", "model.safetensors"]
    assert bundle_folders(files) == [""]


def test_the_second_writer_changes_nothing(uri):
    assert write(uri, source="first")
    before = read_bundle(uri)
    assert not write(uri, source="second")
    assert read_bundle(uri).bundle_id == before.bundle_id
    assert read_manifest(uri)[1].source == "first"


def test_the_id_is_of_the_content(tmp_path):
    for folder, changes in (("one", {}), ("same", {}), ("other", {"rules": {"batch": 8}})):
        write(str(tmp_path / folder), **changes)
    ids = {folder: read_manifest(str(tmp_path / folder))[0] for folder in ("one", "same", "other")}
    assert ids["one"] == ids["same"] != ids["other"]
    assert ids["one"] == hashlib.sha256((tmp_path / "one" / "model.json").read_bytes()).hexdigest()[:16]


def test_bundles_are_found_in_folders(tmp_path):
    for folder in ("one", "two/inner"):
        write(str(tmp_path / folder))
    (tmp_path / "not-model.json").touch()
    (tmp_path / "model.json.old").touch()
    assert bundle_folders(objects.list_files(str(tmp_path))) == ["one", "two/inner"]


def test_an_incomplete_bundle_is_none_and_is_replaced(local):
    objects.write_bytes(f"{local}/model.safetensors", b"of an attempt that was killed")
    for read in (read_bundle, read_manifest, read_examples):
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
    with pytest.raises(InputError, match=f"{name}: this file was changed"):
        read(local)


def test_a_manifest_without_its_checksums_is_refused(local):
    write(local)
    objects.write_bytes(f"{local}/model.json", MANIFEST.to_json())
    with pytest.raises(InputError, match=r"expected checksums of model.safetensors, .*found checksums of no file"):
        read_bundle(local)


def test_a_manifest_of_more_than_any_model_needs_is_not_read(local, monkeypatch):
    write(local)
    monkeypatch.setattr("genre_ray.bundles.files.MAX_MANIFEST_BYTES", 1000)
    with pytest.raises(InputError, match=r"model.json: expected at most 1,000 bytes, found more"):
        read_bundle(local)


def test_examples_that_are_something_else_are_refused(local):
    write(local)
    manifest = read_manifest(local)[1]
    for content in (b"text", _parquet(pa.table({"recording_id": ["a"]}))):
        checksums = {**manifest.sha256, "examples.parquet": hashlib.sha256(content).hexdigest()}
        objects.write_bytes(f"{local}/examples.parquet", content)
        objects.write_bytes(f"{local}/model.json", manifest.model_copy(update={"sha256": checksums}).to_json())
        with pytest.raises(InputError, match=r"examples.parquet: expected a table of examples, found: .*restore"):
            read_examples(local)


def _parquet(table):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


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
        return write_bundle(local, make_manifest(source=str(number)), tensors, EXAMPLES, "")

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        won = list(pool.map(race, range(4)))
    assert won.count(True) == 1
    with contextlib.suppress(InputError):
        bundle = read_bundle(local)
        np.testing.assert_array_equal(bundle.tensors["weight"], np.full(3, float(bundle.manifest.source)))


def test_a_bundle_knows_its_place_wherever_it_is_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("bundle")
    assert read_bundle("bundle").uri == str(tmp_path / "bundle")
