"""Predictions in a taxonomy that a bundle was not trained for, through a mapping table.

The labels of every taxonomy of the bundle that the table maps to the wanted one are used. A label's score is that of
the source label that supports it most (`genre_ray.labels.translation`). A label is predicted if it is more likely than
not.
"""

import logging
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from genre_ray.bundles.files import Bundle
from genre_ray.bundles.targets import Target, read_targets
from genre_ray.decisions.calibration import Calibration
from genre_ray.decisions.policy import Policy
from genre_ray.errors import ConfigurationError
from genre_ray.labels.taxonomy import Taxonomy
from genre_ray.labels.translation import Translation
from genre_ray.truth.mapping_table import MappingTable

logger = logging.getLogger(__name__)

MORE_LIKELY_THAN_NOT = 0.5


@dataclass(frozen=True)
class MappedTarget:
    """How a network's scores become labels of another taxonomy; it is used as a `Target` is.

    Attributes:
        taxonomy: its name.
        sources: the bundle's own targets.
        translation: from their labels, side by side, to this taxonomy's.
    """

    taxonomy: str
    sources: tuple[Target, ...]
    translation: Translation

    @cached_property
    def policy(self) -> Policy:
        """How its scores become labels: those of the taxonomy that are mapped to, by their names' hierarchy."""
        labels = self.translation.labels
        thresholds = np.full(len(labels), MORE_LIKELY_THAN_NOT, dtype=np.float32)
        return Policy(labels, thresholds, Calibration.none(len(labels)), tuple(Taxonomy.of_names(labels).edges(labels)))

    def select(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """(rows, network's labels) scores → (rows, labels), of what the sources' scores are by their own policies."""
        found = [source.policy.probabilities(source.select(scores)) for source in self.sources]
        return self.translation(np.concatenate(found, axis=1))


def map_target(bundle: Bundle, taxonomy: str, table: MappingTable) -> MappedTarget:
    """The target that predicts `taxonomy` through a mapping table.

    Raises:
        ConfigurationError: the bundle predicts the taxonomy itself.
        InputError: the table maps none of the bundle's labels to it.
    """
    targets = read_targets(bundle)
    if taxonomy in targets:
        raise ConfigurationError(
            f"--mapping {table.uri}: expected a target that the bundle {bundle.uri} was not trained for, found "
            f"{taxonomy!r}, which it predicts itself; leave --mapping out"
        )
    sources = {name: target.labels for name, target in targets.items() if (name, taxonomy) in table.weights}
    translation = Translation.of(table, taxonomy, sources or dict.fromkeys(targets, ()))
    mapped = int((np.diff(translation.weights.tocsr().indptr) > 0).sum())
    logger.info(
        "%s: %d labels of %s support %d of %s; the bundle lacks %d others that the table maps from",
        table.uri,
        mapped,
        ", ".join(sources),
        len(translation.labels),
        taxonomy,
        len(translation.unknown),
    )
    return MappedTarget(taxonomy, tuple(targets[name] for name in sources), translation)
