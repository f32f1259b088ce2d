"""A bundle as it is opened for prediction: described in full, and given no columns but its own.

Drivers do no more with a model than this: nothing here imports torch, which takes a second.
"""

from collections.abc import Sequence

from genre_ray.errors import InputError
from genre_ray.features.essentia.columns import schema_hash
from genre_ray.inference.target import read_targets
from genre_ray.storage.bundles import Bundle, read_bundle

DESCRIPTION: dict[str, type] = {
    "system": str,
    "taxonomy": str,
    "labels": list,
    "model": dict,
    "input": dict,
}
"""What a model's description must have, each of its kind."""


def open_bundle(uri: str) -> Bundle:
    """A complete bundle that describes all of its model.

    Raises:
        InputError: it does not.
    """
    bundle = read_bundle(uri)
    for key, kind in DESCRIPTION.items():
        if not isinstance(found := bundle.model.get(key), kind):
            raise InputError(
                f"{uri}: expected {key} in model.json to be a {kind.__name__}, found {type(found).__name__}; "
                "restore the bundle"
            )
    if not {"schema_hash", "columns"} <= {*bundle.model["input"]}:
        raise InputError(f"{uri}: expected the input's columns and their hash in model.json; restore the bundle")
    read_targets(bundle.model, uri)
    return bundle


def check_columns(bundle: Bundle, columns: Sequence[str], origin: str) -> None:
    """Refuse input whose schema is not the bundle's own.

    Raises:
        InputError: names the columns that differ.
    """
    expected = bundle.model["input"]
    if schema_hash(columns) == expected["schema_hash"]:
        return
    wanted = expected["columns"]
    missing, extra = sorted({*wanted} - {*columns}), sorted({*columns} - {*wanted})
    found = []
    if missing:
        found.append(f"{len(missing)} columns are missing ({_some(missing)})")
    if extra:
        found.append(f"{len(extra)} are unknown to it ({_some(extra)})")
    raise InputError(
        f"{origin}: expected the {len(wanted)} columns of the bundle {bundle.uri}, found {len(columns)}: "
        f"{'; '.join(found) or 'the same columns in another order'}; use a bundle trained on such a table"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
