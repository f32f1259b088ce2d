"""Write the card of a bundle, its README.md, from the description in `model.json`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from genre_ray.labels.taxonomy import is_subgenre

NETWORK = ("input", "preprocessing", "architecture", "rules")

LONGEST_LIST = 8
"""The card shows the length of a longer list instead of its values."""


def card(model: Mapping[str, Any]) -> str:
    """The text of a bundle's README.md.

    Args:
        model: the bundle's description, as in `model.json`: `labels` in order and, where known, `system`,
            `task`, `targets` (taxonomy: its `labels`, `thresholds` and `calibration`), `source` (of the system),
            `input`, `preprocessing`, `architecture`, `rules` (of training), `data`, `metrics` and `lineage`. What is
            not there is not invented: its section says so.
    """
    labels: Sequence[str] = model.get("labels", [])
    targets: Mapping[str, Mapping[str, Any]] = model.get("targets", {})
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown; every value goes through `cell`
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _cell
    return environment.get_template("card.md.jinja").render(
        system=model.get("system", "unnamed"),
        source=model.get("source"),
        task=model.get("task", "multi_label"),
        taxonomies=list(targets) or ["not named"],
        calibration=", ".join(sorted({_method(target["calibration"]) for target in targets.values()})) or "none",
        genres=sum(not is_subgenre(label) for label in labels),
        subgenres=sum(map(is_subgenre, labels)),
        targets=[
            (taxonomy, list(zip(target["labels"], target["thresholds"], strict=True)))
            for taxonomy, target in targets.items()
        ],
        network=_facts({key: model[key] for key in NETWORK if key in model}),
        data=_facts(model.get("data") or {}),
        metrics=_facts(model.get("metrics") or {}),
        lineage=_facts(model.get("lineage") or {}),
    )


def _method(calibration: Any) -> str:
    """Describe a calibration: `none`, or its method and how many labels have each kind of map."""
    if not isinstance(calibration, Mapping):
        return str(calibration)
    counts: Counter[str] = Counter(calibration["kinds"])
    return f"{calibration['method']} ({', '.join(f'{counts[kind]} {kind}' for kind in sorted(counts))})"


def _facts(value: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Flatten nested settings to rows (dotted name, value), in their order."""
    rows: list[tuple[str, str]] = []
    for key, item in value.items():
        name = f"{above}{key}"
        if isinstance(item, Mapping) and item:
            rows += _facts(item, f"{name}.")
        elif isinstance(item, list | tuple) and any(isinstance(inner, Mapping) for inner in item):
            rows += _facts({str(number): inner for number, inner in enumerate(item, start=1)}, f"{name}.")
        elif isinstance(item, list | tuple) and len(item) > LONGEST_LIST:
            rows.append((name, f"{len(item):,} values"))
        elif isinstance(item, list | tuple):
            rows.append((name, ", ".join(map(_text, item)) or "none"))
        else:
            rows.append((name, _text(item)))
    return rows


def _text(value: Any) -> str:
    if value is None or value == {}:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _cell(value: Any) -> str:
    """Convert a value to the text of a Markdown table cell, with all markup escaped."""
    text = " ".join(_text(value).split())
    for mark in "\\`*_[]|":
        text = text.replace(mark, "\\" + mark)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
