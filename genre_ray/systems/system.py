"""What a system is, and the systems that can be trained.

A `System` says everything that distinguishes one kind of model from another. The learner, the predictor and the bundles
read its fields; none of them tests its name.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from pydantic import Field
from torch import nn

from genre_ray.config import Settings
from genre_ray.errors import ConfigurationError, InputError
from genre_ray.features.spec import FeatureSpec
from genre_ray.models.description import OutputName
from genre_ray.models.outputs import OUTPUTS
from genre_ray.models.preparation import Preparation
from genre_ray.runs.stages import Resources
from genre_ray.systems.schedule import TaskRule, draw_at_random
from genre_ray.systems.views import WHOLE, View

T = TypeVar("T")

Matrix = np.ndarray[Any, np.dtype[np.float32]]

SYSTEMS = {
    "essentia": "genre_ray.systems.essentia",
    "fusion": "genre_ray.systems.fusion",
    "melband": "genre_ray.systems.melband",
}
"""The module of each system, which holds it as `SYSTEM`."""


class TrainingRules(Settings):
    """How a network is trained: Adam, and early stopping on the validation loss with the best weights restored."""

    learning_rate: float = Field(1e-3, gt=0, description="of Adam (0.9, 0.999, 1e-8)")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty in Adam")
    batch: int = Field(32, ge=1, description="rows per step, over all workers together")
    max_epochs: int = Field(100, ge=1, description="passes over the training rows at most")
    patience: int = Field(4, ge=1, description="epochs without a lower validation loss before training stops")
    seed: int = Field(0, ge=0, description="of the initial weights, the order of rows, crops, tasks and dropout")


@dataclass(frozen=True)
class Task:
    """One thing that a network learns.

    Attributes:
        name: what bundles and logs call it.
        output: a key of `OUTPUTS`: the loss, the score, and how many values the network gives.
        soft: whether its targets are read from a table of numbers per recording. They are labels if not.
        factors: dimensions of the label factors, for the output `cosine`.
    """

    name: str
    output: OutputName
    soft: bool = False
    factors: int = 50

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS or (self.soft and self.output != "softmax"):
            raise ValueError(f"expected the output of {self.name} to be one of {', '.join(OUTPUTS)}, softmax if soft")


@dataclass(frozen=True)
class Requirement:
    """What a features table must hold to be an input of a system.

    Attributes:
        axes: the names of the axes of a row's values, outermost first.
        kinds: the kinds of features that will do; any if empty.
    """

    axes: tuple[str, ...]
    kinds: tuple[str, ...] = ()

    def check(self, spec: FeatureSpec, origin: str) -> None:
        """Refuse features that do not meet the requirement.

        Args:
            spec: what the features are.
            origin: whose they are, for the message.

        Raises:
            InputError: says what differs.
        """
        axes = tuple(axis.name for axis in spec.shape)
        if axes != self.axes or (self.kinds and spec.kind not in self.kinds):
            wanted = f"{' or '.join(self.kinds) or 'features'} with the axes {', '.join(self.axes)}"
            raise InputError(
                f"{origin}: expected {wanted}, found {spec.kind} with the axes {', '.join(axes)}; name another "
                "features table or another system"
            )


class MapRows(Protocol):
    """A pass over the training rows of a features table, on the workers of the cluster."""

    def __call__(self, function: Callable[..., T]) -> Iterable[T]:
        """Return a function's results for batches of rows, in their order.

        Args:
            function: takes an array (rows, values) of each modality, in the order of the system's inputs.
        """


Prepare = Callable[[Mapping[str, FeatureSpec], MapRows, float | None], Preparation]

BuildNetwork = Callable[[tuple[int, ...], Mapping[str, int], Any], nn.Module]


@dataclass(frozen=True)
class System:
    """A kind of model.

    Attributes:
        name: what configurations and bundles call it.
        source: where it was published.
        inputs: by modality, what its features table must hold. Empty for a system that learns from bundles.
        preparation: the class that makes the network's inputs of the rows of features.
        prepare: (specification of each modality, pass over training rows, clip_sd) → the fitted preparation; None for a
            system that learns from bundles.
        network: (shape of an input, values to give for each task, settings) → a freshly initialised network. It is
            called with inputs (rows, …), and with the name of a task as well if there are several. It returns
            (rows, values). If it offers embeddings, it has `embed` and `embedding_width`.
        settings: the class of the network's settings; its defaults are the published network.
        tasks: what the network learns. The first one is what bundles predict, and the lowest validation loss is its.
        rules: the published training rules.
        view: which part of a row an epoch sees, and which windows a prediction is the aggregate of.
        task_rule: which task an epoch trains, if there are several.
        rows_per_call: rows that are scored at once.
        resources: what a learner reserves at least.
    """

    name: str
    source: str
    inputs: Mapping[str, Requirement]
    preparation: type[Preparation]
    prepare: Prepare | None
    network: BuildNetwork
    settings: type[Settings]
    tasks: tuple[Task, ...]
    rules: TrainingRules = field(default_factory=TrainingRules)
    view: View = WHOLE
    task_rule: TaskRule = draw_at_random
    rows_per_call: int = 4096
    resources: Resources = field(default_factory=Resources)

    @property
    def main(self) -> Task:
        """The task that bundles predict."""
        return self.tasks[0]

    def resolve_rules(self, overrides: dict[str, Any]) -> TrainingRules:
        """The published rules with some of them replaced."""
        return TrainingRules.from_mapping({**self.rules.model_dump(), **overrides}, "rules")

    def resolve_network(self, overrides: dict[str, Any]) -> Settings:
        """The published network's settings with some of them replaced."""
        return self.settings.from_mapping(overrides, "network")

    def check(self, specs: Mapping[str, FeatureSpec], origin: str) -> None:
        """Refuse features tables that are not the system's inputs.

        Raises:
            InputError: a modality is missing, unknown or of another kind.
        """
        if {*specs} != {*self.inputs}:
            raise InputError(
                f"{origin}: expected features of {', '.join(self.inputs)} for the system {self.name}, found those of "
                f"{', '.join(specs)}; name a features table for each"
            )
        for modality, requirement in self.inputs.items():
            requirement.check(specs[modality], origin)


def find_system(name: str) -> System:
    """The system of that name.

    Raises:
        ConfigurationError: there is none.
    """
    if name not in SYSTEMS:
        raise ConfigurationError(f"unknown system {name!r}; known are {', '.join(sorted(SYSTEMS))}")
    system: System = importlib.import_module(SYSTEMS[name]).SYSTEM
    return system
