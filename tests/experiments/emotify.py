"""Emotify: two taxonomies of the same recordings, parts by artist, every system that has its inputs there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from methods import Rows, Truth, of_bundle, of_logistic_regression
from running import of_configuration, succeeded
from scoring import Scored

from genre_ray.commands import fuse, ingest, train

TAXONOMIES = ("folder", "tags")

# The published rules over-fit so few rows within two epochs; these are the demo's.
SINGLE = {"learning_rate": 1e-4, "weight_decay": 0.1, "patience": 20, "max_epochs": 500}
FUSED = {"patience": 20, "max_epochs": 1000}
MELBAND = {"batch": 32, "patience": 50, "max_epochs": 500}


def experiments(data: Path, scratch: Path, seeds: int) -> Iterator[tuple[str, str, Scored]]:
    """Yield (taxonomy, method, scores) for every seed; `data` has documents.tar.zst, folder.tsv and tags.tsv."""
    catalog = str(scratch / "emotify" / "catalog")
    succeeded(
        ingest.run(
            of_configuration(ingest.IngestConfiguration, inputs=[str(data / "documents.tar.zst")], output=catalog)
        )
    )
    features = f"{catalog}/features"
    rows = Rows(features)
    truths = {taxonomy: str(data / f"{taxonomy}.tsv") for taxonomy in TAXONOMIES}
    for seed in range(seeds):
        common = {
            "features": features,
            "split": {
                "seed": seed,
                "group_by": "artist",
                "fractions": [0.6, 0.2, 0.2],
                "least_train": 5,
                "least_other": 2,
            },
        }
        out = scratch / "emotify" / str(seed)
        bundles = _single(common, truths, out, seed) | _joined(common, truths, out, seed)
        for taxonomy in TAXONOMIES:
            truth = Truth(bundles["S0 single", taxonomy], taxonomy)
            yield taxonomy, "logistic regression", of_logistic_regression(rows, truth)
            for (method, of), uri in bundles.items():
                if of == taxonomy:
                    yield taxonomy, method, of_bundle(uri, rows, truth)


def _single(common: dict[str, Any], truths: dict[str, str], out: Path, seed: int) -> dict[tuple[str, str], str]:
    """(method, taxonomy) → a bundle for it alone."""
    bundles: dict[tuple[str, str], str] = {}
    for taxonomy, uri in truths.items():
        named = {**common, "taxonomy": taxonomy, "ground_truth": uri}
        for method, system, rules in (("S0 single", "essentia", SINGLE), ("S1 single", "melband", MELBAND)):
            bundles[method, taxonomy] = _train(out / f"{system}-{taxonomy}", seed, rules, system=system, **named)
    for taxonomy, uri in truths.items():
        output = str(out / f"fusion-{taxonomy}")
        succeeded(
            fuse.run(
                of_configuration(
                    fuse.FuseConfiguration,
                    **common,
                    taxonomy=taxonomy,
                    ground_truth=uri,
                    bundles=[bundles["S0 single", name] for name in truths],
                    rules={**FUSED, "seed": seed},
                    output=output,
                )
            )
        )
        bundles["S0 fusion", taxonomy] = output
    return bundles


def _joined(common: dict[str, Any], truths: dict[str, str], out: Path, seed: int) -> dict[tuple[str, str], str]:
    """(method, taxonomy) → the bundle of both, once for each meaning of what is not labelled."""
    bundles: dict[tuple[str, str], str] = {}
    sources = {taxonomy: {"ground_truth": uri} for taxonomy, uri in truths.items()}
    for unlabelled in ("negative", "masked"):
        output = out / f"melband-joined-{unlabelled}"
        joined = _train(output, seed, MELBAND, system="melband", sources=sources, unlabelled=unlabelled, **common)
        bundles |= {(f"S1 joined, {unlabelled}", taxonomy): joined for taxonomy in truths}
    return bundles


def _train(output: Path, seed: int, rules: dict[str, Any], *, system: str, **settings: Any) -> str:
    clip = {"clip_sd": 8} if system == "essentia" else {}
    configuration = of_configuration(
        train.TrainConfiguration,
        system=system,
        output=str(output),
        rules={**rules, "seed": seed},
        **clip,
        **settings,
    )
    succeeded(train.run(configuration))
    return str(output)
