"""Guards the law of a run: rows out + rows rejected = rows in, each once, wherever the work is cut or broken off."""

import io
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genre_ray.config import Execution
from genre_ray.errors import InputError, OutputTakenError
from genre_ray.features.essentia.documents import ParseDocuments
from genre_ray.outcomes import Outcome, rejections
from genre_ray.runs import segment as segment_module
from genre_ray.runs.dataflow import Chain, segments
from genre_ray.runs.identity import make_identity
from genre_ray.runs.inventory import Inventory
from genre_ray.runs.ledger import Ledger
from genre_ray.runs.pieces import summaries
from genre_ray.runs.plan import load_or_extend_plans
from genre_ray.runs.segment import Session
from genre_ray.runs.stages import Resources, ShardSize
from genre_ray.runs.watchdog import Limits
from genre_ray.sources.documents.source import DocumentSource
from genre_ray.sources.tables import TableRows
from genre_ray.storage import tables


def table(ledger):
    """The data table in the order of its parts, without their names."""
    return pa.Table.from_batches(tables.read_batches(ledger.data_uri, ledger.schema.names), ledger.schema)


@pytest.fixture(scope="module")
def documents(sample, run_inline):
    """The sample's archive, and its rows as features."""
    source = DocumentSource((str(sample / "emotify" / "documents.tar.zst"),))
    with tempfile.TemporaryDirectory() as folder:
        ledger, _ = run_inline(folder, source, [ParseDocuments()], 10_000)
        return source, table(ledger), ledger.totals()


@pytest.mark.parametrize("rows_per_shard", [1, 7, 64, 144, 1000])
def test_shards_of_any_size_hold_the_same_rows(tmp_path, documents, rows_per_shard, run_inline):
    source, expected, totals = documents
    ledger, summaries = run_inline(tmp_path, source, [ParseDocuments()], rows_per_shard)

    rows_in = [summary.rows_in for summary in summaries]
    assert sum(rows_in) == totals.rows + totals.rejected == 144
    assert rows_in == [rows_per_shard] * (144 // rows_per_shard) + [144 % rows_per_shard] * (144 % rows_per_shard > 0)
    assert [summary.last for summary in summaries] == [False] * (len(summaries) - 1) + [True]
    assert ledger.totals() == totals
    found = table(ledger)
    assert found.drop(["features"]).equals(expected.drop(["features"]))
    np.testing.assert_array_equal(tables.vectors(found["features"]), tables.vectors(expected["features"]))


@pytest.mark.parametrize(("rows_per_shard", "first"), [(7, 0), (7, 1), (7, 20), (64, 2), (144, 0)])
def test_from_a_later_shard_on_there_is_exactly_the_rest(documents, rows_per_shard, first):
    source, *_ = documents
    (item,) = source.make_work_items(source.list_inputs(), rows_per_shard)
    everything, rest = (
        [
            (chunk.shard, uri)
            for chunk in source.read(item, ShardSize(rows_per_shard), shard)
            for uri in chunk.outcome.accepted["source_uri"].to_pylist()
        ]
        for shard in (0, first)
    )
    assert rest == [(shard, uri) for shard, uri in everything if shard >= first]


def test_a_features_table_is_a_source_that_resumes_too(tmp_path, documents, run_inline):
    source, expected, _ = documents
    run_inline(tmp_path, source, [ParseDocuments()], 50)
    rows = TableRows(str(tmp_path / "data"), limit=120)
    items = rows.make_work_items(rows.list_inputs(), 20)
    assert [item.rows for item in items] == [50, 50, 20]
    for item, start in zip(items, (0, 50, 100), strict=True):
        for first in range(-(-item.rows // 20)):
            found = [
                (chunk.shard, row)
                for chunk in rows.read(item, ShardSize(20), first)
                for row in chunk.outcome.accepted["source_uri"].to_pylist()
            ]
            wanted = expected["source_uri"].slice(start, item.rows).to_pylist()
            assert found == [(n // 20, row) for n, row in enumerate(wanted) if n // 20 >= first]


def test_a_limit_bounds_rows_in(tmp_path, sample, run_inline):
    source = DocumentSource((str(sample / "emotify" / "documents.tar.zst"), str(sample / "acousticbrainz")), limit=3)
    ledger, summaries = run_inline(tmp_path, source, [ParseDocuments()], 2)
    assert sorted(summary.rows_in for summary in summaries) == [1, 1, 2, 2]
    totals = ledger.totals()
    assert totals.rows + totals.rejected == 6
    assert run_inline(tmp_path, source, [ParseDocuments()], 2)[1] == []


def archive_of(folder, members):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path in members:
            archive.add(path, path.name)
    folder.mkdir(exist_ok=True)
    return folder / "documents.tar", content.getvalue()


def test_an_archive_without_members_is_done_with_one_empty_shard(tmp_path, run_inline):
    path, content = archive_of(tmp_path / "in", [])
    path.write_bytes(content)
    source = DocumentSource((str(path),))
    ledger, (summary,) = run_inline(tmp_path / "out", source, [ParseDocuments()], 7)
    assert (summary.last, summary.rows_in, summary.parts, summary.rejected_parts) == (True, 0, (), ())
    assert str(ledger.totals()) == "0 rows, 0 rejected"
    assert run_inline(tmp_path / "out", source, [ParseDocuments()], 7)[1] == []


@pytest.mark.parametrize("rows_per_shard", [1, 2, 4, 100])
def test_a_truncated_archive_has_one_row_more_that_says_so(tmp_path, sample, rows_per_shard, run_inline):
    members = sorted((sample / "acousticbrainz").glob("*.json"))[:4]
    path, content = archive_of(tmp_path / "in", members)
    path.write_bytes(content[: len(content) // 2])
    source = DocumentSource((str(path),))
    ledger, summaries = run_inline(tmp_path / "out", source, [ParseDocuments()], rows_per_shard)
    totals = ledger.totals()
    assert totals.reasons == {"archive_truncated": 1}
    assert totals.rows + 1 == sum(summary.rows_in for summary in summaries)
    assert 1 <= totals.rows < len(members)
    rejected = pa.Table.from_batches(tables.read_batches(ledger.rejected_uri, ["source_uri", "shard", "reason"]))
    last = summaries[-1]
    assert rejected.to_pylist() == [
        {"source_uri": str(path), "shard": f"{last.item}/{last.index}", "reason": "archive_truncated"}
    ]


def test_attempts_of_the_same_work_are_one(tmp_path, numbers_of, keep, contents, run_inline):
    source = numbers_of(23, 4)
    run_inline(tmp_path / "once", source, [keep()], 5)
    run_inline(tmp_path / "thrice", source, [keep()], 5, attempts=3)
    assert contents(tmp_path / "thrice") == contents(tmp_path / "once")
    assert len(list((tmp_path / "thrice" / "data").glob("*.parquet"))) == 3 * len(
        list((tmp_path / "once" / "data").glob("*.parquet"))
    )


@settings(max_examples=15)
@given(
    sizes=st.lists(st.integers(0, 17), min_size=1, max_size=4),
    group=st.integers(1, 3),
    shard_sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    stops=st.lists(st.integers(0, 6), max_size=3),
    attempts=st.integers(1, 2),
)
def test_however_often_it_breaks_off_the_tables_are_the_undisturbed_ones(
    numbers_of, keep, contents, sizes, group, shard_sizes, stops, attempts, run_inline
):
    """Each start may ask for another size of shards: the plan keeps its own."""
    source = numbers_of(*sizes, group=group)
    rows = [f"f{n:03d}/{row}" for n, size in enumerate(sizes) for row in range(size)]
    expected = (
        sorted(row for row in rows if int(row[5:]) % 3 != 2),
        sorted(row for row in rows if int(row[5:]) % 3 == 2),
    )
    with tempfile.TemporaryDirectory() as output:
        for turn, stop in enumerate(stops):
            run_inline(
                output, source, [keep()], shard_sizes[turn % len(shard_sizes)], stop_after=stop, attempts=attempts
            )
        run_inline(output, source, [keep()], shard_sizes[-1])
        assert contents(output) == expected
        assert run_inline(output, source, [keep()], 1)[1] == []


def test_growth_is_done_without_touching_what_is_in(tmp_path, numbers_of, keep, contents, run_inline):
    run_inline(tmp_path, numbers_of(5, 8), [keep()], 3)
    before = {path.name for path in (tmp_path / "data").glob("*.parquet")}
    _, summaries = run_inline(tmp_path, numbers_of(5, 8, 4), [keep()], 3)
    assert {summary.item for summary in summaries} == {"0001-n000"}
    assert before < {path.name for path in (tmp_path / "data").glob("*.parquet")}
    run_inline(tmp_path / "whole", numbers_of(5, 8, 4), [keep()], 100)
    assert contents(tmp_path) == contents(tmp_path / "whole")


def test_a_second_claim_without_resume_is_refused(tmp_path, numbers_of, keep, run_inline):
    run_inline(tmp_path, numbers_of(5), [keep()], 3, stop_after=1)
    with pytest.raises(OutputTakenError):
        run_inline(tmp_path, numbers_of(5), [keep()], 3, resume=False)


def test_a_stage_that_loses_rows_is_a_fault(tmp_path, numbers_of, keep, run_inline):
    class Lossy(keep):
        def keep(self, rows):
            accepted, rejected = super().keep(rows)
            return Outcome(accepted.slice(1), rejected)

    with pytest.raises(AssertionError, match="keep: 5 rows in, 3 out, 1 rejected"):
        run_inline(tmp_path, numbers_of(5), [Lossy()], 5)


def started(output, source, stage, rows_per_shard, session="one", **settings):
    """(ledger, the only segment of a run, its remaining work) without anything done."""
    chain = Chain(source, (stage,))
    ledger = Ledger.claim(str(output), "data", chain.schema, make_identity("job", {}), resume=True)
    plans = load_or_extend_plans(str(output), Inventory(source.list_inputs()), source.make_work_items, rows_per_shard)
    (segment,) = segments(chain, Session(session, ledger.arguments, Limits()), Execution(**settings))
    return ledger, segment, ledger.remaining(plans)


def written(segment, work, count=None):
    """The rows of `WRITTEN` that a segment yields for some work."""
    found = []
    for table in segment(pa.Table.from_pylist([work._asdict()])):
        found += table.to_pylist()
        if count is not None and len(found) >= count:
            break
    return found


def test_errors_travel_as_values(tmp_path, numbers_of, keep):
    _, segment, (_, work) = started(tmp_path, numbers_of(4, 3), keep(broken="f001/2"), 2)
    one, error = written(segment, work)
    assert (one["item"], one["shard"], one["ends_item"], one["rows_in"]) == ("0000-n001", 0, False, 2)
    assert (error["item"], error["error"]) == (None, "InputError")
    with pytest.raises(InputError, match=r"^f001/2: expected a row, found this; take it out$"):
        list(summaries([one, error]))


def test_parts_of_two_attempts_have_names_of_their_own(tmp_path, numbers_of, keep):
    _, segment, (work,) = started(tmp_path, numbers_of(4), keep(), 2)
    one, other = ({part["path"] for row in written(segment, work) for part in row["parts"]} for _ in range(2))
    assert one.isdisjoint(other)
    assert len(list(Path(tmp_path / "data").glob("0000-n000-0000?-*.parquet"))) == 4


def test_a_retry_yields_an_empty_row_for_each_committed_shard_and_computes_the_others(tmp_path, numbers_of, keep):
    """Ray knows what a retry yields from what was yielded before by its position alone."""
    ledger, segment, (work,) = started(tmp_path, numbers_of(11), keep(), 2)
    before = written(segment, work, 4)
    ledger.commit(list(summaries(before[:3])))
    again = written(segment, work)
    places = [(row["shard"], row["rows_in"], row["ends_item"]) for row in again]
    assert places == [(0, None, False), (1, None, False), (2, None, False), (3, 2, False), (4, 2, False), (5, 1, True)]
    ledger.commit(list(summaries(again)))
    assert ledger.progress(work.item) == (6, True)
    assert [row["rows_in"] for row in written(segment, work)] == [None] * 6


@pytest.mark.parametrize("piece_bytes", [1, 3, 2**20])
@pytest.mark.parametrize("stages", [1, 2])
def test_shards_cut_into_pieces_and_taken_apart_are_the_same_tables(
    tmp_path, numbers_of, keep, run_inline, contents, monkeypatch, piece_bytes, stages
):
    monkeypatch.setattr(segment_module, "PIECE_BYTES", piece_bytes)
    source = numbers_of(23, 0, 12, rejected=("f000/0", "f002/11"))

    class First(keep):
        """Keeps everything, on other resources."""

        def keep(self, rows):
            return Outcome(rows, rejections([]))

    def chain(resources):
        first = First(name="first", schema=source.schema, resources=resources)
        return [first, keep(resources=Resources(0.25) if resources else None)][-stages:]

    whole, _ = run_inline(tmp_path / "whole", source, chain(None), 7)
    ledger, found = run_inline(tmp_path / "cut", source, chain(Resources(0.5)), 7)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert ledger.totals() == whole.totals()
    assert [(s.item, s.index, s.last, s.rows_in) for s in found] == [
        ("0000-n000", 0, False, 7),
        ("0000-n000", 1, False, 7),
        ("0000-n000", 2, False, 7),
        ("0000-n000", 3, True, 2),
        ("0000-n001", 0, True, 0),
        ("0000-n002", 0, False, 7),
        ("0000-n002", 1, True, 5),
    ]
    assert len(found[0].parts) == {1: 4, 3: 3, 2**20: 1}[piece_bytes]


def test_a_shard_ends_by_its_bytes_too(tmp_path, numbers_of, keep, run_inline, contents):
    source = numbers_of(10, row_bytes=30)
    _, found = run_inline(tmp_path, source, [keep()], 8, bytes_per_shard=100)
    assert [summary.rows_in for summary in found] == [3, 3, 3, 1]
    assert run_inline(tmp_path, source, [keep()], 8)[1] == []
    kept, rejected = contents(tmp_path)
    assert len(kept) + len(rejected) == 10
    _, found = run_inline(tmp_path / "huge", numbers_of(3, row_bytes=101), [keep()], 8, bytes_per_shard=100)
    assert [summary.rows_in for summary in found] == [1, 1, 1]


def test_a_stage_gets_as_many_rows_at_once_as_it_asks_for(tmp_path, numbers_of, keep, run_inline):
    sizes = []

    class Wanting(keep):
        def keep(self, rows):
            sizes.append(rows.num_rows)
            return super().keep(rows)

    run_inline(tmp_path, numbers_of(38), [Wanting(rows_per_call=12)], 30)
    assert sizes == [15, 15, 8]


def test_an_input_that_ends_before_the_shards_that_remain_is_an_error(tmp_path, numbers_of, keep, run_inline):
    run_inline(tmp_path, numbers_of(20), [keep()], 4, stop_after=3)
    ledger, segment, (work,) = started(tmp_path, numbers_of(20), keep(), 4)
    shorter = Chain(numbers_of(12), (keep(),))
    source = numbers_of(20)

    class Shorter(type(source)):
        def read(self, item, *arguments, **settings):
            return shorter.source.read(
                shorter.source.make_work_items(shorter.source.list_inputs(), 4)[0], *arguments, **settings
            )

    (segment,) = segments(Chain(Shorter(source.files), (keep(),)), segment.session, Execution())
    (error,) = written(segment, work)
    assert error["error"] == "InputError"
    assert "the input ends before shard 3" in error["message"]
    assert ledger.progress(work.item) == (3, False)
