"""A taxonomy: labels, the labels right above each (several, where a genre has several parents), and other names.

A taxonomy that exists is sound: every parent is one of its labels, no label is above itself, and a name means one
label. Its labels are in one order, parents before their children, by name where that leaves a choice; for
`genre---subgenre` names that is the sorted order.
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
    """The label one level above by its name, None for a genre.

    >>> parent("rock---indie---noise")
    'rock---indie'
    """
    above, separator, _ = label.rpartition(SEPARATOR)
    return above if separator else None


def is_subgenre(label: str) -> bool:
    """Whether the name has a label above it.

    >>> is_subgenre("rock---indie"), is_subgenre("avant-garde")
    (True, False)
    """
    return SEPARATOR in label


@dataclass(frozen=True)
class Taxonomy:
    """Labels and what stands above each.

    Attributes:
        above: every label, parents before children, with its parents; a root has none.
        aliases: other name → label.
        origin: where it comes from, for messages.

    Raises:
        InputError: a parent is no label, a label is above itself, or an alias is a label or names none.
    """

    above: Mapping[str, tuple[str, ...]]
    aliases: Mapping[str, str] = field(default_factory=dict)
    origin: str = field(default="taxonomy", compare=False)

    def __post_init__(self) -> None:
        above = {label: tuple(sorted(set(self.above[label]))) for label in sorted(self.above)}
        for label, parents in above.items():
            for unknown in (name for name in parents if name not in above):
                self._refuse(f"the parents of {label!r} to be labels", f"{unknown!r}", self._hint(unknown, above))
        for alias, label in sorted(self.aliases.items()):
            if alias in above:
                path = " → ".join([alias, *above[alias]])
                self._refuse("a name to mean one label", f"the alias {alias!r} of {label!r}, a label too ({path})")
            if label not in above:
                self._refuse(f"the alias {alias!r} to name a label", f"{label!r}", self._hint(label, above))
        # Frozen means that nobody changes it from outside; this is still its making.
        object.__setattr__(self, "above", {label: above[label] for label in self._ordered(above)})

    @classmethod
    def of_names(cls, labels: Iterable[str], origin: str = "taxonomy") -> "Taxonomy":
        """The taxonomy that names of the form `genre---subgenre`, of any depth, spell out; what is above is added.

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
        """The labels that nothing is above."""
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
        """The labels right above, sorted.

        Raises:
            InputError: the taxonomy has no such label.
        """
        if label not in self.above:
            self._refuse("a label of the taxonomy", f"{label!r}", self._hint(label, self.above))
        return self.above[label]

    def children(self, label: str) -> tuple[str, ...]:
        """The labels right below, sorted."""
        self.parents(label)
        return tuple(sorted(self._children[label]))

    def ancestors(self, label: str) -> tuple[str, ...]:
        """All labels above, parents before children."""
        return tuple(name for name in self.with_parents([label]) if name != label)

    def resolve(self, name: str) -> str:
        """The label that a name, itself a label or an alias, stands for."""
        label = self.aliases.get(name, name)
        self.parents(label)
        return label

    def with_parents(self, labels: Iterable[str]) -> tuple[str, ...]:
        """The labels and all above them, each once, parents before children."""
        closed: set[str] = set()
        waiting = list(labels)
        while waiting:
            label = waiting.pop()
            if label not in closed:
                closed.add(label)
                waiting.extend(self.parents(label))
        return self._in_order(closed)

    def path(self, label: str) -> tuple[str, ...]:
        """From the label up to a root, by the first parent of each."""
        steps = [label]
        while parents := self.parents(steps[-1]):
            steps.append(parents[0])
        return tuple(steps)

    def edges(self, labels: Sequence[str]) -> list[tuple[int, int]]:
        """Which column is right below which, for columns of some of the labels.

        A label whose parent has no column is below the nearest that have one. Edges come by child, in the taxonomy's
        order: all edges of a label stand before those of the labels below it.

        Args:
            labels: the columns' labels, in any order.

        Returns:
            (column of the child, column of the parent).
        """
        column = {label: place for place, label in enumerate(labels)}
        edges = []
        for label in self._in_order(column):
            edges += [(column[label], column[name]) for name in self._nearest(label, column)]
        return edges

    def closure(self, labels: Sequence[str]) -> Any:
        """Boolean CSR (labels, labels): each column's own label and, of its ancestors, those that have a column."""
        column = {label: place for place, label in enumerate(labels)}
        pairs = [(column[x], column[above]) for x in labels for above in self.with_parents([x]) if above in column]
        below, above = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        return sparse.csr_array((np.ones(len(pairs), dtype=bool), (below, above)), shape=(len(labels), len(labels)))

    def renamed(self, rename: Callable[[str], str]) -> dict[str, str]:
        """Label → new name, where no two labels, and no label and another's alias, come to one name.

        Raises:
            InputError: they do; the message shows where both stand.
        """
        taken: dict[str, str] = {}
        for name in (*self.labels, *sorted(self.aliases)):
            label = self.aliases.get(name, name)
            other = taken.setdefault(rename(name), label)
            if other != label:
                both = " and ".join(" → ".join(self.path(x)) for x in (other, label))
                self._refuse("labels that stay apart", f"{both}, which both become {rename(name)!r}")
        return {label: rename(label) for label in self.labels}

    def _in_order(self, labels: Iterable[str]) -> tuple[str, ...]:
        for label in (wanted := tuple(labels)):
            self.parents(label)  # refuses what is no label
        return tuple(sorted(wanted, key=self._place.__getitem__))

    def _nearest(self, label: str, column: Collection[str]) -> list[str]:
        """The nearest labels above `label` that are among `column`, sorted."""
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
            path = " → ".join(reversed(error.args[1]))  # the sorter goes from parent to child
            self._refuse("no label above itself", f"the cycle {path}", "remove one of its steps")
        ready = list(sorter.get_ready())
        while ready:
            heapq.heapify(ready)
            label = heapq.heappop(ready)
            yield label
            sorter.done(label)
            ready += sorter.get_ready()

    def _hint(self, name: str, labels: Iterable[str]) -> str:
        if name in self.aliases:
            return f"name the label it stands for, {self.aliases[name]!r}"
        nearest = difflib.get_close_matches(name, [*labels, *self.aliases], n=1)
        return f"did you mean {nearest[0]!r}?" if nearest else "add it or correct the name"

    def _refuse(self, expected: str, found: str, remedy: str = "rename one of them") -> NoReturn:
        raise InputError(f"{self.origin}: expected {expected}, found {found}; {remedy}")
