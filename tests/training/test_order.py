"""Every row is in exactly one batch of one worker, whatever their number; an order depends on its key alone."""

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genre_ray.training.order import Share, Span, cut, even, permutation


@st.composite
def spans_of(draw):
    """Spans of 1 to 9 examples each, in several parts."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=12))
    ends = list(itertools.accumulate(sizes))
    return [Span(i // 3, end - size, end) for i, (size, end) in enumerate(zip(sizes, ends, strict=True))]


def shares(spans, **settings):
    rows = sum(map(len, spans))
    return [Share(rows, rank=rank, **settings) for rank in range(settings["world"])]


SETTINGS = st.fixed_dictionaries(
    {
        "world": st.integers(1, 6),
        "batch": st.integers(1, 40),
        "seed": st.integers(0, 2**40),
        "least": st.sampled_from([1, 2]),
    }
)


@given(spans_of(), SETTINGS)
def test_workers_take_the_same_steps_of_equal_parts(spans, settings):
    everyone = shares(spans, **settings)
    rows = sum(map(len, spans))
    (global_sizes,) = {tuple(share.global_sizes) for share in everyone}
    assert sum(global_sizes) == rows
    assert [sum(parts) for parts in zip(*(share.sizes for share in everyone), strict=True)] == list(global_sizes)
    for parts in zip(*(share.sizes for share in everyone), strict=True):
        assert max(parts) - min(parts) <= 1
        assert min(parts) >= settings["least"] or settings["least"] == 1 or rows < 2 * settings["world"]
    full = max(settings["batch"], settings["least"] * settings["world"])
    assert all(size == full for size in global_sizes[:-1])


@given(spans_of(), SETTINGS, st.integers(0, 50))
def test_in_memory_global_batches_are_the_same_rows_for_any_number_of_workers(spans, settings, epoch):
    everyone = shares(spans, **settings)
    rows = everyone[0].rows
    batches = [share.order(epoch, 0, rows).split(share.sizes) for share in everyone]
    found = [sorted(torch.cat(parts).tolist()) for parts in zip(*batches, strict=True)]
    alone = Share(rows, len(found[0]), seed=settings["seed"])
    expected = alone.order(epoch, 0, rows).split([len(batch) for batch in found])
    assert found == [sorted(batch.tolist()) for batch in expected]
    assert sorted(itertools.chain(*found)) == list(range(rows))


@given(spans_of(), SETTINGS, st.integers(0, 50), st.integers(1, 60))
def test_streamed_rows_are_each_one_workers_once_an_epoch(spans, settings, epoch, capacity):
    everyone = shares(spans, **settings)
    seen = Counter()
    for share in everyone:
        stretches = share.stretches(spans, epoch, capacity)
        assert sum(len(span) for stretch in stretches for span in stretch) == share.count
        for number, stretch in enumerate(stretches):
            examples = [place for span in stretch for place in range(span.low, span.high)]
            assert 0 < len(examples) <= capacity
            assert examples == sorted(examples)
            order = share.order(epoch, number, len(examples))
            if len(examples) < share.rows:
                assert sorted(order.tolist()) == list(range(len(examples)))
            seen.update(examples)
        # Each span is in the part that it was in.
        parts = {place: span.part for span in spans for place in range(span.low, span.high)}
        assert all(
            {parts[place] for place in range(span.low, span.high)} == {span.part}
            for stretch in stretches
            for span in stretch
        )
    assert seen == Counter(range(everyone[0].rows))


def test_row_groups_are_disjoint_but_for_one_on_each_border():
    spans = [Span(0, 10 * i, 10 * i + 10) for i in range(100)]
    readers = Counter()
    for rank in range(4):
        share = Share(1000, 7, rank, 4)
        readers.update({span.low // 10 for stretch in share.stretches(spans, 3, 64) for span in stretch})
    assert sum(readers.values()) <= 100 + 3
    assert len(readers) == 100


def test_epochs_and_seeds_have_orders_of_their_own():
    spans = [Span(0, 10 * i, 10 * i + 10) for i in range(50)]
    found = [
        str(Share(500, 32, rank, 2, seed).stretches(spans, epoch, 100))
        for rank, seed, epoch in itertools.product((0, 1), (0, 1), (0, 1))
    ]
    assert len(set(found)) == 8
    orders = [
        tuple(Share(500, 32, rank, 2, seed).order(epoch, stretch, 100).tolist())
        for rank, seed, epoch, stretch in itertools.product((0, 1), (0, 1), (0, 1), (0, 1))
    ]
    assert len(set(orders)) == 16


def test_an_order_is_its_keys_and_leaves_torchs_own_generator_alone():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = permutation(1000, 1, 2, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    assert torch.equal(permutation(1000, 1, 2, 3), first)
    assert not torch.equal(permutation(1000, 1, 2, 4), first)


@given(spans_of(), st.data())
def test_cutting_changes_no_row(spans, data):
    rows = sum(map(len, spans))
    edges = sorted(data.draw(st.lists(st.integers(0, rows), max_size=6)))
    sizes = [b - a for a, b in itertools.pairwise([0, *edges])]
    pieces = cut(spans, sizes)
    assert [sum(map(len, piece)) for piece in pieces] == sizes
    flat = [place for piece in pieces for span in piece for place in range(span.low, span.high)]
    assert flat == list(range(sum(sizes)))


@pytest.mark.parametrize(
    ("rows", "most", "expected"), [(0, 5, []), (1, 5, [1]), (10, 5, [5, 5]), (11, 5, [4, 4, 3]), (3, 1, [1, 1, 1])]
)
def test_even(rows, most, expected):
    assert even(rows, most) == expected
