"""Guards that damage at rest is found and named, that sound work is not blamed, and that `--gc` takes no more."""

import json
import logging
import os
import shutil
import time
from pathlib import Path

import pyarrow as pa
import pytest

from genre_ray.bundles.files import write_bundle
from genre_ray.commands import erase, verify
from genre_ray.errors import ConfigurationError, InputError
from genre_ray.outcomes import Outcome, Rejection, rejections
from genre_ray.runs.ledger import Ledger
from genre_ray.storage import history, objects, tables
from genre_ray.storage.schemas import EXAMPLES as EXAMPLES_SCHEMA
from tests.manifests import make_manifest


class Recordings:
    """The stage of these tests: recording ids out of rows, every third of a chunk rejected."""

    name = "name"
    schema = pa.schema([("recording_id", pa.string())])
    resources = None
    rows_per_call = None

    def open(self):
        return self.keep

    def keep(self, rows):
        names = rows["source_uri"].to_pylist()
        gone = [row for n, row in enumerate(names) if n % 3 == 2]
        kept = pa.table({"recording_id": [row for row in names if row not in gone]}, self.schema)
        return Outcome(kept, rejections((f"archive#{row}", Rejection("third", "")) for row in gone))


@pytest.fixture(autouse=True)
def _all_is_logged(caplog):
    caplog.set_level(logging.INFO)


@pytest.fixture
def work(run_inline):
    """`work(output, source, stop_after=None)`: a run of `Recordings`; gives its ledger."""

    def work(output, source, *, stop_after=None):
        return run_inline(output, source, [Recordings()], 5, stop_after=stop_after)[0]

    return work


def check(*inputs, **settings):
    return verify.run(verify.VerifyConfiguration.from_mapping({"inputs": list(map(str, inputs)), **settings}))


def remove(output, *recordings, **settings):
    settings = {"inputs": [str(output)], "recordings": list(recordings), **settings}
    return erase.run(erase.EraseConfiguration.from_mapping(settings))


def rows(ledger):
    batches = tables.read_batches(ledger.data_uri, ["recording_id"])
    return sorted(row for batch in batches for row in batch.column("recording_id").to_pylist())


@pytest.fixture
def output(tmp_path, numbers_of, work):
    work(str(tmp_path / "out"), numbers_of(12, 4))
    return tmp_path / "out"


@pytest.fixture
def bundle(tmp_path):
    columns = {"recording_id": ["f000/0"], "taxonomy": ["t"], "part": ["train"], "labels": [["rock"]], "bundle": [None]}
    examples = pa.table(columns, EXAMPLES_SCHEMA)
    write_bundle(str(tmp_path / "bundle"), make_manifest(), {}, examples, "card")
    return tmp_path / "bundle"


def test_sound_work_is_not_blamed(output, bundle, tmp_path):
    findings = tmp_path / "findings.jsonl"
    assert check(tmp_path, output=str(findings)) == 0
    found = {Path(line["uri"]).name: line for line in map(json.loads, findings.read_text().splitlines())}
    assert {name: line["kind"] for name, line in found.items()} == {
        "data": "table",
        "rejected": "table",
        "bundle": "bundle",
        "out": "run",
    }
    assert (found["data"]["rows"], found["rejected"]["rows"], found["out"]["shards"]) == (13, 3, 4)
    assert found["data"]["by_checksum"] == found["data"]["parts"] == 4
    assert {line["state"] for line in found.values()} == {"sound"}


def first_part(output, table="data"):
    return sorted((output / table).glob("*.parquet"))[0]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def drop_last_commit(output):
    last = sorted((output / "data" / "_delta_log").glob("*.json"))[-1]
    last.unlink()


DAMAGE = {
    "missing part": (lambda out: first_part(out).unlink(), "missing"),
    "truncated part": (lambda out: os.truncate(first_part(out), 99), "found 99"),
    "altered part": (lambda out: flip(first_part(out)), "changed: its SHA-256 does not start"),
    "altered rejected part": (lambda out: flip(first_part(out, "rejected")), "changed: its SHA-256 does not start"),
    "lost commit": (drop_last_commit, "work items are not complete"),
    "lost table": (
        lambda out: shutil.rmtree(out / "data"),
        "expected one table besides the rejected table, found none",
    ),
    "broken log": (lambda out: (out / "data" / "_delta_log" / f"{1:020d}.json").write_text("{"), "log cannot be read"),
    "lost plan": (
        lambda out: (out / "_run" / "plan-0000.jsonl.gz").write_bytes(b"x"),
        "the run's tables or plans cannot be read",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_named(output, caplog, kind):
    damage, message = DAMAGE[kind]
    damage(output)
    assert check(output) == 1
    assert message in caplog.text


def test_a_shard_without_its_rejected_rows_breaks_the_law(output, caplog):
    """As if the data table had been committed first, and the rejected one never."""
    shutil.rmtree(output / "rejected")
    tables.create_table(str(output / "rejected"), tables.open_table(str(output / "data")).schema().to_arrow(), {})
    assert check(output) == 1
    assert "expected 5 rows (accepted, rejected or erased), found 4" in caplog.text
    assert "item 0000-n001" not in caplog.text  # its kind does not tell how many rows it has


def test_nothing_there_is_no_soundness(tmp_path):
    with pytest.raises(InputError, match="no table, bundle or run found"):
        check(tmp_path / "no")
    with pytest.raises(ConfigurationError, match="--delete needs --gc"):
        check(tmp_path, delete=True)


def test_gc_takes_old_orphans_when_asked_and_nothing_else(output, numbers_of, caplog):
    ledger = Ledger.open(str(output), "data")
    old, young = (
        tables.write_part(ledger.data_uri, "0000-n000-00000", pa.table({"recording_id": ["a"]}, Recordings.schema))
        for _ in "12"
    )
    paths = {part: output / "data" / part.path for part in (old, young)}
    os.utime(paths[old], (time.time() - 8 * 86400,) * 2)
    (output / "data" / "notes.txt").touch()
    for part in tables.list_parts(ledger.data_uri):
        os.utime(output / "data" / part.path, (0, 0))  # age alone condemns nothing
    remove(output, "f000/1")  # an older version still names its part
    before = set(output.rglob("*"))
    assert check(output, gc=True) == 0
    assert check(output, gc=True, delete=True, dry_run=True) == 0
    assert set(output.rglob("*")) == before
    assert f"would delete: {paths[old]}" in caplog.text
    assert check(output, gc=True, delete=True) == 0
    assert before - set(output.rglob("*")) == {paths[old]}
    assert "kept 1 orphans younger than 7 days" in caplog.text


def test_erased_rows_are_gone_do_not_come_back_and_are_accounted_for(
    output, numbers_of, bundle, tmp_path, caplog, work
):
    ledger = Ledger.open(str(output), "data")
    before = rows(ledger)
    ids = tmp_path / "ids.txt"
    ids.write_text("f000/1\n\nnever-seen\n")
    assert remove(output, "f000/0", "5", recordings_file=str(ids), bundles=[str(bundle)], dry_run=True) == 0
    assert "would erase 2 rows" in caplog.text
    assert rows(ledger) == before
    assert remove(output, "f000/0", recordings_file=str(ids), bundles=[str(bundle)]) == 0
    assert f"bundle {bundle} was trained, validated or tested on 1 of the recordings" in caplog.text
    assert rows(ledger) == sorted(set(before) - {"f000/0", "f000/1"})
    assert check(output) == 0
    work(str(output), numbers_of(12, 4))
    assert rows(ledger) == sorted(set(before) - {"f000/0", "f000/1"})
    # What was there stays readable for the retention, and goes with it.
    assert "f000/0" in tables.open_table(ledger.data_uri, version=1).to_pyarrow_table()["recording_id"].to_pylist()
    remove(output, *before, retention_hours=0)
    assert rows(ledger) == []
    assert list((output / "data").glob("*.parquet")) == []
    assert check(output) == 0
    tables.open_table(ledger.data_uri).create_checkpoint()
    assert check(output) == 0


def test_a_rejected_row_is_erased_by_the_name_of_its_source(output):
    uri = str(output / "rejected")
    batches = tables.read_batches(uri, ["source_uri"])
    names = [row.rpartition("/")[2] for batch in batches for row in batch.column("source_uri").to_pylist()]
    assert remove(output, names[0]) == 0
    assert sum(part.rows for part in tables.list_parts(uri)) == len(names) - names.count(names[0])
    assert check(output) == 0


def test_parts_of_other_writers_are_checked_by_size_and_rows(output, tmp_path):
    uri = str(output / "data")
    tables.open_table(uri).delete("recording_id = 'f000/0'")
    findings = tmp_path / "findings.jsonl"
    # The row is missing from the run, since no `erase` recorded it.
    assert check(output, output=str(findings)) == 1
    found = {Path(line["uri"]).name: line for line in map(json.loads, findings.read_text().splitlines())}
    assert (found["data"]["by_checksum"], found["data"]["by_size_and_rows"]) == (3, 1)
    assert (found["data"]["state"], found["out"]["rows_of_shards"][:16]) == ("sound", "checked in total")
    assert found["out"]["damage"] == [
        f"{output}: expected 16 rows (accepted, rejected or erased) in both tables, found 15",
    ]
    foreign = next(part for part in tables.list_parts(uri) if history.shard_of(part.path).startswith("part-"))
    os.truncate(output / "data" / foreign.path, 50)
    assert check(output) == 1


def test_on_a_store(s3, numbers_of, caplog, work):
    ledger = work(f"{s3}/out", numbers_of(12))
    remove(f"{s3}/out", "f000/0", retention_hours=0)
    orphan = tables.write_part(ledger.data_uri, "0000-n000-00000", pa.table({"recording_id": ["a"]}, Recordings.schema))
    assert check(f"{s3}/out", gc=True, delete=True, orphan_age_days=0) == 0
    assert not objects.exists(f"{ledger.data_uri}/{orphan.path}")
    part = tables.list_parts(ledger.data_uri)[0]
    objects.write_bytes(f"{ledger.data_uri}/{part.path}", b"x" * part.size)
    assert check(f"{s3}/out") == 1
    assert f"{part.path}: changed" in caplog.text


def test_parts_that_a_broken_off_commit_promised_are_no_orphans(output):
    """The rejected rows of their shard are in: a resume commits them, were it months later."""
    before = {part.path for part in tables.list_parts(str(output / "data"))}
    drop_last_commit(output)
    unnamed = before - {part.path for part in tables.list_parts(str(output / "data"))}
    assert unnamed
    assert check(output, gc=True, delete=True, orphan_age_days=0) == 1
    assert all((output / "data" / path).exists() for path in unnamed)
