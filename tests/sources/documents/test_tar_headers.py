"""Guards that a header read in the short way is the header that `tarfile` reads."""

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genre_ray.sources.documents import tar_headers
from genre_ray.sources.documents.tar_headers import members

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
READ = ("name", "size", "type")
# Name, mode, size, checksum, type, magic, device, prefix.
FIELDS = (0, 100, 124, 148, 156, 257, 329, 345)
ODD = [
    b"",
    b"\0",
    b" ",
    b"7",
    b"8",
    b"-1",
    b"0o7",
    b"1_0",
    b"\x80\0\0\x01",
    b"\xff",
    b"/",
    b"a/",
    *(b"%c" % kind for kind in b"5xgS"),
]


def header(name="a/b.json", size=5, format=tarfile.USTAR_FORMAT, **values):
    info = tarfile.TarInfo(name)
    info.size = size
    for key, value in values.items():
        setattr(info, key, value)
    return info.tobuf(format, "utf-8", "surrogateescape")[-512:]


def signed(block):
    """The block with the checksum that is right for it."""
    bare = block[:148] + 8 * b" " + block[156:]
    return bare[:148] + b"%06o\0 " % sum(bare) + bare[156:]


def outcome(read, block):
    """What a header is, or why it is none."""
    try:
        found = read(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        return type(error), str(error)
    return tuple(getattr(found, field) for field in READ)


def agree(block):
    plain = tarfile.TarInfo.frombuf
    return outcome(tar_headers._Header.frombuf, block) == outcome(plain, block)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["a", "x" * 100, "low/54/54551aad.json", "y" * 60 + "/" + "z" * 90, "é.json", "d/"])
@pytest.mark.parametrize("values", [{}, {"mtime": 1.7e9, "uid": 2**20, "uname": "someone"}, {"size": 8**11 - 1}])
def test_headers_as_they_are_written(format, name, values):
    assert agree(header(name, format=format, **values))


def test_a_plain_header_is_not_left_to_tarfile(monkeypatch):
    monkeypatch.setattr(tarfile.TarInfo, "frombuf", None)
    for format in FORMATS:
        found = tar_headers._Header.frombuf(header("low/a.json", 81_372, format), "utf-8", "surrogateescape")
        assert (found.name, found.size, found.isreg()) == ("low/a.json", 81_372, True)


@settings(max_examples=2000)
@given(
    edits=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(FIELDS), st.sampled_from(ODD)),
            st.tuples(st.integers(0, 511), st.binary(min_size=1, max_size=12)),
        ),
        max_size=4,
    ),
    is_signed=st.booleans(),
    cut=st.sampled_from([512, 512, 512, 511, 0]),
)
def test_headers_of_all_sorts(edits, is_signed, cut):
    block = bytearray(header())
    for place, content in edits:
        block[place : place + len(content)] = content[: 512 - place]
    assert agree((signed(bytes(block)) if is_signed else bytes(block))[:cut])


def test_what_an_archive_says_of_all_its_members_holds_for_plain_headers():
    stored = io.BytesIO()
    with tarfile.open(
        fileobj=stored, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "all/the/same.json"}
    ) as tar:
        for name in ("a.json", "b.json"):
            tar.addfile(tarfile.TarInfo(name))
    stored.seek(0)
    assert [member.name for member in members(stored)] == ["all/the/same.json"] * 2
