"""A system of windows over a tensor table: random crops of 8 frames in training, their mean in prediction."""

from pydantic import Field
from torch import Tensor, nn

from genre_ray.config import Settings
from genre_ray.models.preparation import Preparation
from genre_ray.systems.description import AUDIO, GENRES
from genre_ray.systems.system import Requirement, System, Task, TrainingRules
from genre_ray.systems.views import Windows

SIZE, HOP = 8, 4


class FramesSettings(Settings):
    """The shape of a row."""

    mels: int
    frames: int


class Frames(Preparation):
    """(rows, mels × frames) → (rows, mels, frames)."""

    kind, settings_type = "frames", FramesSettings

    def __init__(self, mels: int, frames: int) -> None:
        super().__init__()
        self.shape = (mels, frames)

    @property
    def settings(self) -> FramesSettings:
        return FramesSettings(mels=self.shape[0], frames=self.shape[1])

    @classmethod
    def from_settings(cls, settings):
        return cls(settings.mels, settings.frames)

    def forward(self, features: Tensor) -> Tensor:
        return features.view(-1, *self.shape)


class NetworkSettings(Settings):
    """The shape of a `WindowNetwork`."""

    units: int = Field(12, ge=1)


class WindowNetwork(nn.Module):
    """(rows, mels, 8 frames) → (rows, labels)."""

    def __init__(self, mels: int, labels: int, settings: NetworkSettings) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(mels, settings.units, 3), nn.BatchNorm1d(settings.units), nn.ReLU())
        self.head = nn.Linear(settings.units, labels)
        self.embedding_width = settings.units

    def embed(self, inputs: Tensor) -> Tensor:
        assert inputs.shape[2] == SIZE
        return self.body(inputs).mean(dim=2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.embed(inputs))


def _network(shape, widths, settings):
    assert shape[1] == SIZE
    return WindowNetwork(shape[0], widths[GENRES], settings)


def _prepare(specs, map_rows, clip_sd):
    mels, frames = (axis.size for axis in specs[AUDIO].shape)
    return Frames(mels, frames)


SYSTEM = System(
    name="windowed",
    source="the tests",
    inputs={AUDIO: Requirement(("mels", "frames"), ("log-mel",))},
    preparation=Frames,
    prepare=_prepare,
    network=_network,
    settings=NetworkSettings,
    tasks=(Task(GENRES, "softmax"),),
    rules=TrainingRules(batch=16, max_epochs=12, learning_rate=0.02),
    view=Windows(axis=1, size=SIZE, hop=HOP),
    rows_per_call=16,
)
