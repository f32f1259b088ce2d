"""Guards how a label's name is read: split at the last separator, and closed upwards over all levels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genre_ray.labels.taxonomy import SEPARATOR, is_subgenre, parent, with_parents

names = st.lists(st.sampled_from(["a", "b", "c-d", "pop/rock"]), min_size=1, max_size=4).map(SEPARATOR.join)


@pytest.mark.parametrize(
    ("label", "above"),
    [
        ("rock", None),
        ("avant-garde", None),
        ("a---b", "a"),
        ("a---b---c", "a---b"),
        ("pop/rock---euro-pop", "pop/rock"),
    ],
)
def test_parent_is_one_level_up(label: str, above: str | None) -> None:
    assert parent(label) == above
    assert is_subgenre(label) == (above is not None)


def test_with_parents_closes_over_all_levels() -> None:
    assert with_parents(["a---b---c", "d", "a---b---c"]) == ("a", "a---b", "a---b---c", "d")
    assert with_parents([]) == ()


@given(st.lists(names))
def test_with_parents_is_idempotent_and_puts_parents_first(labels: list[str]) -> None:
    closed = with_parents(labels)
    assert set(labels) <= set(closed)
    assert with_parents(closed) == closed
    for i, label in enumerate(closed):
        above = parent(label)
        assert above is None or above in closed[:i]
