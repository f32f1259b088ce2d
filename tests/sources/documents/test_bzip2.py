"""Guards bzip2 read block by block: Python's own reader is the reference, on sound streams and on damaged ones."""

import bz2
import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genre_ray.sources.documents import bzip2
from genre_ray.sources.documents.bzip2 import bzip2_blocks

NOISE = random.Random(0)
# Level 1 has blocks of 100 kB: seven of them, of noise, of repetitions and of both.
CONTENT = NOISE.randbytes(150_000) + bytes(400_000) + b"".join(NOISE.randbytes(9) * 9 for _ in range(4_000))
ONE = bz2.compress(CONTENT, 1)
STREAMS = {
    "one": ONE,
    "several": b"".join(bz2.compress(CONTENT[at : at + 130_001], 1) for at in range(0, len(CONTENT), 130_001)),
    "with empty ones": bz2.compress(b"") + ONE + bz2.compress(b"") * 2 + ONE + bz2.compress(b""),
    "empty": bz2.compress(b""),
    "one byte": bz2.compress(b"x"),
    "large blocks": bz2.compress(CONTENT * 3, 9),
}


def outcome(chunks):
    """What came, and the kind of error that ended it."""
    found = []
    try:
        found.extend(chunks)
    except (EOFError, OSError) as error:
        return b"".join(found), EOFError if isinstance(error, EOFError) else OSError
    return b"".join(found), None


def expected(payload):
    with bz2.BZ2File(io.BytesIO(payload)) as file:
        return outcome(iter(lambda: file.read1(2**16), b""))


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("threads", [1, 2, 20])
def test_sound_streams(name, threads):
    payload = STREAMS[name]
    found = outcome(bzip2_blocks(io.BytesIO(payload), threads))
    assert found == expected(payload)
    assert found[1] is None


@pytest.mark.parametrize("read_bytes", [1, 5, 14, 1000])
def test_marks_are_found_wherever_a_read_ends(monkeypatch, read_bytes):
    monkeypatch.setattr(bzip2, "READ_BYTES", read_bytes)
    payload = bz2.compress(CONTENT[150_000:550_000] + b"end", 1) * 3
    assert outcome(bzip2_blocks(io.BytesIO(payload), 1)) == expected(payload)


@settings(max_examples=150)
@given(st.data(), st.sampled_from(["one", "several", "with empty ones"]))
def test_damage_is_found_where_python_finds_it(data, name):
    """Or before: of a block whose checksum is wrong Python gives a part.

    And where Python finds none, if it takes a later stream for what may follow the last and loses it without a word.
    """
    payload = bytearray(STREAMS[name])
    kind = data.draw(st.sampled_from(["flip", "cut off", "cut out", "append"]))
    place = data.draw(st.integers(0, len(payload) - 1))
    if kind == "flip":
        payload[place] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "append":
        payload += data.draw(st.sampled_from([b"garbage" * 9, bytes(700), b"B", b"BZh", b"BZh9", b"BZh91A", ONE[:-3]]))
    else:
        del payload[place : place + data.draw(st.integers(1, 3000)) if kind == "cut out" else len(payload)]
    content, error = outcome(bzip2_blocks(io.BytesIO(payload), 1))
    reference, reference_error = expected(payload)
    whole = expected(STREAMS[name])[0]
    # What is lost with the empty stream at the end cannot be seen in the content.
    in_last = name == "with empty ones" and place >= len(STREAMS[name]) - len(STREAMS["empty"])
    lost = len(reference) < len(whole) or (in_last and reference == whole)
    assert (error is None) == (reference_error is None) or (error is OSError and lost)
    assert reference.startswith(content) or content.startswith(reference)
    # A block at most: one of repetitions holds more than the 100 kB that it is made of.
    assert len(reference) - len(content) <= 400_000
    if error is None:
        assert content == reference
    if kind == "cut off":
        assert error is reference_error is EOFError
    assert outcome(bzip2_blocks(io.BytesIO(payload), 3)) == (content, error)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("mark", [bzip2._BLOCK, bzip2._END])
def test_a_mark_inside_of_a_block_is_none(monkeypatch, mark, count):
    find = bzip2._marks

    def with_false_ones(data, searched):
        found = find(data, searched)
        first, second = found[2:4]
        false = [first[0] + 1000 + number * (second[0] - first[0] - 2000) // count for number in range(count)]
        return sorted([*found, *((place, mark) for place in false)])

    monkeypatch.setattr(bzip2, "_marks", with_false_ones)
    assert outcome(bzip2_blocks(io.BytesIO(ONE), 2)) == (CONTENT, None)


@pytest.mark.parametrize(
    "payload", [b"", b"x", b"B", b"BZh", b"BZhx", b"BZh9", b"BZh9" + b"text" * 9, b"BZh9" + b"1AY&S"]
)
def test_beginnings(payload):
    assert outcome(bzip2_blocks(io.BytesIO(payload), 2)) == expected(payload)


def test_what_has_no_marks_is_not_read_to_its_end():
    class Endless(io.BytesIO):
        def read(self, size=-1):
            return b"BZh9" + bytes(size - 4)

    with pytest.raises(OSError, match="found none"):
        next(bzip2_blocks(Endless(), 2))
