"""Guards that archives of every kind give their members in order, byte for byte, to each worker what it wants."""

import bz2
import gzip
import io
import tarfile

import numpy as np
import pytest
import zstandard

from genre_ray.catalog.archives import RawDocument, is_archive, is_document, read_archive, read_file
from genre_ray.outcomes import Reason
from genre_ray.storage import objects

COMPRESSIONS = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tgz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tar.zst": zstandard.ZstdCompressor().compress,
}
MEMBERS = [(f"low/{n:02d}/song{n}.json", bytes([n]) * size) for n, size in enumerate([0, 1, 511, 512, 513, 70_000])]


def tar(members, format=tarfile.PAX_FORMAT):
    stored = io.BytesIO()
    with tarfile.open(fileobj=stored, mode="w", format=format) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stored.getvalue()


def read(payload, uri="a.tar", **options):
    class Forwards(io.BytesIO):
        """A stream as object stores give it."""

        def seek(self, *position):
            raise io.UnsupportedOperation("seek")

    return list(read_archive(Forwards(payload), uri, **options))


@pytest.mark.parametrize("suffix", COMPRESSIONS)
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_come_in_order_and_whole(suffix, format):
    items = read(COMPRESSIONS[suffix](tar(MEMBERS, format)), f"s3://b/dump{suffix}")
    assert items == [RawDocument(name, f"s3://b/dump{suffix}#{name}", content) for name, content in MEMBERS]


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.zst"])
def test_several_compressed_streams_in_a_row_are_one_archive(suffix):
    # Zstandard's reader stops at the end of the first frame by default: the rest would vanish without a word.
    content, compress = tar(MEMBERS), COMPRESSIONS[suffix]
    parts = [content[start : start + 10_000] for start in range(0, len(content), 10_000)]
    payload = b"".join(map(compress, [b"", *parts, b""]))
    assert [item.payload for item in read(payload, f"a{suffix}")] == [content for _, content in MEMBERS]


@pytest.mark.parametrize("size", [9, 700, 65_536, 100_000, 10_000_000])
def test_zstandard_in_frames_of_any_size(size):
    members = [(name, np.random.default_rng(size).bytes(20 * len(content))) for name, content in MEMBERS]
    content = tar(members) if size > 9 else tar(MEMBERS)
    frames = [content[start : start + size] for start in range(0, len(content), size)]
    items = read(b"".join(map(COMPRESSIONS[".tar.zst"], frames)), "a.tar.zst")
    assert [(item.name, item.payload) for item in items] == (members if size > 9 else MEMBERS)


def test_frames_that_zstandard_tells_readers_to_skip():
    skipped = b"\x50\x2a\x4d\x18" + (6000).to_bytes(4, "little") + b"x" * 6000
    payload = skipped + COMPRESSIONS[".tar.zst"](tar(MEMBERS)) + skipped
    assert len(read(payload, "a.tar.zst")) == len(MEMBERS)


def test_long_and_foreign_names():
    names = ["d/" * 120 + "a.json", "ü" * 90 + ".json", "line\nbreak.json"]
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        items = read(tar([(name, b"{}") for name in names], format))
        assert [item.name for item in items] == [*names[:2], "line\\nbreak.json"]


def test_names_in_no_known_encoding_become_storable():
    payload = tar([("caf?.json", b"{}")], tarfile.USTAR_FORMAT)
    header = bytearray(payload[:512].replace(b"caf?", b"caf\xe9"))
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * 32)
    (item,) = read(bytes(header) + payload[512:])
    assert item == RawDocument("caf\\udce9.json", "a.tar#caf\\udce9.json", b"{}")


def test_directories_are_not_members():
    stored = io.BytesIO()
    with tarfile.open(fileobj=stored, mode="w") as archive:
        for name in ("d", "d/e"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        archive.addfile(tarfile.TarInfo("d/e/a.json"))
    assert [item.name for item in read(stored.getvalue(), wanted=lambda position: position == 0)] == ["d/e/a.json"]


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_unwanted_members_keep_their_place(suffix):
    payload = COMPRESSIONS[suffix](tar(MEMBERS))
    everything = read(payload, f"a{suffix}")
    for first in range(len(MEMBERS) + 1):
        part = read(payload, f"a{suffix}", wanted=lambda position, first=first: position >= first)
        assert part == [None] * first + everything[first:]


def test_an_empty_archive_has_no_members():
    assert read(tar([])) == []


def test_archives_and_documents_are_known_by_suffix():
    assert all(is_archive(f"x/A{suffix}") and is_archive(f"a{suffix.upper()}") for suffix in COMPRESSIONS)
    assert not any(map(is_archive, ["a.zst", "a.json", "tar", "a.tar.xz", "a.json.gz"]))
    assert is_document("x/a.json")
    assert is_document("A.JSON")
    assert not is_document("a.json.gz")


def test_single_files(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"12345")
    assert read_file(str(path), 5) == RawDocument("a.json", str(path), b"12345")
    assert read_file(str(path), 4).payload.reason is Reason.TOO_LARGE
    gone = read_file(str(tmp_path / "song.json"))
    assert gone.payload.reason is Reason.UNREADABLE
    assert gone.payload.recording_id == "song"
    assert read_file(str(tmp_path)).payload.reason is Reason.UNREADABLE


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_archives_on_an_object_store_come_as_they_are_stored(s3, suffix):
    uri = f"{s3}/catalog{suffix}"
    objects.write_bytes(uri, COMPRESSIONS[suffix](tar(MEMBERS)))
    with objects.open_stream(uri) as stream:
        assert [(item.name, item.payload) for item in read_archive(stream, uri)] == MEMBERS
