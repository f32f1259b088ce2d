"""What a worker is given are the table's rows with their targets and weights, in memory or streamed, each once."""

import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genre_ray.errors import StorageError
from genre_ray.storage import tables
from genre_ray.training import reading
from genre_ray.training.order import Share
from genre_ray.training.reading import load_rows
from genre_ray.training.rows import Held, Reader, Streamed, batches, open_sources

CPU = torch.device("cpu")


def reader_of(task, part="train"):
    return Reader(task.features, task.examples.of(part), task.preparation, "genres", CPU)


def expected_rows(task, part="train"):
    """Inputs, targets and weights as one matrix, read in one piece."""
    examples = task.examples.of(part)
    values = np.concatenate([*load_rows(task.features[0].uri, task.features[0].version, examples.rows[0])])
    inputs = task.preparation(torch.from_numpy(values))
    targets = torch.from_numpy(examples.matrix.toarray()[examples.recordings])
    return torch.cat([inputs, targets, torch.tensor(examples.weights)[:, None]], dim=1).numpy()


def as_matrix(rows):
    return torch.cat([rows.inputs, rows.targets["genres"], rows.weights[:, None]], dim=1).numpy()


def streamed(reader, share, capacity):
    return Streamed(reader, lambda epoch: share.stretches(reader.spans, epoch, capacity), capacity)


def read(source, share, epoch, reader):
    """The epoch's batches, each copied before the next overwrites it."""
    batch = reader.empty(max(share.sizes))
    return [as_matrix(rows).copy() for rows in batches(source, share, epoch, batch)]


@pytest.mark.parametrize("group_rows", [1, 5, 1024])
def test_rows_in_memory_are_the_tables(make_task, monkeypatch, group_rows):
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", group_rows)
    task = make_task()
    for part in ("train", "validation"):
        reader = reader_of(task, part)
        assert all(len(span) <= group_rows for span in reader.spans)
        np.testing.assert_array_equal(as_matrix(Held(reader, reader.spans).rows), expected_rows(task, part))


def test_row_groups_of_others_are_read_too(make_task, monkeypatch):
    # Written in groups of 7 by another writer, of which spans of 5 know nothing.
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 7)
    task = make_task()
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 5)
    reader = reader_of(task)
    np.testing.assert_array_equal(as_matrix(Held(reader, reader.spans).rows), expected_rows(task))


_tasks = {}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    world=st.integers(1, 5),
    batch=st.integers(1, 50),
    capacity=st.integers(1, 60),
    least=st.sampled_from([1, 2]),
    epoch=st.integers(0, 3),
)
def test_every_example_is_streamed_to_one_worker_once(make_task, world, batch, capacity, least, epoch):
    if "task" not in _tasks:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tables, "ROW_GROUP_ROWS", 4)
            _tasks["task"] = make_task()
            _tasks["reader"] = reader_of(_tasks["task"])
    reader = _tasks["reader"]
    expected = Counter(map(tuple, expected_rows(_tasks["task"]).tolist()))
    seen, steps = Counter(), set()
    for rank in range(world):
        share = Share(len(reader.examples), batch, rank, world, 7, least)
        source = streamed(reader, share, capacity)
        # An epoch in between: what was read ahead for it is not what is asked for.
        read(source, share, epoch + 2, reader)
        found = read(source, share, epoch, reader)
        source.close()
        steps.add(len(found))
        seen.update(tuple(row) for batch in found for row in batch.tolist())
    assert seen == expected
    assert len(steps) == 1


def test_one_stretch_of_all_rows_is_memorys_order(make_task, monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 4)
    reader = reader_of(make_task())
    share = Share(len(reader.examples), 8, seed=3)
    held, source = Held(reader, reader.spans), streamed(reader, share, 1000)
    for epoch in range(3):
        pairs = zip(read(held, share, epoch, reader), read(source, share, epoch, reader), strict=True)
        assert all(np.array_equal(one, other) for one, other in pairs)


def test_the_next_stretch_is_read_while_one_is_used(make_task, monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 4)
    reader = reader_of(make_task())
    share = Share(len(reader.examples), 8)
    source = streamed(reader, share, 16)
    count = len(share.stretches(reader.spans, 0, 16))
    assert count > 2
    for epoch in range(2):
        for _ in source.stretches(epoch):
            # Nobody asks, and it comes: the first one of the next epoch too.
            for future in source._reading:
                future.result(timeout=10)
    waited = source.waited_s
    next(source.stretches(2))
    assert source.waited_s - waited < 0.1


def test_waiting_is_counted(make_task, monkeypatch):
    task, gate, read_rows = make_task(), threading.Event(), reading.read_rows

    def late(uri, positions):
        gate.wait()
        return read_rows(uri, positions)

    monkeypatch.setattr(reading, "read_rows", late)
    reader = reader_of(task)
    source = streamed(reader, Share(len(reader.examples), 8), 1000)
    timer = threading.Timer(0.2, gate.set)
    timer.start()
    next(source.stretches(0))
    timer.join()
    assert source.waited_s > 0.1


def test_what_cannot_be_read_ends_the_epoch(make_task):
    task = make_task()
    reader = reader_of(task)
    share = Share(len(reader.examples), 8)
    for part in Path(task.features[0].uri).glob("*.parquet"):
        part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(StorageError, match=r"part-.*parquet"):
        read(streamed(reader, share, 16), share, 0, reader)
    with pytest.raises(StorageError, match=r"part-.*parquet"):
        Held(reader, reader.spans)


@pytest.mark.parametrize("world", [1, 2, 5])
def test_memory_decides(make_task, world):
    task = make_task()
    pairs = [
        [
            (reader, Share(len(reader.examples), 8, rank, world))
            for reader in (reader_of(task), reader_of(task, "validation"))
        ]
        for rank in range(world)
    ]
    for (train, share), (validation, own) in pairs:
        needed = (share.rows + own.count) * (6 * 4 + 3 + 4)
        held = open_sources((train, share), (validation, own), needed)
        assert all(isinstance(source, Held) for source in held)
        assert len(held[0].rows) == share.rows
        assert len(held[1].rows) == own.count
        below = open_sources((train, share), (validation, own), needed - 1)
        assert all(isinstance(source, Streamed) for source in below)


@pytest.mark.parametrize("world", [1, 3, 20])
@pytest.mark.parametrize("memory_bytes", [2**30, 31 * 10])
def test_validation_rows_are_shared_and_keep_their_order(make_task, monkeypatch, world, memory_bytes):
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 4)
    task = make_task()
    found = []
    for rank in range(world):
        train, validation = reader_of(task), reader_of(task, "validation")
        share, own = Share(len(train.examples), 8, rank, world), Share(len(validation.examples), 3, rank, world)
        _, source = open_sources((train, share), (validation, own), memory_bytes)
        for epoch in range(2):
            stretches = [as_matrix(rows).copy() for rows in source.stretches(epoch)]
        source.close()
        found += stretches
    np.testing.assert_array_equal(np.concatenate(found), expected_rows(task, "validation"))


def test_closing_leaves_nothing_to_be_read(make_task, monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 1)
    reader = reader_of(make_task())
    source = streamed(reader, Share(len(reader.examples), 8), 16)
    stretches = source.stretches(0)
    next(stretches)
    reading = source._reading
    source.close()
    assert all(future.done() for future in reading)
