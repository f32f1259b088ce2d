"""A system of two tasks that share a first block: label factors of genres, and topics as soft targets."""

from collections.abc import Mapping

from torch import Tensor, nn

from genre_ray.config import Settings
from genre_ray.features.scaling import merge_moments, moments
from genre_ray.models.preparation import Standardise
from genre_ray.systems.description import AUDIO, GENRES
from genre_ray.systems.system import Requirement, System, Task, TrainingRules

TOPICS = "topics"


class NoSettings(Settings):
    """The network has none."""


class SharedNetwork(nn.Module):
    """(rows, inputs), task → (rows, values of the task)."""

    def __init__(self, inputs: int, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(inputs, 16), nn.ReLU())
        self.heads = nn.ModuleDict(
            {task: nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, width)) for task, width in widths.items()}
        )

    def forward(self, inputs: Tensor, task: str) -> Tensor:
        return self.heads[task](self.shared(inputs))


def _network(shape, widths, settings):
    return SharedNetwork(*shape, widths)


def _prepare(specs, map_rows, clip_sd):
    return Standardise.of(merge_moments(map_rows(moments)), clip_sd)


SYSTEM = System(
    name="two-tasks",
    source="the tests",
    inputs={AUDIO: Requirement(("columns",))},
    preparation=Standardise,
    prepare=_prepare,
    network=_network,
    settings=NoSettings,
    tasks=(Task(GENRES, "cosine", factors=3), Task(TOPICS, "softmax", soft=True)),
    rules=TrainingRules(batch=16, max_epochs=40, patience=40, learning_rate=0.01),
)
