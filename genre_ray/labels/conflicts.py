"""Where two taxonomies contradict each other: what their names or their trees promise and their recordings deny."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from genre_ray.labels.mapping import Relations, key, same_keys
from genre_ray.labels.taxonomy import SEPARATOR, Taxonomy


@dataclass(frozen=True, slots=True)
class Conflict:
    """One contradiction, or a label that nothing was found for.

    Attributes:
        reason: `apart` or `never_together`, of labels whose names are equal, or equal in their last level;
            `parent_apart`, of a label that is mostly not what its parent is the same as; and `no_counterpart`, of a
            label that is related to none of the other taxonomy, with an empty `to_label`.
        together, expected: recordings with both labels, and how many chance would give.
        count_from, count_to: recordings with either, of those that both taxonomies annotate.
        high: the greatest share of the first label's recordings that may have the second.
        detail: in words.
    """

    from_taxonomy: str
    from_label: str
    to_taxonomy: str
    to_label: str
    reason: str
    together: int
    expected: float
    count_from: int
    count_to: int
    high: float
    detail: str


def name_conflicts(from_taxonomy: str, to_taxonomy: str, there: Relations) -> Iterator[Conflict]:
    """Labels of like names that do not include one another, by their names; the other way round they are the same."""
    alike = there.same_name | same_keys(there.found.from_labels, there.found.to_labels, _last_level)
    for i, j in np.argwhere(alike & there.apart):
        how = "the same name" if there.same_name[i, j] else "the same last level"
        reason = "apart" if there.found.together[i, j] else "never_together"
        yield _conflict(
            from_taxonomy, to_taxonomy, there, (int(i), int(j)), reason, f"{how}, but neither includes the other"
        )


def parent_conflicts(from_taxonomy: str, to_taxonomy: str, there: Relations, ours: Taxonomy) -> Iterator[Conflict]:
    """Labels of the first taxonomy that the second one does not place below what their parent is the same as."""
    few = there.found.count_from < there.rule.least
    for child, parent in ours.edges(there.found.from_labels):
        for j in np.flatnonzero(there.same[parent] & (there.bounds[1][child] < there.rule.inclusion)):
            if not few[child]:
                detail = f"below {there.found.from_labels[parent]!r}, which is the same"
                yield _conflict(from_taxonomy, to_taxonomy, there, (child, int(j)), "parent_apart", detail)


def without_counterpart(from_taxonomy: str, to_taxonomy: str, there: Relations) -> Iterator[Conflict]:
    """Labels of the first taxonomy that are related to none of the second: whoever answers there does not say them."""
    alike = same_keys(there.found.from_labels, there.found.to_labels, _last_level)
    for i in np.flatnonzero(~(there.overlaps | there.by_name).any(axis=1)):
        count = int(there.found.count_from[i])
        like = [there.found.to_labels[j] for j in np.flatnonzero(alike[i])]
        detail = f"of the same last level: {', '.join(like)}" if like else "none of the same last level either"
        label = there.found.from_labels[i]
        yield Conflict(from_taxonomy, label, to_taxonomy, "", "no_counterpart", 0, 0.0, count, 0, 1.0, detail)


def _conflict(
    from_taxonomy: str, to_taxonomy: str, there: Relations, pair: tuple[int, int], reason: str, detail: str
) -> Conflict:
    found, (i, j) = there.found, pair
    count_from, count_to = int(found.count_from[i]), int(found.count_to[j])
    return Conflict(
        from_taxonomy,
        found.from_labels[i],
        to_taxonomy,
        found.to_labels[j],
        reason,
        together=int(found.together[i, j]),
        expected=count_from * count_to / max(found.recordings, 1),
        count_from=count_from,
        count_to=count_to,
        high=float(there.bounds[1][i, j]),
        detail=detail,
    )


def _last_level(label: str) -> str | None:
    return key(label.rpartition(SEPARATOR)[2])
