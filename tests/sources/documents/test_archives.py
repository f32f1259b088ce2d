"""Guards that archives of every kind give their members in order, byte for byte, to each worker what it wants."""

import bz2
import gzip
import io
import itertools
import os
import tarfile

import numpy as np
import pytest
import zstandard

from genre_ray.errors import InputError, NotFoundError
from genre_ray.outcomes import Reason
from genre_ray.sources.documents.archives import is_archive, read_archive
from genre_ray.sources.documents.files import read_file
from genre_ray.sources.documents.raw import RawDocument, is_document
from genre_ray.storage import objects
from genre_ray.storage.files import StoredFile

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


def from_row(first):
    """For `wanted` of `read_archive`, which asks once for each row."""
    rows = itertools.count()
    return lambda size: next(rows) >= first


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
    assert [item.name for item in read(stored.getvalue(), wanted=from_row(0))] == ["d/e/a.json"]


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_unwanted_members_keep_their_place(suffix):
    payload = COMPRESSIONS[suffix](tar(MEMBERS))
    everything = read(payload, f"a{suffix}")
    for first in range(len(MEMBERS) + 1):
        part = read(payload, f"a{suffix}", wanted=from_row(first))
        assert part == [None] * first + everything[first:]


def test_an_empty_archive_has_no_members():
    assert read(tar([])) == []


def test_archives_and_documents_are_known_by_suffix():
    assert all(is_archive(f"x/A{suffix}") and is_archive(f"a{suffix.upper()}") for suffix in COMPRESSIONS)
    assert not any(map(is_archive, ["a.zst", "a.json", "tar", "a.tar.xz", "a.json.gz"]))
    assert is_document("x/a.json")
    assert is_document("A.JSON")
    assert not is_document("a.json.gz")


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_each_row_is_asked_for_once_with_the_bytes_that_it_counts_for(suffix):
    payload = COMPRESSIONS[suffix](tar([*MEMBERS, ("picture.png", b"not a document")]))
    sizes = [0, 1, 511, 512, 513, 70_000, 0]
    for is_wanted in (True, False):
        asked = []
        rows = read(
            payload, f"a{suffix}", wanted=lambda size, asked=asked, answer=is_wanted: asked.append(size) or answer
        )
        assert (asked, len(rows)) == (sizes, len(sizes))
    asked = []
    read(payload, f"a{suffix}", max_document_bytes=512, wanted=lambda size, asked=asked: asked.append(size))
    assert asked == [0, 1, 511, 512, 0, 0, 0]


def test_the_row_about_an_archive_is_asked_for_once():
    for content, sizes in ((tar(MEMBERS)[:2000], [0, 1]), (tar(MEMBERS)[: 3 * 1024 + 700], [0, 1, 511, 512])):
        asked = []
        assert len(read(content, wanted=lambda size, asked=asked: asked.append(size) or True)) == len(asked)
        assert asked[: len(sizes)] == sizes


def stored(path):
    (file,) = objects.list_files(str(path))
    return file


def test_single_files(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"12345")
    assert read_file(stored(path), 5) == RawDocument("a.json", str(path), b"12345")
    assert read_file(stored(path), 4).payload.reason is Reason.TOO_LARGE


def test_a_single_file_that_is_too_large_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(objects, "open_stream", None)
    read = read_file(StoredFile(f"{tmp_path}/song.json", "song.json", 6, "1"), 5)
    assert (read.payload.reason, read.payload.recording_id) == (Reason.TOO_LARGE, "song")


def test_a_planned_file_that_is_gone_is_an_error(tmp_path):
    """It once became a rejected row: an input folder that was not mounted was rejected, file by file."""
    path = tmp_path / "song.json"
    path.write_bytes(b"{}")
    file = stored(path)
    path.unlink()
    with pytest.raises(NotFoundError, match=r"song.json: this input existed .* --resume"):
        read_file(file)


def test_files_that_were_unreadable_when_planned_are_rejected(tmp_path, monkeypatch):
    link = tmp_path / "song.json"
    link.symlink_to(tmp_path / "nowhere")
    (file,) = objects.list_files(str(tmp_path))
    read = read_file(file)
    assert (read.payload.reason, read.payload.recording_id) == (Reason.UNREADABLE, "song")
    link.unlink()
    link.write_bytes(b"{}")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    refused = read_file(objects.list_files(str(tmp_path))[0])
    assert (refused.payload.reason, "Permission denied" in refused.payload.detail) == (Reason.UNREADABLE, True)


@pytest.mark.parametrize("change", ["longer", "as long", "while it is read", "no file any more"])
def test_a_planned_file_that_changed_is_an_error(tmp_path, monkeypatch, change):
    path = tmp_path / "song.json"
    path.write_bytes(b"{}")
    file = stored(path)
    if change == "while it is read":
        require = objects.require_unchanged
        monkeypatch.setattr(objects, "require_unchanged", lambda file: path.write_bytes(b"[]") and require(file))
    elif change == "no file any more":
        path.unlink()
        os.mkfifo(path)
    else:
        path.write_bytes(b"{ }" if change == "longer" else b"[]")
    with pytest.raises(InputError, match=r"song.json changed since the run was planned.*new run with another --output"):
        read_file(file)


LONG = "x" * 300


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (f"{'x' * 256}.json", None),
        (f"{LONG}.json", Reason.ID_TOO_LONG),
        ("\x01" * 100 + ".json", Reason.ID_TOO_LONG),
        ("d/" * 100 + "a.json", None),
        ("d/" * 3000 + "a.json", Reason.ID_TOO_LONG),
        (f"../{LONG}.json", Reason.UNSAFE_MEMBER),
        (LONG * 1000, Reason.NOT_A_DOCUMENT),
        (f"{LONG * 1000}.json", Reason.ID_TOO_LONG),
    ],
)
def test_names_and_ids_are_bounded(name, reason):
    """150 documents with names of megabytes once held 1.5 GiB."""
    (row,) = read(tar([(name, b"{}")]))
    if reason is None:
        assert row.payload == b"{}"
    else:
        assert (row.payload.reason, row.payload.recording_id) == (reason, None)
    assert len(row.name) <= 4096
    assert len(row.uri) <= 2 * 4096


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_archives_on_an_object_store_come_as_they_are_stored(s3, suffix):
    uri = f"{s3}/catalog{suffix}"
    objects.write_bytes(uri, COMPRESSIONS[suffix](tar(MEMBERS)))
    with objects.open_stream(uri) as stream:
        assert [(item.name, item.payload) for item in read_archive(stream, uri)] == MEMBERS
