"""Guards what `verify --compact` changes, and what it leaves alone."""

import json
import logging
from pathlib import Path

import pyarrow as pa
import pytest

from genre_ray.commands import verify
from genre_ray.errors import ConfigurationError
from genre_ray.storage import tables


@pytest.fixture(autouse=True)
def _all_is_logged(caplog):
    caplog.set_level(logging.INFO)


@pytest.fixture
def output(write_run, shard, tmp_path):
    write_run(str(tmp_path / "out"), {"a": [shard(2, 1)] * 4})
    return tmp_path / "out"


def run(*inputs, **settings):
    return verify.run(verify.VerifyConfiguration.from_mapping({"inputs": list(map(str, inputs)), **settings}))


def parts(output):
    return {name: len(tables.list_parts(str(output / name))) for name in ("data", "rejected")}


def summaries(caplog):
    lines = (record.getMessage() for record in caplog.records)
    return {Path(line["uri"]).name: line for line in map(json.loads, (line for line in lines if line[0] == "{"))}


def test_sound_tables_are_compacted_and_verified_again(output, caplog):
    assert run(output.parent, compact=True) == 0
    assert parts(output) == {"data": 1, "rejected": 1}
    assert f"{output}/data: compacted 4 parts into 1" in caplog.text
    found = summaries(caplog)
    assert (found["data"]["parts"], found["data"]["by_checksum"]) == (1, 1)
    assert found["out"]["rows_of_shards"].startswith("checked in total")
    assert run(output / "data") == run(output / "rejected", compact=True) == 0


def test_damage_that_is_found_after_it_decides_the_exit_code(output, monkeypatch, caplog):
    compact = verify.compact

    def compact_and_damage(uri):
        done = compact(uri)
        Path(uri, tables.list_parts(uri)[0].path).write_bytes(b"x")
        return done

    monkeypatch.setattr(verify, "compact", compact_and_damage)
    assert run(output, compact=True) == 1
    assert caplog.text.count("damaged: ") == 2


def test_a_dry_run_only_says_what_it_would_merge(output, caplog):
    assert run(output, compact=True, dry_run=True) == 0
    assert f"{output}/rejected: would merge up to 4 parts" in caplog.text
    assert parts(output) == {"data": 4, "rejected": 4}


def test_a_damaged_table_is_left_as_it_is(output, caplog):
    Path(output, "data", tables.list_parts(str(output / "data"))[0].path).write_bytes(b"x")
    assert run(output, compact=True) == 1
    assert f"{output}/data: not compacted, because it is damaged" in caplog.text
    assert parts(output) == {"data": 4, "rejected": 1}


def test_a_run_whose_rows_do_not_add_up_keeps_its_parts(write_run, shard, tmp_path, caplog):
    """They say in which shard the row is missing."""
    write_run(str(tmp_path), {"a": [shard(2), shard(1, stated=2)]})
    assert run(tmp_path, compact=True) == 1
    assert parts(tmp_path)["data"] == 2


def test_a_run_that_has_work_left_is_compacted(write_run, shard, tmp_path):
    write_run(str(tmp_path), {"a": [shard(2), shard(2)]}, unfinished=["a"])
    assert run(tmp_path, compact=True) == 1
    assert parts(tmp_path)["data"] == 1


def test_a_table_of_another_program_is_named_and_left_alone(tmp_path, caplog):
    schema = pa.schema([("row", pa.string())])
    uri = str(tmp_path / "table")
    tables.create_table(uri, schema, {})
    written = [tables.write_part(uri, "x", pa.table({"row": ["1"]}, schema)) for _ in "12"]
    tables.append(tables.open_table(uri), [tables.Append("t", written)], schema)
    assert run(tmp_path, compact=True) == 0
    assert f"{uri}: not compacted: another program wrote this table" in caplog.text
    assert len(tables.list_parts(uri)) == 2


def test_parts_that_were_not_read_are_not_compacted(output):
    with pytest.raises(ConfigurationError, match="--compact cannot be combined with --limit"):
        run(output, compact=True, limit=1)
