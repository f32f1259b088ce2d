"""A bundle's model, ready to score rows of features; and back from a trained network to what a bundle keeps.

The preparation (scaling, embeddings) is part of the model: whoever has a bundle cannot prepare its input otherwise.
"""

import warnings
from typing import Any

import numpy as np
import torch
from torch import nn

from genre_ray.errors import InputError
from genre_ray.models.device import reserved_device
from genre_ray.models.preparation import Preparation, build_preparation
from genre_ray.storage.bundles import Bundle, Tensors
from genre_ray.training.systems import find_system

Matrix = np.ndarray[Any, np.dtype[np.float32]]


class Predictor:
    """Scores rows of the features that a bundle was trained on.

    Args:
        bundle: the bundle.
        device: where to compute; when not given, on the GPU that this Ray worker has reserved, else on the CPU.
        half_precision: whether layers multiply in bfloat16, which moves scores by some thousandths. Standardising stays
            in float32: raw features span more orders of magnitude than bfloat16 has digits for.
    """

    def __init__(self, bundle: Bundle, device: str | None = None, *, half_precision: bool = False) -> None:
        self.device = torch.device(device) if device else reserved_device()
        self.half_precision = half_precision
        self.bundle_id, self.model = bundle.bundle_id, bundle.model
        self.labels: tuple[str, ...] = tuple(bundle.model["labels"])
        self.system = find_system(bundle.model["system"])
        self.preparation, self.network = build(bundle)
        self.preparation.to(self.device).eval()
        self.network.to(self.device).eval()

    @torch.inference_mode()
    def scores(self, features: Matrix) -> Matrix:
        """(rows, columns) raw features → (rows, labels) scores; NaN where the features overflow the network."""
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            # Arrow's memory may not be written to, which nothing here does.
            raw = torch.from_numpy(np.ascontiguousarray(features)).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half_precision):
            logits = self.network(self.preparation(raw)).float()
        scores = self.system.outputs.score(logits)
        # A sum is finite only if all are, and takes a fraction of the time to look at each.
        if not logits.sum().isfinite():
            scores = torch.where(logits.isfinite(), scores, torch.nan)
        found: Matrix = scores.cpu().numpy()
        return found


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
