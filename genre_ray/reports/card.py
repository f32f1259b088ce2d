"""The card of a bundle: what a person needs to know before using it, as Markdown made from its manifest."""

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
"""A list of more values than this is described by their number."""


def card(manifest: Manifest) -> str:
    """The text of a bundle's `README.md`."""
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
    """`none`, or the method with the number of labels that each kind of map is for."""
    if policy.calibration is None:
        return "none"
    counts = Counter(policy.calibration.kinds)
    return f"{policy.calibration.method} ({', '.join(f'{counts[kind]} {kind}' for kind in sorted(counts))})"


def _facts(value: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, value) rows, in their own order."""
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
    """`value` as text of a Markdown table's cell: nothing in it is markup."""
    text = " ".join(_text(value).split())
    for mark in "\\`*_[]|":
        text = text.replace(mark, "\\" + mark)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
