"""Guards that tab-separated files are read line by line, and refused with the file and the line."""

import bz2

import pytest

from genre_ray.errors import InputError, StorageError
from genre_ray.truth.lines import read_rows

TEXT = "a\tb\tc\nd\t\té\r\n\nlast"
ROWS = [(1, ["a", "b", "c"]), (2, ["d", "", "é"]), (3, [""]), (4, ["last"])]


@pytest.mark.parametrize("name", ["t.tsv", "t.tsv.bz2", "T.TSV.BZ2"])
def test_fields_and_line_numbers(tmp_path, name):
    content = TEXT.encode()
    (tmp_path / name).write_bytes(bz2.compress(content) if name.lower().endswith("bz2") else content)
    assert list(read_rows(str(tmp_path / name))) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.tsv", b"a\nb\xffc\n", r"t\.tsv, line 2: expected UTF-8, found byte 0xff at 1; convert"),
        ("t.bz2", bz2.compress(TEXT.encode())[:-5], r"expected a whole bzip2 file, found that it ends early"),
        ("t.bz2", TEXT.encode(), r"t\.bz2, line 0: expected a readable file, found"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(read_rows(str(tmp_path / name)))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(StorageError, match="nowhere"):
        list(read_rows(str(tmp_path / "nowhere")))
