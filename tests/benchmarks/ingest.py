"""Documents in memory to vectors, on one core: the product's way, and two that people write without it.

Both references only read: they check nothing, know no rejection and keep no ids.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import documents
import numpy as np
import orjson
import pyarrow as pa
from harness import Measure, Result, compare, figure, rate

from genre_ray.features.essentia.columns import (
    ABSENT_PEAK,
    CATEGORIES,
    DESCRIPTORS,
    FEATURE_COLUMNS,
    LONE_PEAKS,
    READING_ORDER,
    STATISTICS,
)
from genre_ray.features.essentia.documents import ParseDocuments
from genre_ray.features.essentia.flatten import LEVELS, SHARPS
from genre_ray.features.essentia.vectors import read_vectors
from genre_ray.sources.documents.raw import RawDocument
from genre_ray.sources.documents.table import documents_outcome

# New documents in each of five repetitions: 20,000 in all. The slowest reference takes a quarter of them.
DOCUMENTS = 4_000
CHUNK, CHECKED = 64, 300

Documents = Sequence[tuple[str, bytes]]
Work = Callable[[Documents], object]


def benchmarks(scratch: Path) -> Iterator[Result]:
    """Documents a second on one core, and what the scanner costs a process once."""
    vectors = np.empty((CHECKED, len(FEATURE_COLUMNS)), np.float32)

    def scanned(some: Documents) -> None:
        for start in range(0, len(some), CHUNK):
            chunk = some[start : start + CHUNK]
            read_vectors([name for name, _ in chunk], stored(chunk), vectors[: len(chunk)])

    read_vectors([name for name, _ in sample(0)[:CHECKED]], stored(sample(0)[:CHECKED]), vectors)
    for (_, content), vector in zip(sample(0), vectors, strict=False):
        np.testing.assert_array_equal(planned(content), vector)
        np.testing.assert_array_equal(walked(content), vector)

    def against(reference: Callable[[bytes], object], share: int = 1) -> Measure:
        return measured(lambda some: [reference(content) for _, content in some], share)

    note = "orjson.loads and a compiled plan"
    yield compare("document → vector", measured(scanned), against(planned), unit="1/s", at_least=2, note=note)
    yield compare("document → row of a table", measured(rows), against(planned), unit="1/s", note=note)
    note = "json and a recursive walk"
    yield compare("document → vector", measured(scanned), against(walked, 4), unit="1/s", at_least=10, note=note)
    first = "scanner: what a process pays once"
    yield figure(first, lambda: first_document({}), unit="s", note="compiled before")
    fresh = (scratch / str(number) for number in count())
    yield figure(first, lambda: first_document({"NUMBA_CACHE_DIR": str(next(fresh))}), unit="s", note="compiled anew")


def measured(work: Work, share: int = 1) -> Measure:
    """What measures documents a second, over others each time; `work` has been done before."""
    work(sample(0)[:CHUNK])
    seeds = count()

    def measure() -> float:
        some = sample(next(seeds))[::share]
        return rate(lambda _: work(some), len(some))

    return measure


@lru_cache(maxsize=1)
def sample(seed: int) -> Documents:
    """`DOCUMENTS` documents; both sides of a pair have the same ones."""
    return list(documents.jittered_documents(DOCUMENTS, seed))


def stored(some: Documents) -> pa.LargeBinaryArray:
    """The contents in Arrow's memory, as a source yields them."""
    return pa.array([content for _, content in some], pa.large_binary())


def rows(some: Documents) -> None:
    """The features table's rows, in chunks as a worker gets them."""
    parse = ParseDocuments().open()
    for start in range(0, len(some), CHUNK):
        documents = [RawDocument(name, f"s3://bucket/{name}", content) for name, content in some[start : start + CHUNK]]
        parse(documents_outcome(documents).accepted)


def first_document(environment: dict[str, str]) -> float:
    """Seconds from importing what reads documents to the first vector, in a process that has NumPy and Arrow."""
    code = """
import sys, time
import numpy, orjson, pyarrow, genre_ray.features.essentia.documents
content, start = sys.stdin.buffer.read(), time.perf_counter()
from genre_ray.features.essentia.vectors import scan_vectors
stored = pyarrow.array([content], pyarrow.large_binary())
assert all(scan_vectors(["a.json"], stored, numpy.empty((1, 2669), numpy.float32)))
print(time.perf_counter() - start)
"""
    content = documents.real_documents()[0]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=content, capture_output=True, check=True, env=os.environ | environment)
    return float(done.stdout)


_ORDER = [READING_ORDER.index(column) for column in FEATURE_COLUMNS]
_ONE_HOT = {
    category.name: {
        spelling: [float(SHARPS.get(spelling, spelling) == value) for value in category.values]
        for spelling in (*category.values, *SHARPS)
    }
    for category in CATEGORIES
}


def _compiled_plan(newer: bool) -> Callable[[Any], list[float]]:
    """A function of straight code that lists a parsed document's values in reading order."""
    lines = []
    for descriptor in DESCRIPTORS:
        room, name = descriptor.room, descriptor.name
        if newer and name == ABSENT_PEAK:
            lines.append("values += [nan] * 9")
            continue
        strength = newer and name == "key_strength"
        lines.append("field = key['strength']" if strength else f"field = d['{room}']['{name}']")
        if newer and name in LONE_PEAKS:
            lines.append(f"values += [{', '.join('field' if s in LEVELS else '0' for s in STATISTICS)}]")
        elif not descriptor.shape:
            parts = [f"field['{statistic}']" for statistic in descriptor.statistics] or ["field"]
            lines.append(f"values += [{', '.join(parts)}]")
        else:
            for part in [f"field['{statistic}']" for statistic in descriptor.statistics] or ["field"]:
                lines.append(f"values += {part}" if len(descriptor.shape) == 1 else f"for row in {part}: values += row")
    for category in CATEGORIES:
        place = f"d['tonal']['{category.name}']"
        if newer and category.name.startswith("key_"):
            place = f"key['{category.name.removeprefix('key_')}']"
        lines.append(f"values += one_hot['{category.name}'][{place}]")
    head = ["def read(d):", "values = []", *(["key = d['tonal']['key_temperley']"] if newer else [])]
    space: dict[str, Any] = {"nan": np.nan, "one_hot": _ONE_HOT}
    exec("\n    ".join([*head, *lines, "return values"]), space)
    read: Callable[[Any], list[float]] = space["read"]
    return read


_OLDER, _NEWER = _compiled_plan(newer=False), _compiled_plan(newer=True)


def planned(content: bytes) -> Any:
    """A document's vector by orjson and a plan."""
    document = orjson.loads(content)
    read = _NEWER if "key_temperley" in document["tonal"] else _OLDER
    return np.array(read(document), np.float32)[_ORDER]


def _name(column: str) -> str:
    """What the walk calls the value of a newer document's column."""
    room, name, *rest = column.split(".")
    if name in LONE_PEAKS:
        return f"{room}.{name}" if rest[0] in LEVELS else "zero"
    return column.replace("tonal.key_", "tonal.key_temperley.")


_NEWER_NAMES = [_name(column) for column in FEATURE_COLUMNS]


def walked(content: bytes) -> Any:
    """A document's vector by the standard library and a walk over all that is in it."""
    document = json.loads(content)
    found: dict[str, float] = {"zero": 0.0}

    def walk(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, child in value.items():
                walk(f"{name}.{key}", child)
        elif isinstance(value, list):
            for place, child in enumerate(value):
                walk(f"{name}.{place}", child)
        elif isinstance(value, str):
            category = name.removeprefix("tonal.").replace("key_temperley.", "key_")
            for other in _ONE_HOT.get(category, {}):
                found[f"{name}_{other}"] = float(SHARPS.get(value, value) == other)
        else:
            found[name] = value

    for room in ("lowlevel", "rhythm", "tonal"):
        walk(room, document[room])
    newer = "key_temperley" in document["tonal"]
    return np.array([found.get(name, np.nan) for name in (_NEWER_NAMES if newer else FEATURE_COLUMNS)], np.float32)
