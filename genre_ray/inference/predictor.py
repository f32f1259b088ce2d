"""A bundle's model, ready to score rows of features; and back from a trained network to what a bundle keeps.

The preparation (scaling, embeddings) is part of the model: whoever has a bundle cannot prepare its input otherwise.
"""

from typing import Any

import numpy as np
import torch

from genre_ray.errors import InputError
from genre_ray.models.device import reserved_device
from genre_ray.storage.bundles import Bundle, Tensors
from genre_ray.systems.model import Model

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
        self.bundle_id, self.labels = bundle.bundle_id, tuple(bundle.model["labels"])
        self.model = build(bundle).to(self.device).eval()

    def scores(self, *features: Matrix) -> Matrix:
        """(rows, columns) raw features of each modality → (rows, labels) scores; NaN where they overflow the network."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half_precision):
            return self.model.scores_of(*features)


def build(bundle: Bundle) -> Model:
    """The bundle's model, with its weights.

    Raises:
        InputError: the weights are not those of the architecture.
    """
    model = Model.from_description(bundle.model["model"])
    tensors = {name: torch.from_numpy(array) for name, array in bundle.tensors.items()}
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(
            f"{bundle.uri}: expected the weights of {model.system.name}, found others: {' '.join(str(error).split())}; "
            "restore the bundle"
        ) from None
    return model


def to_tensors(model: Model) -> Tensors:
    """The arrays of `model.safetensors`: `preparation.*`, `network.*` and `outputs.*`."""
    return {name: np.ascontiguousarray(tensor.cpu().numpy()) for name, tensor in model.state_dict().items()}
