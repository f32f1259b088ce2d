"""An epoch sees one window of each row, drawn alike for equal seeds; scores are of all windows, averaged."""

import pytest
import torch

from genre_ray.systems.schedule import draw_at_random, take_turns
from genre_ray.systems.views import WHOLE, Windows


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_sample_is_one_of_the_windows_of_its_row(axis):
    rows = torch.arange(2 * 3 * 20.0).view(2, 3, 20) if axis else torch.arange(2 * 20 * 3.0).view(2, 20, 3)
    view = Windows(axis=axis, size=8, hop=1)
    every = view.windows(rows)
    assert every.shape[:2] == (2, 13)
    assert every.shape[2:] == view.shape(rows.shape[1:])
    for start in range(13):
        torch.testing.assert_close(every[:, start], rows.narrow(axis + 1, start, 8))
    seen = set()
    for seed in range(60):
        sample = view.sample(rows, generator(seed))
        assert sample.shape == (2, *view.shape(rows.shape[1:]))
        starts = [next(n for n in range(13) if torch.equal(sample[row], every[row, n])) for row in range(2)]
        seen.add(tuple(starts))
        torch.testing.assert_close(view.sample(rows, generator(seed)), sample)
    # Rows are cut independently of each other, and at the first and the last place too.
    assert {start for starts in seen for start in starts} == set(range(13))
    assert any(one != other for one, other in seen)


def test_scored_windows_start_every_hop_and_fit():
    view = Windows(axis=0, size=4, hop=3)
    windows = view.windows(torch.arange(12.0)[None])
    assert windows.tolist() == [[[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]]
    assert view.aggregate(torch.tensor([[[1.0, 2.0], [3.0, 6.0]]])).tolist() == [[2.0, 4.0]]


def test_a_row_shorter_than_a_window_is_refused():
    with pytest.raises(ValueError, match="at least 8 values along axis 1"):
        Windows(axis=1, size=8, hop=1).shape((20, 7))


def test_a_whole_row_is_its_own_window():
    rows = torch.randn(3, 5)
    assert WHOLE.sample(rows, generator(0)) is rows
    windows = WHOLE.windows(rows)
    assert windows.shape == (3, 1, 5)
    torch.testing.assert_close(WHOLE.aggregate(windows), rows, rtol=0, atol=0)


def test_tasks_are_drawn_evenly_and_alike_for_a_seed():
    drawn = [draw_at_random(3, epoch, 5) for epoch in range(3000)]
    assert drawn == [draw_at_random(3, epoch, 5) for epoch in range(3000)]
    # Five standard deviations of a binomial count.
    assert all(abs(drawn.count(task) - 1000) < 5 * (3000 * 2 / 9) ** 0.5 for task in range(3))
    assert [take_turns(3, epoch, 5) for epoch in range(4)] == [0, 1, 2, 0]
