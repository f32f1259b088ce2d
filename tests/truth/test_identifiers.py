"""Guards that own ids, ISRCs and merged ids lead to one recording, and that tables which do not are refused."""

import itertools

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genre_ray.errors import InputError
from genre_ray.truth.ground_truth import GroundTruth
from genre_ray.truth.identifiers import Identifiers, read_identifiers

OLD = "AAAAAAAA-0000-4000-8000-000000000001"
NEW = "aaaaaaaa-0000-4000-8000-000000000002"


@pytest.fixture
def write(tmp_path):
    def write_(text, name="t.tsv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write_


def test_names_lead_over_redirects_to_recordings(write):
    own = write(f"title\town_id\tisrc\trecording_id\nOne\ts-1\tUS-RC1-76-07839\t{OLD}\nTwo\ts-2\t\tr2\n\n")
    moved = write(f"old_id,new_id\n{OLD},mid\nmid,{NEW}\n", "r.csv")
    found = read_identifiers(own, moved)
    for name in ("s-1", "USRC17607839", "us-rc1-76-07839", OLD.lower(), "mid", NEW):
        assert found.resolve(name) == NEW
    assert found.resolve("s-2") == "r2"
    assert found.resolve("unheard of") == "unheard of"
    assert found.column(pa.array(["s-2", "x"])).to_pylist() == ["r2", "x"]
    assert read_identifiers(own).resolve("s-1") == OLD.lower()
    assert read_identifiers(redirects=moved).resolve("s-1") == "s-1"


def test_parquet_is_read_as_text_is(tmp_path):
    pq.write_table(pa.table({"own_id": [1, 2, None], "recording_id": ["a", "b", "c"]}), tmp_path / "own.parquet")
    found = read_identifiers(str(tmp_path / "own.parquet"))
    assert [found.resolve(name) for name in "123"] == ["a", "b", "3"]


def test_a_ground_truth_by_recordings():
    found = Identifiers({"s1": "r1", "s2": "r1", "old": "r3"})
    stated = GroundTruth("t", ["s1", "r2", "s2", "old"], ["", "g", "h", "i"], [("a",), ("b",), ("c",), ("d",)])
    expected = GroundTruth("t", ["r1", "r2", "r3"], ["h", "g", "i"], [("a", "c"), ("b",), ("d",)])
    assert found.truth(stated) == expected
    assert Identifiers().truth(stated) == stated


chains = st.lists(st.text("abcdefgh", min_size=1, max_size=3), min_size=2, max_size=12, unique=True)


@given(chains)
def test_every_link_of_a_chain_leads_to_its_end(tmp_path_factory, chain):
    path = tmp_path_factory.mktemp("chain") / "r.tsv"
    links = list(itertools.pairwise(chain))
    path.write_text("old_id\tnew_id\n" + "".join(f"{old}\t{new}\n" for old, new in reversed(links)))
    found = read_identifiers(redirects=str(path))
    assert {found.resolve(name) for name in chain} == {chain[-1]}
    path.write_text(path.read_text() + f"{chain[-1]}\t{chain[0]}\n")
    with pytest.raises(InputError, match=r"redirects form a cycle: .+ → .+; remove one"):
        read_identifiers(redirects=str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("own_id\trecording_id\na\tr1\nb\tr1\na\tr2\n", r"line 4: expected one .*, found r1 \(line 2\) and r2 for a"),
        ("own_id\trecording_id\na\t\n", "line 2: expected a recording_id, found an empty field"),
        ("own_id\trecording_id\na\n", "line 2: expected 2 fields, found 1"),
        ("isrc\trecording_id\nUS123\tr\n", "line 2: expected an ISRC such as .*, found 'US123'"),
        (
            "own_id\trecording\na\tr\n",
            "line 1: expected the columns recording_id and own_id or isrc, found own_id, rec",
        ),
        ("recording_id\nr\n", "line 1: expected the columns"),
        ("own_id\trecording_id\n", "the table has no rows with own_id or isrc and recording_id"),
        ("", "line 1: expected the columns recording_id and own_id or isrc, found none"),
        ('own_id\trecording_id\n"a\tr\n', "line [23]: expected well-formed fields"),
    ],
)
def test_a_wrong_table_is_refused(write, text, message):
    with pytest.raises(InputError, match=message):
        read_identifiers(write(text))


def test_files_that_are_no_tables_are_refused(tmp_path):
    for name, message in (("t.tsv", "as UTF-8 text"), ("t.parquet", "as Parquet")):
        (tmp_path / name).write_bytes(b"own_id\trecording_id\n\xff\xfe")
        with pytest.raises(InputError, match=message):
            read_identifiers(str(tmp_path / name))
