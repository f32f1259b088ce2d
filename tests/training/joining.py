"""Examples from ground truths in memory."""

from genre_ray.features.spec import read_spec
from genre_ray.runs.tasks import put
from genre_ray.storage import tables
from genre_ray.training import join
from genre_ray.training.reading import FeaturesTable
from genre_ray.training.truths import index_truths
from genre_ray.truth.identifiers import NO_IDENTIFIERS


def table_of(uri, version=1):
    """The features table at `uri`."""
    return FeaturesTable(uri, version, read_spec(uri).values)


def make_examples(uris, taxonomies, split, *, identifiers=NO_IDENTIFIERS, **options):
    """`uris`: of one or several features tables; `taxonomies`: taxonomy → part → ground truth."""
    uris = [uris] if isinstance(uris, str) else uris
    truths = {name: put(index_truths(truths, identifiers)) for name, truths in taxonomies.items()}
    features = [table_of(uri) for uri in uris]
    return join.make_examples(features, truths, split, identifiers=put(identifiers), **options)


def soft_table(uri, values):
    """A table of soft targets: recording → values."""
    import pyarrow as pa

    from genre_ray.storage.schemas import list_of

    schema = pa.schema([("recording_id", pa.string()), ("values", list_of(pa.float32()))])
    tables.create_table(uri, schema, {})
    rows = pa.table({"recording_id": list(values), "values": list(values.values())}, schema)
    tables.append(tables.open_table(uri), [tables.Append("run/0", [tables.write_part(uri, "part", rows)])], schema)
    return uri
