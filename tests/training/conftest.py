"""A small task to learn: labels that follow from the sign of a few columns."""

import numpy as np
import pytest

from genre_ray.features.scaling import fit_scaling
from genre_ray.models.preparation import Standardise
from genre_ray.systems.system import find_system
from genre_ray.training.finding import Split
from genre_ray.training.learner import Training
from genre_ray.training.reading import load_rows
from genre_ray.training.targets import make_outputs
from genre_ray.truth.ground_truth import GroundTruth
from tests.training.joining import make_examples, table_of

COLUMNS, LABELS = 6, ("jazz", "rock", "soul")


def truth_of(label_sets, *, groups=None, uri="truth.tsv"):
    """`label_sets`: recording → labels."""
    groups = groups or {}
    return GroundTruth(
        uri,
        list(label_sets),
        [groups.get(recording, "") for recording in label_sets],
        [tuple(labels) for labels in label_sets.values()],
    )


@pytest.fixture
def make_task(write_features):
    """`make_task(train=37, validation=11, **rules)`; every fifth recording has two submissions."""

    def make(*, train=37, validation=11, network=None, system="essentia", noise=0.5, name="features", **rules):
        generator = np.random.default_rng(3)
        recordings = [f"r{n:03d}" for n in range(train + validation)]
        submissions = [(recording, n) for i, recording in enumerate(recordings) for n in range(2 if i % 5 == 0 else 1)]
        values = generator.normal(size=(len(submissions), COLUMNS)).astype(np.float32)
        uri = write_features(
            values,
            name=name,
            recording_id=[recording for recording, _ in submissions],
            submission=[n for _, n in submissions],
        )
        first = {recording: values[row] for row, (recording, _) in reversed(list(enumerate(submissions)))}
        label_sets = {}
        for recording in recordings:
            votes = first[recording][: len(LABELS)] + noise * generator.normal(size=len(LABELS))
            label_sets[recording] = [label for label, vote in zip(LABELS, votes, strict=True) if vote > 0] or ["jazz"]
        truths = {
            "train": truth_of({recording: label_sets[recording] for recording in recordings[:train]}),
            "validation": truth_of({recording: label_sets[recording] for recording in recordings[train:]}),
        }
        examples = make_examples(uri, {"t": truths}, Split(least_train=1, least_other=1))
        found = find_system(system)
        settings = {"input_dropout": 0.2, "branches": {"units": 4, "dropout": 0.3}} if network is None else network
        scaling = fit_scaling(load_rows(uri, 1, examples.of("train").rows[0]))
        return Training(
            found,
            found.resolve_network(settings),
            found.resolve_rules({"batch": 8, "max_epochs": 5, "seed": 7, **rules}),
            Standardise.of(scaling),
            make_outputs(found, examples),
            (table_of(uri),),
            examples,
        )

    return make
