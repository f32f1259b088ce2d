"""Guards that documents are read into the same shards by every attempt, and that no input is lost without an error."""

import gzip
import io
import os
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genre_ray.errors import InputError, NotFoundError
from genre_ray.outcomes import REJECTED_ROW, Reason, Rejection
from genre_ray.runs.stages import ShardSize
from genre_ray.sources.documents import source as documents
from genre_ray.sources.documents.source import DocumentSource
from genre_ray.sources.documents.table import DOCUMENTS
from genre_ray.storage import objects

CRASHED = Rejection(Reason.CRASHED, "exit code 3, twice")
# A directory and rows that are refused unread (0 bytes) among documents of many sizes.
CONTENTS = [(f"s{n}.json", b"x" * (37 * n % 11)) for n in range(20)]
CONTENTS[3:3] = [("cover.png", b"no document"), ("large.json", b"y" * 50)]


def tar(members):
    stored = io.BytesIO()
    with tarfile.open(fileobj=stored, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stored.getvalue()


def source_of(folder, **options):
    """The source of what is below a folder, and its only work item."""
    source = DocumentSource((str(folder),), **options)
    (item,) = source.make_work_items(sorted(source.list_inputs(), key=lambda file: file.uri), 1000)
    return source, item


def write_files(folder):
    for name, content in CONTENTS:
        objects.write_bytes(objects.join(str(folder), name), content)
    return folder


def write_archive(folder, members=CONTENTS, name="dump.tar"):
    content = tar(members)
    objects.write_bytes(objects.join(str(folder), name), gzip.compress(content) if name.endswith("gz") else content)
    return folder


@pytest.fixture(params=["files", "archive"], scope="module")
def catalog(request, tmp_path_factory):
    write = write_files if request.param == "files" else write_archive
    return write(tmp_path_factory.mktemp("catalog"))


def rows_of(chunks):
    """(shard, address, content or reason) of every row; accepted rows of a chunk come first."""
    return [
        (shard, row["source_uri"], row.get("payload", row.get("reason")))
        for shard, outcome, _ in chunks
        for rows in outcome
        for row in rows.to_pylist()
    ]


def test_documents_become_rows_with_their_names_and_ids(tmp_path):
    write_archive(tmp_path, [("low/54551AAD-4FCA-4BA4-9CE2-F6B2D9B5FCEB-2.json", b"{}"), ("a.json", b"")], "dump.tgz")
    source, item = source_of(tmp_path)
    ((shard, (accepted, rejected), _),) = source.read(item, ShardSize(10))
    assert accepted.schema.equals(DOCUMENTS)
    assert source.schema.equals(DOCUMENTS)
    assert rejected.schema.equals(REJECTED_ROW)
    assert (shard, rejected.num_rows) == (0, 0)
    name = "low/54551AAD-4FCA-4BA4-9CE2-F6B2D9B5FCEB-2.json"
    assert accepted.to_pylist() == [
        {
            "name": name,
            "source_uri": f"{tmp_path}/dump.tgz#{name}",
            "recording_id": "54551aad-4fca-4ba4-9ce2-f6b2d9b5fceb",
            "payload": b"{}",
        },
        {"name": "a.json", "source_uri": f"{tmp_path}/dump.tgz#a.json", "recording_id": "a", "payload": b""},
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 30),
    shard_bytes=st.integers(1, 60),
    first=st.integers(0, 25),
    limit=st.none() | st.integers(1, 30),
    singly=st.booleans(),
)
def test_shards_are_the_same_wherever_a_read_begins(catalog, rows, shard_bytes, first, limit, singly):
    source, item = source_of(catalog, max_document_bytes=40, limit=limit)
    size = ShardSize(rows, shard_bytes)
    everything = rows_of(source.read(item, size, singly=True))
    count = len(CONTENTS) if item.kind == "archive" else len(item.files)
    assert len(everything) == min(count, limit or count)
    shards = [shard for shard, _, _ in everything]
    assert shards == sorted(shards)
    assert {*shards} == {*range(shards[-1] + 1)}
    for shard in {*shards}:
        lengths = [len(content) for at, _, content in everything if at == shard and isinstance(content, bytes)]
        assert shards.count(shard) <= rows
        assert sum(lengths) <= shard_bytes or len([length for length in lengths if length]) == 1
    if first > shards[-1]:
        with pytest.raises(InputError, match=rf"this input ends before shard {first}, but it was longer"):
            list(source.read(item, size, first, singly=singly))
        return
    chunks = list(source.read(item, size, first, singly=singly))
    assert sorted(rows_of(chunks)) == sorted(row for row in everything if row[0] >= first)
    assert [chunk.shard for chunk in chunks] == sorted(chunk.shard for chunk in chunks)
    assert all(outcome.num_rows == 1 if singly else outcome.num_rows for _, outcome, _ in chunks)


def test_chunks_end_by_rows_and_by_bytes(tmp_path, monkeypatch):
    write_archive(tmp_path, [(f"s{n:03d}.json", b"12345") for n in range(150)])
    source, item = source_of(tmp_path)
    counts = [chunk.outcome.num_rows for chunk in source.read(item, ShardSize(100))]
    assert counts == [64, 36, 50]
    monkeypatch.setattr(documents, "CHUNK_BYTES", 50)
    assert [chunk.outcome.num_rows for chunk in source.read(item, ShardSize(100))] == [10] * 15


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(rows=st.integers(1, 8), position=st.integers(0, len(CONTENTS) - 2), from_start=st.booleans())
def test_a_row_that_ended_the_process_is_rejected_unread(catalog, rows, position, from_start):
    source, item = source_of(catalog, max_document_bytes=40)
    size = ShardSize(rows, 45)
    everything = rows_of(source.read(item, size, singly=True))
    first = 0 if from_start else everything[position][0]
    found = rows_of(source.read(item, size, first, {position: CRASHED}, singly=True))
    wanted = [row for row in everything if row[0] >= first]
    at = len(everything) - len(wanted)
    if item.kind == "archive":
        # What follows in an archive cannot be reached without it.
        assert found[:-1] == everything[at:position]
        assert found[-1][1:] == (item.files[0].uri, Reason.CRASHED)
        assert found[-1][0] >= first
    else:
        wanted[position - at] = (wanted[position - at][0], item.files[position].uri, str(Reason.CRASHED))
        assert found == wanted


def test_a_failed_row_of_an_archive_belongs_to_the_shard_that_is_left(tmp_path):
    """With it counted as empty, it would fit into a shard that is complete, and the item end before the wanted one."""
    write_archive(tmp_path, [("a.json", b"12345"), ("b.json", b"12345")])
    source, item = source_of(tmp_path)
    (chunk,) = source.read(item, ShardSize(10, 6), 1, {1: CRASHED})
    assert (chunk.shard, chunk.outcome.rejected["reason"].to_pylist()) == (1, [Reason.CRASHED])


def test_reading_singly_reads_nothing_before_it_is_asked_for(tmp_path, monkeypatch):
    write_files(tmp_path)
    source, item = source_of(tmp_path)
    read, opened = documents.read_file, []
    monkeypatch.setattr(documents, "read_file", lambda file, limit: opened.append(file) or read(file, limit))
    for count, _ in enumerate(source.read(item, ShardSize(7), singly=True), 1):
        assert len(opened) == count


def test_rows_that_are_passed_over_are_not_read(tmp_path, monkeypatch):
    write_files(tmp_path)
    source, item = source_of(tmp_path)
    read, opened = documents.read_file, []
    monkeypatch.setattr(documents, "read_file", lambda file, limit: opened.append(file) or read(file, limit))
    assert len(rows_of(source.read(item, ShardSize(5), 3))) == len(opened) == len(item.files) - 15


@pytest.mark.parametrize("first_shard", [0, 2])
@pytest.mark.parametrize("write", [write_files, write_archive])
def test_an_input_that_is_gone_is_an_error(tmp_path, write, first_shard):
    """An archive that was moved away once counted as read to its end, and a folder that was not mounted as rejected."""
    source, item = source_of(write(tmp_path / "in"))
    os.rename(tmp_path / "in", tmp_path / "moved")
    with pytest.raises(NotFoundError, match="existed when the run was planned and does not exist now"):
        list(source.read(item, ShardSize(5), first_shard))
    os.rename(tmp_path / "moved", tmp_path / "in")
    assert list(source.read(item, ShardSize(5), first_shard))


def test_an_object_that_is_gone_is_an_error(s3):
    for write, folder in ((write_files, f"{s3}/files"), (write_archive, f"{s3}/archive")):
        source, item = source_of(write(folder))
        objects.delete_files([item.files[0].uri])
        with pytest.raises(NotFoundError, match="existed when the run was planned and does not exist now"):
            list(source.read(item, ShardSize(5)))


@pytest.fixture(params=["local", "s3"])
def root(request, tmp_path):
    return request.getfixturevalue("s3") if request.param == "s3" else str(tmp_path / "root")


@pytest.mark.parametrize("write", [write_files, write_archive])
def test_an_input_that_changed_before_it_is_read_is_an_error(root, write):
    source, item = source_of(write(root))
    reversed_ = tar(CONTENTS[::-1])
    for file in item.files:
        objects.write_bytes(file.uri, reversed_ if write is write_archive else b"z" * file.size)
    with pytest.raises(InputError, match=r"changed since the run was planned.*new run with another --output"):
        list(source.read(item, ShardSize(5)))


@pytest.mark.parametrize("singly", [False, True])
def test_an_archive_that_changes_while_it_is_read_is_an_error(root, singly):
    """Replaced by itself in another order, half of it was once read twice and the other half never."""
    source, item = source_of(write_archive(root))
    chunks = source.read(item, ShardSize(5), singly=singly)
    seen = {next(chunks).shard}
    objects.write_bytes(item.files[0].uri, tar(CONTENTS[::-1]))
    with pytest.raises(InputError, match="changed since the run was planned"):
        seen |= {chunk.shard for chunk in chunks}
    # A shard is complete when rows of the next one come.
    assert seen == {0}


def test_files_of_a_job_package_have_the_version_of_the_package(tmp_path):
    """Ray unpacks a job's files on every node, each time with other modification times."""
    package = tmp_path / "runtime_resources" / "_ray_pkg_0f3ac1" / "documents"
    source, item = source_of(write_files(package))
    assert {file.version for file in item.files} == {"_ray_pkg_0f3ac1"}
    for file in item.files:
        os.utime(file.uri, ns=(1, 1))
    assert len(rows_of(source.read(item, ShardSize(5)))) == len(item.files)
