"""What a network's values mean in a training: the outputs of a system's tasks, made for its examples."""

import numpy as np

from genre_ray.errors import ConfigurationError, InputError
from genre_ray.labels.factors import label_factors
from genre_ray.labels.splits import PARTS
from genre_ray.models.outputs import Cosine, MaskedSigmoid, Output, Sigmoid, Softmax
from genre_ray.systems.system import System, Task
from genre_ray.training.examples import Examples


def make_outputs(system: System, examples: Examples) -> dict[str, Output]:
    """The output of each of a system's tasks.

    Raises:
        ConfigurationError: labels are masked, but the output needs all of them.
        InputError: a recording has several labels where one is right.
    """
    return {task.name: _make(task, examples) for task in system.tasks}


def _make(task: Task, examples: Examples) -> Output:
    labels = len(examples.labels)
    if task.soft:
        return Softmax(examples.soft[task.name].shape[1])
    if task.output == "sigmoid":
        return MaskedSigmoid(labels) if examples.masked else Sigmoid(labels)
    if examples.masked:
        raise ConfigurationError(
            f"unlabelled: masked labels need the output sigmoid, but {task.name} has the output {task.output}; set it "
            "to negative"
        )
    if task.output == "softmax":
        _refuse_several(examples)
        return Softmax(labels)
    # What the test part says is not learnt from.
    known = np.flatnonzero(examples.parts != PARTS.index("test"))
    return Cosine(label_factors(examples.matrix[known], task.factors))


def _refuse_several(examples: Examples) -> None:
    counts = np.diff(examples.matrix.indptr)
    if (counts != 1).any():
        place = int(np.flatnonzero(counts != 1)[0])
        found = [examples.labels[column] for column in examples.matrix[[place]].indices]
        raise InputError(
            f"expected one label for each recording, found {int((counts != 1).sum())} recordings with several, e.g. "
            f"{examples.recording_ids[place]} with {', '.join(found)}; keep one, or train a multi-label system"
        )
