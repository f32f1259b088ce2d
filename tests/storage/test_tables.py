"""Guards the two promises that every run rests on: a shard is in a table once, and a part is what its name says."""

import concurrent.futures
import hashlib
import os
import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genre_ray.errors import InputError, StorageError
from genre_ray.storage import objects, tables
from genre_ray.storage.schemas import list_of
from genre_ray.storage.tables import Append

SCHEMA = pa.schema([("name", pa.string()), ("vector", list_of(pa.float32()))])


def rows(*names):
    vectors = np.arange(2 * len(names), dtype=np.float32).reshape(-1, 2).tolist()
    return pa.table([pa.array(names, pa.string()), pa.array(vectors, SCHEMA.field("vector").type)], schema=SCHEMA)


def names_in(uri):
    return [name for batch in tables.read_batches(uri, ["name"]) for name in batch.column("name").to_pylist()]


@pytest.fixture
def uri(tmp_path):
    uri = str(tmp_path / "table")
    assert tables.create_table(uri, SCHEMA, {"run_id": "abc"})
    return uri


def race(count, action):
    """What each of `count` threads got from `action(number)`, all started together."""
    start = threading.Barrier(count)

    def go(number):
        start.wait()
        return action(number)

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(go, range(count)))


def append_twice(uri, item):
    """Two writers that do not know of each other bring the same shard, each with a part of its own."""
    opened = [tables.open_table(uri) for _ in range(2)]
    parts = [tables.write_part(uri, item, rows(item, f"{item}'")) for _ in range(2)]
    return race(2, lambda n: tables.append(opened[n], [Append(item, [parts[n]])], SCHEMA))


def test_of_racing_creators_exactly_one_gets_the_table(tmp_path):
    """Delta's own retries let several in, the last one with its properties over the others'."""
    for attempt in range(5):
        uri = str(tmp_path / str(attempt))
        won = race(8, lambda n, uri=uri: tables.create_table(uri, SCHEMA, {"run_id": str(n)}))
        assert won.count(True) == 1
        assert tables.open_table(uri).metadata().configuration["genre_ray.run_id"] == str(won.index(True))
        assert not tables.create_table(uri, SCHEMA, {})


def test_a_new_table_is_empty_and_keeps_its_properties(uri):
    assert tables.is_table(uri)
    assert tables.open_table(uri).metadata().configuration["genre_ray.run_id"] == "abc"
    assert tables.list_parts(uri) == []
    assert tables.properties(uri) == {"run_id": "abc"}
    assert names_in(uri) == []
    assert tables.dataset(uri).count_rows() == 0


def test_no_table_there_is_said_so(tmp_path):
    assert not tables.is_table(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="there is no Delta table"):
        tables.open_table(str(tmp_path / "nowhere"))


def test_what_cannot_be_a_table_is_a_storage_error(tmp_path, uri):
    (tmp_path / "file").touch()
    (tmp_path / "damaged" / "_delta_log").mkdir(parents=True)
    (tmp_path / "damaged" / "_delta_log" / f"{0:020}.json").write_text("{bad")
    for refused in (
        lambda: tables.create_table(str(tmp_path / "file" / "table"), SCHEMA, {}),
        lambda: tables.open_table(str(tmp_path / "damaged")),
        lambda: tables.open_table(uri, version=9),
    ):
        with pytest.raises(StorageError) as error:
            refused()
        assert "\n" not in str(error.value)


def test_a_transaction_is_taken_once(uri):
    table = tables.open_table(uri)
    first, second = (tables.write_part(uri, "shard", rows("a", "b")) for _ in range(2))

    assert tables.append(table, [Append("one", [first])], SCHEMA) == [Append("one", [first])]
    assert tables.append(table, [Append("one", [second])], SCHEMA) == []

    assert tables.list_parts(uri) == [first]
    assert names_in(uri) == ["a", "b"]


def test_duplicates_that_arrive_together_are_one(uri):
    """Both attempts of a shard can wait for the same commit: the log alone would take both."""
    first, second = (tables.write_part(uri, "shard", rows("a")) for _ in range(2))
    table = tables.open_table(uri)
    assert tables.append(table, [Append("one", [first]), Append("one", [second])], SCHEMA) == [Append("one", [first])]
    assert tables.list_parts(uri) == [first]


def test_an_append_takes_what_is_new(uri):
    table = tables.open_table(uri)
    parts = {name: tables.write_part(uri, name, rows(name)) for name in "abc"}
    tables.append(table, [Append("b", [parts["b"]])], SCHEMA)
    version = table.version()

    taken = tables.append(table, [Append(name, [part]) for name, part in parts.items()], SCHEMA)

    assert [item.transaction for item in taken] == ["a", "c"]
    assert table.version() == tables.open_table(uri).version() == version + 1
    assert names_in(uri) == ["a", "b", "c"]


def test_an_append_without_parts_is_a_transaction_too(uri):
    table = tables.open_table(uri)
    assert tables.append(table, [], SCHEMA) == []
    assert tables.append(table, [Append("empty", version=2)], SCHEMA) == [Append("empty", version=2)]
    assert tables.append(tables.open_table(uri), [Append("empty")], SCHEMA) == []
    assert tables.open_table(uri).transaction_version("empty") == 2
    assert tables.list_parts(uri) == []


def test_of_two_racing_writers_one_brings_the_shard(uri):
    for item in ("a", "b", "c"):
        taken = append_twice(uri, item)
        assert sorted(map(len, taken)) == [0, 1]
    assert names_in(uri) == ["a", "a'", "b", "b'", "c", "c'"]


def test_racing_writers_of_different_shards_all_get_in(uri):
    opened = [tables.open_table(uri) for _ in range(6)]
    parts = [tables.write_part(uri, f"{n}", rows(f"{n}")) for n in range(6)]
    race(6, lambda n: tables.append(opened[n], [Append(f"{n}", [parts[n]])], SCHEMA))
    assert names_in(uri) == [f"{n}" for n in range(6)]


def test_a_store_holds_the_same_promises(s3):
    uri = f"{s3}/table"
    assert race(8, lambda n: tables.create_table(uri, SCHEMA, {})).count(True) == 1
    for item in ("a", "b"):
        assert sorted(map(len, append_twice(uri, item))) == [0, 1]
    assert names_in(uri) == ["a", "a'", "b", "b'"]
    assert tables.dataset(uri).count_rows() == 4
    with pytest.raises(InputError, match="there is no Delta table"):
        tables.open_table(f"{s3}/nowhere")


def test_a_part_is_named_by_its_content_and_its_attempt(uri):
    one, other = (tables.write_part(uri, "0000-a", rows("a", "b")) for _ in range(2))
    assert one.path != other.path
    assert one.path.startswith("0000-a-")
    content = objects.read_bytes(objects.join(uri, one.path))
    assert one.path.endswith(f"-{hashlib.sha256(content).hexdigest()[:32]}.parquet")
    assert (one.size, one.rows) == (len(content), 2)
    kept = pq.read_table(objects.join(uri, one.path))
    assert kept.equals(rows("a", "b"))
    assert kept.schema.equals(tables.schema_of(tables.open_table(uri)), check_metadata=True)
    assert tables.list_parts(uri) == []


def test_rows_are_read_in_the_order_of_parts_at_a_version(uri):
    table = tables.open_table(uri)
    for name in ("b", "a"):
        tables.append(
            table, [Append(name, [tables.write_part(uri, name, rows(*(name * n for n in range(1, 6))))])], SCHEMA
        )
    batches = list(tables.read_batches(uri, ["name"], batch_rows=2))
    assert max(batch.num_rows for batch in batches) == 2
    assert names_in(uri) == ["a" * n for n in range(1, 6)] + ["b" * n for n in range(1, 6)]
    assert [part.path[0] for part in tables.list_parts(uri, version=1)] == ["b"]
    assert sorted(tables.dataset(uri).to_table(["name"])["name"].to_pylist()) == sorted(names_in(uri))


VALUES = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.mark.parametrize(
    "kind", [list_of(pa.float32()), pa.list_(pa.float32(), 3), pa.list_(pa.float32()), pa.list_(pa.float64())]
)
def test_vectors_of_every_kind_of_list(kind):
    column = pa.array(VALUES.tolist(), kind)
    for given, expected in (
        (column, VALUES),
        (column.slice(1, 2), VALUES[1:3]),
        (pa.chunked_array([column.slice(0, 1), column.slice(1)]), VALUES),
        (pa.chunked_array([column]).slice(3), VALUES[3:]),
    ):
        found = tables.vectors(given)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


def test_no_vectors_have_their_width_where_it_is_known():
    assert tables.vectors(pa.array([], pa.list_(pa.float32(), 3))).shape == (0, 3)
    assert tables.vectors(pa.chunked_array([], pa.list_(pa.float32(), 3))).shape == (0, 3)
    assert tables.vectors(pa.array([], pa.list_(pa.float32()))).shape == (0, 0)


@pytest.mark.parametrize("lists", [[[1.0, 2.0], [3.0], [4.0, 5.0, 6.0]], [[1.0, 2.0], None]])
def test_lists_that_are_no_matrix_are_refused(lists):
    """Six values of three rows would make a matrix, but not of these rows."""
    with pytest.raises(InputError, match=r"expected .* lists of the same length"):
        tables.vectors(pa.array(lists, pa.list_(pa.float32())))


def test_keys_of_a_profile_reach_every_client(s3, tmp_path):
    """boto3, Arrow and delta-rs each look for credentials in their own way."""
    profile = tmp_path / "credentials"
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    profile.write_text("\n".join(["[default]", *(f"{name.lower()}={os.environ[name]}" for name in keys)]))
    environment = {name: value for name, value in os.environ.items() if name not in keys}
    program = (
        "import sys, pyarrow\n"
        "from genre_ray.storage import objects, tables\n"
        "uri = sys.argv[1]\n"
        "objects.write_bytes(uri + '/x', b'written')\n"
        "tables.create_table(uri + '/t', pyarrow.schema([('a', pyarrow.int32())]), {})\n"
        "print(objects.open_stream(uri + '/x').read(), tables.list_parts(uri + '/t'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, s3],
        env=environment | {"AWS_SHARED_CREDENTIALS_FILE": str(profile)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("b'written' []\n", 0), done.stderr


def test_only_measurements_go_without_a_dictionary():
    rows = pa.table(
        {"id": ["a"] * 9, "labels": [["x", "y"]] * 9, "scores": pa.array([[0.5, 0.25]] * 9, pa.list_(pa.float32()))}
    )
    group = pq.ParquetFile(pa.BufferReader(tables.encode(rows))).metadata.row_group(0)
    dictionaries = {
        group.column(place).path_in_schema: "RLE_DICTIONARY" in group.column(place).encodings for place in range(3)
    }
    assert dictionaries == {"id": True, "labels.list.element": True, "scores.list.element": False}
