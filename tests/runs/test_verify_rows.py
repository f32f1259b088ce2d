"""Guards the law of a run: its shards have the rows that the log states, whatever their sizes, and `verify` sees it."""

import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from genre_ray.runs.compact import compact
from genre_ray.runs.verify import verify_run
from genre_ray.storage import tables

ROWS_PER_SHARD = 5
SIZES = st.tuples(st.integers(0, 3), st.integers(0, 2))
ITEMS = st.lists(st.lists(SIZES, min_size=1, max_size=4), min_size=1, max_size=2).filter(
    lambda items: all(sum(sizes) for item in items for sizes in item[:-1])
)
CHANGES = st.lists(st.tuples(st.sampled_from([-1, 1]), st.integers(0, 7), st.integers(0, 1)), max_size=2)
"""Rows that are missing or doubled: (how many more, in which shard, of which table); a moved row is two of them."""


def change(items, changes):
    """The sizes of shards as they come to be in the tables."""
    sizes = [[list(size) for size in item] for item in items]
    flat = [size for item in sizes for size in item]
    for difference, place, table in changes:
        size = flat[place % len(flat)]
        size[table] = max(size[table] + difference, 0)
    return sizes


@settings(max_examples=60)
@given(ITEMS, CHANGES, st.sampled_from([0, 0, 0, 1]), st.integers(4, 5), st.booleans())
def test_any_row_that_is_missing_doubled_or_moved_is_found(write_run, shard, items, changes, more, limit, compacted):
    stated = [[sum(size) for size in item] for item in items]
    changed = change(items, changes)
    actual = [[sum(size) for size in item] for item in changed]
    with tempfile.TemporaryDirectory() as output:
        shards = {
            f"n{n}": [shard(*size, stated=rows) for size, rows in zip(*item, strict=True)]
            for n, item in enumerate(zip(changed, stated, strict=True))
        }
        planned = {"n0": sum(stated[0]) + more}
        ledger = write_run(output, shards, rows_per_shard=limit, planned=planned)
        merged = 0
        if compacted:
            for uri in (ledger.data_uri, ledger.rejected_uri):
                done = compact(uri)
                merged += done.parts_before - done.parts_after
        finding = verify_run(output, ["data"])

    as_planned = more == 0 and all(rows <= limit for item in stated for rows in item)
    if not merged:
        assert bool(finding.damage) == (not as_planned or actual != stated)
    elif sum(map(sum, actual)) != sum(map(sum, stated)) or not as_planned:
        assert finding.damage
    elif actual == stated:
        assert not finding.damage


def test_the_rows_of_a_shard_are_stated_in_the_log(write_run, shard, tmp_path):
    items = {"a": [shard(3, 1), shard(1), shard(0)], "b": [shard(0, 2)], "c": [shard(2)]}
    ledger = write_run(str(tmp_path), items, unfinished=["c"])
    assert [ledger.rows_in("0000-a", index) for index in range(4)] == [4, 1, 0, None]
    assert [ledger.progress(f"0000-{name}") for name in "abcd"] == [(3, True), (1, True), (1, False), (0, False)]
    assert ledger.bounds() == (9, 9)
    versions = tables.open_table(ledger.data_uri).transactions(f"{ledger.run}/0000-a/")
    assert sorted(versions.values()) == [1, 2, 8]


def test_a_shard_of_which_only_the_rejected_rows_are_committed_is_no_damage(write_run, shard, tmp_path, monkeypatch):
    write_run(str(tmp_path), {"a": [shard(2, 1)], "b": [shard(2, 1)]}, unfinished=["a", "b"])
    append = tables.append

    def reject_data(table, appends, schema):
        if table.table_uri.rstrip("/").endswith("data"):
            raise KeyboardInterrupt
        return append(table, appends, schema)

    monkeypatch.setattr(tables, "append", reject_data)
    try:
        write_run(str(tmp_path), {"a": [shard(2, 1), shard(1, 2)], "b": [shard(2, 1)]})
    except KeyboardInterrupt:
        monkeypatch.undo()
    for _ in range(2):
        finding = verify_run(str(tmp_path), ["data"])
        assert finding.unfinished
        assert not finding.is_broken, finding.damage
        assert compact(str(tmp_path / "rejected")).parts_after == 1
    assert finding.counts["rows_of_shards"].startswith("checked in total")
