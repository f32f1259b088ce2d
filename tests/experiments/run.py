"""python tests/experiments/run.py [--emotify FOLDER] [--fma FOLDER] [--seeds N] [--out FILE]

Every system that has its inputs, through the jobs that people run, beside logistic regression: writes the table of
`docs/results.md` and all its numbers as JSON beside it. Some minutes on two cores.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import emotify
import fma
from running import train_here
from scoring import Scored, measure

SAMPLE = Path(__file__).parents[1] / "data"

COLUMNS = {
    "roc_auc": "ROC AUC",
    "average_precision": "mean AP",
    "recording_f": "F, recordings",
    "recording_genres_f": "genres",
    "recording_subgenres_f": "subgenres",
    "label_f": "F, labels",
    "recording_f_half": "F, recordings, at 0.5",
    "label_f_half": "F, labels, at 0.5",
    "calibration_error": "ECE before",
    "calibration_error_after": "after",
    "violations": "violations before",
    "violations_after": "after",
}

Numbers = dict[tuple[str, str], list[dict[str, float | None]]]

INTRODUCTION = """# Results on small open data

After reading this page you know what each system reaches on small open data. `make results` computes the tables.

The data are too small to rank the systems. Differences of a few hundredths are noise, as the standard deviation over
seeds (sd) shows. The tables show that the code works.

All numbers are measured on recordings that were used neither to train the network nor to fit calibration and
thresholds.

- ROC AUC and mean AP (average precision) are means over labels, of the model's own scores.
- F values are the official scores. "At 0.5" means with a threshold of 0.5 for every label.
- ECE is the expected calibration error, as a mean over labels, before and after calibration.
- Violations count the scores that are higher than that of a parent label, before and after the policy.
- Logistic regression is fitted per label (C = 0.01) on the same standardised features, and uses the same policy.
"""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emotify", type=Path, default=SAMPLE / "emotify", help="documents.tar.zst and two TSVs")
    parser.add_argument("--fma", type=Path, default=SAMPLE / "fma", help="genres, tracks and features as CSV")
    parser.add_argument("--seeds", type=int, default=5, help="of Emotify's split and networks")
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"))
    options = parser.parse_args(arguments)
    train_here()
    with tempfile.TemporaryDirectory() as scratch:
        data = {
            "Emotify": collect(emotify.experiments(options.emotify, Path(scratch), options.seeds)),
            "FMA": collect(fma.experiments(options.fma, Path(scratch))),
        }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(INTRODUCTION + "\n" + "\n".join(table(name, numbers) for name, numbers in data.items()))
    numbers = {name: {" | ".join(key): rows for key, rows in found.items()} for name, found in data.items()}
    options.out.with_suffix(".json").write_text(json.dumps(numbers, indent=1) + "\n")
    print(options.out)
    return 0


def collect(experiments: Iterator[tuple[str, str, Scored]]) -> Numbers:
    """(taxonomy, method) → what was measured in each repetition."""
    numbers: Numbers = defaultdict(list)
    for taxonomy, method, scored in experiments:
        numbers[taxonomy, method].append(measure(scored))
        print(taxonomy, method, numbers[taxonomy, method][-1], flush=True)
    return numbers


def table(name: str, numbers: Numbers) -> str:
    """Mean and spread over repetitions, in Markdown."""
    repetitions = max(map(len, numbers.values()))
    lines = [f"## {name}: mean (sd) of {repetitions} repetitions", ""]
    lines += ["| taxonomy | method | " + " | ".join(COLUMNS.values()) + " |", "|" + "---|" * (len(COLUMNS) + 2)]
    for (taxonomy, method), rows in sorted(numbers.items()):
        cells = [_cell([row[column] for row in rows if row[column] is not None]) for column in COLUMNS]
        lines.append(f"| {taxonomy} | {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(values: list[float]) -> str:
    if not values:
        return "–"
    if len(values) == 1 or len(set(values)) == 1:
        return f"{values[0]:.4g}"
    return f"{statistics.fmean(values):.3f} ({statistics.stdev(values):.3f})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
