"""Two taxonomies of 100,000 shared recordings, 766 and 658 labels as in the task: reconciled, counted, translated.

Truths are generated: labels' frequencies fall as in the task's, a recording has some three labels with their genres,
and which ones depends on a hidden class that both taxonomies see. The job runs in a process of its own, so that its
memory is its own.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from harness import Result, figure, rate, seconds
from scipy.sparse import csr_array

RECORDINGS = 100_000
LABELS = {"first": 766, "second": 658}
CLASSES = 300


def benchmarks(scratch: Path) -> Iterator[Result]:
    """The job with what it reads and writes, and its two inner steps alone."""
    from genre_ray.labels.co_occurrence import CoOccurrence
    from genre_ray.labels.translation import Translation
    from genre_ray.truth.mapping_table import read_mapping

    for name in LABELS:
        _write_truth(scratch / f"{name}.tsv", name)
    runs = [_reconcile(scratch, number) for number in range(3)]
    yield Result("reconcile 100,000 recordings, 766 × 658 labels", "s", tuple(run["seconds"] for run in runs))
    yield Result("its peak memory", "MB", tuple(run["megabytes"] for run in runs), at_most=2000)

    names = {name: [f"l{place}" for place in range(count)] for name, count in LABELS.items()}
    blocks = [tuple(_matrix(count) for count in LABELS.values())]
    yield figure(
        "counting alone",
        lambda: seconds(lambda: CoOccurrence.count(names["first"], names["second"], blocks)),
        unit="s",
    )
    table = read_mapping(str(scratch / "mapping-0" / "mapping.tsv"))
    sources = {"first": sorted({label for label, _ in table.weights["first", "second"]})}
    translation = Translation.of(table, "second", sources)
    scores = np.random.default_rng(1).random((8192, len(sources["first"])), dtype=np.float32)
    note = f"{len(sources['first'])} → {len(translation.labels)} labels, {translation.weights.nnz} weights, one core"
    yield figure("scores translated", lambda: rate(lambda n: translation(scores[:n]), 8192), unit="rows/s", note=note)


def _reconcile(scratch: Path, number: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, str(scratch), str(number)], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main(scratch: str, number: str) -> None:
    """Reconcile and print the seconds and the peak of resident memory as JSON."""
    from genre_ray.commands.reconcile import ReconcileConfiguration, run

    taxonomies = {name: {"ground_truth": [f"{scratch}/{name}.tsv"]} for name in LABELS}
    settings = {"output": f"{scratch}/mapping-{number}", "taxonomies": taxonomies}
    start = time.perf_counter()
    run(ReconcileConfiguration.from_mapping(settings))
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": time.perf_counter() - start, "megabytes": megabytes}))


def _write_truth(path: Path, name: str) -> None:
    """A ground truth whose recordings prefer some labels by their hidden class."""
    generator = np.random.default_rng(LABELS[name])
    genres = [f"{name} genre {chr(97 + place % 26)}{chr(97 + place // 26)}" for place in range(LABELS[name] // 35)]
    labels = genres + [
        f"{genres[place % len(genres)]}---{name} {chr(97 + place % 26)}{chr(97 + place // 26)}"
        for place in range(LABELS[name] - len(genres))
    ]
    shares = 1 / np.arange(1, len(labels) + 1)
    preferred = generator.integers(len(labels), size=(CLASSES, 12))
    classes = np.random.default_rng(0).integers(CLASSES, size=RECORDINGS)
    drawn = generator.choice(len(labels), size=(RECORDINGS, 3), p=shares / shares.sum())
    own = preferred[classes[:, None], generator.integers(12, size=(RECORDINGS, 3))]
    chosen = np.where(generator.random((RECORDINGS, 3)) < 0.6, own, drawn)
    with path.open("w") as file:
        file.write("\t".join(["recordingmbid", "releasegroupmbid", *(f"genre{n}" for n in range(1, 7))]) + "\n")
        for number, columns in enumerate(chosen.tolist()):
            stated = {labels[column] for column in columns}
            stated |= {label.split("---")[0] for label in stated}
            file.write("\t".join([f"{number:08x}", "", *sorted(stated), *[""] * (6 - len(stated))]) + "\n")


def _matrix(labels: int) -> csr_array:
    indices = np.random.default_rng(labels).integers(labels, size=6 * RECORDINGS)
    ends = np.arange(0, 6 * RECORDINGS + 1, 6)
    return csr_array((np.ones(len(indices), dtype=bool), indices, ends), shape=(RECORDINGS, labels))


if __name__ == "__main__":
    main(*sys.argv[1:])
