"""Guards that FMA's features.csv is rows: each track once, in shards that a later attempt finds again.

The reference is a second reading by the csv module.
"""

import bz2
import csv
from pathlib import Path

import pytest

from genre_ray.errors import InputError, NotFoundError
from genre_ray.outcomes import Reason, Rejection
from genre_ray.runs.inventory import Inventory
from genre_ray.runs.stages import ShardSize
from genre_ray.sources.fma import FmaFeatures

DATA = Path(__file__).parents[1] / "data" / "fma" / "features.csv.bz2"
HEADER = "feature,mfcc,mfcc\nstatistics,mean,mean\nnumber,01,02\ntrack_id,,\n"


@pytest.fixture(scope="module")
def reference():
    with bz2.open(DATA, "rt", encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def items_of(source):
    with Inventory(source.list_inputs()) as files:
        return list(source.cut(files, 100))


def read(source, size, **options):
    """(shard, source URI, whether it was rejected) of each row, in order."""
    (item,) = items_of(source)
    rows = []
    for chunk in source.read(item, size, **options):
        accepted = [(chunk.shard, uri, False) for uri in chunk.outcome.accepted["source_uri"].to_pylist()]
        rows += accepted + [(chunk.shard, uri, True) for uri in chunk.outcome.rejected["source_uri"].to_pylist()]
    return rows


def written(tmp_path, content, name="features.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return FmaFeatures((str(path),))


def test_every_track_is_a_row_with_its_line(reference):
    source = FmaFeatures((str(DATA),))
    (item,) = items_of(source)
    chunks = [chunk.outcome.accepted for chunk in source.read(item, ShardSize(2**62))]
    lines = [line.decode().split(",") for rows in chunks for line in rows["line"].to_pylist()]
    tracks = [track for rows in chunks for track in rows["recording_id"].to_pylist()]
    assert lines == reference[4:]
    assert tracks == [row[0] for row in reference[4:]]
    assert source.columns() == tuple("_".join(names) for names in zip(*reference[:3], strict=True))[1:]


def test_a_folder_has_its_features_and_a_limit_is_kept():
    source = FmaFeatures((str(DATA.parent),), limit=7)
    assert len(read(source, ShardSize(3))) == 7


@pytest.mark.parametrize("size", [ShardSize(300), ShardSize(10**6, 100_000), ShardSize(300, 2**40, 50_000)])
@pytest.mark.parametrize("first_shard", [1, 4])
def test_a_later_attempt_finds_the_same_shards(size, first_shard):
    source = FmaFeatures((str(DATA),))
    whole = read(source, size)
    assert len(whole) == 2000
    assert [shard for shard, _, _ in whole] == sorted(shard for shard, _, _ in whole)
    rest = read(source, size, first_shard=first_shard)
    assert rest == [row for row in whole if row[0] >= first_shard]
    assert read(source, size, first_shard=first_shard, singly=True) == rest


def test_a_row_that_ended_the_process_is_rejected_unread(tmp_path):
    source = written(tmp_path, HEADER + "1,1,2\n2,3,4\n3,5,6")
    failed = {1: Rejection(Reason.CRASHED, "twice")}
    rows = read(source, ShardSize(2), failed=failed)
    uri = source.inputs[0]
    assert sorted(rows) == [(0, f"{uri}#1", False), (0, f"{uri}#2", True), (1, f"{uri}#3", False)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "found an empty file"),
        ("a,b\nc,d\ne,f\n1,2\n", "expected the header rows feature, statistics, number and track_id, found a, c, e, 1"),
        (HEADER.replace("number,01,02", "number,01"), "expected header rows of one length"),
        ("feature\nstatistics\nnumber\ntrack_id\n", "expected header rows of one length"),
        (HEADER + "1" * (2**20 + 1), "expected lines of at most 1048576 bytes"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    source = written(tmp_path, content)
    with pytest.raises(InputError, match=message):
        read(source, ShardSize(10))


def test_a_file_that_is_cut_or_shorter_than_before_is_refused(tmp_path):
    cut = written(tmp_path, DATA.read_bytes()[:100_000], "features.csv.bz2")
    with pytest.raises(InputError, match="expected a whole file"):
        read(cut, ShardSize(10))
    short = written(tmp_path, HEADER + "1,1,2\n")
    with pytest.raises(InputError, match="it ends before shard 3"):
        read(short, ShardSize(1), first_shard=3)


def test_a_file_that_changed_or_is_gone_is_refused(tmp_path):
    source = written(tmp_path, HEADER + "1,1,2\n")
    (item,) = items_of(source)
    Path(source.inputs[0]).write_text(HEADER + "1,1,2\n2,3,4\n")
    with pytest.raises(InputError, match="changed since the run was planned"):
        list(source.read(item, ShardSize(1)))
    Path(source.inputs[0]).unlink()
    with pytest.raises(NotFoundError):
        list(source.read(item, ShardSize(1)))
    with pytest.raises(InputError, match=r"expected FMA's features\.csv"):
        list(source.list_inputs())


def test_files_with_other_columns_are_not_one_table(tmp_path):
    first, second = (written(tmp_path, HEADER), written(tmp_path, HEADER.replace("02", "03"), "features.csv.old"))
    with pytest.raises(InputError, match="expected the columns of"):
        FmaFeatures((*first.inputs, *second.inputs)).columns()
