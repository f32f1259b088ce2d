"""A manifest in order, for tests that need some bundle."""

from genre_ray.bundles.manifest import (
    AUDIO,
    GENRES,
    VERSION,
    Architecture,
    Data,
    Licences,
    Lineage,
    Manifest,
    Metrics,
    TargetDescription,
    TaskDescription,
)
from genre_ray.decisions.policy import PolicyDescription
from genre_ray.features.spec import FeatureSpec
from genre_ray.labels.taxonomy import Taxonomy
from genre_ray.models.description import PreparationDescription


def make_manifest(labels=("jazz", "rock"), *, taxonomy="folders", columns="ab", thresholds=None, **changes):
    """A manifest of one taxonomy, for features of the kind `test`; `changes` replace whole fields."""
    labels = tuple(labels)
    target = TargetDescription(
        task=GENRES,
        labels=labels,
        columns=tuple(range(len(labels))),
        hierarchy=tuple(Taxonomy.of_names(labels).edges(labels)),
        policy=PolicyDescription(thresholds=tuple(thresholds or (0.5,) * len(labels))),
    )
    fields = {
        "version": VERSION,
        "system": "essentia",
        "source": "a paper",
        "taxonomy": taxonomy,
        "inputs": {AUDIO: FeatureSpec.of_columns("test", columns)},
        "preprocessing": PreparationDescription(kind="standardise", settings={"columns": len(columns)}),
        "architecture": Architecture(inputs=len(columns), network={}),
        "rules": {"batch": 32},
        "tasks": {GENRES: TaskDescription(kind="multi_label", output="sigmoid", labels=labels)},
        "targets": {taxonomy: target},
        "metrics": Metrics(targets={}, best_epoch=1, history=({"loss": 0.5, "validation_loss": 0.6},)),
        "data": Data(recordings={"train": 3}, rows=4, sources={}, extractors={"music 1.0": 4}),
        "lineage": Lineage(run_id="r", identity={"job": "train"}),
        "licences": Licences(),
    }
    return Manifest(**{**fields, **changes})
