"""Guards that an erasure takes exactly the rows that were named, whatever their ids, and counts each of them once."""

import tempfile

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake.exceptions import CommitFailedError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from genre_ray.errors import StorageError
from genre_ray.storage import history, objects, retries, tables
from genre_ray.storage.schemas import list_of
from genre_ray.storage.tables import Append
from genre_ray.storage.transactions import Table

SCHEMA = pa.schema([("recording_id", pa.string()), ("source_uri", pa.string()), ("features", list_of(pa.float32()))])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ROWS = st.lists(st.tuples(st.none() | TEXT, TEXT, st.integers(0, 2)), max_size=12)


def write(uri, rows):
    """A table of (recording_id, source_uri, shard) with a part per shard."""
    tables.create_table(uri, SCHEMA, {"run_id": "r"})
    parts = []
    for shard in sorted({shard for *_, shard in rows}):
        values = [
            {"recording_id": recording, "source_uri": source, "features": [0.5, float(n)]}
            for n, (recording, source, at) in enumerate(rows)
            if at == shard
        ]
        parts.append(tables.write_part(uri, f"0000-a-{shard:05d}", pa.Table.from_pylist(values, SCHEMA)))
    tables.append(tables.open_table(uri), [Append("r/a/0", parts)], SCHEMA)


def ids(uri):
    batches = tables.read_batches(uri, ["recording_id", "source_uri"])
    return sorted(
        (row for batch in batches for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)),
        key=str,
    )


def owner(recording, source):
    return source if recording is None else recording


def erase(uri, wanted):
    def going(rows):
        owners = pc.coalesce(rows["recording_id"], rows["source_uri"])
        return pc.is_in(owners, value_set=pa.array(sorted(wanted), pa.string()))

    return history.erase_rows(uri, going)


def erased(uri):
    """The rows that the log counts, by shard."""
    marks = tables.open_table(uri).transactions(history.ERASED)
    return {name.removeprefix(history.ERASED): count for name, count in marks.items()}


@settings(max_examples=60, deadline=None)
@given(ROWS, st.data())
@example([("a'b", "", 0), ("a''b", "", 0), ("'", "", 1), ("\\", "", 1), ("x' OR 'a' = 'a", "", 2), ("%", "", 2)], None)
@example([(None, "a", 0), ("a", "b", 0), ("b", "a", 1), (None, "", 1), ("", "\n\0", 2)], None)
def test_just_the_named_rows_are_erased_and_counted_by_shard(rows, data):
    owners = sorted({owner(recording, source) for recording, source, _ in rows})
    wanted = set(
        owners[::2] if data is None else data.draw(st.sets(st.sampled_from(owners)) if owners else st.just([]))
    )
    with tempfile.TemporaryDirectory() as uri:
        write(uri, rows)
        gone = [row for row in rows if owner(*row[:2]) in wanted]
        assert erase(uri, wanted) == len(gone)
        assert ids(uri) == sorted((row[:2] for row in rows if row not in gone), key=str)
        shards = [f"0000-a-{shard:05d}" for *_, shard in gone]
        assert erased(uri) == {shard: shards.count(shard) for shard in shards}
        assert erase(uri, wanted) == 0


def test_thousands_of_ids_are_erased_at_once(tmp_path):
    uri = str(tmp_path / "table")
    write(uri, [(f"r'{n}", "", 0) for n in range(12_000)])
    assert erase(uri, {f"r'{n}" for n in range(10_000)}) == 10_000
    assert len(ids(uri)) == 2_000
    assert tables.open_table(uri).version() == 2


def test_parts_keep_the_types_of_the_table(tmp_path):
    """delta-rs writes string views into the parts that it rewrites."""
    uri = str(tmp_path / "table")
    write(uri, [("a", "x", 0), ("b", "y", 0)])
    erase(uri, {"a"})
    (batch,) = tables.read_batches(uri, SCHEMA.names)
    assert batch.schema.equals(SCHEMA)
    (part,) = tables.list_parts(uri)
    with tables.open_part(objects.join(uri, part.path)) as file:
        assert file.schema_arrow.field("features").type == SCHEMA.field("features").type


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr(retries.time, "sleep", lambda _: None)


def test_a_commit_whose_answer_was_lost_counts_once(tmp_path, monkeypatch, no_pause):
    uri = str(tmp_path / "table")
    write(uri, [("a", "", 0), ("b", "", 0)])
    delete = Table.delete

    def lost(self, *arguments, **options):
        monkeypatch.undo()
        delete(self, *arguments, **options)
        raise CommitFailedError("the answer was lost")

    monkeypatch.setattr(Table, "delete", lost)
    assert erase(uri, {"a"}) == 1
    assert ids(uri) == [("b", "")]
    assert erased(uri) == {"0000-a-00000": 1}


def test_rows_that_come_while_it_erases_stay_whole(tmp_path, monkeypatch):
    uri = str(tmp_path / "table")
    write(uri, [("a", "", 0), ("b", "", 0)])
    delete = Table.delete

    def late(self, *arguments, **options):
        monkeypatch.undo()
        rows = pa.Table.from_pylist([{"recording_id": "c", "source_uri": ""}], SCHEMA)
        tables.append(tables.open_table(uri), [Append("r/b/0", [tables.write_part(uri, "0000-b-00000", rows)])], SCHEMA)
        return delete(self, *arguments, **options)

    monkeypatch.setattr(Table, "delete", late)
    assert erase(uri, {"a"}) == 1
    assert ids(uri) == [("b", ""), ("c", "")]


def test_it_gives_up_where_others_always_win(tmp_path, monkeypatch, no_pause):
    uri = str(tmp_path / "table")
    write(uri, [("a", "", 0)])

    def refuse(*arguments, **options):
        raise CommitFailedError("a concurrent transaction deleted data")

    monkeypatch.setattr(Table, "delete", refuse)
    with pytest.raises(
        StorageError, match=r"all 5 commits conflicted with other writers \(last error: a concurrent transaction"
    ):
        erase(uri, {"a"})
    assert ids(uri) == [("a", "")]
