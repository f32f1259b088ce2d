"""Targets: the taxonomies that a bundle answers in, each with its own label names and thresholds.

The network of a bundle scores one label space; a target says which of its columns are whose labels. A bundle of one
taxonomy has one target with all columns, one of joined taxonomies a target for each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from genre_ray.decisions.policy import Policy
from genre_ray.errors import ConfigurationError, InputError


@dataclass(frozen=True)
class Target:
    """How a network's scores are an answer in one taxonomy.

    Attributes:
        taxonomy: its name.
        columns: (labels,) the column of the network's scores that each of the policy's labels is.
        policy: how these scores become labels, under the taxonomy's own names.
    """

    taxonomy: str
    columns: NDArray[np.int64]
    policy: Policy

    @property
    def labels(self) -> tuple[str, ...]:
        """(labels,) the taxonomy's own names, sorted."""
        return self.policy.labels

    @classmethod
    def of(cls, taxonomy: str, description: Mapping[str, Any]) -> Self:
        """The target that `describe` described so.

        Raises:
            ValueError: labels, columns and thresholds are not of one length, or not what they should be.
        """
        labels: Sequence[str] = description["labels"]
        columns = np.array(description["columns"], dtype=np.int64)
        policy = Policy.of(labels, description)
        if not len(labels) == len(columns) > 0 or len({*columns.tolist()}) < len(columns):
            raise ValueError("expected a column of its own for each label")
        if (columns < 0).any() or not (np.isfinite(policy.thresholds) & (policy.thresholds > 0)).all():
            raise ValueError("expected columns of at least 0 and finite thresholds above it")
        return cls(taxonomy, columns, policy)

    def describe(self) -> dict[str, Any]:
        """What `model.json` says of it."""
        return {"labels": list(self.labels), "columns": self.columns.tolist(), **self.policy.describe()}

    def select(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """(rows, network's labels) scores → (rows, labels)."""
        if np.array_equal(self.columns, np.arange(scores.shape[1])):
            return scores
        return scores[:, self.columns]


def read_targets(model: Mapping[str, Any], bundle_uri: str) -> dict[str, Target]:
    """All targets of a bundle by their taxonomy.

    Raises:
        InputError: they are not described as they should be.
    """
    described = model.get("targets")
    if described is None:
        # Older bundles had one taxonomy only, whose thresholds stood beside the network's labels.
        columns = range(len(model["labels"]))
        described = {model["taxonomy"]: {**model, "columns": columns}}
    try:
        found = {taxonomy: Target.of(taxonomy, description) for taxonomy, description in described.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{bundle_uri}: expected labels, columns, thresholds and calibration of each target in model.json, "
            f"found otherwise ({error}); restore the bundle"
        ) from None
    width = len(model["labels"])
    if model["taxonomy"] not in found or any((target.columns >= width).any() for target in found.values()):
        raise InputError(
            f"{bundle_uri}: expected a target {model['taxonomy']!r} and columns below {width} in model.json, found "
            f"others for {', '.join(found) or 'no target'}; restore the bundle"
        )
    return found


def find_target(model: Mapping[str, Any], bundle_uri: str, taxonomy: str | None = None) -> Target:
    """The target of that name; the bundle's own one when no name is given.

    Raises:
        ConfigurationError: the bundle has no such target.
    """
    targets = read_targets(model, bundle_uri)
    if taxonomy is None:
        return targets[model["taxonomy"]]
    if taxonomy not in targets:
        raise ConfigurationError(
            f"--target {taxonomy}: the bundle {bundle_uri} answers in {', '.join(map(repr, targets))}; "
            "name one of them, or a --mapping that leads there"
        )
    return targets[taxonomy]
