"""Guards the mapping table that people edit: what is written is read again, and each fault is refused with its line."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genre_ray.errors import InputError
from genre_ray.outcomes import printable
from genre_ray.truth.mapping_table import MappingRow, format_mapping, read_mapping

HEADER = "from_taxonomy\tfrom_label\tto_taxonomy\tto_label\tweight\n"

names = st.text(min_size=1, max_size=5).filter(lambda text: text == text.strip() and printable(text) == text)


def read(path, text):
    path.write_text(text, encoding="utf-8", newline="")
    return read_mapping(str(path)).weights


@given(st.dictionaries(st.tuples(names, names), st.floats(0.001, 1).map(lambda x: float(f"{x:.6g}")), min_size=1))
def test_what_is_written_is_read_again(tmp_path_factory, weights):
    rows = [
        MappingRow("a", ours, "b", theirs, "same", weight, 0.0, 1.0, 1, 1, 1, 1.0, "learnt")
        for (ours, theirs), weight in weights.items()
    ]
    path = tmp_path_factory.mktemp("mapping") / "mapping.tsv"
    path.write_bytes(format_mapping(rows))
    table = read_mapping(str(path))
    assert table.weights == {("a", "b"): weights}
    assert table.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert table.uri == str(path)


def test_people_may_leave_columns_out_reorder_quote_and_remark(tmp_path):
    text = (
        "\ufeff# corrected by hand\n\nweight\tto_label\tto_taxonomy\tfrom_label\tfrom_taxonomy\tby\r\n"
        '0.5\t"Folk, World, & Country"\tdiscogs\tfolk\tlastfm\tcorrected\r\n'
        "# none\n0\tRock\tdiscogs\tfolk\tlastfm\tlearnt"
    )
    assert read(tmp_path / "m.tsv", text) == {("lastfm", "discogs"): {("folk", "Folk, World, & Country"): 0.5}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the table has no row with a weight above 0"),
        (HEADER, "no row with a weight"),
        (HEADER + "a\trock\tb\tRock\t0\n", "no row with a weight"),
        ("from_taxonomy\tfrom_label\tto_taxonomy\tto_label\n", "line 1: expected the columns .*, found no weight"),
        ("from\t" + HEADER, "line 1: expected columns of .*, found 'from'"),
        ("weight\t" + HEADER, "line 1: expected each column once, found weight twice"),
        (HEADER + "a\trock\tb\tRock\n", "line 2: expected 5 fields, found 4"),
        (HEADER + "a\trock\tb\tRock\t0,5\n", "line 2: expected a weight from 0 to 1, found '0,5'"),
        (HEADER + "a\trock\tb\tRock\t1.01\n", "line 2: expected a weight from 0 to 1"),
        (HEADER + "a\trock\tb\tRock\tnan\n", "line 2: expected a weight from 0 to 1"),
        (HEADER + "a\trock\tb\tRock\t-0.1\n", "line 2: expected a weight from 0 to 1"),
        (HEADER + "#\na\trock\tb\t\t1\n", "line 3: expected a name as to_label, found ''"),
        (HEADER + "a\t rock\tb\tRock\t1\n", "line 2: expected a name as from_label, found ' rock'"),
        (HEADER + "a\trock\ta\tRock\t1\n", "line 2: expected two taxonomies, found 'a' twice"),
        (HEADER + "a\tx\tb\ty\t1\na\tx\tb\ty\t0.5\n", "line 3: expected each pair of labels once, .* also in line 2"),
        (HEADER + 'a\t"x\tb\ty\t1\n', "line 2: expected fields between tabs"),
        (HEADER[:-1] + "\tby\na\tx\tb\ty\t1\tguess\n", "line 2: expected by to be one of learnt, name, corrected"),
        (HEADER[:-1] + "\trelation\na\tx\tb\ty\t1\tlike\n", "line 2: expected relation to be one of same"),
    ],
)
def test_a_wrong_table_is_refused_with_the_line(tmp_path, text, message):
    with pytest.raises(InputError, match=r"m\.tsv.*" + message):
        read(tmp_path / "m.tsv", text)


def test_a_table_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "m.tsv"
    path.write_bytes(HEADER.encode() + b"a\trock\tb\t\xff\t1\n")
    with pytest.raises(InputError, match="line 2: expected UTF-8"):
        read_mapping(str(path))
