"""Baselines that do not use features: popularity and random, as the task's organisers define them, and majority."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from genre_ray.errors import InputError
from genre_ray.labels.taxonomy import is_subgenre, parent


def popularity(training: Sequence[Sequence[str]], recordings: int) -> list[tuple[str, ...]]:
    """Predict the most frequent genre of the training recordings for every recording.

    Args:
        training: the label set of each training recording.
        recordings: number of recordings to predict.

    Returns:
        (recordings,) label sets of one genre. Of equally frequent genres, the first by name is chosen.

    Raises:
        InputError: no training recording has a genre.
    """
    frequency = Counter(label for labels in training for label in set(labels) if not is_subgenre(label))
    if not frequency:
        raise InputError("no training recording has a genre, which the popularity baseline needs; check the examples")
    genre = min(frequency, key=lambda label: (-frequency[label], label))
    return [(genre,)] * recordings


def majority_branch(training: Sequence[Sequence[str]], recordings: int) -> list[tuple[str, ...]]:
    """Predict the most frequent genre, its most frequent subgenre and so on down, for every recording.

    Unlike `popularity` it also predicts subgenres: at each level, the most frequent child of the label before.

    Args:
        training: the label set of each training recording.
        recordings: number of recordings to predict.

    Returns:
        (recordings,) label sets, parents before children. Of equally frequent labels, the first by name is chosen.

    Raises:
        InputError: no training recording has a genre.
    """
    ((genre,),) = popularity(training, 1)
    frequency = Counter(label for labels in training for label in set(labels))
    branch = [genre]
    while below := [label for label in frequency if parent(label) == branch[-1]]:
        branch.append(min(below, key=lambda label: (-frequency[label], label)))
    return [tuple(branch)] * recordings


def random_label_sets(training: Sequence[Sequence[str]], recordings: int, *, seed: int) -> list[tuple[str, ...]]:
    """Predict for every recording the label set of a training recording drawn at random.

    Args:
        training: the label set of each training recording.
        recordings: number of recordings to predict.
        seed: seed of the random draw.

    Returns:
        (recordings,) label sets.

    Raises:
        InputError: there is no training recording.
    """
    if not training:
        raise InputError("there is no training recording, which the random baseline needs; check the examples")
    # Drawing recordings uniformly draws each label set with its frequency.
    drawn = np.random.default_rng(seed).integers(len(training), size=recordings)
    return [tuple(training[i]) for i in drawn]
