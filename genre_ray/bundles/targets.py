"""Targets: the taxonomies that a bundle predicts, each with its own label names and policy.

The network computes one score per label of a label space. A target says which of these scores belong to the labels of a
taxonomy. A bundle for one taxonomy has one target, which uses all scores. A bundle for several joined taxonomies has
one target per taxonomy.
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
    """How the scores of a network are turned into labels of one taxonomy.

    Attributes:
        taxonomy: name of the taxonomy.
        columns: for each label, the column of its score among the task's scores, int64 (labels,).
        policy: the policy, with the taxonomy's own label names.
        hierarchy: (child, parent) positions in the policy's labels.
        task: the task of the network whose scores are used.
    """

    taxonomy: str
    columns: NDArray[np.int64]
    policy: Policy
    hierarchy: tuple[Pair, ...] = ()
    task: str = GENRES

    @property
    def labels(self) -> tuple[str, ...]:
        """The taxonomy's own label names, sorted, (labels,)."""
        return self.policy.labels

    @classmethod
    def of(cls, taxonomy: str, description: TargetDescription) -> Self:
        """Make a target from its description in a manifest."""
        return cls(
            taxonomy,
            np.array(description.columns, dtype=np.int64),
            Policy.of(description.labels, description.policy),
            description.hierarchy,
            description.task,
        )

    def describe(self) -> TargetDescription:
        """The description of the target for a manifest."""
        return TargetDescription(
            task=self.task,
            labels=self.labels,
            columns=tuple(self.columns.tolist()),
            hierarchy=self.hierarchy,
            policy=self.policy.describe(),
        )

    def select(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Select this target's scores (rows, labels) from all scores of the task (rows, labels of the task)."""
        if np.array_equal(self.columns, np.arange(scores.shape[1])):
            return scores
        return scores[:, self.columns]


def read_targets(bundle: Bundle) -> dict[str, Target]:
    """Return all targets of a bundle: taxonomy → target."""
    return {taxonomy: Target.of(taxonomy, target) for taxonomy, target in bundle.manifest.targets.items()}


def find_target(bundle: Bundle, taxonomy: str | None = None) -> Target:
    """Return the target for a taxonomy, or the bundle's default target if `taxonomy` is None.

    Raises:
        ConfigurationError: the bundle does not predict this taxonomy.
    """
    targets = read_targets(bundle)
    if taxonomy is None:
        return targets[bundle.manifest.taxonomy]
    if taxonomy not in targets:
        raise ConfigurationError(
            f"--target {taxonomy}: the bundle {bundle.uri} predicts {', '.join(map(repr, targets))}; "
            f"choose one of them, or give a --mapping to {taxonomy}"
        )
    return targets[taxonomy]
