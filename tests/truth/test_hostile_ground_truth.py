"""Guards that a ground truth that departs from the format is refused with the line, and never half read."""

import bz2
import random

import pytest

from genre_ray.errors import InputError, StorageError
from genre_ray.truth.ground_truth import read_ground_truth

HEADER = "recordingmbid\treleasegroupmbid\tgenre1\tgenre2\n"
ROW = "A\tg\trock\trock---indie\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "found an empty file"),
        ("\n", 1, "column 1 to be recordingmbid"),
        (ROW, 1, "column 1 to be recordingmbid"),
        ("recordingmbid\treleasegroupmbid\n", 1, "column 3 to be genre1"),
        ("recordingmbid\tgenre1\n", 1, "column 2 to be releasegroupmbid"),
        ("recordingmbid\treleasegroupmbid\tgenre2\n", 1, "column 3 to be genre1"),
        ("recordingmbid\treleasegroupmbid\tgenre1\tgenre3\n", 1, "column 4 to be genre2"),
        ("recordingmbid\treleasegroupmbid\tgenre1\t\n", 1, "column 4 to be genre2"),
        ("\ufeff" + HEADER, 1, "column 1 to be recordingmbid"),
        (HEADER + ROW + "B\tg\tpop\t\t\n", 3, "at most 4 fields, found 5"),
        (HEADER + ROW + "B\tg\t\t\n", 3, "at least one genre, found none"),
        (HEADER + "B\tg\n", 2, "at least one genre, found none"),
        (HEADER + "B\n", 2, "at least one genre, found none"),
        (HEADER + ROW + "\n", 3, "a recording id, found an empty field"),
        (HEADER + "\tg\trock\n", 2, "a recording id, found an empty field"),
        (HEADER + "  \tg\trock\n", 2, "a recording id, found an empty field"),
        (HEADER + ROW + "B\tg\tpop\n" + ROW, 4, "A, which is also in line 2"),
        (HEADER + "A\tg\trock\trock\n", 2, "each label once, found 'rock' twice"),
        (HEADER + "A\tg\t\trock\n", 2, "found '', which has an empty name"),
        (HEADER + "A\tg\trock------indie\n", 2, "empty name"),
        (HEADER + "A\tg\t---rock\n", 2, "empty name"),
        (HEADER + "A\tg\trock---\n", 2, "empty name"),
        (HEADER + "A\tg\t---\n", 2, "empty name"),
        (HEADER + "A\tg\trock----indie\n", 2, "starts with a dash"),
        (HEADER + "A\tg\ta---b---c\n", 2, "more than two levels"),
        (HEADER + "A\tg\t rock\n", 2, "space"),
        (HEADER + "A\tg\trock --- indie\n", 2, "space"),
        (HEADER + "A\tg\tro\x00ck\n", 2, "control characters"),
    ],
)
def test_a_departure_is_refused_with_its_line(tmp_path, text, line, message):
    path = tmp_path / "t.tsv"
    path.write_bytes(text.encode())
    with pytest.raises(InputError) as caught:
        read_ground_truth(str(path))
    assert str(caught.value).startswith(f"{path}, line {line}: expected ")
    assert message in str(caught.value)


def test_an_id_in_other_letters_is_the_same_recording(tmp_path):
    mbid = "54551aad-4fca-4ba4-9ce2-f6b2d9b5fceb"
    path = tmp_path / "t.tsv"
    path.write_text(f"{HEADER}{mbid}\tg\trock\n{mbid.upper()}\tg\tpop\n")
    with pytest.raises(InputError, match="line 3: expected each recording once"):
        read_ground_truth(str(path))


def test_a_header_alone_is_refused(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text(HEADER)
    with pytest.raises(InputError, match="contains only a header"):
        read_ground_truth(str(path))


def test_other_encodings_are_refused(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_bytes((HEADER + ROW + "B\tg\tmúsica\n").encode("latin-1"))
    with pytest.raises(InputError, match=r"line 3: expected UTF-8, found byte 0xfa at 5"):
        read_ground_truth(str(path))


@pytest.mark.parametrize("kept", [0.99, 0.5, 0.0])
def test_a_truncated_bz2_is_refused(tmp_path, kept):
    noise = random.Random(0)
    text = HEADER + "".join(f"{n}\t{noise.random()}\trock\n" for n in range(100_000))
    payload = bz2.compress(text.encode())
    path = tmp_path / "t.tsv.bz2"
    path.write_bytes(payload[: int(len(payload) * kept)])
    with pytest.raises(InputError, match="a whole bzip2 file, found that it ends early"):
        read_ground_truth(str(path))


def test_what_is_no_bz2_is_refused(tmp_path):
    path = tmp_path / "t.tsv.bz2"
    path.write_text(HEADER + ROW)
    with pytest.raises(InputError, match="expected a readable file, found Invalid data stream"):
        read_ground_truth(str(path))


def test_a_file_that_is_not_there_is_a_matter_of_storage(tmp_path):
    with pytest.raises(StorageError):
        read_ground_truth(str(tmp_path / "none.tsv"))
