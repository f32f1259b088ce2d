"""From scores to labels at the size of the real taxonomies: 100,000 recordings, AllMusic's 766 labels and all 1,424.

Scores are generated: labels' frequencies fall as in the task's ground truths, a recording has some three labels with
their parents, and log-odds are twice as large as they should be. Every size runs in a process of its own, so that its
memory is its own; the scores themselves are part of it.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

RECORDINGS = 100_000
SIZES = {"allmusic": 766, "joined": 1424}
GENRES_SHARE = 0.03
BLOCK = 2000


def main(name: str) -> None:
    """Measure one size and print it as JSON: seconds of each step and the peak of resident memory in MB."""
    from genre_ray.decisions.calibration import fit_calibration
    from genre_ray.decisions.policy import Policy
    from genre_ray.decisions.thresholds import borrowed_thresholds
    from genre_ray.labels.taxonomy import Taxonomy
    from genre_ray.metrics.official import official_scores
    from genre_ray.metrics.ranking import average_precision, roc_auc
    from genre_ray.metrics.reliability import reliability

    labels, truth, scores = generate(SIZES[name])
    pairs = Taxonomy.of_names(labels).edges(labels)
    spent: dict[str, float] = {}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        spent[step] = time.perf_counter() - start
        return result

    timed("calibration error of the scores", lambda: reliability(truth, scores))
    calibration = timed("calibration, fitted", lambda: fit_calibration(truth, scores))
    policy = Policy(tuple(labels), np.ones(len(labels), np.float32), calibration, tuple(pairs))
    before = policy.hierarchy.violations(scores)
    probabilities = timed("calibrated and made consistent", lambda: policy.probabilities(scores, out=scores))
    thresholds = timed("thresholds", lambda: borrowed_thresholds(truth, probabilities, policy.hierarchy, 10))
    decided = timed("decided", lambda: replace(policy, thresholds=thresholds).decide(probabilities)).labels
    given = sparse.csr_array(decided)
    timed("official scores", lambda: official_scores(truth, given, labels))
    timed("ROC AUC", lambda: roc_auc(truth, probabilities))
    timed("average precision", lambda: average_precision(truth, probabilities))
    timed("calibration error", lambda: reliability(truth, probabilities))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    violations = [before, policy.hierarchy.violations(probabilities)]
    print(json.dumps({"seconds": spent, "peak": peak, "violations": violations}))


def generate(width: int, recordings: int = RECORDINGS, seed: int = 0) -> tuple[list[str], sparse.csr_array, Any]:
    """Labels, truth (recordings, labels) and scores float32 (recordings, labels)."""
    generator = np.random.default_rng(seed)
    genres = max(2, round(width * GENRES_SHARE))
    parents = generator.zipf(1.3, width) % genres
    names = [f"g{n:03d}" if n < genres else f"g{parents[n]:03d}---s{n:04d}" for n in range(width)]
    order = np.argsort(names)
    labels = [names[n] for n in order]
    column = {name: place for place, name in enumerate(labels)}
    above = np.array([column[name.partition("---")[0]] for name in labels])
    frequency = (1 / np.arange(1, width + 1) ** 0.9)[generator.permutation(width)]
    scores = np.empty((recordings, width), dtype=np.float32)
    rows = []
    for start in range(0, recordings, BLOCK):
        drawn = generator.choice(width, (BLOCK, 2), p=frequency / frequency.sum())
        has = np.zeros((BLOCK, width), dtype=bool)
        has[np.arange(BLOCK)[:, None], drawn] = True
        has[np.arange(BLOCK)[:, None], above[drawn]] = True
        rows.append(sparse.csr_array(has))
        odds = generator.standard_normal((BLOCK, width), dtype=np.float32)
        odds += np.log(frequency * 2 / frequency.sum()).astype(np.float32)
        odds += 2 * has
        odds *= 2
        scores[start : start + BLOCK] = 1 / (1 + np.exp(-odds))
    return labels, sparse.vstack(rows).tocsr(), scores


def benchmarks(scratch: Path) -> Iterator[Any]:
    """See `run.py`: seconds of each step, of all together, and the peak of memory, for both sizes."""
    import harness

    for name, width in SIZES.items():
        found = [_measure(name) for _ in range(3)]
        size = f"{RECORDINGS:,} × {width:,}"
        for step in found[0]["seconds"]:
            numbers = tuple(one["seconds"][step] for one in found)
            yield harness.Result(f"labels: {step}, {size}", "s", numbers)
        total = tuple(sum(one["seconds"].values()) for one in found)
        yield harness.Result(f"labels: all of these, {size}", "s", total, at_most=180)
        yield harness.Result(f"labels: peak memory, {size}", "MB", tuple(one["peak"] for one in found), at_most=2000)


def _measure(name: str) -> Any:
    done = subprocess.run([sys.executable, __file__, name], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main(sys.argv[1])
