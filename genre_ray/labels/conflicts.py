"""Find contradictions between two taxonomies: names or parents that the shared recordings do not confirm."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from genre_ray.labels.mapping import Relations, key, same_keys
from genre_ray.labels.taxonomy import SEPARATOR, Taxonomy


@dataclass(frozen=True, slots=True)
class Conflict:
    """One row of conflicts.tsv: two labels that contradict each other, or one label without a counterpart.

    Attributes:
        from_taxonomy, from_label, to_taxonomy, to_label: the two labels.
        reason: `apart`: the labels have the same name or the same last level, but neither includes the other;
            `never_together`: the same, and no recording has both; `parent_apart`: the parent of the first label is the
            same as the second label, but few recordings of the first label have the second; `no_counterpart`: no label
            of the other taxonomy is related, and `to_label` is empty.
        together, expected: number of recordings with both labels, and the number expected by chance.
        count_from, count_to: number of recordings with each label, among those that both taxonomies annotate.
        high: upper bound of the share of the first label's recordings that have the second.
        detail: the conflict in words.
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
    """Yield pairs of labels with the same name or last level of which neither includes the other.

    The result does not depend on the direction, so it needs only one call per pair of taxonomies.
    """
    alike = there.same_name | same_keys(there.found.from_labels, there.found.to_labels, _last_level)
    for i, j in np.argwhere(alike & there.apart):
        how = "same name" if there.same_name[i, j] else "same last level"
        reason = "apart" if there.found.together[i, j] else "never_together"
        yield _conflict(
            from_taxonomy, to_taxonomy, there, (int(i), int(j)), reason, f"{how}, but neither includes the other"
        )


def parent_conflicts(from_taxonomy: str, to_taxonomy: str, there: Relations, ours: Taxonomy) -> Iterator[Conflict]:
    """Yield labels whose parent is the same as a label of the second taxonomy, which few of their recordings have.

    For example `rock---punk`, if `rock` is the same as `Rock`, but few recordings of `rock---punk` are `Rock`.
    """
    few = there.found.count_from < there.rule.least
    for child, parent in ours.edges(there.found.from_labels):
        for j in np.flatnonzero(there.same[parent] & (there.bounds[1][child] < there.rule.inclusion)):
            if not few[child]:
                detail = f"its parent {there.found.from_labels[parent]!r} is the same as this label"
                yield _conflict(from_taxonomy, to_taxonomy, there, (child, int(j)), "parent_apart", detail)


def without_counterpart(from_taxonomy: str, to_taxonomy: str, there: Relations) -> Iterator[Conflict]:
    """Yield labels of the first taxonomy that no label of the second is related to, so the mapping loses them."""
    alike = same_keys(there.found.from_labels, there.found.to_labels, _last_level)
    for i in np.flatnonzero(~(there.overlaps | there.by_name).any(axis=1)):
        count = int(there.found.count_from[i])
        like = [there.found.to_labels[j] for j in np.flatnonzero(alike[i])]
        detail = f"labels with the same last level: {', '.join(like)}" if like else "no label has the same last level"
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
