"""Render evaluations as one self-contained HTML file: it loads no script, font, style sheet or image.

The template escapes all text that comes from data. `genre_ray.reports.figures` draws the figures as SVG.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from genre_ray.reports import figures
from genre_ray.reports.result import Answer, EvaluationResult, Means

OPEN_LABELS = 40
"""A table of labels with more rows than this is collapsed at first."""

GROUPS = (
    ("recording", "all"),
    ("recording", "genres"),
    ("recording", "subgenres"),
    ("label", "all"),
    ("label", "genres"),
    ("label", "subgenres"),
)

OVERVIEW = (
    ("Mean F per recording", ("all", "genres", "subgenres")),
    ("Mean F per label", ("all", "genres", "subgenres")),
    ("ROC AUC", ("macro", "micro")),
    ("Average precision", ("macro", "micro")),
)


@dataclass(frozen=True)
class _Row:
    """A row of the overview. `best` is True for each number that is the highest of its column."""

    name: str
    anchor: str | None
    models: tuple[str, ...]
    numbers: tuple[float | None, ...]
    best: tuple[bool, ...]


@dataclass(frozen=True)
class _Comparison:
    """The evaluations with the same truth and baselines. `first` is the first of them."""

    first: EvaluationResult
    rows: tuple[_Row, ...]


def render(evaluations: Sequence[EvaluationResult], title: str = "Evaluation", version: str = "") -> str:
    """Return the HTML of a report.

    Args:
        evaluations: in the order of the report. Those with the same truth are compared in one table.
        title: title of the page.
        version: version of genre_ray, for the footer.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["share"] = lambda value: f"{100 * value:.1f} %"
    environment.filters["plural"] = lambda count, noun: f"{count:,} {noun}" + ("" if count == 1 else "s")
    template = environment.get_template("report.html.jinja")
    return template.render(
        title=title,
        version=version,
        comparisons=_comparisons(evaluations),
        overview=OVERVIEW,
        starts={sum(len(columns) for _, columns in OVERVIEW[:group]) for group in range(len(OVERVIEW))},
        sections=[_section(number, evaluation) for number, evaluation in enumerate(evaluations, start=1)],
        groups=GROUPS,
        open_labels=OPEN_LABELS,
    )


def _section(number: int, evaluation: EvaluationResult) -> dict[str, Any]:
    labels, curves, histograms = evaluation.labels, evaluation.curves, evaluation.histograms
    anchor = _anchor(number)
    drawings = {
        "label_scores": figures.label_scores(labels, prefix=f"{anchor}-labels") if labels else None,
        "precision_recall": figures.precision_recall(curves, prefix=f"{anchor}-curves") if curves else None,
        "trust": _trust(evaluation, f"{anchor}-trust"),
        "histograms": figures.score_histograms(histograms, prefix=f"{anchor}-scores") if histograms else None,
    }
    safe = {name: None if drawing is None else Markup(drawing) for name, drawing in drawings.items()}
    return {"anchor": anchor, "evaluation": evaluation, **safe}


def _trust(evaluation: EvaluationResult, prefix: str) -> str | None:
    if evaluation.calibrated is None:
        return None
    return figures.trust(evaluation.uncalibrated, evaluation.calibrated, evaluation.abstention, prefix=prefix)


def _anchor(number: int) -> str:
    return f"evaluation-{number}"


def _comparisons(evaluations: Sequence[EvaluationResult]) -> list[_Comparison]:
    """Group the evaluations whose numbers can be compared; a group has the place of its first evaluation."""
    groups: dict[tuple[str | None, str], list[tuple[int, EvaluationResult]]] = {}
    for number, item in enumerate(evaluations, start=1):
        groups.setdefault((item.taxonomy, item.comparable), []).append((number, item))
    return [_Comparison(group[0][1], tuple(_rows(group))) for group in groups.values()]


def _rows(group: Sequence[tuple[int, EvaluationResult]]) -> list[_Row]:
    everything: list[tuple[str, str | None, tuple[str, ...], tuple[float | None, ...]]] = [
        (item.name, _anchor(number), item.model_ids, _overview(item.system)) for number, item in group
    ]
    for name, answer in group[0][1].baselines.items():
        everything.append((f"{name} baseline", None, (), _overview(answer)))
    columns = zip(*(numbers for *_, numbers in everything), strict=True)
    highest = [max((value for value in column if value is not None), default=None) for column in columns]
    return [
        _Row(
            name,
            anchor,
            models,
            numbers,
            best=tuple(value is not None and value == top for value, top in zip(numbers, highest, strict=True)),
        )
        for name, anchor, models, numbers in everything
    ]


def _overview(answer: Answer) -> tuple[float | None, ...]:
    """The numbers for the columns of `OVERVIEW`."""
    means = [getattr(answer.official, f"{unit}_{labels}").f_score.mean for unit, labels in GROUPS]
    undefined = Means(None, None)
    rankings = [answer.roc_auc or undefined, answer.average_precision or undefined]
    return (*means, *(value for ranking in rankings for value in (ranking.macro, ranking.micro)))


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
