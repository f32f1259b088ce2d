"""Guards that an output has one run: of a table, a bundle or a report, whoever races, dies or comes later.

The protocol is one for all kinds of record, so what holds for a document is tried for a table too.
"""

import concurrent.futures
import json
import threading

import pyarrow as pa
import pytest

from genre_ray.errors import OutputTakenError
from genre_ray.runs.identity import make_identity, run_id
from genre_ray.runs.output import Document, Output, TableRecord, scratch
from genre_ray.storage import objects, tables

SCHEMA = pa.schema([("row", pa.string())])
SETTINGS = {"inputs": ["a", "b"], "limit": None, "split": {"seed": 1, "group_by": "artist"}}
OURS, OTHER = make_identity("job", SETTINGS), make_identity("job", SETTINGS | {"limit": 3, "inputs": []})


def document_in(folder):
    return Document(str(folder), "report.json", ("lineage", "identity"))


def table_in(folder):
    return TableRecord(str(folder / "data"), SCHEMA, {"labels": "jazz"})


def write(document, identity):
    """Write the document as its run would, unless it is there."""
    return objects.put_if_absent(document.uri, json.dumps({"lineage": {"identity": identity}}).encode())


@pytest.fixture(params=[document_in, table_in])
def record(request, tmp_path):
    return request.param(tmp_path)


def output(tmp_path, identity=OURS, *, resume=False):
    return Output(str(tmp_path), identity, resume)


def test_a_record_states_whose_it_is(record):
    assert record.owner() is None
    assert record.create(OURS)
    assert not record.create(OTHER)
    assert record.owner() == OURS


def test_another_run_is_refused_with_every_difference(tmp_path, record):
    output(tmp_path, OTHER).claim(record)
    with pytest.raises(OutputTakenError) as refused:
        output(tmp_path, resume=True).claim(record)
    assert refused.value.exit_code == 4
    message = str(refused.value)
    assert 'settings.inputs: [] there, ["a", "b"] here; settings.limit: 3 there, null here' in message
    assert run_id(OTHER) in message
    assert "choose another --output" in message


def test_the_same_run_joins_only_when_it_resumes(tmp_path, record):
    output(tmp_path).claim(record)
    with pytest.raises(OutputTakenError, match=r"already contains run .* pass --resume"):
        output(tmp_path).claim(record)
    output(tmp_path, dict(OURS), resume=True).claim(record)


def test_of_racing_runs_one_gets_the_output(tmp_path, record):
    start = threading.Barrier(6)

    def drive(seed):
        start.wait()
        try:
            output(tmp_path, make_identity("job", {"seed": seed}), resume=True).claim(record)
        except OutputTakenError:
            return None
        return seed

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        winners = [seed for seed in pool.map(drive, range(6)) if seed is not None]
    assert len(winners) == 1
    assert record.owner() == make_identity("job", {"seed": winners[0]})


def test_of_two_records_neither_is_created_beside_one_of_another_run(tmp_path):
    table, document = table_in(tmp_path), document_in(tmp_path)
    document.create(OTHER)
    with pytest.raises(OutputTakenError, match="belongs to run"):
        output(tmp_path, resume=True).claim(table, document)
    assert table.owner() is None


def test_a_claim_that_was_cut_short_is_completed_by_a_resume(tmp_path, record):
    other = TableRecord(str(tmp_path / "other"), SCHEMA)
    record.create(OURS)
    with pytest.raises(OutputTakenError, match="pass --resume"):
        output(tmp_path).claim(other, record)
    output(tmp_path, resume=True).claim(other, record)
    assert other.owner() == OURS


def test_a_table_states_its_run_beside_what_readers_need(tmp_path):
    output(tmp_path).claim(table_in(tmp_path))
    assert tables.properties(str(tmp_path / "data")) == {
        "labels": "jazz",
        "run_id": run_id(OURS),
        "identity": json.dumps(OURS),
    }


def test_a_document_completes_the_output_of_the_run_that_wrote_it(tmp_path):
    ours, document = output(tmp_path), document_in(tmp_path)
    assert not ours.is_complete(document)
    ours.claim(document)
    assert not ours.is_complete(document)
    assert ours.complete(document, lambda: write(document, OURS))
    assert not (tmp_path / "_run").exists()
    assert output(tmp_path, resume=True).is_complete(document)
    with pytest.raises(OutputTakenError, match="pass --resume"):
        output(tmp_path).is_complete(document)
    with pytest.raises(OutputTakenError, match=r"settings\.limit: null there, 3 here"):
        output(tmp_path, OTHER, resume=True).is_complete(document)
    with pytest.raises(OutputTakenError, match="belongs to run"):
        output(tmp_path, OTHER, resume=True).claim(document)


def test_a_driver_that_comes_second_leaves_the_document_as_it_is(tmp_path):
    first, second, document = output(tmp_path), output(tmp_path, resume=True), document_in(tmp_path)
    first.claim(document)
    second.claim(document)
    assert first.complete(document, lambda: write(document, OURS))
    assert not second.complete(document, lambda: write(document, OURS))


def test_a_run_that_finds_the_document_of_another_is_refused(tmp_path):
    """Somebody copied a bundle into the folder of a training."""
    document = document_in(tmp_path)
    output(tmp_path).claim(document)
    write(document, OTHER)
    with pytest.raises(OutputTakenError, match="belongs to run"):
        output(tmp_path).complete(document, lambda: write(document, OURS))


def test_an_output_that_was_completed_during_the_claim_is_refused(tmp_path):
    """The other run's claim goes when its document is there, so a later claim alone would succeed."""
    document = document_in(tmp_path)

    class Late(Document):
        def create(self, identity):
            write(document, OTHER)
            return super().create(identity)

    with pytest.raises(OutputTakenError, match="belongs to run"):
        output(tmp_path, resume=True).claim(Late(document.output, document.name, document.place))


@pytest.mark.parametrize("content", [b"[]", b"{}", b"\xff", b"1", b'{"lineage": []}', b'{"lineage": {"identity": 1}}'])
@pytest.mark.parametrize("name", ["report.json", "_run/claim.json"])
def test_a_file_of_someone_else_is_refused(tmp_path, name, content):
    objects.write_bytes(str(tmp_path / name), content)
    with pytest.raises(OutputTakenError, match=r"belongs to run|genre_ray did not write"):
        output(tmp_path, resume=True).claim(document_in(tmp_path))


@pytest.mark.parametrize("properties", [{}, {"identity": "{"}, {"identity": "1"}])
def test_a_table_of_someone_else_is_refused(tmp_path, properties):
    tables.create_table(str(tmp_path / "data"), SCHEMA, properties)
    with pytest.raises(OutputTakenError, match="a table that genre_ray did not write"):
        output(tmp_path, resume=True).claim(table_in(tmp_path))


@pytest.mark.server
def test_an_output_on_an_object_store(s3):
    uri = f"{s3}/output"
    document = Document(uri, "report.json")
    ours, other = Output(uri, OURS), Output(uri, OTHER, resume=True)
    ours.claim(document)
    with pytest.raises(OutputTakenError, match="belongs to run"):
        other.claim(document)
    assert ours.complete(document, lambda: objects.put_if_absent(document.uri, json.dumps({"identity": OURS}).encode()))
    assert not objects.list_files(scratch(uri))
    with pytest.raises(OutputTakenError, match="belongs to run"):
        other.is_complete(document)
