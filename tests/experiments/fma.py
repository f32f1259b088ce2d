"""FMA: 2,000 tracks, 140 MFCC statistics and a tree of genres, in five folds. It has no mel bands and one taxonomy."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from methods import Rows, Truth, of_bundle, of_logistic_regression
from running import of_configuration, succeeded
from scoring import Scored

from genre_ray.commands import ingest, train
from genre_ray.labels.taxonomy import Taxonomy
from genre_ray.storage import tables
from genre_ray.truth.fma import NO_PARENT, Genre, Tracks, read_genres, read_tracks

FOLDS, LEAST_POSITIVES, CLIP_SD = 5, 30, 8
RULES = {"patience": 10}


def experiments(data: Path, scratch: Path) -> Iterator[tuple[str, str, Scored]]:
    """Yield (taxonomy, method, scores) for every fold; `data` has FMA's genres, tracks and features."""
    genres, tracks, features = (_only(data, name) for name in ("genres", "tracks", "features"))
    known = read_genres(genres)
    truth = read_tracks(tracks, known)
    output = str(scratch / "fma" / "ingested")
    settings = {"inputs": [features], "format": "fma", "output": output}
    succeeded(ingest.run(of_configuration(ingest.IngestConfiguration, **settings)))
    uri = f"{output}/features"
    rows = Rows(uri)
    measured = tables.dataset(uri).to_table(["recording_id"])["recording_id"].to_pylist()
    labels, tree = _frequent(truth, {*measured}), _tree(known)
    for fold in range(FOLDS):
        parts = _write_parts(scratch / "fma" / f"truth-{fold}", labels, fold)
        bundle = str(scratch / "fma" / f"bundle-{fold}")
        configuration = of_configuration(
            train.TrainConfiguration,
            features=uri,
            taxonomy="fma",
            ground_truth=parts["train"],
            validation_ground_truth=parts["validation"],
            test_ground_truth=parts["test"],
            split={"least_train": 1, "least_other": 1},
            rules={**RULES, "seed": fold},
            clip_sd=CLIP_SD,
            output=bundle,
        )
        succeeded(train.run(configuration))
        found = Truth(bundle, "fma", tree)
        yield "fma", "logistic regression", of_logistic_regression(rows, found)
        yield "fma", "S0 single", of_bundle(bundle, rows, found)


def _only(data: Path, name: str) -> str:
    return str(next(path for path in sorted(data.iterdir()) if path.name.startswith(name)))


def _tree(genres: Sequence[Genre]) -> Taxonomy:
    titles = {genre.genre_id: genre.title for genre in genres}
    above = {g.title: () if g.parent_id == NO_PARENT else (titles[g.parent_id],) for g in genres}
    return Taxonomy(above, origin="genres.csv")


def _frequent(truth: Tracks, measured: set[str]) -> dict[str, tuple[str, ...]]:
    """Track → its genres with at least `LEAST_POSITIVES` tracks."""
    labels = {
        track: titles for track, titles in zip(truth.recording_ids, truth.labels, strict=True) if track in measured
    }
    counts = Counter(label for named in labels.values() for label in named)
    kept = {track: tuple(sorted(n for n in named if counts[n] >= LEAST_POSITIVES)) for track, named in labels.items()}
    return {track: named for track, named in kept.items() if named}


def _write_parts(folder: Path, labels: dict[str, tuple[str, ...]], fold: int) -> dict[str, str]:
    """One fold tests, the next one validates, the others train; folds are drawn once."""
    folder.mkdir(parents=True, exist_ok=True)
    tracks = np.array(sorted(labels))
    place = np.random.default_rng(0).permutation(len(tracks)) % FOLDS
    members = {"test": place == fold, "validation": place == (fold + 1) % FOLDS}
    members["train"] = ~(members["test"] | members["validation"])
    width = max(map(len, labels.values()))
    for part, chosen in members.items():
        with (folder / f"{part}.tsv").open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow(["recordingmbid", "releasegroupmbid", *(f"genre{n + 1}" for n in range(width))])
            for track in tracks[chosen]:
                named = labels[track]
                writer.writerow([track, "", *named, *[""] * (width - len(named))])
    return {part: str(folder / f"{part}.tsv") for part in members}
