"""Score rows of features with a bundle's model, and make the tensors of a bundle from a trained model.

The preparation (scaling, embeddings) is part of the model, so that its input is always prepared as in training.
"""

import warnings
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from genre_ray.bundles.files import Bundle, Tensors
from genre_ray.errors import ConfigurationError, InputError
from genre_ray.models.device import reserved_device
from genre_ray.models.outputs import Output
from genre_ray.models.preparation import Preparation, build_preparation
from genre_ray.training.systems import find_system

Matrix = np.ndarray[Any, np.dtype[np.float32]]


class Predictor:
    """Scores rows of the features that a model was trained on.

    Args:
        preparation: rows of features → rows of the network's inputs.
        network: rows of inputs → logits.
        output: what makes scores of logits.
        device: where to compute; by default on the GPU that this Ray worker has reserved, else on the CPU.
        half_precision: whether layers multiply in bfloat16, which moves scores by some thousandths. Standardising stays
            in float32: raw features span more orders of magnitude than bfloat16 has digits for.
    """

    def __init__(
        self,
        preparation: Preparation,
        network: nn.Module,
        output: Output,
        device: str | None = None,
        *,
        half_precision: bool = False,
    ) -> None:
        self.device = torch.device(device) if device else reserved_device()
        self.half_precision, self.output = half_precision, output
        self.preparation = preparation.to(self.device).eval()
        self.network = network.to(self.device).eval()

    @classmethod
    def of(cls, bundle: Bundle, device: str | None = None, *, half_precision: bool = False) -> Self:
        """Make the predictor of a bundle's model.

        Raises:
            InputError: see `build`.
        """
        preparation, network = build(bundle)
        output = find_system(bundle.manifest.system).outputs
        return cls(preparation, network, output, device, half_precision=half_precision)

    @torch.inference_mode()
    def scores(self, features: Matrix) -> Matrix:
        """(rows, columns) raw features → (rows, labels) scores; NaN where the features overflow the network."""
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            # Arrow's memory may not be written to, which nothing here does.
            raw = torch.from_numpy(np.ascontiguousarray(features)).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half_precision):
            logits = self.network(self.preparation(raw)).float()
        scores = self.output.score(logits)
        # A sum is finite only if all are, and takes a fraction of the time to look at each.
        if not logits.sum().isfinite():
            scores = torch.where(logits.isfinite(), scores, torch.nan)
        found: Matrix = scores.cpu().numpy()
        return found


def build(bundle: Bundle) -> tuple[Preparation, nn.Module]:
    """Make the bundle's preparation and network, with their weights.

    Raises:
        InputError: the manifest describes no model of this version of genre_ray, or the weights are those of another.
    """
    manifest = bundle.manifest
    try:
        system = find_system(manifest.system)
        preparation = build_preparation(manifest.preprocessing)
        settings = system.resolve_network(manifest.architecture.network)
        network = system.build(preparation.width, len(manifest.labels), settings)
    except (ConfigurationError, RuntimeError) as error:  # torch raises the latter for sizes beyond memory
        raise InputError(
            f"{bundle.uri}: {' '.join(str(error).split())}; restore the bundle, "
            "or use the version of genre_ray that wrote it"
        ) from None
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
    """Make the arrays of `model.safetensors`: `preparation.*` and `network.*`."""
    named = {f"preparation.{name}": tensor for name, tensor in preparation.state_dict().items()}
    named |= {f"network.{name}": tensor for name, tensor in network.items()}
    return {name: np.ascontiguousarray(tensor.cpu().numpy()) for name, tensor in named.items()}
