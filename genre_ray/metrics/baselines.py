"""Baselines that look at no features, which any system should beat: the task organisers' two, and a majority."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from genre_ray.errors import InputError
from genre_ray.labels.taxonomy import is_subgenre, parent


def popularity(training: Sequence[Sequence[str]], recordings: int) -> list[tuple[str, ...]]:
    """Predict for every recording the one genre that most training recordings have.

    Args:
        training: the label set of each training recording.
        recordings: number of recordings to predict.

    Returns:
        (recordings,) label sets of one genre. Among equally frequent genres, the first by name.

    Raises:
        InputError: the training truth has no genre.
    """
    frequency = Counter(label for labels in training for label in set(labels) if not is_subgenre(label))
    if not frequency:
        raise InputError("the popularity baseline needs a training recording with a genre, found none")
    genre = min(frequency, key=lambda label: (-frequency[label], label))
    return [(genre,)] * recordings


def majority_branch(training: Sequence[Sequence[str]], recordings: int) -> list[tuple[str, ...]]:
    """Predict for every recording the most frequent genre, with the majority of its subgenres, of theirs, and so on.

    Unlike popularity this also answers below genres: at each level the label most frequent among the training
    recordings below the one before, as long as there is one.

    Args:
        training: the label set of each training recording.
        recordings: number of recordings to predict.

    Returns:
        (recordings,) label sets, parents before children. Among equally frequent labels, the first by name.

    Raises:
        InputError: the training truth has no genre.
    """
    ((genre,),) = popularity(training, 1)
    frequency = Counter(label for labels in training for label in set(labels))
    branch = [genre]
    while below := [label for label in frequency if parent(label) == branch[-1]]:
        branch.append(min(below, key=lambda label: (-frequency[label], label)))
    return [tuple(branch)] * recordings


def random_label_sets(training: Sequence[Sequence[str]], recordings: int, *, seed: int) -> list[tuple[str, ...]]:
    """Predict for every recording a whole label set, drawn with the frequency it has in training.

    Args:
        training: the label set of each training recording.
        recordings: number of recordings to predict.
        seed: makes the draw repeatable.

    Returns:
        (recordings,) label sets, each one that occurs in training.

    Raises:
        InputError: there is no training recording.
    """
    if not training:
        raise InputError("the random baseline needs a training recording, found none")
    # A training recording drawn uniformly brings each label set with its frequency.
    drawn = np.random.default_rng(seed).integers(len(training), size=recordings)
    return [tuple(training[i]) for i in drawn]
