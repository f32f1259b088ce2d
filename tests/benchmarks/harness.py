"""Measuring: two things in one run on one machine, in turns, so that what else the machine does hits both.

A ratio is that of one repetition's two numbers; the table gives the median over repetitions and all of their range.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("ray", "torch", "numpy", "pyarrow", "deltalake", "orjson", "zstandard", "scikit-learn")

Measure = Callable[[], float]


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        unit: of both sides' numbers.
        ours: what genre_ray measured, one number a repetition.
        reference: what it is held against; empty for a number that stands alone.
        at_least, at_most: the bar, of the median ratio, or of the median number where it stands alone.
    """

    name: str
    unit: str
    ours: tuple[float, ...]
    reference: tuple[float, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def held(self) -> tuple[float, ...]:
        """What the bar is for: the ratios, or the numbers themselves."""
        if not self.reference:
            return self.ours
        return tuple(ours / other for ours, other in zip(self.ours, self.reference, strict=True))

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the bar; None without one."""
        if self.at_least is None and self.at_most is None:
            return None
        median = statistics.median(self.held)
        return (self.at_least is None or median >= self.at_least) and (self.at_most is None or median <= self.at_most)


def compare(
    name: str,
    ours: Measure,
    reference: Measure,
    *,
    unit: str,
    at_least: float | None = None,
    at_most: float | None = None,
    repetitions: int = 5,
    note: str = "",
) -> Result:
    """Measure both in turns, the first of a pair changing, so that neither always finds the machine warm."""
    pairs = []
    for repetition in range(repetitions):
        if repetition % 2:
            other = reference()
            pairs.append((ours(), other))
        else:
            pairs.append((ours(), reference()))
    mine, others = zip(*pairs, strict=True)
    return Result(name, unit, mine, others, at_least, at_most, note)


def figure(
    name: str, measure: Measure, *, unit: str, at_most: float | None = None, repetitions: int = 3, note: str = ""
) -> Result:
    """A number that stands alone: a fixed cost, a size in memory."""
    return Result(name, unit, tuple(measure() for _ in range(repetitions)), at_most=at_most, note=note)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rate(work: Callable[[int], object], items: int) -> float:
    """Items a second, fixed costs included."""
    return items / seconds(lambda: work(items))


def marginal_rate(work: Callable[[int], object], items: int) -> float:
    """Items a second without fixed costs: `items` over what twice as many take longer."""
    once = seconds(lambda: work(items))
    return items / (seconds(lambda: work(2 * items)) - once)


def machine() -> dict[str, str]:
    """What the numbers are true of."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = {"cpus": str(len(os.sched_getaffinity(0))), "memory": f"{memory_gib:.0f} GiB", "processor": _processor()}
    return found | {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def table(results: Sequence[Result]) -> str:
    """The results as a table in Markdown."""
    lines = ["| what | genre_ray | reference | ratio, median (range) | bar | |", "|---|---|---|---|---|---|"]
    for result in results:
        ratio = f"{statistics.median(result.held):.2f} ({_range(result.held)})" if result.reference else ""
        bar = f"≥ {result.at_least:g}" if result.at_least is not None else ""
        bar = f"≤ {result.at_most:g}" if result.at_most is not None else bar
        reference = _number(result.reference, result.unit) if result.reference else ""
        met = {True: "met", False: "**not met**", None: ""}[result.met]
        name = f"{result.name} ({result.note})" if result.note else result.name
        lines.append(f"| {name} | {_number(result.ours, result.unit)} | {reference} | {ratio} | {bar} | {met} |")
    return "\n".join(lines)


def write(results: Sequence[Result], path: Path) -> None:
    """All numbers, the machine and the versions as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [asdict(result) | {"met": result.met} for result in results]
    path.write_text(json.dumps({"machine": machine(), "results": rows}, indent=1) + "\n")


def _number(values: Sequence[float], unit: str) -> str:
    return f"{_plain(statistics.median(values))} {unit} ({_range(values)})"


def _range(values: Sequence[float]) -> str:
    return f"{_plain(min(values))}–{_plain(max(values))}"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
