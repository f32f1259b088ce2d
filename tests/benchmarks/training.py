"""Training S0's network: the learner against a bare torch loop, two workers against one, streamed rows against held.

All at one thread a worker, start-up apart, on generated features: the time of a step does not depend on their values.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.multiprocessing
from harness import Result, compare, figure, seconds
from torch import nn
from torch.nn import functional

from genre_ray.features.essentia.columns import ESSENTIA, FEATURE_COLUMNS
from genre_ray.features.scaling import Scaling
from genre_ray.labels.space import label_matrix
from genre_ray.models.dropout import Dropout
from genre_ray.models.preparation import Standardise
from genre_ray.storage import tables
from genre_ray.storage.schemas import FEATURES
from genre_ray.systems.system import find_system
from genre_ray.training.examples import Examples
from genre_ray.training.learner import Learner, Training
from genre_ray.training.reading import FeaturesTable
from genre_ray.training.targets import make_outputs

CPU = torch.device("cpu")

TRAIN, VALIDATION, PART_ROWS = 16_384, 2_048, 5_000
LABELS, POSITIVES = 766, 4  # AllMusic's
STREAMED_BYTES = 128 * 2**20  # of 200 MB: stretches of 5,000 rows, a third of them all at most


def benchmarks(scratch: Path) -> Iterator[Result]:
    """See the module."""
    torch.set_num_threads(1)
    uri = write_features(str(scratch / "features"))
    for batch in (32, 4096):
        yield from _against_a_bare_loop(uri, batch)
    with Workers(1, uri, 2**40) as one, Workers(2, uri, 2**40) as two:
        yield compare("training, two workers, batch 4096", two.rate, one.rate, unit="rows/s", at_least=1.6)
    yield from _streamed(uri)


def write_features(uri: str) -> str:
    """A table of the size of a few parts."""
    generator = np.random.default_rng(0)
    tables.create_table(uri, FEATURES, ESSENTIA.properties())
    parts = []
    for start in range(0, TRAIN + VALIDATION, PART_ROWS):
        count = min(PART_ROWS, TRAIN + VALIDATION - start)
        values = generator.standard_normal(count * len(FEATURE_COLUMNS), dtype=np.float32)
        columns = [
            pa.array([f"r{row:07d}" for row in range(start, start + count)]),
            pa.array([0] * count, pa.int32()),
            pa.array([[]] * count, pa.list_(pa.string())),
            pa.array([None] * count, pa.string()),
            pa.array(["generated"] * count),
            pa.array(["generated"] * count),
            pa.FixedSizeListArray.from_arrays(pa.array(values), len(FEATURE_COLUMNS)),
        ]
        typed = [column.cast(kind) for column, kind in zip(columns, FEATURES.types, strict=True)]
        parts.append(tables.write_part(uri, f"part-{start:06d}", pa.Table.from_arrays(typed, schema=FEATURES)))
    tables.append(tables.open_table(uri), [tables.Append("run/0", parts)], FEATURES)
    return uri


def task_of(uri: str, batch: int) -> Training:
    """S0's network on AllMusic's number of labels."""
    generator, rows = np.random.default_rng(1), TRAIN + VALIDATION
    labels = tuple(f"label {number:03d}" for number in range(LABELS))
    examples = Examples(
        labels=labels,
        recording_ids=pa.array([f"r{row:07d}" for row in range(rows)]),
        parts=np.repeat(np.array([0, 1], dtype=np.int8), [TRAIN, VALIDATION]),
        matrix=label_matrix(
            ({labels[place] for place in places} for places in generator.integers(0, LABELS, (rows, POSITIVES))), labels
        ),
        rows=np.arange(rows)[None],
        recordings=np.arange(rows, dtype=np.int32),
        weights=np.ones(rows, dtype=np.float32),
    )
    system, width = find_system("essentia"), len(FEATURE_COLUMNS)
    preparation = Standardise.of(Scaling(np.zeros(width), np.ones(width)))
    rules = system.resolve_rules({"batch": batch})
    table = FeaturesTable(uri, 1, width)
    outputs = make_outputs(system, examples)
    return Training(system, system.resolve_network({}), rules, preparation, outputs, (table,), examples)


def epoch_rate(learner: Learner) -> Callable[[], float]:
    """Training rows a second of a whole epoch, validation included."""
    epoch = iter(range(10**6))

    def work() -> None:
        number = next(epoch)
        learner._epoch(number)
        learner._validate(number)

    work()
    return lambda: TRAIN / seconds(work)


def bare_rate(learner: Learner, dropout: type[nn.Module]) -> Callable[[], float]:
    """The same of a loop as one writes it by hand, at its fastest: `index_select` and Adam in one pass."""
    train, held_out, batch = learner.train_rows.rows, learner.validation_rows.rows, learner.rules.batch  # type: ignore[union-attr]
    network = nn.Sequential(
        dropout(0.5), nn.Linear(train.inputs.shape[1], 256), nn.ReLU(), dropout(0.5), nn.Linear(256, LABELS)
    )
    optimiser = torch.optim.Adam(network.parameters(), fused=True)

    def work() -> None:
        network.train()
        for chosen in torch.randperm(TRAIN).split(batch):
            logits = network(train.inputs.index_select(0, chosen))
            targets = train.targets["genres"].index_select(0, chosen).to(logits.dtype)
            weights = train.weights.index_select(0, chosen)
            loss = functional.binary_cross_entropy_with_logits(logits, targets, weight=weights[:, None])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        network.eval()
        with torch.no_grad():
            functional.binary_cross_entropy_with_logits(network(held_out.inputs), held_out.targets["genres"].float())

    work()
    return lambda: TRAIN / seconds(work)


def _against_a_bare_loop(uri: str, batch: int) -> Iterator[Result]:
    learner = Learner(task_of(uri, batch), CPU, memory_bytes=2**40)
    name, ours = f"training, batch {batch}, against a bare loop", epoch_rate(learner)
    yield compare(name, ours, bare_rate(learner, nn.Dropout), unit="rows/s", at_least=0.9)
    yield compare(f"{name} with the same dropout", ours, bare_rate(learner, Dropout), unit="rows/s", at_least=0.9)


def _streamed(uri: str) -> Iterator[Result]:
    held = epoch_rate(Learner(task_of(uri, 4096), CPU, memory_bytes=2**40))
    learner = Learner(task_of(uri, 4096), CPU, memory_bytes=STREAMED_BYTES)
    streamed = epoch_rate(learner)
    yield compare("training, streamed against held, batch 4096", streamed, held, unit="rows/s")

    def waiting() -> float:
        before = learner._waited()
        epoch_s = TRAIN / streamed()
        return (learner._waited() - before) / epoch_s

    yield figure("training, streamed, share of the time waiting for rows", waiting, unit="of 1")
    with Workers(1, uri, STREAMED_BYTES) as one, Workers(2, uri, STREAMED_BYTES) as two:
        yield compare("training, two workers, batch 4096, streamed", two.rate, one.rate, unit="rows/s")


class Workers:
    """Learners in processes of their own that are kept between measurements."""

    def __init__(self, world: int, uri: str, memory_bytes: int) -> None:
        self.arguments, self.world = (world, uri, memory_bytes), world

    def __enter__(self) -> "Workers":
        self._folder = tempfile.TemporaryDirectory()
        context = torch.multiprocessing.get_context("spawn")
        self._asked, self._answers = [context.Queue() for _ in range(self.world)], context.Queue()
        arguments = (*self.arguments, self._folder.name, self._asked, self._answers)
        self._processes = torch.multiprocessing.start_processes(
            _worker, arguments, nprocs=self.world, join=False, start_method="spawn"
        )
        for _ in range(self.world):
            self._answers.get()
        return self

    def __exit__(self, *error: Any) -> None:
        for queue in self._asked:
            queue.put(False)
        self._processes.join()
        self._folder.cleanup()

    def rate(self) -> float:
        """Training rows a second of an epoch, of all of them together."""
        for queue in self._asked:
            queue.put(True)
        return TRAIN / max(self._answers.get() for _ in range(self.world))


def _worker(rank: int, world: int, uri: str, memory_bytes: int, folder: str, asked: Any, answers: Any) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    rate = epoch_rate(Learner(task_of(uri, 4096), CPU, rank, world, memory_bytes))
    answers.put(0.0)
    while asked[rank].get():
        answers.put(TRAIN / rate())
    torch.distributed.destroy_process_group()
