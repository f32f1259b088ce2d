"""Write the card of a bundle, its README.md, from its manifest."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from genre_ray.bundles.manifest import Manifest
from genre_ray.decisions.policy import PolicyDescription
from genre_ray.decisions.thresholds import NO_THRESHOLD
from genre_ray.labels.taxonomy import is_subgenre

LONGEST_LIST = 8
"""The card shows the length of a longer list instead of its values."""


def card(manifest: Manifest) -> str:
    """Return the text of a bundle's card."""
    stated = manifest.model_dump(mode="json")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown; every value goes through `cell`
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _cell
    return environment.get_template("card.md.jinja").render(
        system=manifest.system,
        source=manifest.source,
        task=manifest.task.kind,
        calibration=", ".join(sorted({_calibration(target.policy) for target in manifest.targets.values()})),
        genres=sum(not is_subgenre(label) for label in manifest.labels),
        subgenres=sum(map(is_subgenre, manifest.labels)),
        targets=[
            (taxonomy, list(zip(target.labels, target.policy.thresholds, strict=True)))
            for taxonomy, target in manifest.targets.items()
        ],
        no_threshold=float(NO_THRESHOLD),
        licences=manifest.licences,
        network=_facts({key: stated[key] for key in ("inputs", "preprocessing", "architecture", "rules")}),
        data=_facts(stated["data"]),
        metrics=_facts(stated["metrics"]),
        lineage=_facts(stated["lineage"]),
    )


def _calibration(policy: PolicyDescription) -> str:
    """Describe a calibration: `none`, or its method and how many labels have each kind of map."""
    if policy.calibration is None:
        return "none"
    counts = Counter(policy.calibration.kinds)
    return f"{policy.calibration.method} ({', '.join(f'{counts[kind]} {kind}' for kind in sorted(counts))})"


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
