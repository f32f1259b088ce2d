"""A model: a system's preparation, network and outputs together, from rows of features to scores or embeddings.

Its parameters have the names that bundles keep: `preparation.*`, `network.*` and `outputs.*`.
"""

import warnings
from collections.abc import Mapping
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genre_ray.config import Settings
from genre_ray.errors import ConfigurationError
from genre_ray.models.outputs import Output, restore_output
from genre_ray.models.preparation import Preparation
from genre_ray.systems.description import ModelDescription
from genre_ray.systems.system import System, find_system


class Model(nn.Module):
    """Scores rows of features.

    Args:
        system: what it is.
        settings: of the network.
        preparation: from rows of features to the network's inputs.
        outputs: what the network's values mean, by task, in the order of the system's tasks.
    """

    def __init__(
        self, system: System, settings: Settings, preparation: Preparation, outputs: Mapping[str, Output]
    ) -> None:
        super().__init__()
        self.system, self.settings = system, settings
        self.preparation = preparation
        widths = {task: output.width for task, output in outputs.items()}
        self.network = system.network(system.view.shape(preparation.shape), widths, settings)
        self.outputs = nn.ModuleDict(outputs)

    def output(self, task: str) -> Output:
        """What the network's values for a task mean."""
        output = self.outputs[task]
        assert isinstance(output, Output)
        return output

    def scores_of(self, *features: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `scores`, from and to arrays, in as many steps as the system wants."""
        most, device = self.system.rows_per_call, next(self.parameters()).device
        found = []
        for first in range(0, max(len(features[0]), 1), most):
            with warnings.catch_warnings(action="ignore", category=UserWarning):
                # Arrow's memory may not be written to, which nothing here does.
                rows = [torch.from_numpy(np.ascontiguousarray(each[first : first + most])) for each in features]
            with torch.inference_mode():
                found.append(self.scores(*(each.to(device) for each in rows)).cpu().numpy())
        return found[0] if len(found) == 1 else np.concatenate(found)

    def scores(self, *features: Tensor) -> Tensor:
        """The scores of the main task.

        Args:
            features: of each modality, (rows, values) float32. A row that lacks a modality is NaN throughout.

        Returns:
            (rows, labels) float32; NaN for a row whose features overflow the network.
        """
        return self.score(self.system.main.name, self.preparation(*features))

    def score(self, task: str, inputs: Tensor) -> Tensor:
        """As `scores`, of a task and prepared inputs (rows, …): the aggregate of the scores of their windows."""
        windows = self.system.view.windows(inputs)
        logits = self.logits(self.network, task, windows.flatten(0, 1)).float()
        scores = self.output(task).score(logits)
        # A sum is finite only if all are, and takes a fraction of the time to look at each.
        if not logits.sum().isfinite():
            scores = torch.where(logits.isfinite().all(dim=1, keepdim=True), scores, torch.nan)
        return self.system.view.aggregate(scores.unflatten(0, windows.shape[:2]))

    def embed(self, *features: Tensor) -> Tensor:
        """(rows, values) of each modality → (rows, embedding): the aggregate of the embeddings of their windows."""
        windows = self.system.view.windows(self.preparation(*features))
        embeddings: Tensor = self.network.embed(windows.flatten(0, 1))  # type: ignore[operator]
        return self.system.view.aggregate(embeddings.unflatten(0, windows.shape[:2]))

    @property
    def embedding_width(self) -> int | None:
        """Values of an embedding; None if the network offers none."""
        width: int | None = getattr(self.network, "embedding_width", None)
        return width

    def logits(self, network: nn.Module, task: str, inputs: Tensor) -> Tensor:
        """What `network` (this one, or a replica of it) gives for a task: (rows, *shape) → (rows, values)."""
        logits: Tensor = network(inputs, task) if len(self.system.tasks) > 1 else network(inputs)
        return logits

    def describe(self) -> ModelDescription:
        """What `from_description` makes it from, except for the tensors."""
        return ModelDescription(
            system=self.system.name,
            network=self.settings.model_dump(mode="json"),
            preprocessing=self.preparation.describe(),
            outputs={task: self.output(task).describe() for task in self.outputs},
        )

    @classmethod
    def from_description(cls, description: ModelDescription) -> Self:
        """The model that `describe` described, with fresh weights.

        Raises:
            ConfigurationError: the system or its settings are unknown, or its tasks are others.
        """
        system = find_system(description.system)
        outputs = {task.name: task.output for task in system.tasks}
        found = {task: output.output for task, output in description.outputs.items()}
        if outputs != found:
            raise ConfigurationError(f"expected the tasks {outputs} of the system {system.name}, found {found}")
        return cls(
            system,
            system.resolve_network(dict(description.network)),
            system.preparation.from_description(description.preprocessing),
            {task: restore_output(description.outputs[task]) for task in outputs},
        )
