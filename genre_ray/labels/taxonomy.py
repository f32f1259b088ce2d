"""A taxonomy: labels, the parents of each label, and aliases. A label can have several parents.

Every `Taxonomy` object is valid: all parents are labels, there are no cycles, and each name stands for one label.
Labels are ordered with parents before children, and otherwise by name. For names such as `genre---subgenre` this is the
sorted order.
"""

import difflib
import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any, NoReturn

import numpy as np
from scipy import sparse

from genre_ray.errors import InputError

SEPARATOR = "---"


def parent(label: str) -> str | None:
    """Return the parent that a label's name spells out, or None for a top-level genre.

    >>> parent("rock---indie---noise")
    'rock---indie'
    """
    above, separator, _ = label.rpartition(SEPARATOR)
    return above if separator else None


def is_subgenre(label: str) -> bool:
    """Whether a label's name has more than one level.

    >>> is_subgenre("rock---indie"), is_subgenre("avant-garde")
    (True, False)
    """
    return SEPARATOR in label


@dataclass(frozen=True)
class Taxonomy:
    """Labels with their parents and aliases.

    Attributes:
        above: each label → its parents, ordered with parents before children. A root has no parents.
        aliases: other name → label.
        origin: the file or source of the taxonomy, for error messages.

    Raises:
        InputError: a parent is not a label, there is a cycle, an alias is also a label, or an alias stands for a name
            that is not a label.
    """

    above: Mapping[str, tuple[str, ...]]
    aliases: Mapping[str, str] = field(default_factory=dict)
    origin: str = field(default="taxonomy", compare=False)

    def __post_init__(self) -> None:
        above = {label: tuple(sorted(set(self.above[label]))) for label in sorted(self.above)}
        for label, parents in above.items():
            for unknown in (name for name in parents if name not in above):
                self._refuse(f"{unknown!r}, a parent of {label!r}, is not a label", self._hint(unknown, above))
        for alias, label in sorted(self.aliases.items()):
            if alias in above:
                path = " → ".join([alias, *above[alias]])
                self._refuse(f"{alias!r} is an alias of {label!r} and also a label ({path})", "rename one of them")
            if label not in above:
                self._refuse(f"the alias {alias!r} stands for {label!r}, not a label", self._hint(label, above))
        # The dataclass is frozen, and this is part of its construction.
        object.__setattr__(self, "above", {label: above[label] for label in self._ordered(above)})

    @classmethod
    def of_names(cls, labels: Iterable[str], origin: str = "taxonomy") -> "Taxonomy":
        """Make a taxonomy from names such as `genre---subgenre`, of any depth. Missing parents are added.

        >>> Taxonomy.of_names(["rock---indie---noise", "jazz"]).labels
        ('jazz', 'rock', 'rock---indie', 'rock---indie---noise')
        """
        above: dict[str, tuple[str, ...]] = {}
        for label in labels:
            name: str | None = label
            while name is not None and name not in above:
                next_above = parent(name)
                above[name] = () if next_above is None else (next_above,)
                name = next_above
        return cls(above, origin=origin)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """All labels, parents before children."""
        return tuple(self.above)

    @cached_property
    def roots(self) -> tuple[str, ...]:
        """The labels without parents."""
        return tuple(label for label, parents in self.above.items() if not parents)

    @cached_property
    def _children(self) -> dict[str, list[str]]:
        below: dict[str, list[str]] = {label: [] for label in self.above}
        for label, parents in self.above.items():
            for name in parents:
                below[name].append(label)
        return below

    @cached_property
    def _place(self) -> dict[str, int]:
        return {label: place for place, label in enumerate(self.above)}

    def __contains__(self, label: str) -> bool:
        return label in self.above

    def __len__(self) -> int:
        return len(self.above)

    def parents(self, label: str) -> tuple[str, ...]:
        """Return the parents of a label, sorted.

        Raises:
            InputError: the taxonomy has no such label.
        """
        if label not in self.above:
            self._refuse(f"there is no label {label!r}", self._hint(label, self.above))
        return self.above[label]

    def children(self, label: str) -> tuple[str, ...]:
        """Return the children of a label, sorted."""
        self.parents(label)
        return tuple(sorted(self._children[label]))

    def ancestors(self, label: str) -> tuple[str, ...]:
        """Return all ancestors of a label, parents before children."""
        return tuple(name for name in self.with_parents([label]) if name != label)

    def resolve(self, name: str) -> str:
        """Return the label that a name stands for. The name is a label or an alias."""
        label = self.aliases.get(name, name)
        self.parents(label)
        return label

    def with_parents(self, labels: Iterable[str]) -> tuple[str, ...]:
        """Return the labels and all their ancestors, each once, parents before children."""
        closed: set[str] = set()
        waiting = list(labels)
        while waiting:
            label = waiting.pop()
            if label not in closed:
                closed.add(label)
                waiting.extend(self.parents(label))
        return self._in_order(closed)

    def path(self, label: str) -> tuple[str, ...]:
        """Return the path from a label up to a root, through the first parent of each label."""
        steps = [label]
        while parents := self.parents(steps[-1]):
            steps.append(parents[0])
        return tuple(steps)

    def edges(self, labels: Sequence[str]) -> list[tuple[int, int]]:
        """Return the (child, parent) pairs among the columns of some of the labels.

        If a parent has no column, its nearest ancestors that have one take its place. The edges are in the taxonomy's
        order of children, so the edges of a label come before those of its descendants.

        Args:
            labels: the labels of the columns, in any order.

        Returns:
            (column of the child, column of the parent).
        """
        column = {label: place for place, label in enumerate(labels)}
        edges = []
        for label in self._in_order(column):
            edges += [(column[label], column[name]) for name in self._nearest(label, column)]
        return edges

    def closure(self, labels: Sequence[str]) -> Any:
        """Return which columns are ancestors of each column.

        Args:
            labels: the labels of the columns, in any order.

        Returns:
            Boolean CSR (labels, labels). Row i is true for label i and for those of its ancestors that have a column.
        """
        column = {label: place for place, label in enumerate(labels)}
        pairs = [(column[x], column[above]) for x in labels for above in self.with_parents([x]) if above in column]
        below, above = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        return sparse.csr_array((np.ones(len(pairs), dtype=bool), (below, above)), shape=(len(labels), len(labels)))

    def renamed(self, rename: Callable[[str], str]) -> dict[str, str]:
        """Apply `rename` to every label.

        Returns:
            Label → new name.

        Raises:
            InputError: two labels, or a label and an alias of another label, get the same new name.
        """
        taken: dict[str, str] = {}
        for name in (*self.labels, *sorted(self.aliases)):
            label = self.aliases.get(name, name)
            other = taken.setdefault(rename(name), label)
            if other != label:
                both = " and ".join(" → ".join(self.path(x)) for x in (other, label))
                self._refuse(f"{both} would both be renamed to {rename(name)!r}", "rename one of them")
        return {label: rename(label) for label in self.labels}

    def _in_order(self, labels: Iterable[str]) -> tuple[str, ...]:
        for label in (wanted := tuple(labels)):
            self.parents(label)  # raises for an unknown label
        return tuple(sorted(wanted, key=self._place.__getitem__))

    def _nearest(self, label: str, column: Collection[str]) -> list[str]:
        """The nearest ancestors of `label` that are in `column`, sorted."""
        found, seen = set(), set()
        waiting = list(self.above[label])
        while waiting:
            name = waiting.pop()
            if name in column:
                found.add(name)
            elif name not in seen:
                seen.add(name)
                waiting.extend(self.above[name])
        return sorted(found)

    def _ordered(self, above: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
        sorter = TopologicalSorter(above)
        try:
            sorter.prepare()
        except CycleError as error:
            path = " → ".join(reversed(error.args[1]))  # the sorter lists it from parent to child
            self._refuse(f"its parents form a cycle: {path}", "remove one of these parents")
        ready = list(sorter.get_ready())
        while ready:
            heapq.heapify(ready)
            label = heapq.heappop(ready)
            yield label
            sorter.done(label)
            ready += sorter.get_ready()

    def _hint(self, name: str, labels: Iterable[str]) -> str:
        if name in self.aliases:
            return f"it is an alias; write the label {self.aliases[name]!r}"
        nearest = difflib.get_close_matches(name, [*labels, *self.aliases], n=1)
        return f"did you mean {nearest[0]!r}?" if nearest else "add it or correct the name"

    def _refuse(self, problem: str, remedy: str) -> NoReturn:
        raise InputError(f"{self.origin}: {problem}; {remedy}")
