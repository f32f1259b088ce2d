"""Bundles: a model, what it must be given, what it answers, and where it comes from, in one folder.

A bundle is `model.safetensors`, `examples.parquet` (which recordings it learnt from, with their labels and part),
`README.md` (the card) and `model.json`. It is complete when `model.json`, written last and only if absent, is there.
Its id is the hash of `model.json`, which holds the hashes of the other files. Nothing in it is pickled.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import load, save

from genre_ray.errors import InputError
from genre_ray.storage import objects

MODEL, WEIGHTS, EXAMPLES, CARD = "model.json", "model.safetensors", "examples.parquet", "README.md"

EXAMPLES_SCHEMA = pa.schema(
    [
        ("recording_id", pa.string()),
        ("taxonomy", pa.string()),
        ("part", pa.string()),
        ("labels", pa.list_(pa.string())),
    ]
)
"""A recording has a row for each taxonomy that annotated it, in that taxonomy's names, and one part in all of them."""

Tensors = dict[str, np.ndarray[Any, np.dtype[Any]]]


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory: `model` is `model.json`, `tensors` the arrays of `model.safetensors` by name."""

    uri: str
    bundle_id: str
    model: dict[str, Any]
    tensors: Tensors


def write_bundle(uri: str, model: dict[str, Any], tensors: Tensors, examples: pa.Table, card: str) -> bool:
    """Write a bundle; False when a complete one was there first, which then stays as it is.

    What an attempt that did not end has left there is replaced. A bundle has one writer at a time: should two ever
    write at once, the checksums in `model.json` tell, and a mixture is refused when it is read.
    """
    if is_bundle(uri):
        return False
    sink = pa.BufferOutputStream()
    pq.write_table(examples.cast(EXAMPLES_SCHEMA), sink, compression="zstd")
    contents = {WEIGHTS: save(tensors), EXAMPLES: sink.getvalue().to_pybytes(), CARD: card.encode()}
    for name, content in contents.items():
        objects.write_bytes(objects.join(uri, name), content)
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    document = json.dumps({**model, "sha256": checksums}, indent=1, ensure_ascii=False, allow_nan=False)
    return objects.put_if_absent(objects.join(uri, MODEL), document.encode())


def is_bundle(uri: str) -> bool:
    """Whether a complete bundle is there."""
    return objects.exists(objects.join(uri, MODEL))


def read_model(uri: str) -> tuple[str, dict[str, Any]]:
    """A bundle's id and its `model.json`.

    Raises:
        InputError: there is no complete bundle.
    """
    if not is_bundle(uri):
        raise InputError(f"{uri}: expected a bundle (a folder with {MODEL}), found none; train one or correct the path")
    content = objects.read_bytes(objects.join(uri, MODEL))
    try:
        model = json.loads(content)
    except ValueError as error:
        raise InputError(f"{uri}/{MODEL}: expected JSON, found: {error}; restore the bundle") from None
    if not isinstance(model, dict) or not isinstance(model.get("sha256"), dict):
        raise InputError(f"{uri}/{MODEL}: expected a bundle's description with checksums; restore the bundle")
    return hashlib.sha256(content).hexdigest()[:16], model


def read_bundle(uri: str) -> Bundle:
    """A complete bundle whose weights are what they were when it was written.

    Raises:
        InputError: there is none, or a checksum differs.
    """
    bundle_id, model = read_model(uri)
    try:
        tensors = load(read_file(uri, WEIGHTS, model))
    except SafetensorError as error:
        raise InputError(f"{uri}/{WEIGHTS}: expected safetensors, found: {error}; restore the bundle") from None
    return Bundle(objects.absolute(uri), bundle_id, model, tensors)


def read_examples(uri: str) -> pa.Table:
    """Which recordings a bundle learnt from, as `EXAMPLES_SCHEMA`."""
    _, model = read_model(uri)
    examples = pq.read_table(pa.BufferReader(read_file(uri, EXAMPLES, model)))
    if "taxonomy" not in examples.column_names:
        # Older bundles had one taxonomy only, which their description names.
        examples = examples.add_column(1, "taxonomy", pa.array([model.get("taxonomy")] * len(examples), pa.string()))
    return examples


def read_file(uri: str, name: str, model: dict[str, Any]) -> bytes:
    """A bundle's file, which is what it was when `model`, the bundle's description, was written.

    Raises:
        InputError: the checksum differs.
        NotFoundError: the file is gone.
    """
    content = objects.read_bytes(objects.join(uri, name))
    expected, found = model["sha256"].get(name), hashlib.sha256(content).hexdigest()
    if expected != found:
        raise InputError(f"{uri}/{name}: expected SHA-256 {expected}, found {found}; the file was altered, restore it")
    return content
