"""Guards that an estimate counts the rows that it can know, and is near a real run in what it cannot."""

import io
import random
import re
import tarfile
import time
from dataclasses import dataclass, replace

import pyarrow as pa
import pytest
import zstandard

from genre_ray.config import Execution, JobConfiguration
from genre_ray.features.essentia.documents import ParseDocuments
from genre_ray.outcomes import Outcome, rejections
from genre_ray.runs import estimate
from genre_ray.runs.batch import run_batch
from genre_ray.runs.capacity import Capacity, Nodes
from genre_ray.runs.dataflow import Chain
from genre_ray.runs.estimate import describe
from genre_ray.runs.stages import Resources, ShardSize
from genre_ray.sources.documents.source import DocumentSource
from genre_ray.sources.tables import TableRows
from genre_ray.storage import tables
from genre_ray.storage.tables import Append

MEASURED = re.compile(rb"\.[0-9]{4,}")


def said(source, stage, **execution):
    items = list(source.make_work_items(source.list_inputs(), 5000))
    return list(describe(items, Chain(source, (stage,)), Execution(**execution)))


def test_an_archive_that_was_read_to_its_end_is_counted(sample):
    lines = said(DocumentSource((str(sample / "emotify" / "documents.tar.zst"),), limit=20), ParseDocuments())
    assert re.search(r"^[\d.]+ ms per row to read, compute and encode, measured on 20 rows on this machine$", lines[-6])
    assert "chain: read documents -> parse -> write (1 CPU)" in lines
    shares = dict(re.findall(r"(read documents|parse|encode) (\d+)%", lines[-5]))
    assert set(shares) == {"read documents", "parse", "encode"}
    assert sum(map(int, shares.values())) == pytest.approx(100, abs=2)
    assert re.search(r"^about [\d.]+ s for about 20 rows with 1 worker ", lines[-1])


def test_stages_with_other_resources_are_shown_as_a_segment_of_their_own(sample):
    lines = said(DocumentSource((str(sample / "acousticbrainz"),)), ParseDocuments(resources=Resources(2, 1)))
    assert "chain: read documents (1 CPU) | parse -> write (2 CPU, 1 GPU)" in lines


@pytest.mark.parametrize("workers", [None, 1, 8])
def test_single_documents_are_counted(sample, workers):
    """No more workers than items can work at once."""
    lines = said(DocumentSource((str(sample / "acousticbrainz"),)), ParseDocuments(), workers=workers)
    assert lines[0].startswith("dry run: 1 work items, 6 inputs")
    assert re.search(r"^about [\d.]+ s for 6 rows with 1 worker \(one per work item\)$", lines[-1])


def parsed(source, item):
    """The rows of the features table, chunk by chunk."""
    opened = ParseDocuments().open()
    return [opened(chunk.outcome.accepted).accepted for chunk in source.read(item, ShardSize(5000))]


@dataclass
class KeepAll:
    """A stage that accepts every row as it is."""

    schema: pa.Schema
    name = "keep"
    resources = None
    rows_per_call = None

    def open(self):
        return lambda rows: Outcome(rows, rejections([]))


def test_the_rows_of_a_table_are_known_from_its_log(tmp_path, sample):
    uri, stage = str(tmp_path / "features"), ParseDocuments()
    source = DocumentSource((str(sample / "acousticbrainz"),))
    (item,) = source.make_work_items(source.list_inputs(), 5000)
    (rows,) = parsed(source, item)
    tables.create_table(uri, stage.schema, {})
    parts = [tables.write_part(uri, name, rows) for name in "ab"]
    tables.append(tables.open_table(uri), [Append("one", parts)], stage.schema)

    assert f"for {2 * rows.num_rows} rows with 2 workers" in said(TableRows(uri), KeepAll(stage.schema), workers=4)[-1]
    assert "for 8 rows with 2 workers" in said(TableRows(uri, limit=8), KeepAll(stage.schema), workers=4)[-1]
    assert "for 2 rows with 1 worker" in said(TableRows(uri, limit=2), KeepAll(stage.schema))[-1]


@pytest.mark.parametrize(
    ("capacity", "settings", "expected"),
    [
        (Capacity((Nodes(Resources(8), 1),), True, "this machine"), {}, (8, "the maximum of this machine")),
        (
            Capacity((Nodes(Resources(16), 12), Nodes(Resources(8, 1), 4)), True, "the cluster"),
            {"cpus_per_worker": 2},
            (96, "the maximum of the cluster"),
        ),
        (
            Capacity((Nodes(Resources(16), 12), Nodes(Resources(8, 1), 4)), True, "the cluster"),
            {"gpus_per_worker": 0.5},
            (8, "the maximum of the cluster"),
        ),
        (
            Capacity((Nodes(Resources(2), 1),), False, "the cluster"),
            {},
            (2, "as many as the cluster can run now; it may grow"),
        ),
        (Capacity((), False, "the cluster"), {}, (1, "as many as the cluster can run now; it may grow")),
        (Capacity((Nodes(Resources(2), 1),), True, "this machine"), {"workers": 64}, (64, "execution.workers is 64")),
        (Capacity((Nodes(Resources(2), 1),), True, "this machine"), {"workers": 999}, (100, "one per work item")),
    ],
)
def test_workers_are_those_of_the_cluster_not_of_the_driver(monkeypatch, capacity, settings, expected):
    """They were the driver's cores, also where the driver was a head without CPUs."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(estimate.capacity, "possible", lambda: capacity)
    assert estimate.worker_count(range(100), Execution(**settings)) == expected


def test_a_dry_run_survives_a_cluster_that_does_not_answer(monkeypatch, caplog):
    def connect():
        raise ConnectionError("nobody listens")

    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(estimate.cluster, "connect", connect)
    monkeypatch.setattr(
        estimate.capacity, "possible", lambda: Capacity((Nodes(Resources(3), 1),), True, "this machine")
    )
    assert estimate.worker_count(range(9), Execution()) == (3, "the maximum of this machine")
    assert "nobody listens" in caplog.text


def test_hours_are_those_of_all_rows_and_prices_those_given():
    foreseen = estimate.Estimate(rows=7.2e6, seconds=900.0, worker_hours=20.0, worker_bytes=1e9, output_bytes=1e9)
    assert estimate.describe_cost(foreseen, Execution()) == "about 20 core-hours"
    priced = Execution(cpus_per_worker=2, gpus_per_worker=0.5, core_hour_price=0.05, gpu_hour_price=2)
    assert estimate.describe_cost(foreseen, priced) == (
        "about 40 core-hours and 10 GPU-hours, cost 22 at the configured prices"
    )


def test_worker_hours_are_the_time_of_a_row_times_the_rows(numbers_of, keep):
    source = numbers_of(64)
    items = [replace(item, rows=16, is_counted=True) for item in source.make_work_items(source.list_inputs(), 64)]
    sample = estimate.Sample(rows=16, reading_s=1.0, stages_s={"keep": 6.0}, encoding_s=1.0)
    rows = 16 * len(items)
    assert estimate.estimate(items, sample, Execution()).worker_hours == pytest.approx(rows * 0.5 / 3600)


def test_nothing_is_said_to_be_nothing(numbers_of, keep):
    assert said(numbers_of(0), keep())[-1] == "no rows were found to measure"
    assert said(numbers_of(), keep())[-1] == "no rows were found to measure"


@pytest.fixture(scope="session")
def archives(sample, tmp_path_factory):
    """`archives(count, copies)`: so many archives, each with so many copies of the sample's documents."""
    documents = sorted((sample / "acousticbrainz").glob("*.json"))

    def make(count, copies):
        folder = tmp_path_factory.mktemp("archives")
        plain, generator = io.BytesIO(), random.Random(1)
        with tarfile.open(fileobj=plain, mode="w") as archive:
            for copy in range(copies):
                for path in documents:
                    # Other measurements in each, so that neither archives nor parts are made of copies.
                    digits = bytes.maketrans(b"123456789", bytes(generator.sample(b"123456789", 9)))
                    content = MEASURED.sub(lambda found: found[0].translate(digits), path.read_bytes())  # noqa: B023
                    info = tarfile.TarInfo(f"{copy}/{path.name}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        packed = zstandard.compress(plain.getvalue(), 3)
        for number in range(count):
            (folder / f"{number}.tar.zst").write_bytes(packed)
        return DocumentSource((str(folder),)), count * copies * len(documents)

    return make


def foresee(source, stage, execution):
    items = list(source.make_work_items(source.list_inputs(), execution.rows_per_shard))
    return estimate.estimate(items, estimate.measure(items, Chain(source, (stage,))), execution)


def test_rows_and_output_are_near_those_of_a_run(sample, monkeypatch):
    monkeypatch.setattr(estimate, "SAMPLE_ROWS", 32)
    source, stage = DocumentSource((str(sample / "emotify" / "documents.tar.zst"),)), ParseDocuments()
    foreseen = foresee(source, stage, Execution())
    assert 144 / 2 < foreseen.rows < 2 * 144
    (item,) = source.make_work_items(source.list_inputs(), 5000)
    rows = pa.concat_tables(parsed(source, item))
    size = tables.encode(rows).size
    assert size / 2 < foreseen.output_bytes < 2 * size
    assert rows.nbytes < foreseen.worker_bytes


@pytest.mark.long
def test_an_estimate_is_within_a_factor_of_two_of_a_run(archives, tmp_path):
    """Ray is started for the run alone, as a job does it."""
    ray = pytest.importorskip("ray")
    (source, rows), stage = archives(2, 3000), ParseDocuments()
    output = str(tmp_path / "out")
    configuration = JobConfiguration.from_mapping({"output": output})
    foreseen = foresee(source, stage, configuration.execution)
    ray.shutdown()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        started = time.monotonic()
        assert run_batch(configuration, job="ingest", table="features", source=source, stages=[stage]) == 0
        seconds = time.monotonic() - started
        ray.shutdown()
    parts = [part for name in ("features", "rejected") for part in tables.list_parts(f"{output}/{name}")]
    assert sum(part.rows for part in parts) == rows
    size = sum(part.size for part in parts)
    print(f"foreseen {foreseen}; took {seconds:.1f} s for {rows} rows and {size} bytes")
    assert rows / 2 < foreseen.rows < 2 * rows
    assert seconds / 2 < foreseen.seconds < 2 * seconds
    assert size / 2 < foreseen.output_bytes < 2 * size
