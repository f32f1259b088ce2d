"""Guards that `erase` removes what it is given and nothing else, and names what it cannot change."""

import logging

import pyarrow as pa
import pytest

from genre_ray.commands import erase, verify
from genre_ray.commands.erase import EraseConfiguration
from genre_ray.errors import ConfigurationError, InputError
from genre_ray.storage import tables

UUID = "54551AAD-4FCA-4BA4-9CE2-F6B2D9B5FCEB"


@pytest.fixture(autouse=True)
def _all_is_logged(caplog):
    caplog.set_level(logging.INFO)


@pytest.fixture
def output(write_run, shard, tmp_path):
    write_run(str(tmp_path / "out"), {"a": [shard(3, 1), shard(2)], "b": [shard(2, 1)]})
    return tmp_path / "out"


def run(*inputs, **settings):
    return erase.run(EraseConfiguration.from_mapping({"inputs": list(map(str, inputs)), **settings}))


def check(output):
    return verify.run(verify.VerifyConfiguration.from_mapping({"inputs": [str(output)]}))


def rows(uri):
    """All rows of a table, in an order of their own."""
    return sorted(tables.dataset(str(uri)).to_table().to_pylist(), key=str)


def test_other_rows_are_as_they_were(output):
    before = rows(output / "data"), rows(output / "rejected")
    assert run(output, recordings=["a/0/1", "b/0/0", "elsewhere"]) == 0
    assert rows(output / "data") == [row for row in before[0] if row["recording_id"] not in ("a/0/1", "b/0/0")]
    assert rows(output / "rejected") == before[1]
    assert len(before[0]) == len(rows(output / "data")) + 2
    assert check(output) == 0


def test_erased_again_nothing_changes(output):
    run(output, recordings=["a/0/1"])
    version = tables.open_table(str(output / "data")).version()
    run(output, recordings=["a/0/1"])
    assert tables.open_table(str(output / "data")).version() == version
    assert check(output) == 0


def test_a_dry_run_counts_and_changes_nothing(output, caplog):
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    assert run(output, recordings=["a/0/1", "b/0/0"], dry_run=True) == 0
    assert f"{output}/data: would erase 2 rows" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before


@pytest.mark.parametrize("content", [f"{UUID}\n", f"\ufeff  {UUID.lower()} \r\n\r\n", f"x\n{UUID}"])
def test_ids_from_a_file_are_those_of_the_tables(tmp_path, content):
    """Musicbrainz ids are in lower case in tables, whatever the case and the spaces of those who ask."""
    schema = pa.schema([("recording_id", pa.string())])
    uri, ids = str(tmp_path / "table"), tmp_path / "ids.txt"
    ids.write_bytes(content.encode())
    tables.create_table(uri, schema, {})
    part = tables.write_part(uri, "p", pa.table({"recording_id": [UUID.lower(), "kept"]}, schema))
    tables.append(tables.open_table(uri), [tables.Append("t", [part])], schema)
    assert run(uri, recordings_file=str(ids)) == 0
    assert rows(uri) == [{"recording_id": "kept"}]


def test_a_run_file_that_names_a_recording_is_named(output, caplog):
    (output / "run.tsv").write_text("a/0/1\trock\n")
    assert run(output, recordings=["a/0/2"]) == 0
    assert "run.tsv" not in caplog.text
    assert run(output, recordings=["a/0/1"]) == 0
    assert f"{output}/run.tsv still contains some of the recordings" in caplog.text


def test_parts_of_older_versions_go_when_they_are_older_than_the_retention(output):
    parts = set((output / "data").glob("*.parquet"))
    run(output, recordings=["a/0/1"])
    assert parts < set((output / "data").glob("*.parquet"))
    run(output, recordings=["a/0/1"], retention_hours=0)
    kept = {part.path for part in tables.list_parts(str(output / "data"))}
    assert {path.name for path in (output / "data").glob("*.parquet")} == kept


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\n \n", "no recording ids found"), (b"\xff\n", "cannot read this file as UTF-8 text")],
)
def test_a_file_without_ids_is_refused(output, tmp_path, content, message):
    (tmp_path / "ids.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        run(output, recordings_file=str(tmp_path / "ids.txt"))


def test_nothing_to_erase_and_nowhere_to_look_are_refused(output, tmp_path):
    with pytest.raises(ConfigurationError, match="give the recordings to erase by --recordings or --recordings-file"):
        run(output)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no table found there"):
        run(tmp_path / "empty", recordings=["a"])
