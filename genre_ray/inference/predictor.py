"""A bundle's model, ready to score rows of features; and back from a trained network to what a bundle keeps.

The preparation (scaling, embeddings) is part of the model: whoever has a bundle cannot prepare its input otherwise.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from genre_ray.errors import InputError
from genre_ray.features.columns import schema_hash
from genre_ray.inference.target import read_targets
from genre_ray.models.preparation import Preparation, build_preparation
from genre_ray.storage.bundles import Bundle, Tensors, read_bundle
from genre_ray.training.systems import find_system

Matrix = np.ndarray[Any, np.dtype[np.float32]]


DESCRIPTION: dict[str, type] = {
    "system": str,
    "taxonomy": str,
    "labels": list,
    "architecture": dict,
    "preprocessing": dict,
    "input": dict,
}
"""What a model's description must have, each of its kind."""


class Predictor:
    """Scores rows of the features that a bundle was trained on."""

    def __init__(self, bundle: Bundle, device: str | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.bundle_id, self.model = bundle.bundle_id, bundle.model
        self.labels: tuple[str, ...] = tuple(bundle.model["labels"])
        self.system = find_system(bundle.model["system"])
        self.preparation, self.network = build(bundle)
        self.preparation.to(self.device).eval()
        self.network.to(self.device).eval()

    @torch.inference_mode()
    def scores(self, features: Matrix) -> Matrix:
        """(rows, columns) raw features → (rows, labels) scores; NaN where the features overflow the network."""
        prepared = self.preparation(torch.from_numpy(np.require(features, requirements="W")).to(self.device))
        logits = self.network(prepared)
        scores: Matrix = torch.where(logits.isfinite(), self.system.outputs.score(logits), torch.nan).cpu().numpy()
        return scores


def build(bundle: Bundle) -> tuple[Preparation, nn.Module]:
    """The bundle's preparation and network, with their weights.

    Raises:
        InputError: the weights are not those of the architecture.
    """
    architecture = bundle.model["architecture"]
    system = find_system(bundle.model["system"])
    preparation = build_preparation(bundle.model["preprocessing"])
    settings = system.resolve_network(architecture["network"])
    network = system.build(preparation.width, len(bundle.model["labels"]), settings)
    tensors = {name: torch.from_numpy(array) for name, array in bundle.tensors.items()}
    for name, module in (("preparation", preparation), ("network", network)):
        own = {key.removeprefix(name + "."): t for key, t in tensors.items() if key.startswith(name + ".")}
        try:
            module.load_state_dict(own)
        except RuntimeError as error:
            raise InputError(
                f"{bundle.uri}: expected the weights of {system.name}, found others: {' '.join(str(error).split())}; "
                "restore the bundle"
            ) from None
    return preparation, network


def to_tensors(preparation: nn.Module, network: dict[str, torch.Tensor]) -> Tensors:
    """The arrays of `model.safetensors`: `preparation.*` and `network.*`."""
    named = {f"preparation.{name}": tensor for name, tensor in preparation.state_dict().items()}
    named |= {f"network.{name}": tensor for name, tensor in network.items()}
    return {name: np.ascontiguousarray(tensor.cpu().numpy()) for name, tensor in named.items()}


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
