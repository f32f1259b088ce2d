"""Predict in a taxonomy that a bundle was not trained on, by a mapping table.

All taxonomies of the bundle that the table maps to the wanted taxonomy are used. `genre_ray.labels.translation`
computes the scores of its labels. A label is predicted if its score is at least 0.5.
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
    """How the scores of a network are turned into labels of a taxonomy that it was not trained on.

    It has the attributes and methods of `genre_ray.bundles.targets.Target` that predictions need.

    Attributes:
        taxonomy: name of the taxonomy.
        sources: the targets of the bundle that are translated.
        translation: translates their concatenated labels to those of the taxonomy.
    """

    taxonomy: str
    sources: tuple[Target, ...]
    translation: Translation

    @cached_property
    def policy(self) -> Policy:
        """The policy for the translated scores. Its hierarchy follows the names of the labels."""
        labels = self.translation.labels
        thresholds = np.full(len(labels), MORE_LIKELY_THAN_NOT, dtype=np.float32)
        return Policy(labels, thresholds, Calibration.none(len(labels)), tuple(Taxonomy.of_names(labels).edges(labels)))

    def select(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Translate the scores of the network (rows, labels of the network) to scores (rows, labels).

        The policy of each source is applied before its scores are translated.
        """
        found = [source.policy.probabilities(source.select(scores)) for source in self.sources]
        return self.translation(np.concatenate(found, axis=1))


def map_target(bundle: Bundle, taxonomy: str, table: MappingTable) -> MappedTarget:
    """Make the target that predicts `taxonomy` by a mapping table.

    Raises:
        ConfigurationError: the bundle was trained on the taxonomy, so it needs no mapping.
        InputError: the table maps none of the bundle's labels to the taxonomy.
    """
    targets = read_targets(bundle)
    if taxonomy in targets:
        raise ConfigurationError(
            f"--mapping {table.uri}: the bundle {bundle.uri} was trained on {taxonomy!r} and needs no mapping for it; "
            "remove --mapping"
        )
    sources = {name: target.labels for name, target in targets.items() if (name, taxonomy) in table.weights}
    translation = Translation.of(table, taxonomy, sources or dict.fromkeys(targets, ()))
    mapped = int((np.diff(translation.weights.tocsr().indptr) > 0).sum())
    logger.info(
        "%s: %d labels of %s are mapped to %d labels of %s; %d labels of the table are unknown to the bundle",
        table.uri,
        mapped,
        ", ".join(sources),
        len(translation.labels),
        taxonomy,
        len(translation.unknown),
    )
    return MappedTarget(taxonomy, tuple(targets[name] for name in sources), translation)
