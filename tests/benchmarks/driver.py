"""A training of a million rows and four taxonomies: what its driver does itself, and its memory.

The features are few, since a driver never reads them. Ids are as long as MusicBrainz's.
"""

import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from harness import Result, figure

from genre_ray.commands import train
from genre_ray.features.spec import FeatureSpec
from genre_ray.storage import tables
from genre_ray.storage.schemas import FEATURES

ROWS, PART_ROWS, COLUMNS = 1_000_000, 5_000, 4
TAXONOMIES = {"allmusic": 766, "discogs": 315, "lastfm": 327, "tagtraum": 296}
LABELS_A_RECORDING = 4


def benchmarks(scratch: Path) -> Iterator[Result]:
    """The driver is a process of its own, whose memory nothing else has touched."""
    features, truths = write_features(str(scratch / "features")), write_truths(scratch)
    command = [sys.executable, __file__, features, str(scratch / "bundle"), *truths]
    found = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "RAY_ADDRESS": ""})
    own_s, mib, wall_s = map(float, found.stdout.split()[-3:])
    name = f"driver of a training, {ROWS} rows of {len(TAXONOMIES)} taxonomies"
    yield figure(f"{name}: its own CPU time", lambda: own_s, unit="s", at_most=60, repetitions=1)
    yield figure(f"{name}: resident memory at most", lambda: mib, unit="MiB", at_most=1000, repetitions=1)
    yield figure(f"{name}: from start to end, one epoch", lambda: wall_s, unit="s", repetitions=1)


def ids(prefix: str, numbers: np.ndarray) -> list[str]:
    """As long as a UUID."""
    return [f"{prefix}{number * 2654435761 % 2**32:08x}-0000-4000-8000-{number:012d}" for number in numbers.tolist()]


def write_features(uri: str) -> str:
    """A features table; three recordings share a release group."""
    generator = np.random.default_rng(0)
    spec = FeatureSpec.of_columns("generated", [f"c{column}" for column in range(COLUMNS)])
    tables.create_table(uri, FEATURES, spec.properties())
    parts = []
    for start in range(0, ROWS, PART_ROWS):
        numbers = np.arange(start, start + PART_ROWS)
        values = generator.standard_normal((PART_ROWS, COLUMNS), dtype=np.float32)
        rows = {
            "recording_id": ids("", numbers),
            "submission": [0] * PART_ROWS,
            "artist_ids": [[]] * PART_ROWS,
            "release_group_id": ids("a", numbers // 3),
            "source_uri": ["generated"] * PART_ROWS,
            "extractor": ["generated"] * PART_ROWS,
            "features": values.tolist(),
        }
        parts.append(tables.write_part(uri, f"part-{start:07d}", pa.table(rows, FEATURES)))
    tables.append(tables.open_table(uri), [tables.Append("run/0", parts)], FEATURES)
    return uri


def write_truths(folder: Path) -> list[str]:
    """Every taxonomy annotates every recording."""
    generator, numbers, found = np.random.default_rng(1), np.arange(ROWS), []
    header = "\t".join(["recordingmbid", "releasegroupmbid", *(f"genre{n + 1}" for n in range(LABELS_A_RECORDING))])
    for taxonomy, count in TAXONOMIES.items():
        chosen = np.sort(generator.integers(0, count, (ROWS, LABELS_A_RECORDING)), axis=1)
        path = folder / f"{taxonomy}.tsv"
        with path.open("w") as file:
            file.write(header + "\n")
            for recording, group, row in zip(ids("", numbers), ids("a", numbers // 3), chosen.tolist(), strict=True):
                labels = "\t".join(f"genre {label:03d}" for label in dict.fromkeys(row))
                file.write(f"{recording}\t{group}\t{labels}\n")
        found.append(f"{taxonomy}={path}")
    return found


def _driver(features: str, output: str, *truths: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    began = time.perf_counter()
    configuration = train.TrainConfiguration.from_mapping(
        {
            "features": features,
            "output": output,
            "sources": {name: {"ground_truth": path} for name, _, path in (truth.partition("=") for truth in truths)},
            "network": {"branches": {"units": 4}},
            "rules": {"max_epochs": 1, "batch": 8192},
            "decisions": {"calibration": "none"},
        }
    )
    if train.run(configuration):
        raise SystemExit("the training failed; its log says why")
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, time.perf_counter() - began)


if __name__ == "__main__":
    _driver(*sys.argv[1:])
