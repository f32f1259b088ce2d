"""Guards that compressed streams are read whole or end in an error; for bzip2, Python's own reader is the reference.

`bz2.BZ2File` loses a later stream with a damaged beginning without a word: such a loss is an error here.
"""

import bz2
import gzip
import io
import random

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from genre_ray.sources.documents.compression import CHUNK_BYTES, DAMAGE, decompressed

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
COMPRESSIONS = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.ZstdCompressor().compress}


def outcome(chunks):
    """What came, and the kind of error that ended it."""
    found = []
    try:
        found.extend(chunks)
    except DAMAGE as error:
        return b"".join(found), EOFError if isinstance(error, EOFError) else OSError
    return b"".join(found), None


def found_in(payload, suffix=".bz2"):
    return outcome(decompressed(io.BytesIO(payload), f"a{suffix}"))


def expected(payload):
    with bz2.BZ2File(io.BytesIO(payload)) as file:
        return outcome(iter(lambda: file.read1(2**16), b""))


@pytest.mark.parametrize("name", STREAMS)
def test_sound_bzip2(name):
    assert found_in(STREAMS[name]) == expected(STREAMS[name])
    assert found_in(STREAMS[name])[1] is None


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_chunks_are_bounded_and_never_empty(suffix):
    payload = COMPRESSIONS[suffix](bytes(5 * CHUNK_BYTES)) + COMPRESSIONS[suffix](CONTENT)
    chunks = list(decompressed(io.BytesIO(payload), f"a.TAR{suffix.upper()}"))
    assert b"".join(chunks) == bytes(5 * CHUNK_BYTES) + CONTENT
    assert all(0 < len(chunk) <= CHUNK_BYTES for chunk in chunks)


@pytest.mark.parametrize("suffix", COMPRESSIONS)
@pytest.mark.parametrize("more", [b"x", b"BZ", b"garbage" * 99])
def test_what_follows_the_last_stream_is_damage(suffix, more):
    content, error = found_in(COMPRESSIONS[suffix](CONTENT) + more, suffix)
    assert content == CONTENT
    assert error is not None


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(["one", "several", "with empty ones"]))
def test_damaged_bzip2(data, name):
    payload = bytearray(STREAMS[name])
    kind = data.draw(st.sampled_from(["flip", "cut off", "cut out"]))
    place = data.draw(st.integers(1, len(payload) - 1))
    if kind == "flip":
        payload[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del payload[place : place + data.draw(st.integers(1, 3000)) if kind == "cut out" else len(payload)]
    content, error = found_in(payload)
    reference, reference_error = expected(payload)
    whole = expected(STREAMS[name])[0]
    if error is None:
        # Cut between two streams, or a bit that says nothing, such as the level of smaller blocks.
        assert (content, None) == (reference, reference_error)
    else:
        assert reference_error is not None or len(reference) < len(whole) or reference == whole
        assert whole.startswith(content) or kind != "cut off"
        assert content.startswith(reference) or reference.startswith(content)


@pytest.mark.parametrize("payload", [b"x", b"B", b"BZh", b"BZhx", b"BZh9", b"BZh9" + b"text" * 9, b"BZh9" + b"1AY&S"])
def test_beginnings(payload):
    assert found_in(payload) == expected(payload)


def test_what_is_no_bzip2_is_not_read_to_its_end():
    class Endless(io.BytesIO):
        def read(self, size=-1):
            return b"BZh9" + bytes(size - 4)

    with pytest.raises(OSError, match="Invalid data stream"):
        next(decompressed(Endless(), "a.bz2"))
