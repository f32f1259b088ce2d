"""Guards that compressed streams are read whole, in bounded chunks, and that damage comes after what was readable."""

import bz2
import gzip
import io
import random

import pytest
import zstandard

from genre_ray.sources.documents.compression import CHUNK_BYTES, DAMAGE, decompressed, threads

NOISE = random.Random(0)
# Repetitions expand to several chunks out of few bytes; noise does not compress.
CONTENT = NOISE.randbytes(100_000) + bytes(3 * CHUNK_BYTES) + NOISE.randbytes(100_000)
COMPRESS = {
    ".tar": bytes,
    ".tar.gz": lambda content: gzip.compress(content, 1),
    ".tgz": lambda content: gzip.compress(content, 1),
    ".tar.bz2": lambda content: bz2.compress(content, 1),
    ".tar.zst": zstandard.ZstdCompressor(level=1, write_checksum=True).compress,
}
COMPRESSED = [suffix for suffix in COMPRESS if suffix != ".tar"]


def read(payload, name):
    """The chunks that came, and whether damage ended them."""
    chunks = []
    try:
        chunks.extend(decompressed(io.BytesIO(payload), name))
    except DAMAGE as error:
        return chunks, error
    return chunks, None


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("streams", [1, 3])
def test_content_comes_whole_in_bounded_chunks(suffix, streams):
    step = -(-len(CONTENT) // streams)
    parts = [CONTENT[at : at + step] for at in range(0, len(CONTENT), step)]
    chunks, error = read(b"".join(map(COMPRESS[suffix], parts)), f"A{suffix.upper()}")
    assert error is None
    assert b"".join(chunks) == CONTENT
    assert min(map(len, chunks)) > 0
    assert max(map(len, chunks)) <= CHUNK_BYTES


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_an_early_end_comes_after_what_was_readable(suffix):
    payload = COMPRESS[suffix](CONTENT) + COMPRESS[suffix](CONTENT)
    chunks, error = read(payload[:-50_000], f"a{suffix}")
    assert isinstance(error, EOFError)
    found = b"".join(chunks)
    assert (CONTENT + CONTENT).startswith(found)
    assert len(found) >= len(CONTENT)


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_another_format_is_damage(suffix):
    chunks, error = read(b"this is no archive\n" * 100, f"a{suffix}")
    assert chunks == []
    assert isinstance(error, DAMAGE)
    assert not isinstance(error, EOFError)


def test_an_empty_file_is_no_content():
    assert read(b"", "a.tar") == ([], None)


@pytest.mark.parametrize(("stated", "found"), [("3", 3), ("0", 1), ("", 1), ("many", 1), (None, 1)])
def test_threads_are_those_that_the_worker_has(monkeypatch, stated, found):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if stated is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", stated)
    assert threads() == found
