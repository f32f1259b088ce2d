"""Guards the readers against anything: mutated documents and archives never raise, hang, or give a number that is none.

The short tests are part of every run. The long ones, 100,000 cases: `pytest tests/hostile -m long`.
"""

import bz2
import gzip
import io
import itertools
import tarfile

import numpy as np
import orjson
import pyarrow as pa
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genre_ray.features.essentia.columns import FEATURE_COLUMNS, missing_columns
from genre_ray.features.essentia.documents import parse_documents
from genre_ray.features.essentia.flatten import flatten
from genre_ray.features.essentia.vectors import read_vectors, warm_up
from genre_ray.outcomes import Reason, Rejection
from genre_ray.runs.watchdog import Limits, Watchdog
from genre_ray.sources.documents.archives import read_archive
from genre_ray.sources.documents.parse import Document, parse_document
from genre_ray.sources.documents.raw import RawDocument
from genre_ray.sources.documents.table import documents_outcome
from genre_ray.storage import tables

SHORT = settings(max_examples=500, suppress_health_check=list(HealthCheck))
LONG = settings(SHORT, max_examples=50_000, database=None)
IN_TIME = Limits(item_timeout_s=3.0)

ODD = [
    *(b"NaN", b"Infinity", b"-Infinity", b"1e39", b"-1e39", b"1e999", b"3.4028236e38", b"1e-400", b"-0.0", b"9" * 400),
    *(
        b"null",
        b"true",
        b"false",
        b'""',
        b'"x"',
        b'"NaN"',
        b'"1.5"',
        b'"\\ud800"',
        b"[]",
        b"{}",
        b"[[]]",
        b'{"mean": 1}',
    ),
    *(
        b"[1]",
        b"[" * 70 + b"]" * 70,
        b'"A"',
        b'"Bb"',
        b'"minor"',
        b"0",
        b"-1",
        b"1",
        b"0.5",
        b"[null]",
        b"1e",
        b"",
        b"\xff",
    ),
]
"""Values of every kind that JSON has, some that it only seems to have, and some that no parser should survive badly."""

SUPPLIED = {}
PLACE = st.integers(0, 2**24)
EDIT = st.tuples(
    st.sampled_from(["flip", "put", "cut", "copy", "end"]), PLACE, st.integers(0, 255), st.integers(1, 600)
)
EDITS = st.lists(EDIT, max_size=4)
CHANGE = st.tuples(st.sampled_from(["value", "key", "gone", "more"]), st.lists(PLACE, min_size=1, max_size=5))
CHANGES = st.lists(st.tuples(CHANGE, st.sampled_from(ODD)), max_size=3)


def edited(payload, edits):
    """Bytes, changed: one flipped, some put in, cut out or copied elsewhere, or the rest cut off."""
    content = bytearray(payload)
    for kind, place, value, length in edits:
        at = place % (len(content) + 1)
        if kind == "flip" and at < len(content):
            content[at] ^= value
        elif kind == "put":
            content[at:at] = bytes([value]) * min(length, 16)
        elif kind == "cut":
            del content[at : at + length]
        elif kind == "copy":
            content[at:at] = content[at // 2 : at // 2 + length]
        elif kind == "end":
            del content[at:]
    return bytes(content)


def changed(payload, changes):
    """A document with values replaced, renamed, removed or lengthened, each found by walking down from its root."""
    root = orjson.loads(payload)
    raw = {}
    for number, ((kind, path), odd) in enumerate(changes):
        container, key = None, None
        for step in path:
            node = container[key] if container is not None else root
            if not isinstance(node, dict | list) or not node:
                break
            container, key = node, (list(node) if isinstance(node, dict) else range(len(node)))[step % len(node)]
        if container is None:
            continue
        mark = f"@odd{number}@"
        raw[b'"' + mark.encode() + b'"'] = odd
        if kind == "gone":
            del container[key]
        elif kind == "key" and isinstance(container, dict):
            container[f"x{key}"] = container.pop(key)
        elif kind == "more" and isinstance(container, list):
            container.insert(key, mark)
        else:
            container[key] = mark
    content = orjson.dumps(root)
    for mark, odd in raw.items():
        content = content.replace(mark, odd)
    return content


@pytest.fixture(scope="module")
def documents(sample):
    """Real documents of both versions."""
    found = [path.read_bytes() for path in sorted((sample / "acousticbrainz").glob("*.json"))[:2]]
    with (sample / "emotify" / "documents.tar.zst").open("rb") as stream:
        for item in read_archive(stream, "a.tar.zst"):
            if len(found) == 4:
                break
            found.append(bytes(item.payload))
    for payload in found:
        assert isinstance(flatten(parse_document("a.json", payload)), np.ndarray)
    return found


def check_document(payload):
    with Watchdog(IN_TIME.stall_s()):
        document = parse_document("some/song.json", payload)
        outcome = flatten(document) if isinstance(document, Document) else document
        vector = np.empty(len(FEATURE_COLUMNS), np.float32)
        (scanned,) = read_vectors(["some/song.json"], pa.array([payload], pa.large_binary()), vector[None])
    if isinstance(outcome, Rejection):
        assert scanned == outcome
        assert outcome.reason in Reason
        assert (outcome.detail + (outcome.recording_id or "")).encode()
        return
    assert outcome.shape == (len(FEATURE_COLUMNS),)
    assert outcome.dtype == np.float32
    np.testing.assert_array_equal(vector.view(np.uint32), outcome.view(np.uint32))
    version = document.version
    if version not in SUPPLIED:
        SUPPLIED[version] = ~np.isin(FEATURE_COLUMNS, missing_columns(version))
    assert np.isfinite(outcome[SUPPLIED[version]]).all()
    assert np.isnan(outcome[~SUPPLIED[version]]).all()


DOCUMENT_CASES = given(which=st.integers(0, 3), changes=CHANGES, edits=EDITS)


@SHORT
@DOCUMENT_CASES
def test_mutated_documents(documents, which, changes, edits):
    check_document(edited(changed(documents[which], changes), edits))


@pytest.mark.long
@LONG
@DOCUMENT_CASES
def test_mutated_documents_for_long(documents, which, changes, edits):
    check_document(edited(changed(documents[which], changes), edits))


COMPRESSIONS = {
    ".tar": bytes,
    ".tar.gz": lambda content: gzip.compress(content, 1, mtime=0),
    ".tar.bz2": lambda content: bz2.compress(content, 1),
    ".tar.zst": zstandard.ZstdCompressor(level=1, write_checksum=True).compress,
}
FIELDS = [(0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (329, 8), (345, 155), (386, 96)]
"""Where a tar header keeps what it says (POSIX.1-1988 ustar; the last is GNU's map of a sparse file)."""

STATED = [
    b"\x80" + b"\xff" * 11,
    b"\xff" * 12,
    b"-1",
    b"77777777777\0",
    b"x",
    b"L",
    b"K",
    b"g",
    b"S",
    b"1",
    b"5",
    b"../a",
]
"""Sizes in two notations, types, names."""

HEADER_EDIT = st.tuples(
    st.integers(0, 40), st.sampled_from(FIELDS), st.binary(min_size=1, max_size=12) | st.sampled_from(STATED)
)
ARCHIVE_CASES = given(
    suffix=st.sampled_from(sorted(COMPRESSIONS)),
    style=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    headers=st.lists(HEADER_EDIT, max_size=3),
    inside=EDITS,
    outside=EDITS,
    first=st.integers(0, 12),
    members=st.integers(1, 12),
)
SMALL = orjson.dumps({"lowlevel": {}, "rhythm": {}, "tonal": {"key_key": "A"}})


def tar(style):
    stored = io.BytesIO()
    with tarfile.open(fileobj=stored, mode="w", format=style) as archive:
        for number, size in enumerate([0, 40, 512, 3000, 1]):
            # Names beyond a header's field make extension headers; USTAR splits them.
            info = tarfile.TarInfo(f"{'long/' * 25 * (number == 2)}song{number}.json")
            info.size = size
            archive.addfile(info, io.BytesIO(SMALL[:size].ljust(size)))
        link = tarfile.TarInfo("link.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return stored.getvalue()


def with_headers(content, headers):
    """A tar with fields of its headers overwritten, and their checksums made good: or nobody would read the fields."""
    content = bytearray(content)
    starts = [at for at in range(0, len(content), 512) if content[at + 257 : at + 262] == b"ustar"]
    for number, (offset, length), value in headers:
        start = starts[number % len(starts)]
        content[start + offset : start + offset + length] = value[:length].ljust(length, b"\0")
        block = content[start : start + 512]
        content[start + 148 : start + 156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 8 * 32)
    return bytes(content)


TARS = {style: tar(style) for style in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)}
ABOUT_ARCHIVE = {Reason.ARCHIVE_TRUNCATED, Reason.ARCHIVE_UNREADABLE, Reason.TOO_MANY_MEMBERS, Reason.EXPANDS_TOO_FAR}


def from_row(first):
    """For `wanted` of `read_archive`, which asks once for each row."""
    rows = itertools.count()
    return lambda size: next(rows) >= first


@pytest.fixture(scope="module", autouse=True)
def scanner_is_compiled():
    """Or the first document would take longer than documents may."""
    warm_up()


def check_archive(suffix, style, headers, inside, outside, first, members):
    payload = edited(COMPRESSIONS[suffix](edited(with_headers(TARS[style], headers), inside)), outside)

    def read(wanted):
        limits = {"max_document_bytes": 2000, "max_members": members}
        return list(read_archive(io.BytesIO(payload), f"a{suffix}", wanted=wanted, **limits))

    with Watchdog(IN_TIME.stall_s()):
        everything = read(from_row(0))
        rest = read(from_row(first))
        documents, refused = documents_outcome(everything)
        accepted, rejected = parse_documents(documents)
    count = min(first, len(everything))
    assert rest == [None] * count + everything[count:]
    assert accepted.num_rows + rejected.num_rows + refused.num_rows == len(everything) <= members + 1
    for item in everything:
        assert isinstance(item, RawDocument)
        assert (item.name + item.uri).encode()
        assert isinstance(item.payload, Rejection) or len(item.payload) <= 2000
        assert item.name.endswith(".json") or isinstance(item.payload, Rejection)
    about = [isinstance(item.payload, Rejection) and item.payload.reason in ABOUT_ARCHIVE for item in everything]
    assert not any(about[:-1])
    assert np.isfinite(tables.vectors(accepted.column("features"))).all()


@SHORT
@ARCHIVE_CASES
def test_mutated_archives(**case):
    check_archive(**case)


@pytest.mark.long
@LONG
@ARCHIVE_CASES
def test_mutated_archives_for_long(**case):
    check_archive(**case)


def test_the_mutations_reach_every_kind_of_outcome(documents):
    """A fuzzer that only ever breaks the syntax would prove nothing about what comes after it."""
    outcomes = set()

    @settings(SHORT, derandomize=True, database=None)
    @DOCUMENT_CASES
    def collect(which, changes, edits):
        document = parse_document("a.json", edited(changed(documents[which], changes), edits))
        outcome = flatten(document) if isinstance(document, Document) else document
        outcomes.add(outcome.reason if isinstance(outcome, Rejection) else document.version)

    collect()
    wanted = {Reason.NOT_JSON, Reason.NOT_UTF8, Reason.NO_LOWLEVEL, Reason.MISSING_VALUE, Reason.WRONG_SHAPE}
    assert wanted | {"music 1.0", "music 2.0"} <= outcomes
