"""Realistic input: the real documents of `tests/data` repeated, with other digits and ids each time."""

import io
import re
import tarfile
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

SAMPLE = Path(__file__).parents[1] / "data"

# Only long fractions: a version or an id in a string has none, so that a document keeps its kind.
_FRACTION = re.compile(rb"(?<=\d\.)\d{6,}")


@cache
def real_documents() -> tuple[bytes, ...]:
    """The documents of AcousticBrainz, each as often as makes them half of all, and those of Emotify."""
    older = [path.read_bytes() for path in sorted((SAMPLE / "acousticbrainz").glob("*.json"))]
    packed = zstandard.ZstdDecompressor().stream_reader((SAMPLE / "emotify" / "documents.tar.zst").open("rb"))
    with tarfile.open(fileobj=io.BytesIO(packed.read())) as archive:
        newer = [stream.read() for member in archive if (stream := archive.extractfile(member)) is not None]
    return (*older * (len(newer) // len(older)), *newer)


def jittered_documents(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield (file name, content) of `count` documents, no two of them alike."""
    random = np.random.default_rng(seed)
    models = [_digits(document) for document in real_documents()]
    for index in random.integers(len(models), size=count):
        content, places = models[index]
        jittered = content.copy()
        jittered[places] = random.integers(ord("0"), ord("9") + 1, size=len(places), dtype=np.uint8)
        yield f"{uuid.UUID(bytes=random.bytes(16), version=4)}-0.json", jittered.tobytes()


def write_archive(path: Path, count: int, seed: int = 0) -> Path:
    """A `.tar.zst` of `count` documents as the dumps have them; an uncompressed one for another suffix."""
    with path.open("wb") as file:
        packed: Any = zstandard.ZstdCompressor(level=3).stream_writer(file) if path.suffix == ".zst" else file
        with tarfile.open(fileobj=packed, mode="w|") as archive:
            for name, content in jittered_documents(count, seed):
                member = tarfile.TarInfo(f"dump/{name[:2]}/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        if packed is not file:
            packed.close()
    return path


def _digits(content: bytes) -> tuple[Any, Any]:
    """The content as bytes, and where its digits may change."""
    places = [np.arange(*found.span()) for found in _FRACTION.finditer(content)]
    return np.frombuffer(content, np.uint8), np.concatenate(places)
