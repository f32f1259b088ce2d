"""Guards the law of a run: rows out + rows rejected = rows in, each once, wherever the work is cut or broken off."""

import io
import tarfile
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genre_ray.catalog.sources import DocumentSource
from genre_ray.errors import InputError, OutputTakenError
from genre_ray.features.table import FeatureRows, FeaturesStep
from genre_ray.runs.identity import make_identity
from genre_ray.runs.inventory import Inventory
from genre_ray.runs.ledger import Ledger
from genre_ray.runs.plan import settle_plans
from genre_ray.runs.worker import ShardWorker, read_outcome
from genre_ray.storage import tables


def run(output, source, step, rows_per_shard, *, resume=True, stop_after=None, attempts=1):
    """A run without Ray: every shard of every item, at most `stop_after` of them, in the order of the plan."""
    ledger = Ledger.claim(str(output), "data", step.schema, make_identity("job", {}), resume=resume)
    plans = settle_plans(str(output), Inventory(source.list_inputs()), source.cut, rows_per_shard)
    worker = ShardWorker(ledger.data_uri, ledger.rejected_uri, source, step)
    summaries = []
    for left in ledger.remaining(plans):
        for _ in range(attempts):
            for summary in worker.shards(left.read_item(), left.rows_per_shard, left.first_shard):
                if stop_after is not None and len(summaries) >= stop_after:
                    break
                summaries.append(summary)
    ledger.commit(summaries)
    return ledger, summaries


def table(ledger):
    """The data table in the order of its parts, without their names."""
    return pa.Table.from_batches(tables.read_batches(ledger.data_uri, ledger.schema.names), ledger.schema)


@pytest.fixture(scope="module")
def documents(sample):
    """The sample's archive, and its rows as features."""
    source = DocumentSource((str(sample / "emotify" / "documents.tar.zst"),))
    with tempfile.TemporaryDirectory() as folder:
        ledger, _ = run(folder, source, FeaturesStep(), 10_000)
        return source, table(ledger), ledger.totals()


@pytest.mark.parametrize("rows_per_shard", [1, 7, 64, 144, 1000])
def test_shards_of_any_size_hold_the_same_rows(tmp_path, documents, rows_per_shard):
    source, expected, totals = documents
    ledger, summaries = run(tmp_path, source, FeaturesStep(), rows_per_shard)

    rows_in = [summary.rows_in for summary in summaries]
    assert sum(rows_in) == totals.rows + totals.rejected == 144
    assert rows_in == [rows_per_shard] * (144 // rows_per_shard) + [144 % rows_per_shard] * (144 % rows_per_shard > 0)
    assert [summary.last for summary in summaries] == [False] * (len(summaries) - 1) + [True]
    assert ledger.totals() == totals
    found = table(ledger)
    assert found.drop(["features"]).equals(expected.drop(["features"]))
    np.testing.assert_array_equal(tables.vectors(found["features"]), tables.vectors(expected["features"]))


@pytest.mark.parametrize(("rows_per_shard", "first"), [(7, 0), (7, 1), (7, 20), (7, 21), (64, 2), (144, 1)])
def test_from_a_later_shard_on_there_is_exactly_the_rest(documents, rows_per_shard, first):
    source, *_ = documents
    (item,) = source.cut(source.list_inputs(), rows_per_shard)
    everything = [(shard, document.uri) for shard, chunk in source.read(item, rows_per_shard, 0) for document in chunk]
    rest = [(shard, document.uri) for shard, chunk in source.read(item, rows_per_shard, first) for document in chunk]
    assert rest == [(shard, uri) for shard, uri in everything if shard >= first]


def test_a_features_table_is_a_source_that_resumes_too(tmp_path, documents):
    source, expected, _ = documents
    run(tmp_path, source, FeaturesStep(), 50)
    rows = FeatureRows(str(tmp_path / "data"), limit=120)
    items = rows.cut(rows.list_inputs(), 20)
    assert [item.rows for item in items] == [50, 50, 20]
    for item, start in zip(items, (0, 50, 100), strict=True):
        for first in (0, 1, 2):
            found = [
                (shard, row) for shard, batch in rows.read(item, 20, first) for row in batch["source_uri"].to_pylist()
            ]
            wanted = expected["source_uri"].slice(start, item.rows).to_pylist()
            assert found == [(n // 20, row) for n, row in enumerate(wanted) if n // 20 >= first]


def test_a_limit_bounds_rows_in(tmp_path, sample):
    source = DocumentSource((str(sample / "emotify" / "documents.tar.zst"), str(sample / "acousticbrainz")), limit=3)
    ledger, summaries = run(tmp_path, source, FeaturesStep(), 2)
    assert sorted(summary.rows_in for summary in summaries) == [1, 1, 2, 2]
    totals = ledger.totals()
    assert totals.rows + totals.rejected == 6
    assert run(tmp_path, source, FeaturesStep(), 2)[1] == []


def archive_of(folder, members):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path in members:
            archive.add(path, path.name)
    folder.mkdir(exist_ok=True)
    return folder / "documents.tar", content.getvalue()


def test_an_archive_without_members_is_done_with_one_empty_shard(tmp_path):
    path, content = archive_of(tmp_path / "in", [])
    path.write_bytes(content)
    source = DocumentSource((str(path),))
    ledger, (summary,) = run(tmp_path / "out", source, FeaturesStep(), 7)
    assert (summary.last, summary.rows_in, summary.parts, summary.rejected_parts) == (True, 0, (), ())
    assert str(ledger.totals()) == "0 rows, 0 rejected"
    assert run(tmp_path / "out", source, FeaturesStep(), 7)[1] == []


@pytest.mark.parametrize("rows_per_shard", [1, 2, 4, 100])
def test_a_truncated_archive_has_one_row_more_that_says_so(tmp_path, sample, rows_per_shard):
    members = sorted((sample / "acousticbrainz").glob("*.json"))[:4]
    path, content = archive_of(tmp_path / "in", members)
    path.write_bytes(content[: len(content) // 2])
    source = DocumentSource((str(path),))
    ledger, summaries = run(tmp_path / "out", source, FeaturesStep(), rows_per_shard)
    totals = ledger.totals()
    assert totals.reasons == {"archive_truncated": 1}
    assert totals.rows + 1 == sum(summary.rows_in for summary in summaries)
    assert 1 <= totals.rows < len(members)
    rejected = pa.Table.from_batches(tables.read_batches(ledger.rejected_uri, ["source_uri", "shard", "reason"]))
    last = summaries[-1]
    assert rejected.to_pylist() == [
        {"source_uri": str(path), "shard": f"{last.item}/{last.index}", "reason": "archive_truncated"}
    ]


def test_attempts_of_the_same_work_are_one(tmp_path, numbers_of, keep, contents):
    source = numbers_of(23, 4)
    run(tmp_path / "once", source, keep(), 5)
    run(tmp_path / "thrice", source, keep(), 5, attempts=3)
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
    numbers_of, keep, contents, sizes, group, shard_sizes, stops, attempts
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
            run(output, source, keep(), shard_sizes[turn % len(shard_sizes)], stop_after=stop, attempts=attempts)
        run(output, source, keep(), shard_sizes[-1])
        assert contents(output) == expected
        assert run(output, source, keep(), 1)[1] == []


def test_growth_is_done_without_touching_what_is_in(tmp_path, numbers_of, keep, contents):
    run(tmp_path, numbers_of(5, 8), keep(), 3)
    before = {path.name for path in (tmp_path / "data").glob("*.parquet")}
    _, summaries = run(tmp_path, numbers_of(5, 8, 4), keep(), 3)
    assert {summary.item for summary in summaries} == {"0001-n000"}
    assert before < {path.name for path in (tmp_path / "data").glob("*.parquet")}
    run(tmp_path / "whole", numbers_of(5, 8, 4), keep(), 100)
    assert contents(tmp_path) == contents(tmp_path / "whole")


def test_a_second_claim_without_resume_is_refused(tmp_path, numbers_of, keep):
    run(tmp_path, numbers_of(5), keep(), 3, stop_after=1)
    with pytest.raises(OutputTakenError):
        run(tmp_path, numbers_of(5), keep(), 3, resume=False)


def test_a_step_that_loses_rows_is_a_fault(tmp_path, numbers_of, keep):
    class Lossy(keep):
        def __call__(self, rows):
            accepted, rejected = super().__call__(rows)
            return accepted.slice(1), rejected

    with pytest.raises(AssertionError, match="5 rows in, 3 out, 1 rejected"):
        run(tmp_path, numbers_of(5), Lossy(), 5)


def test_outcomes_travel_as_values(tmp_path, numbers_of, keep):
    source = numbers_of(4, 3)
    worker = ShardWorker(str(tmp_path / "data"), str(tmp_path / "rejected"), source, keep(broken="f001/2"))
    (plan,) = settle_plans(str(tmp_path), Inventory(source.list_inputs()), source.cut, 2)
    tasks = [asdict(left) for left in plan.remainders({"0000-n000": 0, "0000-n001": 1}.get)]
    lines = [line for task in tasks for line in worker.outcomes(task)]
    one, two = map(read_outcome, lines[:2])
    assert (one.item, one.index, one.last, one.rows_in) == ("0000-n000", 0, False, 2)
    assert (two.index, two.last, sum(part.rows for part in two.parts + two.rejected_parts)) == (1, True, 2)
    with pytest.raises(InputError, match=r"^f001/2: expected a row, found this; take it out$"):
        read_outcome(lines[2])


def test_parts_of_two_attempts_have_names_of_their_own(tmp_path, numbers_of, keep):
    source = numbers_of(4)
    (item,) = source.cut(source.list_inputs(), 2)
    worker = ShardWorker(str(tmp_path / "data"), str(tmp_path / "rejected"), source, keep())
    one, other = (list(worker.shards(item, 2)) for _ in range(2))
    assert {part.path for s in one for part in s.parts}.isdisjoint(part.path for s in other for part in s.parts)
    assert len(list(Path(tmp_path / "data").glob("n000-0000?-*.parquet"))) == 4
