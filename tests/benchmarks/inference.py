"""Batch inference beside the best bare loop on all cores, and what a small job costs before and after its rows."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from documents import jittered_documents, write_archive
from harness import Result, compare, figure, marginal_rate, seconds

from genre_ray.bundles.files import write_bundle
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
from genre_ray.bundles.predictor import to_tensors
from genre_ray.commands.predict import PredictConfiguration, run
from genre_ray.decisions.policy import PolicyDescription
from genre_ray.features.essentia.columns import ESSENTIA, FEATURE_COLUMNS
from genre_ray.features.essentia.documents import ParseDocuments
from genre_ray.features.scaling import fit_scaling
from genre_ray.models.preparation import Standardise
from genre_ray.runs import cluster
from genre_ray.sources.documents.raw import RawDocument
from genre_ray.sources.documents.table import documents_outcome
from genre_ray.storage import tables
from genre_ray.storage.schemas import EXAMPLES
from genre_ray.training.systems import find_system

REPOSITORY = Path(__file__).parents[2]
CPUS = len(os.sched_getaffinity(0))
LABELS, LABELS_A_ROW = 400, 3
# Seconds of work for each of them: what starts and ends beside it varies by half a second.
ROWS, PART_ROWS, MADE_ROWS = 300_000, 5000, 100_000
DOCUMENTS, ARCHIVE_DOCUMENTS = 20_000, 2_000


def benchmarks(scratch: Path) -> Iterator[Result]:
    """Rows and documents a second at steady state, and fixed costs."""
    models = _features(2000)
    bundle = _bundle(scratch / "bundle", tables.vectors(models["features"]))
    small = _table(scratch / "small", models, 4 * 50, 50)
    times = [_small_job(bundle, small, scratch / f"small-{repetition}") for repetition in range(3)]
    for name, number in (("start to first row", 0), ("last row to end", 1)):
        measured = iter([pair[number] for pair in times])
        yield figure(f"predict, 200 rows: {name}", lambda measured=measured: next(measured), unit="s")
    yield figure("of it Ray's own, started and ended with nothing done", _ray_alone, unit="s")
    logging.disable(logging.INFO)
    cluster.connect()
    numbers = count()
    features = _table(scratch / "features", models, MADE_ROWS, PART_ROWS, copies=2 * ROWS // MADE_ROWS)
    parts = sorted(str(path) for path in Path(features).glob("*.parquet"))

    def predict(**inputs: object) -> None:
        output = scratch / f"predictions-{next(numbers)}"
        assert run(PredictConfiguration(bundle=str(bundle), output=str(output), **inputs)) == 0

    def bare(inputs: Sequence[str]) -> None:
        output = scratch / f"bare-{next(numbers)}"
        output.mkdir()
        script = str(Path(__file__).with_name("bare_inference.py"))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
        shares = [[*inputs[worker::CPUS]] for worker in range(CPUS)]
        running = [
            subprocess.Popen([sys.executable, script, str(bundle), str(output), *share], env=environment)
            for share in shares
        ]
        assert [process.wait() for process in running] == [0] * CPUS

    def rate(work: Callable[[int], None], items: int) -> Callable[[], float]:
        return partial(marginal_rate, work, items)

    made = [write_archive(scratch / f"{n}.tar.zst", ARCHIVE_DOCUMENTS, n) for n in range(CPUS)]
    archives = [str(_link(made[n % CPUS], n)) for n in range(2 * DOCUMENTS // ARCHIVE_DOCUMENTS)]
    yield compare(
        f"documents to predictions, {DOCUMENTS} documents more",
        rate(lambda documents: predict(inputs=archives[: documents // ARCHIVE_DOCUMENTS]), DOCUMENTS),
        rate(lambda documents: bare(archives[: documents // ARCHIVE_DOCUMENTS]), DOCUMENTS),
        unit="documents/s",
        at_least=0.9,
        repetitions=5,
        note=f"{LABELS} labels, {CPUS} processes each; the bare loop with the library's reader and parser",
    )
    for name, settings in (("", {}), (" in half precision", {"half_precision": True})):
        yield compare(
            f"predict over a features table{name}, {ROWS} rows more",
            rate(lambda rows, settings=settings: predict(features=features, limit=rows, **settings), ROWS),
            rate(lambda rows: bare(parts[: rows // PART_ROWS]), ROWS),
            unit="rows/s",
            at_least=0.9,
            repetitions=3 if settings else 5,
            note=f"{LABELS} labels, {CPUS} processes each",
        )


def _features(documents: int) -> pa.Table:
    raw = [RawDocument(name, name, content) for name, content in jittered_documents(documents)]
    return ParseDocuments().open()(documents_outcome(raw).accepted).accepted


def _table(folder: Path, models: pa.Table, rows: int, part_rows: int, copies: int = 1) -> str:
    """A features table of `rows` rows, no two alike, in parts as `ingest` writes them; all of them several times."""
    uri, random = str(folder), np.random.default_rng(0)
    vectors = tables.vectors(models["features"])
    tables.create_table(uri, models.schema, ESSENTIA.properties())
    parts = []
    for start in range(0, rows, part_rows):
        chosen = random.integers(len(vectors), size=part_rows)
        jittered = vectors[chosen] * (1 + 0.001 * random.standard_normal((part_rows, vectors.shape[1]), np.float32))
        features = pa.FixedSizeListArray.from_arrays(pa.array(jittered.ravel()), vectors.shape[1])
        place = models.schema.get_field_index("features")
        part = models.take(pa.array(chosen)).set_column(
            place, models.schema.field(place), features.cast(models.schema.field(place).type)
        )
        written = tables.write_part(uri, f"0000-a000000-{start // part_rows:05d}", part)
        parts += [replace(written, path=_link(folder / written.path, copy).name) for copy in range(copies)]
    tables.append(tables.open_table(uri), [tables.Append("bench/0", parts)], models.schema)
    return uri


def _link(path: Path, number: int) -> Path:
    """The file once more, by another name."""
    other = path.with_name(f"{number}-{path.name}")
    other.hardlink_to(path)
    return other


def _bundle(folder: Path, features: np.ndarray) -> Path:
    """S0's baseline with random weights, and thresholds that give a row some labels."""
    torch.manual_seed(0)
    system = find_system("essentia")
    settings = system.resolve_network({})
    preparation = Standardise.of(fit_scaling([features]), 8.0)
    network = system.build(len(FEATURE_COLUMNS), LABELS, settings).eval()
    with torch.inference_mode():
        scores = torch.sigmoid(network(preparation(torch.from_numpy(features.copy())))).numpy()
    thresholds = np.quantile(scores, 1 - LABELS_A_ROW / LABELS, axis=0).astype(np.float32)
    labels = tuple(f"genre {label:03d}" for label in range(LABELS))
    target = TargetDescription(
        task=GENRES,
        labels=labels,
        columns=tuple(range(LABELS)),
        hierarchy=(),
        policy=PolicyDescription(thresholds=tuple(thresholds.tolist())),
    )
    manifest = Manifest(
        version=VERSION,
        system=system.name,
        source=system.source,
        taxonomy="bench",
        inputs={AUDIO: ESSENTIA},
        preprocessing=preparation.describe(),
        architecture=Architecture(inputs=preparation.width, network=settings.model_dump(mode="json")),
        rules={},
        tasks={GENRES: TaskDescription(kind="multi_label", output="sigmoid", labels=labels)},
        targets={"bench": target},
        metrics=Metrics(targets={}, best_epoch=1, history=()),
        data=Data(recordings={}, rows=0, sources={}, extractors={}),
        lineage=Lineage(run_id="bench", identity={}),
        licences=Licences(),
    )
    tensors = to_tensors(preparation, network.state_dict())
    assert write_bundle(str(folder), manifest, tensors, EXAMPLES.empty_table(), "")
    return folder


def _small_job(bundle: Path, features: str, output: Path) -> tuple[float, float]:
    """Seconds from the start of a job of few rows to its first part, and from its last part to its end."""
    command = [sys.executable, str(REPOSITORY / "jobs" / "predict.py"), "--bundle", str(bundle)]
    started = time.time()
    subprocess.run(
        [*command, "--features", features, "--output", str(output)],
        check=True,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    ended = time.time()
    written = [part.stat().st_mtime for part in (output / "predictions").glob("*.parquet")]
    return min(written) - started, ended - max(written)


def _ray_alone() -> float:
    """Seconds of a process that starts a cluster as jobs do, and ends."""
    script = "from genre_ray.runs import cluster; cluster.connect()"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return seconds(lambda: subprocess.run([sys.executable, "-c", script], check=True, env=environment))
