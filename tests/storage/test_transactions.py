"""Guards that a table which remembers its transactions answers as delta-rs, which reads them in the log each time."""

import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.transaction import CommitProperties, Transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from genre_ray.errors import StorageError
from genre_ray.storage import delta, history, objects, tables, transactions
from genre_ray.storage.tables import Append

SCHEMA = pa.schema([("row", pa.string())])
NAMES = ("run/a/0", "run/a/1", "run/ü\u2028\x85/0", 'run/"q"\n/0', "run/never")
ask_delta = DeltaTable.transaction_version
"""The independent reference."""


@pytest.fixture
def asked(monkeypatch):
    """The names that delta-rs is asked for."""
    names = []
    monkeypatch.setattr(
        DeltaTable, "transaction_version", lambda self, name: names.append(name) or ask_delta(self, name)
    )
    return names


@pytest.fixture
def read(monkeypatch):
    """The names of the files that are read, without delta-rs' own."""
    names = []
    read_bytes = objects.read_bytes
    monkeypatch.setattr(objects, "read_bytes", lambda uri: names.append(uri.rpartition("/")[2]) or read_bytes(uri))
    return names


@pytest.fixture
def uri(tmp_path):
    return create(str(tmp_path / "table"))


def create(uri):
    # A log of which what a checkpoint has may be removed at once.
    assert tables.create_table(uri, SCHEMA, {"delta.logRetentionDuration": "interval 0 days"})
    return uri


def commit(uri, *names, version=1):
    """A commit by whoever, in the log whether it had such transactions or not."""
    DeltaTable(uri, storage_options=delta.options(uri)).create_write_transaction(
        [],
        mode="append",
        schema=SCHEMA,
        commit_properties=CommitProperties(app_transactions=[Transaction(name, version) for name in names]),
    )


def checkpoint(uri, *, clean=False):
    table = DeltaTable(uri)
    table.create_checkpoint()
    if clean:
        table.cleanup_metadata()


def log_names(uri):
    return sorted(path.name for path in Path(uri, "_delta_log").iterdir())


def check(table, uri, names=NAMES):
    """All answers of a table are delta-rs' for its version."""
    reference = DeltaTable(uri, version=table.version(), storage_options=delta.options(uri))
    expected = {name: ask_delta(reference, name) for name in names}
    assert {name: table.transaction_version(name) for name in names} == expected
    listed = table.transactions("run/")
    if listed is not None:
        asked_for = {name: version for name, version in listed.items() if name in names}
        assert asked_for == {name: expected[name] for name in names if name in listed}
        assert all(name in listed for name in names if name.startswith("run/") and expected[name] is not None)
    return expected


def test_what_is_committed_is_known(uri, asked):
    table = tables.open_table(uri)
    assert set(check(table, uri).values()) == {None}
    assert table.transactions("") == {}
    for number, name in enumerate(NAMES[:-1]):
        tables.append(table, [Append(name, version=number)], SCHEMA)
        check(table, uri)
    assert list(check(tables.open_table(uri), uri).values()) == [0, 1, 2, 3, None]
    assert table.transactions("run/a/") == {"run/a/0": 0, "run/a/1": 1}
    assert not asked


def test_of_two_commits_with_one_name_the_newest_counts(uri, asked):
    """Delta takes both, and the later one may have the lower version: the order of the log decides."""
    commit(uri, NAMES[0], version=7)
    table = tables.open_table(uri)
    check(table, uri)
    commit(uri, NAMES[0], NAMES[1], version=3)
    table.update_incremental()
    assert check(table, uri)[NAMES[0]] == 3
    assert check(tables.open_table(uri), uri)[NAMES[0]] == 3
    checkpoint(uri)
    assert check(tables.open_table(uri), uri)[NAMES[0]] == 3
    assert not asked


def test_an_answer_is_of_the_version_that_the_table_is_at(uri, asked):
    """What others did since is known when the table has come by it, not before: its notes are read at that version."""
    stale = tables.open_table(uri)
    early = tables.open_table(uri)
    check(stale, uri)
    for version in range(3):
        commit(uri, *NAMES[:2], version=version)
    checkpoint(uri)
    assert set(check(stale, uri).values()) == set(check(early, uri).values()) == {None}
    stale.update_incremental()
    assert check(stale, uri)[NAMES[0]] == 2
    for version in (1, 3, 0, 2):
        stale.load_as_version(version)
        check(stale, uri)
    assert not asked


def test_each_file_of_the_log_is_read_once(uri, read):
    """A run of many shards would replay its log for every shard, at its start, in each commit and at its end."""
    table = tables.open_table(uri)
    for number in range(5):
        tables.append(table, [Append(f"run/b/{number}/{shard}") for shard in range(20)], SCHEMA)
    names = [f"run/b/{number}/{shard}" for number in range(6) for shard in range(20)]
    check(table, uri, names)
    assert read == ["_last_checkpoint", *(f"{version:020d}.json" for version in range(6))]

    checkpoint(uri)
    commit(uri, names[0])
    read.clear()
    table.update_incremental()
    check(table, uri, names)
    assert read == [f"{6:020d}.json"]
    read.clear()
    check(tables.open_table(uri), uri, names)
    assert read == ["_last_checkpoint", f"{5:020d}.checkpoint.parquet", f"{6:020d}.json"]


def test_a_checkpoint_stands_for_the_commits_that_were_removed(uri, asked):
    late, ready = tables.open_table(uri), tables.open_table(uri)
    check(ready, uri)
    commit(uri, *NAMES[:-1], version=4)
    commit(uri, NAMES[0], version=5)
    checkpoint(uri, clean=True)
    assert log_names(uri) == [f"{2:020d}.checkpoint.parquet", f"{2:020d}.json", "_last_checkpoint"]
    commit(uri, NAMES[1], version=6)
    assert list(check(tables.open_table(uri), uri).values()) == [5, 6, 4, 4, None]
    assert not asked
    for table in (late, ready):  # one that read nothing yet, one that had yet to read what is gone
        table.update_incremental()
        check(table, uri)
        commit(uri, NAMES[2], version=7)
        table.update_incremental()
        asked.clear()
        assert check(table, uri)[NAMES[2]] == 7
        assert not asked


def in_two_parts(log, number):
    """As Spark writes checkpoints of large tables: the plain name is missing."""
    (log / f"{number:020d}.checkpoint.parquet").rename(log / f"{number:020d}.checkpoint.{1:010d}.{1:010d}.parquet")
    (log / "_last_checkpoint").write_text(json.dumps({"version": number, "size": 6, "parts": 1}))


def unnamed(log, number):
    (log / "_last_checkpoint").unlink()


def misnamed(log, number):
    (log / "_last_checkpoint").write_text('{"version":')


def emptied(log, number):
    (log / "_last_checkpoint").write_text("[]")


@pytest.mark.parametrize("change", [in_two_parts, unnamed, misnamed, emptied])
def test_a_log_of_another_make_is_left_to_delta(uri, asked, change):
    commit(uri, *NAMES[:-1], version=4)
    checkpoint(uri, clean=True)
    commit(uri, NAMES[0], version=5)
    change(Path(uri, "_delta_log"), 1)

    table = tables.open_table(uri)
    assert table.transactions("run/") is None
    assert list(check(table, uri).values()) == [5, 4, 4, 4, None]
    assert asked == list(NAMES)
    assert tables.append(table, [Append(NAMES[0]), Append("new", version=2)], SCHEMA) == [Append("new", version=2)]
    assert check(table, uri, ["new"]) == {"new": 2}

    checkpoint(uri)
    commit(uri, NAMES[1], version=6)
    table.update_incremental()
    asked.clear()
    assert check(table, uri)[NAMES[1]] == 6
    assert not asked


def test_a_log_that_could_not_be_read_is_read_on_from_there(uri, asked, monkeypatch):
    commit(uri, *NAMES[:2], version=1)
    checkpoint(uri)
    for version in (2, 3):
        commit(uri, *NAMES[1:3], version=version)
    table = tables.open_table(uri)
    read_bytes, broken = objects.read_bytes, iter(range(10))

    def read_every_second_time(uri):
        if next(broken) % 2 == 0:
            raise StorageError(f"{uri}: reset")
        return read_bytes(uri)

    monkeypatch.setattr(objects, "read_bytes", read_every_second_time)
    # Each attempt ends at the file after the one that the attempt before it got to.
    for _ in range(2):
        with pytest.raises(StorageError, match="reset"):
            table.transaction_version(NAMES[0])
    monkeypatch.setattr(objects, "read_bytes", read_bytes)
    assert list(check(table, uri).values()) == [1, 3, 3, None, None]
    assert not asked


STEPS = st.one_of(
    st.tuples(st.just("commit"), st.sets(st.sampled_from(NAMES[:-1])), st.integers(0, 3)),
    st.tuples(st.just("append"), st.sets(st.sampled_from(NAMES[:-1])), st.integers(0, 1)),
    st.tuples(st.just("look"), st.integers(0, 1)),
    st.tuples(st.just("checkpoint"), st.booleans()),
    st.tuples(st.just("open"), st.integers(0, 1)),
)


@settings(max_examples=40)
@given(st.lists(STEPS, max_size=12))
def test_whoever_writes_two_readers_know_what_delta_knows(steps):
    with tempfile.TemporaryDirectory() as folder:
        uri = create(f"{folder}/table")
        readers = [tables.open_table(uri) for _ in range(2)]
        for step, *how in steps:
            if step == "commit":
                commit(uri, *sorted(how[0]), version=how[1])
            elif step == "append":
                table, known = readers[how[1]], check(tables.open_table(uri), uri)
                taken = tables.append(table, [Append(name) for name in sorted(how[0])], SCHEMA)
                assert [item.transaction for item in taken] == [name for name in sorted(how[0]) if known[name] is None]
                check(table, uri)
            elif step == "checkpoint":
                checkpoint(uri, clean=how[0])
                for table in readers:  # delta-rs itself cannot open a version whose commits are gone
                    table.update_incremental()
            elif step == "open":
                readers[how[0]] = tables.open_table(uri)
            else:
                readers[how[0]].update_incremental()
                check(readers[how[0]], uri)
        check(tables.open_table(uri), uri)


def test_a_store_is_asked_once_and_again_where_it_fails(faulty, s3, asked):
    uri = f"{s3}/table"
    tables.create_table(uri, SCHEMA, {})
    table, other = tables.open_table(uri), tables.open_table(uri)
    tables.append(table, [Append(NAMES[0]), Append(NAMES[2], version=2)], SCHEMA)
    table.create_checkpoint()
    tables.append(other, [Append(name, version=3) for name in NAMES[:2]], SCHEMA)
    for kind in ("half_answer", "reset", "slow_down"):
        opened = tables.open_table(uri)
        proxy = faulty((kind, "GET", "_delta_log"), times=2)
        assert [opened.transaction_version(name) for name in NAMES] == [1, 3, 2, None, None]
        # The name of the checkpoint, the checkpoint, and the commit after it.
        assert proxy.count("GET", "_delta_log") == 3 + 2
        faulty()
    table.update_incremental()
    check(table, uri)
    assert not asked


def test_a_commit_may_hold_what_ends_a_line_of_text(uri):
    """JSON leaves U+2028 and U+0085 as they are, here in the statistics of a writer that keeps them of text."""
    table = tables.open_table(uri)
    note = json.dumps([{"path": "p", "name": "\u2028\x85"}], ensure_ascii=False)
    tables.append(table, [Append(NAMES[2], note=note)], SCHEMA)
    write_deltalake(uri, pa.table({"row": ["a\u2028b\x85c"]}, SCHEMA), mode="append")
    assert "\u2028b\x85" in Path(uri, "_delta_log", f"{2:020d}.json").read_text(encoding="utf-8")

    table.update_incremental()
    assert check(table, uri)[NAMES[2]] == 1
    assert transactions.read_notes(table, NAMES) == {NAMES[2]: note}
    assert history.noted_parts(uri) == {"p"}
    assert history.named_parts(uri) == {part.path for part in tables.list_parts(uri)}
