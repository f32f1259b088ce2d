"""Guards that a compaction loses nothing: rows, counts, checksums, what is done of a run, and what others write."""

import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from deltalake.table import TableOptimizer

from genre_ray.errors import InputError, StorageError
from genre_ray.runs import compact as module
from genre_ray.runs.compact import Compacted, compact
from genre_ray.runs.ledger import Ledger
from genre_ray.runs.verify import verify
from genre_ray.storage import history, objects, retries, tables

SCHEMA = pa.schema([("recording_id", pa.string())])


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.001)


@pytest.fixture
def items(shard):
    return {"a": [shard(3, 1), shard(1), shard(2, 2)], "b": [shard(4, 1)], "c": [shard(2), shard(0)]}


@pytest.fixture
def ledger(write_run, items, tmp_path):
    return write_run(str(tmp_path / "out"), items)


def ids(ledger):
    batches = tables.read_batches(ledger.data_uri, ["recording_id"])
    return [row for batch in batches for row in batch.column("recording_id").to_pylist()]


def check(ledger):
    """What `verify` finds about a run, by the name of the table or the kind."""
    return {f.uri.rpartition("/")[2] if f.kind == "table" else f.kind: f for f in verify(ledger.output)}


def assert_sound(ledger):
    found = check(ledger)
    assert {name: finding.damage for name, finding in found.items()} == {"data": [], "rejected": [], "run": []}
    return found


def compact_both(ledger):
    return [compact(uri) for uri in (ledger.data_uri, ledger.rejected_uri)]


def erase(uri, *recordings, retention_hours=168.0):
    count = history.erase_rows(uri, lambda rows: pc.is_in(rows["recording_id"], pa.array(recordings, pa.string())))
    module.record_checksums(uri, tables.open_table(uri))
    history.vacuum(uri, retention_hours, dry_run=False)
    return count


def version(uri):
    return tables.open_table(uri).version()


def test_rows_counts_and_checksums_hold_after_it(ledger):
    before = ids(ledger)
    assert assert_sound(ledger)["run"].counts["rows_of_shards"] == "checked"
    assert compact_both(ledger) == [Compacted(5, 1), Compacted(3, 1)]
    assert ids(ledger) == before
    found = assert_sound(ledger)
    assert found["data"].counts == {"rows": 12, "parts": 1, "by_checksum": 1, "by_size_and_rows": 0}
    assert found["run"].counts["rows_of_shards"].startswith("checked in total")
    assert found["run"].counts["shards"] == 6
    tables.open_table(ledger.data_uri).create_checkpoint()
    assert assert_sound(ledger)["data"].counts["by_checksum"] == 1

    at = version(ledger.data_uri)
    assert compact(ledger.data_uri) == Compacted(1, 1)
    assert version(ledger.data_uri) == at


def test_parts_of_the_target_size_stay_as_they_are(ledger):
    assert compact(ledger.data_uri, target_bytes=10) == Compacted(5, 5)
    assert version(ledger.data_uri) == 1
    assert assert_sound(ledger)["run"].counts["rows_of_shards"] == "checked"


@pytest.mark.parametrize("place", [0.2, 0.5, 0.99])
def test_one_altered_byte_of_a_merged_part_is_found(ledger, place):
    compact_both(ledger)
    (part,) = tables.list_parts(ledger.data_uri)
    path = Path(ledger.data_uri, part.path)
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)
    assert check(ledger)["data"].damage == [f"{path}: changed: its SHA-256 differs from the one in the log"]


def test_a_lost_row_is_found_in_merged_parts(ledger):
    compact_both(ledger)
    tables.open_table(ledger.data_uri).delete("recording_id = 'a/0/0'")
    (damage,) = check(ledger)["run"].damage
    assert "expected 16 rows (accepted, rejected or erased) in both tables, found 15" in damage


def test_what_ends_between_its_two_commits_is_completed_by_the_next_one(ledger, monkeypatch):
    def end(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "record_checksums", end)
    with pytest.raises(KeyboardInterrupt):
        compact(ledger.data_uri)
    monkeypatch.undo()
    assert assert_sound(ledger)["data"].counts["by_size_and_rows"] == 1
    assert compact(ledger.data_uri) == Compacted(1, 1)
    assert assert_sound(ledger)["data"].counts["by_checksum"] == 1


def test_a_damaged_part_gets_no_checksum(ledger, monkeypatch):
    monkeypatch.setattr(module, "record_checksums", lambda *_: None)
    compact(ledger.data_uri)
    monkeypatch.undo()
    (part,) = tables.list_parts(ledger.data_uri)
    Path(ledger.data_uri, part.path).write_bytes(b"x" * part.size)
    with pytest.raises(StorageError, match="not a valid Parquet file"):
        compact(ledger.data_uri)
    assert check(ledger)["data"].counts["by_checksum"] == 0


def test_rows_of_merged_parts_are_erased_and_accounted_for(ledger):
    erase(ledger.data_uri, "a/0/0")
    compact_both(ledger)
    assert erase(ledger.data_uri, "a/0/1", "b/0/2") == 2
    assert not {"a/0/0", "a/0/1", "b/0/2"} & set(ids(ledger))
    found = assert_sound(ledger)
    assert (found["data"].counts["rows"], found["data"].counts["by_checksum"]) == (9, 1)
    erase(ledger.data_uri, retention_hours=0)
    assert len(list(Path(ledger.data_uri).glob("*.parquet"))) == 1
    assert_sound(ledger)
    compact_both(ledger)
    erase(ledger.data_uri, *ids(ledger), retention_hours=0)
    assert list(Path(ledger.data_uri).glob("*.parquet")) == []
    assert_sound(ledger)


def test_an_unfinished_run_goes_on_after_it(write_run, shard, items, tmp_path):
    started = {name: shards[:1] for name, shards in items.items()}
    planned = {name: sum(size.kept + size.rejected for size in shards) for name, shards in items.items()}
    ledger = write_run(str(tmp_path), started, planned=planned, unfinished=["a", "c"])
    progress = [ledger.progress(f"0000-{name}") for name in items]
    compact_both(ledger)
    resumed = Ledger.open(ledger.output, "data")
    assert [resumed.progress(f"0000-{name}") for name in items] == progress == [(1, False), (1, True), (1, False)]
    # Shards that are committed already, and others.
    finished = write_run(str(tmp_path), items)
    assert sorted(ids(finished)) == sorted(
        f"{name}/{index}/{row}"
        for name, shards in items.items()
        for index, s in enumerate(shards)
        for row in range(s.kept)
    )
    assert_sound(finished)
    compact_both(finished)
    assert assert_sound(finished)["data"].counts["parts"] == 1


def test_a_run_may_write_meanwhile(write_run, shard, tmp_path):
    sizes = [shard(2, 1)] * 24
    ledger = write_run(str(tmp_path), {"a": sizes[:2]}, planned={"a": 72}, unfinished=["a"])

    def work():
        for count in range(3, 25):
            write_run(str(tmp_path), {"a": sizes[:count]}, unfinished=["a"] if count < 24 else [])

    writer = threading.Thread(target=work)
    writer.start()
    rounds = 0
    while writer.is_alive():
        compact_both(ledger)
        rounds += 1
    writer.join()
    assert rounds > 1
    assert len(ids(ledger)) == len(set(ids(ledger))) == 48
    assert_sound(ledger)


def test_it_starts_over_when_parts_are_erased_under_it(ledger, monkeypatch):
    properties = history.writer_properties
    erased = []

    def erase_first(table):
        monkeypatch.undo()
        erased.append(erase(ledger.data_uri, "a/0/0"))
        return properties(table)

    monkeypatch.setattr(history, "writer_properties", erase_first)
    assert compact(ledger.data_uri) == Compacted(5, 1)
    assert erased == [1]
    assert "a/0/0" not in ids(ledger)
    assert_sound(ledger)


def test_it_gives_up_where_others_always_win(ledger, monkeypatch):
    def refuse(*arguments, **settings):
        raise CommitFailedError("a concurrent transaction deleted data")

    monkeypatch.setattr(TableOptimizer, "compact", refuse)
    with pytest.raises(
        StorageError, match=r"all 5 commits conflicted with other writers \(last error: a concurrent transaction"
    ):
        compact(ledger.data_uri)
    assert_sound(ledger)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, "another program wrote this table"),
        ({"configuration": {"genre_ray.run_id": "1"}, "partition_by": ["recording_id"]}, "by recording_id"),
        ({"configuration": {"genre_ray.run_id": "1", "delta.enableDeletionVectors": "true"}}, "versions 3 and 7"),
    ],
)
def test_tables_that_are_not_understood_are_left_alone(tmp_path, settings, found):
    uri = str(tmp_path / "table")
    DeltaTable.create(uri, SCHEMA, raise_if_key_not_exists=False, **settings)
    with pytest.raises(InputError, match=found):
        compact(uri)
    assert version(uri) == 0


def test_on_a_store(s3, write_run, items):
    ledger = write_run(f"{s3}/out", items)
    before = ids(ledger)
    assert compact_both(ledger) == [Compacted(5, 1), Compacted(3, 1)]
    assert ids(ledger) == before
    assert assert_sound(ledger)["data"].counts["by_checksum"] == 1
    assert erase(ledger.data_uri, "a/0/0", retention_hours=0) == 1
    assert_sound(ledger)
    (part,) = tables.list_parts(ledger.rejected_uri)
    uri = objects.join(ledger.rejected_uri, part.path)
    content = bytearray(objects.read_bytes(uri))
    content[30] ^= 1
    objects.write_bytes(uri, bytes(content))
    assert check(ledger)["rejected"].damage == [f"{uri}: changed: its SHA-256 differs from the one in the log"]
