"""Guards that throttling, resets, lost answers and stores without preconditions lose nothing, decide nothing twice."""

import os

import pyarrow as pa
import pytest

from genre_ray.errors import ConfigurationError, StorageError
from genre_ray.storage import objects, retries, tables
from genre_ray.storage.s3 import _REQUESTS, client
from genre_ray.storage.tables import Append

SCHEMA = pa.schema([("row", pa.string())])


@pytest.mark.parametrize("kind", ["slow_down", "reset", "lost_answer", "late_slow_down"])
def test_objects_are_written_and_read_through_faults(faulty, s3, kind):
    times, uri, content = 2, f"{s3}/deep/key", os.urandom(100_000)
    proxy = faulty((kind, "PUT"), times=times)
    objects.write_bytes(uri, content)
    assert proxy.count("PUT") == times + 1
    for method, read in (
        ("GET", objects.read_bytes),
        ("GET", lambda uri: objects.open_stream(uri).read()),
        ("HEAD", lambda uri: objects.open_seekable(uri).read()),
    ):
        proxy = faulty((kind, method), times=times)
        assert read(uri) == content
        assert proxy.count(method) > times
    faulty((kind, "GET"), times=times)
    assert [file.name for file in objects.list_files(s3)] == ["deep/key"]
    faulty((kind, "DELETE"), ("slow_down", "POST"), times=times)
    objects.delete_files([uri])
    assert not objects.exists(uri)


def test_a_small_object_takes_one_request(faulty, s3):
    uri = f"{s3}/key"
    objects.write_bytes(uri, b"x" * 100)
    (file,) = objects.list_files(s3)
    proxy = faulty()
    with objects.open_stream(uri, file) as stream:
        assert stream.read(101) == b"x" * 100
    assert (proxy.count("GET"), proxy.count()) == (1, 1)


@pytest.mark.parametrize("read", [objects.read_bytes, lambda uri: objects.open_stream(uri).read()])
def test_an_answer_that_breaks_off_is_asked_for_again(faulty, s3, read):
    uri, content = f"{s3}/key", os.urandom(300_000)
    objects.write_bytes(uri, content)
    faulty(("half_answer", "GET"), times=2)
    assert read(uri) == content


@pytest.mark.parametrize(
    "operation",
    [
        objects.read_bytes,
        objects.exists,
        objects.list_files,
        lambda uri: objects.write_bytes(uri, b"x"),
        lambda uri: objects.put_if_absent(uri, b"x"),
    ],
)
def test_trying_again_has_an_end(faulty, s3, operation, monkeypatch):
    monkeypatch.setattr(retries, "REQUEST_ATTEMPTS", 2)
    client.cache_clear()
    proxy = faulty(("slow_down", "GET"), ("slow_down", "PUT"), ("slow_down", "HEAD"), times=10**6)
    with pytest.raises(StorageError, match=r"SlowDown|503|reduce your request rate") as refused:
        operation(f"{s3}/key")
    assert f"{s3}/key" in str(refused.value)
    assert proxy.count() == 2


@pytest.mark.parametrize("kind", ["lost_answer", "late_slow_down"])
def test_a_winner_whose_answer_was_lost_knows_that_it_won(faulty, s3, kind):
    uri = f"{s3}/claim"
    faulty((kind, "PUT"))
    assert objects.put_if_absent(uri, b"same")
    faulty((kind, "PUT"))
    assert not objects.put_if_absent(uri, b"same")  # of another writer with the same content
    assert objects.read_bytes(uri) == b"same"


def test_a_conflict_is_asked_again(faulty, s3):
    proxy = faulty(("conflict", "PUT"), times=3)
    assert objects.put_if_absent(f"{s3}/claim", b"x")
    assert proxy.count("PUT") == 4
    faulty(("conflict", "PUT"), times=retries.REQUEST_ATTEMPTS)
    with pytest.raises(StorageError, match="conflicted with other writers"):
        objects.put_if_absent(f"{s3}/other", b"x")


def test_a_store_that_ignores_preconditions_is_refused(faulty, s3):
    objects.require_preconditions(f"{s3}/_run/probe")
    objects.require_preconditions(f"{s3}/_run/probe")  # by a run that joins
    faulty(("overwrite", "PUT"), times=10)
    with pytest.raises(ConfigurationError, match="does not support conditional writes"):
        objects.require_preconditions(f"{s3}/_run/probe")


def rows(uri):
    return [row for batch in tables.read_batches(uri, ["row"]) for row in batch.column("row").to_pylist()]


@pytest.mark.parametrize("kind", ["slow_down", "reset", "lost_answer", "late_slow_down"])
def test_a_commit_is_taken_once_whatever_became_of_its_answer(faulty, s3, kind):
    uri = f"{s3}/table"
    faulty((kind, "PUT", "_delta_log"))
    assert tables.create_table(uri, SCHEMA, {"run_id": "one"})
    assert not tables.create_table(uri, SCHEMA, {"run_id": "two"})
    assert tables.open_table(uri).metadata().configuration == {"genre_ray.run_id": "one"}
    part = tables.write_part(uri, "n000-00000", pa.table({"row": ["a", "b"]}, SCHEMA))
    shard = Append("run/n000/0", [part], 2)
    table = tables.open_table(uri)
    proxy = faulty((kind, "PUT", "_delta_log"), (kind, "GET"))
    assert tables.append(table, [shard], SCHEMA) == [shard]
    assert proxy.count("PUT", "_delta_log") >= 1
    assert tables.append(table, [shard], SCHEMA) == []
    assert table.version() == 1
    faulty((kind, "GET"), times=2)
    assert rows(uri) == ["a", "b"]


@pytest.mark.parametrize("kind", ["slow_down", "reset"])
def test_commits_to_a_store_that_is_down_have_an_end(faulty, s3, kind, monkeypatch):
    monkeypatch.setitem(_REQUESTS, "max_retries", "1")
    uri = f"{s3}/table"
    tables.create_table(uri, SCHEMA, {})
    table = tables.open_table(uri)
    faulty((kind, "PUT"), times=10**6)
    with pytest.raises(StorageError, match=uri):
        tables.append(table, [Append("one")], SCHEMA)
    faulty((kind, "GET"), (kind, "HEAD"), times=10**6)
    with pytest.raises(StorageError, match=uri):
        tables.open_table(uri)
