"""Score rows of features with a bundle's model, and convert a trained model to the tensors of a bundle.

The preparation (scaling, embeddings) is stored with the model, so inputs are always prepared as in training.
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
    """Computes the scores of rows of features.

    Args:
        preparation: converts rows of features to inputs of the network.
        network: converts inputs to logits.
        output: converts logits to scores.
        device: a torch device; by default the GPU that this Ray worker has reserved, or the CPU.
        half_precision: whether to multiply matrices in bfloat16, which changes scores by about 0.001. Features are
            standardised in float32 in any case, because bfloat16 has too few digits for raw features.
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
        """Make a predictor for the model of a bundle.

        Raises:
            InputError: see `build`.
        """
        preparation, network = build(bundle)
        output = find_system(bundle.manifest.system).outputs
        return cls(preparation, network, output, device, half_precision=half_precision)

    @torch.inference_mode()
    def scores(self, features: Matrix) -> Matrix:
        """Compute scores.

        Args:
            features: raw features, float32 (rows, columns).

        Returns:
            float32 (rows, labels); NaN where the logits are not finite, because the features are too large.
        """
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            # torch warns that Arrow's memory is read-only. Nothing writes to it here.
            raw = torch.from_numpy(np.ascontiguousarray(features)).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half_precision):
            logits = self.network(self.preparation(raw)).float()
        scores = self.output.score(logits)
        # If the sum is finite, all logits are. Computing the sum is much faster than testing each logit.
        if not logits.sum().isfinite():
            scores = torch.where(logits.isfinite(), scores, torch.nan)
        found: Matrix = scores.cpu().numpy()
        return found


def build(bundle: Bundle) -> tuple[Preparation, nn.Module]:
    """Make the bundle's preparation and network, with their weights.

    Raises:
        InputError: this version of genre_ray does not know the system or a setting, or the weights do not fit.
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
                f"{bundle.uri}: the weights do not fit the {name} of the system {system.name}: "
                f"{' '.join(str(error).split())}; restore the bundle"
            ) from None
    return preparation, network


def to_tensors(preparation: nn.Module, network: dict[str, torch.Tensor]) -> Tensors:
    """Return the arrays of `model.safetensors`, named `preparation.*` and `network.*`.

    Args:
        preparation: the preparation, with its tensors.
        network: the network's state.
    """
    named = {f"preparation.{name}": tensor for name, tensor in preparation.state_dict().items()}
    named |= {f"network.{name}": tensor for name, tensor in network.items()}
    return {name: np.ascontiguousarray(tensor.cpu().numpy()) for name, tensor in named.items()}
