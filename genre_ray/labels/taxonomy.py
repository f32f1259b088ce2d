"""The taxonomy that labels carry in their names: `genre---subgenre`, of any depth."""

from collections.abc import Iterable

SEPARATOR = "---"


def parent(label: str) -> str | None:
    """The label one level above, None for a genre.

    >>> parent("rock---indie---noise")
    'rock---indie'
    """
    above, separator, _ = label.rpartition(SEPARATOR)
    return above if separator else None


def is_subgenre(label: str) -> bool:
    """Whether the label has one above it.

    >>> is_subgenre("rock---indie"), is_subgenre("avant-garde")
    (True, False)
    """
    return SEPARATOR in label


def with_parents(labels: Iterable[str]) -> tuple[str, ...]:
    """The labels and all above them, each once, sorted, which puts parents before their children.

    >>> with_parents(["rock---indie---noise", "jazz"])
    ('jazz', 'rock', 'rock---indie', 'rock---indie---noise')
    """
    closed: set[str] = set()
    for label in labels:
        above: str | None = label
        while above is not None and above not in closed:
            closed.add(above)
            above = parent(above)
    return tuple(sorted(closed))
