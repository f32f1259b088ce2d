"""Score rows of features with a bundle's model, and make the tensors of a bundle from a trained model."""

from typing import Any, Self

import numpy as np
import torch

from genre_ray.bundles.files import Bundle, Tensors
from genre_ray.errors import ConfigurationError, InputError
from genre_ray.models.device import reserved_device
from genre_ray.systems.model import Model

Matrix = np.ndarray[Any, np.dtype[np.float32]]


class Predictor:
    """Computes the scores of rows of features.

    Args:
        model: the model; its preparation is a part of it, so that its input is always prepared as in training.
        device: where to compute; by default on the GPU that this Ray worker has reserved, else on the CPU.
        half_precision: whether layers multiply in bfloat16, which moves scores by some thousandths. Standardising stays
            in float32: raw features span more orders of magnitude than bfloat16 has digits for.
    """

    def __init__(self, model: Model, device: str | None = None, *, half_precision: bool = False) -> None:
        self.device = torch.device(device) if device else reserved_device()
        self.half_precision = half_precision
        self.model = model.to(self.device).eval()

    @classmethod
    def of(cls, bundle: Bundle, device: str | None = None, *, half_precision: bool = False) -> Self:
        """Make a predictor for the model of a bundle.

        Raises:
            InputError: see `build`.
        """
        return cls(build(bundle), device, half_precision=half_precision)

    def scores(self, *features: Matrix) -> Matrix:
        """(rows, values) raw features of each modality → (rows, labels) scores; NaN where they overflow the network."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half_precision):
            return self.model.scores_of(*features)


def build(bundle: Bundle) -> Model:
    """Make the bundle's model, with its weights.

    Raises:
        InputError: this version of genre_ray does not know the system or a setting, or the weights do not fit.
    """
    try:
        model = Model.from_description(bundle.manifest.model)
    except (ConfigurationError, RuntimeError) as error:  # torch raises the latter for sizes beyond memory
        raise InputError(
            f"{bundle.uri}: {' '.join(str(error).split())}; restore the bundle, "
            "or use the version of genre_ray that wrote it"
        ) from None
    try:
        model.load_state_dict({name: torch.from_numpy(array) for name, array in bundle.tensors.items()})
    except RuntimeError as error:
        raise InputError(
            f"{bundle.uri}: the weights do not fit the network of the system {model.system.name}: "
            f"{' '.join(str(error).split())}; restore the bundle"
        ) from None
    return model


def to_tensors(model: Model) -> Tensors:
    """Make the arrays of `model.safetensors`: `preparation.*`, `network.*` and `outputs.*`."""
    return {name: np.ascontiguousarray(tensor.cpu().numpy()) for name, tensor in model.state_dict().items()}
