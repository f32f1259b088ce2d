"""Bundles of small networks with random weights, single and fused, over any columns."""

import numpy as np
import pytest
import torch

from genre_ray.features.essentia.columns import schema_hash
from genre_ray.features.scaling import Scaling
from genre_ray.inference.predictor import build, to_tensors
from genre_ray.models.preparation import Embeddings, Standardise
from genre_ray.storage.bundles import EXAMPLES_SCHEMA, Bundle, read_bundle, write_bundle
from genre_ray.training.systems import find_system

LABELS = ["jazz", "rock", "rock---indie", "soul"]

SMALL = {"branches": {"units": 8}}


def model_of(system, preparation, network, columns, thresholds):
    return {
        "system": system,
        "taxonomy": "folders",
        "labels": LABELS,
        "targets": {
            "folders": {
                "labels": LABELS,
                "columns": list(range(len(LABELS))),
                "thresholds": thresholds,
                "calibration": "none",
            }
        },
        "architecture": {"inputs": preparation.width, "network": network, "output": "sigmoid"},
        "preprocessing": preparation.describe(),
        "input": {"schema_hash": schema_hash(columns), "columns": list(columns)},
    }


@pytest.fixture
def make_bundle(tmp_path):
    """`make_bundle(columns, fused=False, thresholds=…)` → (the bundle as read again, preparation, network)."""

    def make(columns=tuple("abcdef"), *, fused=False, thresholds=(0.5, 0.4, 0.5, 0.6), clip_sd=50.0):
        torch.manual_seed(len(columns) + fused)
        generator = np.random.default_rng(5)
        scaling = Scaling(generator.normal(size=len(columns)), generator.uniform(0.5, 2, len(columns)))
        preparation, system, settings = Standardise.of(scaling, clip_sd), find_system("essentia"), SMALL
        network = system.build(len(columns), len(LABELS), system.resolve_network(settings))
        if fused:
            preparation = Embeddings([(preparation, network), (preparation, network)])
            system, settings = find_system("fusion"), {}
            network = system.build(preparation.width, len(LABELS), system.resolve_network(settings))
        model = model_of(system.name, preparation, settings, columns, np.float32(thresholds).tolist())
        uri = str(tmp_path / f"bundle-{len(columns)}-{fused}")
        assert write_bundle(
            uri, model, to_tensors(preparation, network.state_dict()), EXAMPLES_SCHEMA.empty_table(), ""
        )
        return read_bundle(uri), preparation.eval(), network.eval()

    return make


@pytest.fixture
def altered():
    """`altered(bundle, name=array)`: the bundle with other tensors."""

    def alter(bundle, **tensors):
        assert build(bundle)
        changed = {**bundle.tensors, **{name.replace("__", "."): array for name, array in tensors.items()}}
        return Bundle(bundle.uri, bundle.bundle_id, bundle.model, changed)

    return alter
