"""Read and write the files of a bundle.

A bundle is a folder with `model.safetensors`, `examples.parquet` (`genre_ray.bundles.examples`), `README.md` (the card)
and `model.json` (`genre_ray.bundles.manifest`). `model.json` is written last, and only if it does not exist; a bundle
is complete if it exists. It contains the hashes of the other files. The id of a bundle is the hash of `model.json`. No
file contains pickled objects.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import load, save

from genre_ray.bundles.manifest import Manifest
from genre_ray.errors import InputError
from genre_ray.storage import objects, schemas
from genre_ray.storage.files import StoredFile

MODEL, WEIGHTS, EXAMPLES, CARD = "model.json", "model.safetensors", "examples.parquet", "README.md"

MAX_MANIFEST_BYTES = 64 * 2**20
"""The maximum size of `model.json`: ten times the size for 5,000 labels with their own calibration maps."""

Tensors = dict[str, np.ndarray[Any, np.dtype[Any]]]


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory.

    Attributes:
        uri: its folder.
        bundle_id: its id.
        manifest: its `model.json`.
        tensors: the arrays of `model.safetensors` by name.
    """

    uri: str
    bundle_id: str
    manifest: Manifest
    tensors: Tensors


def write_bundle(
    uri: str, manifest: Manifest, tensors: Tensors, examples: pa.Table | pa.RecordBatchReader, card: str
) -> bool:
    """Write a bundle; return False if a complete one exists, which is not changed.

    Files of an unfinished attempt are replaced. Only one process should write a bundle at a time. If two do, the
    checksums in `model.json` do not match, and reading raises an error.

    Args:
        uri: its folder.
        manifest: without checksums, which are added.
        tensors: see `Bundle`.
        examples: as `schemas.EXAMPLES`; a reader's batches are held in memory one at a time.
        card: the text of `README.md`.
    """
    if is_bundle(uri):
        return False
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schemas.EXAMPLES, compression="zstd") as writer:
        for batch in examples.to_reader() if isinstance(examples, pa.Table) else examples:
            writer.write_batch(batch.cast(schemas.EXAMPLES))
    contents = {WEIGHTS: save(tensors), EXAMPLES: sink.getvalue().to_pybytes(), CARD: card.encode()}
    for name, content in contents.items():
        objects.write_bytes(objects.join(uri, name), content)
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    document = manifest.model_copy(update={"sha256": checksums})
    return objects.put_if_absent(objects.join(uri, MODEL), document.to_json())


def is_bundle(uri: str) -> bool:
    """Whether there is a complete bundle at `uri`."""
    return objects.exists(objects.join(uri, MODEL))


def bundle_folders(files: Iterable[StoredFile]) -> list[str]:
    """Return the folders that contain a bundle, sorted and relative to the listed folder."""
    places = (file.name.rpartition("/") for file in files)
    return sorted({folder for folder, _, name in places if name == MODEL})


def read_manifest(uri: str) -> tuple[str, Manifest]:
    """Read a bundle's id and manifest.

    Raises:
        InputError: there is no complete bundle, or its `model.json` is malformed.
    """
    if not is_bundle(uri):
        raise InputError(f"{uri}: expected a bundle (a folder with {MODEL}), found none; train one or correct the path")
    name = objects.join(uri, MODEL)
    with objects.open_stream(name) as stream:
        content = stream.read(MAX_MANIFEST_BYTES + 1)
    if len(content) > MAX_MANIFEST_BYTES:
        raise InputError(f"{name}: expected at most {MAX_MANIFEST_BYTES:,} bytes, found more; restore the bundle")
    manifest = Manifest.from_json(content, name)
    if manifest.sha256.keys() != {WEIGHTS, EXAMPLES, CARD}:
        raise InputError(
            f"{name}: expected checksums of {WEIGHTS}, {EXAMPLES} and {CARD}, found checksums of "
            f"{', '.join(manifest.sha256) or 'no file'}; restore the bundle"
        )
    return hashlib.sha256(content).hexdigest()[:16], manifest


def read_bundle(uri: str) -> Bundle:
    """Read a complete bundle and check that its weights are unchanged.

    Raises:
        InputError: there is no complete bundle, its `model.json` is malformed, or a checksum differs.
    """
    bundle_id, manifest = read_manifest(uri)
    try:
        tensors = load(read_file(uri, WEIGHTS, manifest))
    except SafetensorError as error:
        raise InputError(f"{uri}/{WEIGHTS}: expected safetensors, found: {error}; restore the bundle") from None
    return Bundle(objects.absolute(uri), bundle_id, manifest, tensors)


def read_file(uri: str, name: str, manifest: Manifest) -> bytes:
    """Read a file of a bundle and check that it is unchanged.

    Raises:
        InputError: the checksum differs from the one in `manifest`.
        NotFoundError: the file does not exist.
    """
    content = objects.read_bytes(objects.join(uri, name))
    expected, found = manifest.sha256[name], hashlib.sha256(content).hexdigest()
    if expected != found:
        raise InputError(
            f"{uri}/{name}: this file was changed (its SHA-256 is {found} instead of {expected}); restore the bundle"
        )
    return content
