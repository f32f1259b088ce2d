"""Guards that no archive, however damaged or contrived, raises, loses a good row before its damage, or hides it."""

import bz2
import gzip
import io
import itertools
import os
import random
import tarfile
import time

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from genre_ray.errors import StorageError
from genre_ray.outcomes import Reason, Rejection
from genre_ray.runs.stages import ShardSize
from genre_ray.sources.documents.archives import MAX_EXPANSION, read_archive
from genre_ray.sources.documents.source import DocumentSource

COMPRESSIONS = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tar.zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
NOISE = random.Random(0)
MEMBERS = [(f"song{n}.json", NOISE.randbytes(size)) for n, size in enumerate([700, 512, 0, 40_000, 3, 5_000])]
ABOUT_ARCHIVE = {Reason.ARCHIVE_TRUNCATED, Reason.ARCHIVE_UNREADABLE}


def tar(members, **more):
    stored = io.BytesIO()
    with tarfile.open(fileobj=stored, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            for attribute, value in more.items():
                setattr(info, attribute, value)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stored.getvalue()


def header(name, size=0, type=tarfile.REGTYPE, **more):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, type
    for attribute, value in more.items():
        setattr(info, attribute, value)
    return info.tobuf(tarfile.GNU_FORMAT)


END = bytes(1024)
GOOD = header("good.json", 2) + b"{}".ljust(512, b"\0")


def read(payload, uri="a.tar", **options):
    return list(read_archive(io.BytesIO(payload), uri, **options))


def from_row(first):
    """For `wanted` of `read_archive`, which asks once for each row."""
    rows = itertools.count()
    return lambda size: next(rows) >= first


def reasons(items):
    return [item.payload.reason if isinstance(item.payload, Rejection) else "read" for item in items]


def test_a_tar_cut_anywhere_keeps_whole_members_and_ends_with_one_row():
    content = tar(MEMBERS)
    ends, start = [], 0
    for _, member in MEMBERS:
        ends.append(start + 512 + len(member))
        start += 512 + -(-len(member) // 512) * 512
    for cut in sorted({*range(512, start + 1, 100), *range(512, start + 1, 512), *ends, start}):
        items = read(content[:cut])
        whole = sum(end <= cut for end in ends)
        assert [item.payload for item in items[:-1]] == [member for _, member in MEMBERS[:whole]]
        assert reasons(items[-1:]) == [Reason.ARCHIVE_TRUNCATED]
        assert (items[-1].name, items[-1].uri) == ("a.tar", "a.tar")


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.zst"])
@pytest.mark.parametrize("blocks", [1, 40])
def test_a_compressed_stream_cut_anywhere_ends_with_one_row(suffix, blocks):
    members = [(f"{n}-{name}", content) for n in range(blocks) for name, content in MEMBERS]
    payload = COMPRESSIONS[suffix](tar(members))
    for cut in [*range(2, len(payload), len(payload) // 40), len(payload) - 1]:
        items = read(payload[:cut], f"a{suffix}")
        assert reasons(items[-1:]) == [Reason.ARCHIVE_TRUNCATED]
        assert [item.payload for item in items[:-1]] == [content for _, content in members[: len(items) - 1]]
    # All members are there when only the last byte of the compression is not.
    assert len(items) == len(members) + 1


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_the_end_mark_missing_between_members_is_noticed(suffix):
    # tarfile takes the end of the file for the end of the archive: all later members would be lost in silence.
    items = read(COMPRESSIONS[suffix](GOOD), f"a{suffix}")
    assert reasons(items) == ["read", Reason.ARCHIVE_TRUNCATED]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.zst"])
@pytest.mark.parametrize("payload", [b"", b"x", b"this is no archive\n", b"this is no archive\n" * 1000])
def test_what_is_no_archive_is_one_row(suffix, payload):
    assert reasons(read(payload, f"a{suffix}")) == [Reason.ARCHIVE_UNREADABLE]


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.zst"])
def test_compressed_text_is_no_archive(suffix):
    for text in (b"", b"text", b"text" * 1000):
        assert reasons(read(COMPRESSIONS[suffix](text), f"a{suffix}")) == [Reason.ARCHIVE_UNREADABLE]


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.zst"])
def test_damage_in_the_middle_is_one_last_row(suffix):
    members = [(f"{n}-{name}", content) for n in range(60) for name, content in MEMBERS]
    payload = bytearray(COMPRESSIONS[suffix](tar(members)))
    for place in range(len(payload) // 2, len(payload) // 2 + 64):
        payload[place] ^= 0xFF
    items = read(bytes(payload), f"a{suffix}")
    assert {reason for reason in reasons(items[:-1]) if reason != "read"} <= {Reason.UNSAFE_MEMBER}
    assert reasons(items[-1:])[0] in ABOUT_ARCHIVE


def test_a_damaged_header_is_one_last_row():
    broken = bytearray(header("bad.json"))
    broken[0] ^= 1
    assert reasons(read(GOOD + bytes(broken) + GOOD + END)) == ["read", Reason.ARCHIVE_UNREADABLE]


def test_members_behind_the_end_mark_are_not_passed_over_in_silence():
    assert reasons(read(GOOD + END + GOOD + END)) == ["read", Reason.ARCHIVE_UNREADABLE]
    assert reasons(read(GOOD + END + bytes(100_000))) == ["read"]


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (header("a.json", type=tarfile.SYMTYPE, linkname="/etc/passwd"), Reason.UNSAFE_MEMBER),
        (header("a.json", type=tarfile.LNKTYPE, linkname="good.json"), Reason.UNSAFE_MEMBER),
        (header("a.json", type=tarfile.CHRTYPE), Reason.UNSAFE_MEMBER),
        (header("a.json", type=tarfile.BLKTYPE), Reason.UNSAFE_MEMBER),
        (header("a.json", type=tarfile.FIFOTYPE), Reason.UNSAFE_MEMBER),
        (header("a.json", type=b"Z"), Reason.UNSAFE_MEMBER),
        (header("/a.json"), Reason.UNSAFE_MEMBER),
        (header("../a.json"), Reason.UNSAFE_MEMBER),
        (header("x/../../a.json"), Reason.UNSAFE_MEMBER),
        (header("x\\..\\a.json"), Reason.UNSAFE_MEMBER),
        (header("README"), Reason.NOT_A_DOCUMENT),
        (header("a.json.gz"), Reason.NOT_A_DOCUMENT),
        (header(""), Reason.NOT_A_DOCUMENT),
    ],
)
def test_members_that_are_no_documents_are_rows_of_their_own(member, reason):
    assert reasons(read(GOOD + member + GOOD + END)) == ["read", reason, "read"]


def test_what_is_too_large_is_passed_over():
    payload = header("big.json", 5000) + bytes(5120) + GOOD + END
    items = read(payload, max_document_bytes=4999)
    assert reasons(items) == [Reason.TOO_LARGE, "read"]
    assert items[0].payload.recording_id == "big"
    assert reasons(read(payload, max_document_bytes=5000)) == ["read", "read"]


def test_absurd_sizes_end_the_archive_without_being_believed():
    for size in (2**40, 2**62):
        assert reasons(read(GOOD + header("a.json", size) + GOOD + END)) == ["read", Reason.ARCHIVE_TRUNCATED]


@pytest.mark.parametrize("type", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_absurd_extension_headers_are_not_read_into_memory(type):
    payload = GOOD + header("x", 2**33, type) + GOOD + END
    assert reasons(read(payload)) == ["read", Reason.ARCHIVE_UNREADABLE]


@pytest.mark.parametrize("record", [b"0 a=b\n", b"999999 path=x\n", b"x", b"11 size=-1\n", b"12 size=abc\n"])
def test_malformed_extension_headers(record):
    payload = GOOD + header("x", len(record), tarfile.XHDTYPE) + record.ljust(512, b"\0") + GOOD + END
    items = read(payload)
    # What tarfile makes of them differs between Pythons: passed over, or the end. Nothing goes without a row.
    assert items[0].payload == b"{}"
    assert len(items) >= 2
    assert not ABOUT_ARCHIVE.intersection(reasons(items[:-1]))


def test_a_size_below_zero_does_not_loop_for_ever():
    # CVE-2025-8194: tarfile followed a negative size backwards and read the same header again and again.
    backwards = bytearray(header("a.json"))
    backwards[124:136] = (-1024).to_bytes(12, "big", signed=True)
    backwards[148:156] = b"%06o\0 " % (sum(backwards[:148]) + sum(backwards[156:]) + 8 * 32)
    items = read(GOOD + bytes(backwards) + GOOD + END)
    assert reasons(items) == ["read", Reason.ARCHIVE_UNREADABLE]


def test_a_chain_of_extension_headers_does_not_exhaust_the_stack():
    chain = (header("x", 10, tarfile.XHDTYPE) + b"10 a=bcde\n".ljust(512, b"\0")) * 5000
    assert reasons(read(GOOD + chain + GOOD + END)) == ["read", Reason.ARCHIVE_UNREADABLE]


def pax(content, type=tarfile.XHDTYPE):
    return header("x", len(content), type) + content.ljust(-(-len(content) // 512) * 512, b"\0")


def record(keyword, value):
    """A line of an extension header, which begins with its own length."""
    rest = b" %b=%b\n" % (keyword, value)
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return b"%d%b" % (length, rest)


SPARSE = record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0")
NUMBERS = b"1\n" * 5_000_000


@pytest.mark.parametrize(
    ("what", "content"),
    [
        ("8 million digits", pax(b"1" * 8_000_000)),
        ("a mebibyte of digits", pax(b"1" * (2**20 - 512))),
        ("many runs of digits", pax((b"1" * 999 + b"\n") * 1000)),
        ("digits in a value", pax(record(b"comment", b"1" * 1_000_000))),
        ("digits in the name of a link", pax(b"1" * 1_000_000, tarfile.GNUTYPE_LONGLINK)),
        ("a map of a sparse file", pax(SPARSE) + header("a", len(NUMBERS)) + b"5000000\n" + NUMBERS),
        ("a map in an extension header", pax(record(b"GNU.sparse.map", b",".join([b"1"] * 600_000)))),
        ("many extension headers", pax(record(b"comment", b"x" * 10_000)) * 500),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_headers_that_take_long_to_read_end_the_archive(what, content):
    """24.5 kB of a .tar.zst once kept `tarfile` busy for hours: it searches headers in quadratic time."""
    payload = COMPRESSIONS[".tar.zst"](GOOD + content + GOOD + END)
    start = time.process_time()
    assert reasons(read(payload, "a.tar.zst", max_expansion=1e9)) == ["read", Reason.ARCHIVE_UNREADABLE]
    assert time.process_time() - start < 1


def test_headers_within_the_limits_take_little_time():
    slow = pax((b"1" * 255 + b"\n") * 4000)
    start = time.process_time()
    assert reasons(read(GOOD + slow + GOOD + END)) == ["read", "read"]
    assert time.process_time() - start < 2


def test_keywords_for_all_members_are_few():
    """`tarfile` goes through all of them for each member: a million members times a hundred thousand keywords."""
    few = b"".join(record(b"k%d" % number, b"v") for number in range(100))
    assert reasons(read(pax(few, tarfile.XGLTYPE) + GOOD + END)) == ["read"]
    many = few + record(b"one", b"more")
    assert reasons(read(pax(many, tarfile.XGLTYPE) + GOOD + END)) == [Reason.ARCHIVE_UNREADABLE]


def test_a_failing_store_is_not_taken_for_a_damaged_archive():
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() >= 4096:
                raise OSError("connection reset")
            return super().read(min(size, 4096))

    for suffix, compress in COMPRESSIONS.items():
        with pytest.raises(StorageError, match="connection reset"):
            list(read_archive(Failing(compress(tar(MEMBERS))), f"a{suffix}"))


@settings(deadline=None, max_examples=200)
@given(st.data(), st.sampled_from(sorted(COMPRESSIONS)))
def test_any_damage_gives_the_same_rows_whoever_wants_them(data, suffix):
    """Workers that share an archive must agree on its numbering, or rows would be lost or doubled between them."""
    payload = bytearray(COMPRESSIONS[suffix](tar(MEMBERS)))
    for _ in range(data.draw(st.integers(0, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    payload = bytes(payload[: data.draw(st.integers(0, len(payload)))])
    everything = read(payload, f"a{suffix}")
    assert not ABOUT_ARCHIVE.intersection(reasons(everything[:-1]))
    first = data.draw(st.integers(0, len(everything)))
    assert read(payload, f"a{suffix}", wanted=from_row(first)) == ([None] * first + everything[first:])


def test_an_archive_with_more_members_than_the_limit_ends_there():
    payload = GOOD * 5 + END
    assert reasons(read(payload, max_members=5)) == ["read"] * 5
    assert reasons(read(payload, max_members=4)) == ["read"] * 4 + [Reason.TOO_MANY_MEMBERS]
    # A worker that starts behind the limit finds the same end.
    assert read(payload, max_members=4, wanted=from_row(5)) == [None] * 5


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.zst"])
def test_an_archive_that_expands_without_bound_ends_at_the_limit(suffix, monkeypatch):
    monkeypatch.setattr("genre_ray.sources.documents.content.FREE_BYTES", 2**20)
    bomb = GOOD + header("big.json", 2**24) + bytes(2**24) + GOOD + END
    payload = COMPRESSIONS[suffix](bomb)
    items = read(payload, f"a{suffix}", max_expansion=100)
    # Some of what came before may be within the chunk that went too far.
    assert reasons(items) in ([Reason.EXPANDS_TOO_FAR], ["read", Reason.EXPANDS_TOO_FAR])
    assert items == read(payload, f"a{suffix}", max_expansion=100)
    assert reasons(read(payload, f"a{suffix}", max_expansion=1e6)) == ["read", Reason.TOO_LARGE, "read"]
    # Stored as it is it has nothing to expand.
    assert reasons(read(bomb, max_expansion=100)) == ["read", Reason.TOO_LARGE, "read"]


def test_real_documents_are_far_from_the_limit(sample):
    packed = (sample / "emotify" / "documents.tar.zst").read_bytes()
    items = read(packed, "a.tar.zst", max_expansion=MAX_EXPANSION / 4)
    assert sum(not isinstance(item.payload, Rejection) for item in items) == len(items) == 144


@pytest.mark.parametrize("name", ["song.json", "dump.tar"])
def test_a_pipe_among_the_inputs_is_a_row_and_does_not_block(tmp_path, name):
    os.mkfifo(tmp_path / name)
    source = DocumentSource((str(tmp_path),))
    (item,) = source.make_work_items(source.list_inputs(), 10)
    ((_, (accepted, rejected), _),) = source.read(item, ShardSize(10))
    (row,) = rejected.to_pylist()
    assert accepted.num_rows == 0
    assert row["reason"] == (Reason.UNREADABLE if name == "song.json" else Reason.ARCHIVE_UNREADABLE)
    assert "a file that is not a regular file" in row["detail"]
