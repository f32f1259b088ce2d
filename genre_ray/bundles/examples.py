"""The examples of a bundle: the recordings that it and every network inside it was trained, validated and tested on.

A fusion contains the networks of other bundles. Its `examples.parquet` lists their examples too, with the id of the
bundle that each example belongs to.
"""

from collections.abc import Sequence
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genre_ray.bundles.files import EXAMPLES, Bundle, read_file, read_manifest
from genre_ray.errors import InputError
from genre_ray.storage import schemas


def read_examples(uri: str) -> pa.Table:
    """Read the examples of a bundle and of the networks inside it, with the schema `schemas.EXAMPLES`.

    Raises:
        InputError: there is no bundle, or the file was changed or is malformed.
    """
    _, manifest = read_manifest(uri)
    try:
        return pq.read_table(pa.BufferReader(read_file(uri, EXAMPLES, manifest))).select(schemas.EXAMPLES.names)
    except (pa.ArrowException, KeyError) as error:
        raise InputError(
            f"{uri}/{EXAMPLES}: expected a table of examples, found: {error}; restore the bundle"
        ) from None


def own_examples(examples: pa.Table) -> pa.Table:
    """Return the examples of the bundle's own network."""
    return examples.filter(pc.is_null(examples["bundle"]))


def trained_on(examples: pa.Table) -> set[str]:
    """Return the recordings that the bundle's network, or a network inside it, was trained on."""
    return set(examples.filter(pc.equal(examples["part"], "train"))["recording_id"].to_pylist())


def with_inner(own: pa.RecordBatchReader, inner: Sequence[Bundle]) -> pa.RecordBatchReader:
    """Add the examples of the networks inside a bundle to its own.

    Args:
        own: the bundle's own examples, with the schema `schemas.EXAMPLES`.
        inner: the bundles that the networks come from. Examples of networks inside these are added too.

    Returns:
        The rows of `own`, then the rows of each other bundle once.
    """
    found: dict[str, pa.Table] = {}
    for bundle in inner:
        examples = read_examples(bundle.uri)
        names = examples["bundle"].fill_null(bundle.bundle_id)
        named = examples.set_column(examples.schema.get_field_index("bundle"), "bundle", names)
        for name in pc.unique(names).to_pylist():
            found.setdefault(name, named.filter(pc.equal(names, name)))
    batches = chain(own, *(examples.to_batches() for examples in found.values()))
    return pa.RecordBatchReader.from_batches(schemas.EXAMPLES, (batch.cast(schemas.EXAMPLES) for batch in batches))
