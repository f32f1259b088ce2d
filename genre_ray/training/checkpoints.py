"""Checkpoints of a training as safetensors and JSON: the network, Adam's state, the best weights, the losses so far."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

STATE, PROGRESS = "training.safetensors", "training.json"


@dataclass
class Progress:
    """The metrics of every epoch so far, and which of them was the best.

    Attributes:
        history: of each epoch: `loss`, of the task that it trained; `validation_loss`, of the main task;
            `roc_auc.TAXONOMY`, about the macro ROC AUC of a taxonomy's labels on validation rows. If there are several
            tasks: `task`, the place of the one that it trained, and `validation_loss.TASK` of the others.
        best_epoch: the one with the lowest `validation_loss`; -1 before the first.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1

    def add(self, metrics: dict[str, float]) -> bool:
        """Append an epoch's metrics; True if its validation loss is the lowest so far."""
        best = self.history[self.best_epoch]["validation_loss"] if self.best_epoch >= 0 else float("inf")
        self.history.append(metrics)
        if metrics["validation_loss"] < best:
            self.best_epoch = len(self.history) - 1
            return True
        return False

    @property
    def waited(self) -> int:
        """Epochs since the best one."""
        return len(self.history) - 1 - self.best_epoch if self.history else 0

    def __str__(self) -> str:
        if not self.history:
            return "no epoch is done yet"
        latest, best = self.history[-1], self.history[self.best_epoch]
        return (
            f"epoch {len(self.history)}: loss {latest['loss']:.5f}, validation loss {latest['validation_loss']:.5f}, "
            f"lowest {best['validation_loss']:.5f} in epoch {self.best_epoch + 1}"
        )


def write(
    folder: str,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    best: dict[str, Tensor],
    progress: Progress,
) -> None:
    """Write everything that a training needs to go on."""
    tensors = {f"network.{name}": tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": tensor.detach().cpu() for name, tensor in state.items()}
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, Path(folder) / STATE)
    (Path(folder) / PROGRESS).write_text(json.dumps(asdict(progress)))


def restore(folder: str, network: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[dict[str, Tensor], Progress]:
    """Put network and optimiser back; return the best weights and the losses so far."""
    tensors = load_file(Path(folder) / STATE)
    network.load_state_dict(_below(tensors, "network."))
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below(tensors, "optimiser.").items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    return read_best(folder)


def read_best(folder: str) -> tuple[dict[str, Tensor], Progress]:
    """The best weights and the losses."""
    progress = Progress(**json.loads((Path(folder) / PROGRESS).read_text()))
    return _below(load_file(Path(folder) / STATE), "best."), progress


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
