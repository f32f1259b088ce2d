"""Targets: the taxonomies that a bundle predicts, each with its own label names and policy.

A task of the network scores one label space. A target says which of these scores are the scores of its labels. A bundle
of one taxonomy has one target with all scores; a bundle of joined taxonomies has one target per taxonomy.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from genre_ray.bundles.files import Bundle
from genre_ray.bundles.manifest import TargetDescription
from genre_ray.decisions.consistency import Pair
from genre_ray.decisions.policy import Policy
from genre_ray.errors import ConfigurationError
from genre_ray.systems.description import GENRES


@dataclass(frozen=True)
class Target:
    """How a network's scores become the labels of one taxonomy.

    Attributes:
        taxonomy: its name.
        columns: int64 (labels,) the column of the task's scores for each of the policy's labels.
        policy: how these scores become labels, under the taxonomy's own names.
        hierarchy: (child, parent) positions in the policy's labels.
        task: the task whose scores are used.
    """

    taxonomy: str
    columns: NDArray[np.int64]
    policy: Policy
    hierarchy: tuple[Pair, ...] = ()
    task: str = GENRES

    @property
    def labels(self) -> tuple[str, ...]:
        """(labels,) the taxonomy's own names, sorted."""
        return self.policy.labels

    @classmethod
    def of(cls, taxonomy: str, description: TargetDescription) -> Self:
        """Make the target that a manifest describes."""
        return cls(
            taxonomy,
            np.array(description.columns, dtype=np.int64),
            Policy.of(description.labels, description.policy),
            description.hierarchy,
            description.task,
        )

    def describe(self) -> TargetDescription:
        """What the manifest states of it."""
        return TargetDescription(
            task=self.task,
            labels=self.labels,
            columns=tuple(self.columns.tolist()),
            hierarchy=self.hierarchy,
            policy=self.policy.describe(),
        )

    def select(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """(rows, the task's labels) scores → (rows, labels)."""
        if np.array_equal(self.columns, np.arange(scores.shape[1])):
            return scores
        return scores[:, self.columns]


def read_targets(bundle: Bundle) -> dict[str, Target]:
    """All targets of a bundle by their taxonomy."""
    return {taxonomy: Target.of(taxonomy, target) for taxonomy, target in bundle.manifest.targets.items()}


def find_target(bundle: Bundle, taxonomy: str | None = None) -> Target:
    """The target of that name; the bundle's default when no name is given.

    Raises:
        ConfigurationError: the bundle has no such target.
    """
    targets = read_targets(bundle)
    if taxonomy is None:
        return targets[bundle.manifest.taxonomy]
    if taxonomy not in targets:
        raise ConfigurationError(
            f"--target {taxonomy}: the bundle {bundle.uri} predicts {', '.join(map(repr, targets))}; "
            "name one of them, or a --mapping that leads there"
        )
    return targets[taxonomy]
