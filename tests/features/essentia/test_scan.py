"""Guards the compiled scanner: wherever it is sure, the plain way would have answered the same, bit for bit.

The plain way is the reference throughout. Where the scanner is not sure the plain way decides, so that no test needs to
say on what it must be unsure; that it is sure of ordinary documents is a test of its own, or all others would be empty.
"""

import importlib
import json
import os
import random
import re
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numba import njit

from genre_ray.features.essentia.columns import FEATURE_COLUMNS
from genre_ray.features.essentia.flatten import flatten
from genre_ray.features.essentia.scan.lanes import byte_at
from genre_ray.features.essentia.scan.numbers import read_number
from genre_ray.features.essentia.vectors import read_vectors, scan_vectors
from genre_ray.outcomes import Reason, Rejection
from genre_ray.sources.documents.parse import Document, Provenance, parse_document

TESTS = Path(__file__).parents[2]
NAME = "54551aad-4fca-4ba4-9ce2-f6b2d9b5fceb-2.json"
NUMBER = re.compile(rb"(?<=[\s:\[,])-?\d[-+.\deE]*(?=[\s,\]}])")
LAST_DIGIT = re.compile(rb"\d(?=[,\]}])")
KEY = re.compile(rb'"\w+"\s*:')
SURE_SHARE = 0.1
"""Of changed documents, the scanner must be sure of more: where it is never sure, a test that it is right is empty."""

MANY = settings(max_examples=600, suppress_health_check=list(HealthCheck))


@cache
def documents() -> tuple[bytes, ...]:
    """The real documents, the six older ones first, read with nothing of genre_ray."""
    found = [path.read_bytes() for path in sorted((TESTS / "data" / "acousticbrainz").glob("*.json"))]
    with (TESTS / "data" / "emotify" / "documents.tar.zst").open("rb") as stored:
        content = zstandard.ZstdDecompressor().stream_reader(stored)
        with tarfile.open(fileobj=content, mode="r|") as archive:
            found += [archive.extractfile(member).read() for member in archive]
    return tuple(found)


@cache
def dense() -> tuple[bytes, ...]:
    """One document of each version with short numbers and no space, so that changes hit what is not a digit."""
    compact = [orjson.dumps(orjson.loads(documents()[place])) for place in (0, 7)]
    return tuple(NUMBER.sub(lambda found: b"0.5" if b"." in found[0] else b"1", content) for content in compact)


def stored(*payloads):
    """Payloads in Arrow's memory, in the middle of others."""
    return pa.array([b"before", *payloads, b"after"], pa.large_binary()).slice(1, len(payloads))


def scan_vector(payload, vector):
    """What the scanner alone tells of one document."""
    return scan_vectors([NAME], stored(payload), vector[None])[0]


def agrees(payload: bytes) -> bool:
    """Whether the scanner was sure; then everything that it tells is what the plain way tells."""
    vector = np.full(len(FEATURE_COLUMNS), 7, np.float32)
    about = scan_vector(payload, vector)
    if about is None:
        return False
    document = parse_document(NAME, payload)
    assert isinstance(document, Document), document
    values = flatten(document)
    assert isinstance(values, np.ndarray), values
    np.testing.assert_array_equal(vector.view(np.uint32), values.view(np.uint32))
    for field in Provenance.__slots__:
        assert getattr(about, field) == getattr(document, field)
    return True


def test_it_is_sure_of_every_real_document_and_right():
    assert len(documents()) == 150
    assert all(agrees(payload) for payload in documents())
    assert all(agrees(payload) for payload in dense())


def test_it_is_sure_of_documents_with_other_digits(monkeypatch):
    monkeypatch.syspath_prepend(str(TESTS / "benchmarks"))
    jittered = importlib.import_module("documents").jittered_documents(400, seed=5)
    assert sum(agrees(payload) for _, payload in jittered) >= 399


def test_it_is_sure_whatever_the_order_of_keys_and_the_space_between():
    shuffle = random.Random(3).sample

    def shuffled(value):
        if isinstance(value, dict):
            return {key: shuffled(value[key]) for key in shuffle(list(value), len(value))}
        return [shuffled(part) for part in value] if isinstance(value, list) else value

    for payload in documents()[4:8]:
        for indent in (None, 1, 4, 37, "\t"):
            assert agrees(json.dumps(shuffled(json.loads(payload)), indent=indent).encode())
        assert agrees(b" \r\n\t" + payload.replace(b":", b" : ").replace(b'" : ', b'"\n:\t') + b"\n" * 70)


def test_what_it_is_not_sure_of_is_read_the_plain_way():
    good, vector = documents()[0], np.zeros(len(FEATURE_COLUMNS), np.float32)
    escaped = good.replace(b'"lowlevel"', b'"low\\u006cevel"')
    assert scan_vector(escaped, vector) is None
    (about,) = read_vectors([NAME], stored(escaped), vector[None])
    assert (about.recording_id, about.submission) == (NAME[:36], 2)
    np.testing.assert_array_equal(vector, flatten(parse_document(NAME, good)))
    for bad in (good[:-1], good.replace(b'"mean"', b'"mien"', 1), b"", b"\xff", good.replace(b'"music 1.0"', b'"m"')):
        expected = parse_document(NAME, bad)
        expected = flatten(expected) if isinstance(expected, Document) else expected
        (outcome,) = read_vectors([NAME], stored(bad), vector[None])
        if isinstance(expected, Rejection):
            assert outcome == expected
        else:
            np.testing.assert_array_equal(vector, expected)


def test_documents_of_one_call_know_nothing_of_each_other():
    good, older = documents()[7:12], documents()[:3]
    damaged = [
        good[0][:-1],
        b"",
        b"{}",
        b"\xff",
        older[0].replace(b'"mean"', b'"mien"', 1),
        older[1][:500],
        b" " * 200_000,
    ]
    mixed = [*good[:2], *damaged, *older, *good, *reversed(damaged)]
    random.Random(4).shuffle(mixed)
    names = [f"{NAME[:35]}{number:x}-{number}.json" for number in range(len(mixed))]
    together = np.full((len(mixed), len(FEATURE_COLUMNS)), 7, np.float32)
    alone = together.copy()
    told = read_vectors(names, stored(*mixed), together)
    each = [
        read_vectors([name], stored(payload), row[None])[0]
        for name, payload, row in zip(names, mixed, alone, strict=True)
    ]
    assert told == each
    assert sum(isinstance(about, Rejection) for about in told) == 2 * len(damaged)
    np.testing.assert_array_equal(together.view(np.uint32), alone.view(np.uint32))
    assert read_vectors([], stored(), together[:0]) == []
    empty = pa.array([b"", b""], pa.large_binary())
    assert [about.reason for about in read_vectors(["a", "b"], empty, together[:2])] == [Reason.EMPTY] * 2


ODD_NUMBERS = [
    *("0", "-0", "-0.0", "00", "01", "-01", "1.", ".5", "-", "+1", "1e", "1e+", "1e5", "1E+05", "1e-5", "1e00005"),
    *("1e-00005", "1e400", "1e39", "-1e39", "1e+-5", "1e5.5", "0e9", "1/2", "1-2", "--1", "0x10", "1_0", "١", "NaN"),
    *(
        "Infinity",
        "-Infinity",
        "null",
        "true",
        '"1"',
        "[]",
        "{}",
        "[1]",
        "3.4028234e38",
        "3.4028235e38",
        "3.4028236e38",
    ),
    *(
        "3.4028236e38",
        "3.4028235677973366e38",
        "3.40282356779733e38",
        "1e-45",
        "1.1754943e-38",
        "1.17549429e-38",
        "1.5e-40",
    ),
    *("0.0000000000000000000000000001", "100000000000000000000000000000000", "16777217", "16777217.0", "16777219"),
    *("9007199254740993", "9007199254740993e-3", "123456789012345678", "1234567890123456789", "9223372036854775807"),
    *("9223372036854775808", "18446744073709551615", "18446744073709551616", "123456789012345678901234567890"),
    *("0.1000000000000000055511151231257827", "1.00000005960464477539", "1.0000000596046448", "1.0000000596046447"),
]
CHARACTERS = [*b'"\\{}[],: \n\t\r\x0b0123456789.eE+-ntfalsru/', 0x00, 0x1F, 0x7F, 0x80, 0xA9, 0xC3, 0xFF]
EDIT = st.tuples(
    st.sampled_from(["put", "insert", "cut", "copy", "end", "number", "key", "twice", *("digit", "space") * 3]),
    st.integers(0, 2**24),
    st.sampled_from(CHARACTERS),
    st.sampled_from([1, 2, 5, 60, 2000]),
    st.sampled_from(ODD_NUMBERS),
)


def edited(payload: bytes, edits) -> bytes:
    """Bytes replaced, put in, cut, copied or cut off; a number spelt otherwise; a key as another, or twice.

    Other digits and more space leave most documents in order: of these the scanner has to be sure, and right.
    """
    content = bytearray(payload)
    for kind, place, byte, length, number in edits:
        at = place % (len(content) + 1)
        if kind == "put":
            content[at : at + 1] = bytes([byte])
        elif kind == "insert":
            content[at:at] = bytes([byte]) * length
        elif kind == "cut":
            del content[at : at + length]
        elif kind == "copy":
            content[at:at] = content[at : at + length]
        elif kind == "end":
            del content[at:]
        elif kind == "digit":
            if digit := LAST_DIGIT.search(content, at):
                content[digit.start()] = b"0123456789"[byte % 10]
        elif kind == "space":
            at = content.find(b",", at) + 1
            content[at:at] = b" \n\t\r"[byte % 4 : byte % 4 + 1] * length
        elif found := list((NUMBER if kind == "number" else KEY).finditer(content)):
            (start, end), other = found[place % len(found)].span(), found[place // 7 % len(found)][0]
            key = bytes(content[start:end])
            content[start:end] = {"number": number.encode(), "key": other, "twice": key + b"1," + key}[kind]
    return bytes(content)


def sure_share(most: settings, documents_of, **drawn) -> float:
    """The share of the drawn documents of which the scanner was sure, after it was right about each of those."""
    sure: list[bool] = []

    @most
    @given(**drawn)
    def check(**values):
        sure.append(agrees(documents_of(**values)))

    check()
    return float(np.mean(sure))


def test_it_is_right_about_changed_documents():
    share = sure_share(
        MANY,
        lambda which, edits: edited(dense()[which], edits),
        which=st.integers(0, 1),
        edits=st.lists(EDIT, min_size=1, max_size=3),
    )
    assert share > SURE_SHARE


def test_it_is_right_about_changed_real_documents():
    share = sure_share(
        settings(MANY, max_examples=100),
        lambda which, edits: edited(documents()[which], edits),
        which=st.integers(0, 149),
        edits=st.lists(EDIT, min_size=1, max_size=2),
    )
    assert share > SURE_SHARE


def test_it_is_right_about_odd_numbers_wherever_they_stand():
    sure: dict[str, list[bool]] = {}
    for payload in dense():
        found = list(NUMBER.finditer(payload))
        for number in ODD_NUMBERS:
            for place in (0, len(found) // 2, -1):
                start, end = found[place].span()
                is_sure = agrees(payload[:start] + number.encode() + payload[end:])
                sure.setdefault(number, []).append(is_sure)
    # Of numbers that JSON spells so and a float32 can hold, it is sure wherever they stand.
    assert sum(map(all, sure.values())) >= 17


PASSED_OVER = [
    *(b"[" * levels + b"]" * levels for levels in (0, 1, 59, 60, 61, 62, 63, 64)),
    *(b'{"a":' * levels + b"1" + b"}" * levels for levels in (1, 60, 61, 62, 63, 64)),
    *(b"{}", b"[]", b"[[],{}]", b"[1,]", b"[,1]", b"{,}", b'{"a":1,}', b'{"a"}', b'{"a":}', b"{1:1}", b"[1 2]", b"[1}"),
    *(b"true", b"false", b"null", b"True", b"nul", b"nulll", b"[true,false,null]", b"1,2", b""),
    *(b'""', b'"a', b'"\xc3\xa9"', b'"\xff"', b'"\n"', b'"\\n"', b'"\\x"', b'"\\u12"', b'"\\ud800"', b'"\x7f"'),
    *(b'"' + b"a" * length + b'"' for length in (31, 32, 33, 64, 100)),
    *(b'{"lowlevel":{"mfcc":1},"metadata":{}}', b'{"\\u0061":1}', b'{"a":1,"a":2}', b"1" * 40, b"NaN", b"[1e999]"),
]


@pytest.mark.parametrize("key", [b'"novel"', b'"metadata"', b'"tags"', b'"tonal"'])
def test_it_is_right_about_what_it_passes_over(key):
    payload = dense()[0]
    sure = [
        agrees(changed)
        for value in PASSED_OVER
        for changed in (
            payload[:-1] + b"," + key + b":" + value + b"}",
            payload.replace(b'"lowlevel":{', b'"lowlevel":{' + key + b":" + value + b",", 1),
            payload.replace(b'"tags":{', b'"tags":{' + key + b":" + value + b",", 1),
            payload.replace(b'"metadata":', key + b":" + value + b',"metadata":', 1),
        )
    ]
    # Most of what is passed over here is not JSON.
    assert sum(sure) >= 40


@njit
def _read_numbers(at, numbers, certain):
    for place in range(len(numbers)):
        numbers[place], after = read_number(at)
        certain[place] = after >= 0
        while byte_at(at) != 44:
            at += 1
        at += 1


def read_numbers(texts):
    """What the scanner reads from each text, and of which it is certain."""
    content = np.frombuffer(bytes(64) + ",".join([*texts, ""]).encode() + bytes(64), np.uint8)
    numbers, certain = np.zeros(len(texts)), np.zeros(len(texts), bool)
    _read_numbers(content.ctypes.data + 64, numbers, certain)
    return numbers.astype(np.float32), certain


def spellings():
    """Numbers as documents have them, and those next to where a float32 is rounded up or down."""
    random = np.random.default_rng(8)
    doubles = random.standard_normal(20_000) * 10.0 ** random.integers(-30, 20, 20_000)
    for value in doubles.tolist():
        yield from (f"{value:.12g}", repr(value), f"{value:.17g}", f"{value:.3e}", f"{value:.19e}", str(int(value)))
    singles = random.integers(0, 0x7F800000, 5_000, np.uint32).view(np.float32)
    for low, high in zip(singles.tolist(), np.nextafter(singles, np.float32(np.inf)).tolist(), strict=True):
        half = low / 2 + high / 2
        for value in (low, half, np.nextafter(half, 0), np.nextafter(half, np.inf)):
            yield from (f"{value:.12g}", f"{value:.17g}", f"{value:.19e}", f"{value:.25e}")


def test_numbers_are_the_nearest_float32_of_the_nearest_double():
    texts = list(spellings())
    numbers, certain = read_numbers(texts)
    with np.errstate(over="ignore"):
        expected = np.array([float(text) for text in texts]).astype(np.float32)
    np.testing.assert_array_equal(numbers[certain].view(np.uint32), expected[certain].view(np.uint32))
    assert np.isfinite(numbers[certain]).all()
    # All that Essentia prints: twelve digits, within the range of a normal float32.
    usual = [place for place in range(0, 120_000, 6) if 1e-30 < abs(float(texts[place])) < 1e30]
    assert certain[usual].mean() > 0.9999


def test_only_what_reads_documents_loads_the_compiler():
    code = (
        "import sys, genre_ray.features.essentia.documents, genre_ray.commands.ingest; sys.exit('numba' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(TESTS.parent)})


@pytest.mark.slow
def test_threads_and_processes_share_a_scanner(tmp_path):
    """Threads change one guess of what comes next; two processes compile at once into one empty folder."""
    expected = np.array([flatten(parse_document(NAME, payload)) for payload in documents()[:12]])

    def read(payload):
        vector = np.empty(len(FEATURE_COLUMNS), np.float32)
        assert scan_vector(payload, vector) is not None
        return vector

    with ThreadPoolExecutor(4) as threads:
        for _ in range(20):
            np.testing.assert_array_equal(list(threads.map(read, documents()[:12])), expected)
    code = (
        "import sys, numpy, pyarrow; from genre_ray.features.essentia.vectors import scan_vectors; "
        "vector, content = numpy.empty((1, 2669), numpy.float32), sys.stdin.buffer.read(); "
        "assert all(scan_vectors(['a'], pyarrow.array([content], pyarrow.large_binary()), vector)); "
        "sys.stdout.buffer.write(vector.tobytes())"
    )
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent), "NUMBA_CACHE_DIR": str(tmp_path)}
    with ThreadPoolExecutor(2) as both:
        run = partial(subprocess.run, [sys.executable, "-c", code], capture_output=True, check=True, env=environment)
        for done in both.map(lambda _: run(input=documents()[0]), range(2)):
            np.testing.assert_array_equal(np.frombuffer(done.stdout, np.float32), expected[0])


def test_without_a_place_to_keep_compiled_code_documents_are_read_all_the_same():
    """Numba refuses to compile what it is to keep and cannot: a package that is read-only, in a home that is too."""
    code = "from genre_ray.features.essentia.scan.scanner import scan; print(type(scan._cache).__name__)"
    # Only this place counts, and none is given for it.
    places = {"NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator", "NUMBA_CACHE_DIR": ""}
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent)} | places
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "NullCache"
