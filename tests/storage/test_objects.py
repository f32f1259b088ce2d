"""Guards that a file system and an object store behave the same to all that is built on them."""

import concurrent.futures
import os
import threading
from pathlib import Path

import pytest

from genre_ray.errors import InputError, NotFoundError, StorageError
from genre_ray.storage import objects, remote
from genre_ray.storage.s3 import client, filesystem


@pytest.fixture(params=["local", "s3"])
def root(request, tmp_path):
    return request.getfixturevalue("s3") if request.param == "s3" else str(tmp_path / "root")


def test_what_is_written_is_read_listed_and_removed(root):
    written = {"b": b"two", "a/x": b"one", "a.json": b"", "a/ü ö": b"spaces", "Z": b"3"}
    for name, content in written.items():
        objects.write_bytes(objects.join(root, name), content)

    listed = objects.list_files(root)

    assert [file.name for file in listed] == sorted(written)
    assert {file.name: objects.read_bytes(file.uri) for file in listed} == written
    assert {file.name: file.size for file in listed} == {name: len(content) for name, content in written.items()}
    assert listed == objects.list_files(root + "/")
    objects.delete_folder(objects.join(root, "a"))
    assert [file.name for file in objects.list_files(root)] == ["Z", "a.json", "b"]


def test_a_file_lists_itself_and_not_what_begins_like_it(root):
    for name in ("file", "file2", "other/file"):
        objects.write_bytes(objects.join(root, name), b"abc")
    uri = objects.join(root, "file")
    (file,) = objects.list_files(uri)
    assert (file.uri, file.name, file.size) == (uri, "file", 3)
    assert file.version == next(f.version for f in objects.list_files(root) if f.name == "file")


def test_a_file_that_changes_has_another_version(root):
    uri = objects.join(root, "file")
    objects.write_bytes(uri, b"abc")
    (before,) = objects.list_files(uri)
    objects.write_bytes(uri, b"abd")
    (after,) = objects.list_files(uri)
    assert (before.size, before.uri) == (after.size, after.uri)
    assert before.version != after.version


def test_what_is_not_there(root):
    missing = objects.join(root, "no", "thing")
    assert not objects.exists(missing)
    assert objects.list_files(missing) == []
    objects.delete_folder(missing)
    for read in (objects.read_bytes, objects.open_stream, objects.open_seekable):
        with pytest.raises(StorageError, match="check that it exists") as refused:
            read(missing)
        assert missing in str(refused.value)


def test_a_folder_is_no_file(root):
    objects.write_bytes(objects.join(root, "folder", "file"), b"x")
    assert not objects.exists(objects.join(root, "folder"))
    with pytest.raises(StorageError):
        objects.read_bytes(objects.join(root, "folder"))


def test_streams_give_all_bytes(root):
    content = os.urandom(3_000_000)
    uri = objects.join(root, "large")
    objects.write_bytes(uri, content)
    with objects.open_stream(uri) as stream:
        assert b"".join(iter(lambda: stream.read(700_001), b"")) == content
    with objects.open_seekable(uri) as file:
        file.seek(len(content) - 5)
        assert file.read() == content[-5:]


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 5000])
def test_streams_give_all_bytes_of_any_number_of_ranges(root, size, monkeypatch):
    monkeypatch.setattr(remote, "RANGE_BYTES", 1000)
    content, uri = os.urandom(size), objects.join(root, "some")
    objects.write_bytes(uri, content)
    (file,) = objects.list_files(root)
    for planned in (None, file):
        with objects.open_stream(uri, planned) as stream:
            assert stream.read() == content
    objects.require_unchanged(file)


@pytest.mark.parametrize("change", [b"abcd", b"xyz"], ids=["longer", "as long"])
def test_a_planned_file_is_opened_only_as_it_was(root, change):
    uri = objects.join(root, "file")
    objects.write_bytes(uri, b"abc")
    (file,) = objects.list_files(root)
    objects.write_bytes(uri, change)
    for check in (lambda: objects.open_stream(uri, file), lambda: objects.require_unchanged(file)):
        with pytest.raises(InputError, match=r"file changed since the run was planned.*another --output"):
            check()
    assert objects.open_stream(uri).read() == change


def test_a_planned_file_that_is_gone_says_what_to_do(root):
    uri = objects.join(root, "file")
    objects.write_bytes(uri, b"abc")
    (file,) = objects.list_files(root)
    objects.delete_files([uri])
    with pytest.raises(NotFoundError, match=r"file: .*does not exist now. Restore it.*--resume"):
        objects.require_unchanged(file)
    with pytest.raises(NotFoundError):
        objects.open_stream(uri, file)


def test_an_object_that_is_overwritten_while_it_is_read_gives_no_mixture(s3, monkeypatch):
    """17 old members and 23 new ones once came of one archive."""
    monkeypatch.setattr(remote, "RANGE_BYTES", 2**20)
    uri = f"{s3}/large"
    objects.write_bytes(uri, bytes(3 * 2**20))
    (file,) = objects.list_files(s3)
    for planned, error in ((file, InputError), (None, StorageError)):
        objects.write_bytes(uri, bytes(3 * 2**20))
        with objects.open_stream(uri, planned) as stream:
            stream.read(10)
            objects.write_bytes(uri, b"x" * 3 * 2**20)
            with pytest.raises(
                error, match=r"changed since the run was planned|was overwritten while it was being read"
            ):
                stream.read()


def test_files_of_a_job_package_have_its_hash_as_version(tmp_path, monkeypatch):
    folder = tmp_path / "_ray_pkg_0f3ac1"
    objects.write_bytes(f"{folder}/a/file", b"abc")
    monkeypatch.chdir(folder)
    for listed in (str(folder), ".", "a", "a/file"):
        (file,) = objects.list_files(listed)
        os.utime(folder / "a" / "file", ns=(1, 1))
        assert file.version == "_ray_pkg_0f3ac1"
        objects.open_stream(file.uri, file).close()
        objects.require_unchanged(file)


def test_of_racing_writers_exactly_one_wins(root):
    uri = objects.join(root, "deep", "plan")
    start = threading.Barrier(8)

    def put(number):
        start.wait()
        return objects.put_if_absent(uri, str(number).encode())

    client.cache_clear()  # the first use of the client is part of the race
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        won = list(pool.map(put, range(8)))

    assert won.count(True) == 1
    assert objects.read_bytes(uri) == str(won.index(True)).encode()
    assert not objects.put_if_absent(uri, b"late")
    assert [file.name for file in objects.list_files(root)] == ["deep/plan"]


def test_no_temporary_file_is_listed_or_left(tmp_path):
    objects.write_bytes(f"{tmp_path}/a", b"1")
    objects.put_if_absent(f"{tmp_path}/a", b"2")
    with pytest.raises(StorageError):
        objects.write_bytes(f"{tmp_path}/a/below", b"a folder that is a file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError):
        objects.write_bytes(f"{tmp_path}/folder", b"a file that is a folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "folder"]

    (tmp_path / ".writing-killed").touch()
    assert [file.name for file in objects.list_files(str(tmp_path))] == ["a"]


def test_a_parent_that_is_a_file_is_no_lost_race(tmp_path):
    """os.makedirs raises FileExistsError for it, which once read as `someone was first`."""
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        objects.put_if_absent(f"{tmp_path}/file/below", b"x")


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    """Passed over in silence, its documents would be missing without a trace."""

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        objects.list_files(str(tmp_path))


def test_folders_below_are_listed_and_links_to_folders_are_not_followed(tmp_path):
    for name in ("a", "b/c/d", "b/e"):
        objects.write_bytes(objects.join(str(tmp_path), name), b"x")
    (tmp_path / "b" / "circle").symlink_to(tmp_path)
    (tmp_path / "empty").mkdir()
    found = sorted(file.name for file in objects.scan_files(str(tmp_path)))
    assert found == ["a", "b/c/d", "b/e"]


def test_a_listing_of_many_pages(s3):
    """Each page is asked for when the one before is done with: nobody holds a million keys."""
    names = sorted(["a-b", "a/x", "a/y", "a", "b", "ü", "z/z/z"])
    for name in names:
        objects.write_bytes(objects.join(s3, name), b"x")
    pages = []

    def small(params, **_):
        pages.append(params.get("ContinuationToken"))
        return {**params, "MaxKeys": 2}

    events = client().meta.events
    events.register("provide-client-params.s3.ListObjectsV2", small)
    try:
        listing = objects.scan_files(s3)
        found = [next(listing).name]
        assert len(pages) == 1
        assert sorted([*found, *(file.name for file in listing)]) == names
    finally:
        events.unregister("provide-client-params.s3.ListObjectsV2", small)
    assert len(pages) >= 4
    assert [file.name for file in objects.list_files(s3)] == names


def test_a_relative_path_and_a_link(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    objects.write_bytes("here", b"x")
    Path("linked").symlink_to("here")
    Path("broken").symlink_to("nowhere")
    listed = {file.name: file for file in objects.list_files(".")}
    assert objects.absolute("here") == str(tmp_path / "here")
    assert (listed["linked"].size, listed["broken"].version) == (1, "missing")


@pytest.mark.parametrize(
    ("parts", "joined"),
    [
        (("a", "b"), "a/b"),
        (("a/", "/b/", "c"), "a/b/c"),
        (("s3://bucket", "key"), "s3://bucket/key"),
        (("s3://bucket/", "a", "b"), "s3://bucket/a/b"),
        (("/", "a"), "//a"),
    ],
)
def test_join(parts, joined):
    assert os.path.normpath(objects.join(*parts)) == os.path.normpath(joined)


@pytest.fixture
def stranger(s3, monkeypatch):
    """The store's own address, in a process with a wrong key."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-nobody-may-see")
    for cached in (client, filesystem):
        cached.cache_clear()
    yield s3
    for cached in (client, filesystem):
        cached.cache_clear()


@pytest.mark.parametrize(
    "operation",
    [
        objects.exists,
        objects.read_bytes,
        objects.list_files,
        objects.delete_folder,
        lambda uri: objects.write_bytes(uri, b""),
        lambda uri: objects.put_if_absent(uri, b""),
        lambda uri: objects.open_stream(uri).read(),
        lambda uri: objects.open_seekable(uri).read(),
    ],
)
def test_a_refusal_is_an_error_without_credentials(stranger, operation):
    with pytest.raises((StorageError, OSError)) as refused:
        operation(f"{stranger}/key")
    assert isinstance(refused.value, StorageError)
    assert f"{stranger}/key" in str(refused.value)
    assert "a-secret-nobody-may-see" not in str(refused.value)
    assert os.environ["AWS_ACCESS_KEY_ID"] not in str(refused.value)
