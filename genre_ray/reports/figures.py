"""The figures of an evaluation as inline SVG.

Every figure is one `<svg>` element that needs nothing outside itself: text stays text, and colours are
CSS variables (`--ink`, `--grid`, `--series-1` …) that the page sets for light and dark. Equal values give an
equal drawing.
"""

import io
import re
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from genre_ray.reports.result import Abstention, Calibrated, Curve, Histogram, LabelResult

SERIES = 6
"""How many series have a colour of their own; no figure shows more."""

NAMED_LABELS = 10
"""At most so many labels, the most frequent, have their names beside their points, where there is room."""

CHARACTER_WIDTH = 0.0145
"""Width of a character of a point's name as a share of the panel's, about."""

# Drawn as themselves, these colours exist only to be replaced by the page's variables.
_INK, _MUTED, _GRID = "#010101", "#020202", "#030303"
_SERIES = tuple(f"#0400{number:02x}" for number in range(1, SERIES + 1))
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _GRID: "--grid"} | {
    colour: f"--series-{number}" for number, colour in enumerate(_SERIES, start=1)
}

_DASHES = (0, (4, 3))

_STYLE: Any = {  # matplotlib's own type lists every key it has
    "svg.fonttype": "none",
    "svg.hashsalt": "genre_ray",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _MUTED,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "legend.frameon": False,
}


def label_scores(labels: Sequence[LabelResult], *, prefix: str = "labels") -> str:
    """Each label's F, and its ROC AUC where defined, against how many recordings of the truth have it.

    Args:
        labels: the most frequent first.
        prefix: begins every id of the drawing; to be another one for each figure of a page.
    """
    scored = [label for label in labels if label.count and label.roc_auc is not None]
    panels = 2 if scored else 1
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.3 * panels, 3.3), layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)[0]
        found = [label for label in labels if label.count]
        _scatter(axes[0], found, [_number(label.f_score) for label in found], "F at the decided labels")
        if scored:
            _scatter(axes[1], scored, [_number(label.roc_auc) for label in scored], "ROC AUC")
            axes[1].axhline(0.5, color=_MUTED, linewidth=0.8, linestyle=_DASHES)
        return _svg(figure, "F and ROC AUC of each label against its number of recordings", prefix)


def precision_recall(curves: Sequence[Curve], *, prefix: str = "curves") -> str:
    """Precision against recall of the first labels; the dot is where the decided labels stand."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 3.8), layout="constrained")
        axes = figure.subplots()
        for colour, curve in zip(_SERIES, curves, strict=False):
            name = f"{_short(curve.label)} ({_number(curve.average_precision):.2f})"
            # As average precision sums it: up to a recall, the precision at that recall.
            axes.step(curve.recall, curve.precision, where="pre", color=colour, linewidth=1.6, label=name)
            if curve.decided_precision is not None:
                axes.plot(curve.decided_recall, curve.decided_precision, "o", color=colour, markersize=6)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.05), xlabel="recall", ylabel="precision")
        figure.legend(loc="outside right upper", title="label (average precision)", alignment="left")
        return _svg(figure, "Precision against recall of the largest labels", prefix)


def score_histograms(histograms: Sequence[Histogram], *, prefix: str = "histograms") -> str:
    """How scores of recordings with and without a label are spread about its threshold, a panel a label."""
    shown = histograms[:SERIES]
    columns = 2 if len(shown) == 4 else min(3, len(shown))
    rows = -(-len(shown) // columns)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.5 * max(columns, 2), 2.2 * rows + 0.5), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, histogram in zip(panels, shown, strict=False):
            for counts, colour, name in (
                (histogram.negatives, _SERIES[1], "without the label"),
                (histogram.positives, _SERIES[0], "with the label"),
            ):
                share = 100 * np.asarray(counts) / max(sum(counts), 1)
                axes.stairs(share, histogram.edges, color=colour, fill=True, alpha=0.35)
                axes.stairs(share, histogram.edges, color=colour, linewidth=1.2, label=name)
            if histogram.threshold is not None:
                axes.axvline(histogram.threshold, color=_INK, linewidth=1, linestyle=_DASHES, label="threshold")
            axes.set_title(_short(histogram.label))
            axes.yaxis.set_major_locator(MaxNLocator(4))
        for axes in panels[len(shown) :]:
            axes.set_axis_off()
        figure.supxlabel("score", color=_MUTED, fontsize=9)
        figure.supylabel("% of the recordings", color=_MUTED, fontsize=9)
        legends = [axes.get_legend_handles_labels() for axes in panels]
        handles = {name: handle for legend in legends for handle, name in zip(*legend, strict=True)}
        figure.legend(list(handles.values()), list(handles), loc="outside upper left", ncols=3)
        return _svg(figure, "Histograms of scores with and without a label", prefix)


def trust(
    uncalibrated: Calibrated | None,
    calibrated: Calibrated | None,
    abstention: Abstention | None,
    *,
    prefix: str = "trust",
) -> str:
    """The reliability of scores before and after calibration, and the risk of answering ever more recordings."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9.4, 3.7), layout="constrained")
        left, right = figure.subplots(1, 2)
        highest = 0.0
        left.plot([0, 1], [0, 1], color=_MUTED, linewidth=0.8, linestyle=_DASHES, label="as it should be")
        # The first is drawn larger: it stays to be seen where calibration had nothing to change.
        for found, colour, marker, size, name in (
            (uncalibrated, _SERIES[1], "D", 6.5, "model's scores"),
            (calibrated, _SERIES[0], "o", 4.5, "calibrated"),
        ):
            if found is not None and found.share:
                look: dict[str, Any] = {"color": colour, "linewidth": 1.4, "marker": marker, "markersize": size}
                left.plot(found.probability, found.share, label=name, **look)
                highest = max(highest, *found.probability, *found.share)
        left.set(xlabel="probability", ylabel="share that is true", title="Reliability")
        left.set(xlim=(-0.02, 1.05 * highest or 1), ylim=(-0.02, 1.05 * highest or 1))
        left.legend(loc="upper left")
        if abstention is not None and abstention.coverage:
            right.plot([100 * share for share in abstention.coverage], abstention.risk, color=_SERIES[0], linewidth=1.6)
            right.axhline(abstention.risk[-1], color=_MUTED, linewidth=0.8, linestyle=_DASHES, label="all answered")
            right.legend(loc="lower right")
        right.set(xlim=(0, 102), xlabel="% of the recordings answered, the surest first", ylabel="1 − mean F")
        right.set_ylim(bottom=0)
        right.set_title("Risk against coverage")
        return _svg(figure, "Reliability of probabilities, and risk against coverage", prefix)


def _scatter(axes: Axes, labels: Sequence[LabelResult], values: Sequence[float], title: str) -> None:
    counts = np.array([label.count for label in labels])
    heights = np.array(values)
    subgenre = np.array([label.subgenre for label in labels], dtype=bool)
    for chosen, colour, marker, name in (
        (~subgenre, _SERIES[0], "o", "genre"),
        (subgenre, _SERIES[1], "D", "subgenre"),
    ):
        look: dict[str, Any] = {"s": 26, "alpha": 0.75, "linewidths": 0}
        axes.scatter(counts[chosen], heights[chosen], color=colour, marker=marker, label=name, **look)
    axes.set_xscale("log")
    axes.set(ylim=(-0.03, 1.05), xlabel="recordings with the label", title=title)
    _count_ticks(axes, counts)
    _name_points(axes, [label.label for label in labels], counts, heights)
    if subgenre.any():
        axes.legend(loc="lower right")


def _count_ticks(axes: Axes, counts: NDArray[np.int_]) -> None:
    """Ticks at 1, 2, 5 × powers of ten, in whole numbers: few counts would show none, or 3 × 10⁰."""
    low, high = (counts.min(), counts.max()) if len(counts) else (1, 1)
    steps = [step * 10**power for power in range(10) for step in ((1,) if high / low > 100 else (1, 2, 5))]
    axes.set_xlim(low / 1.25, high * 1.6)
    axes.xaxis.set_major_locator(FixedLocator([step for step in steps if low / 1.25 <= step <= high * 1.6]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _name_points(axes: Axes, names: Sequence[str], counts: NDArray[np.int_], heights: NDArray[np.float64]) -> None:
    """Write names right of their points, else left of them, unless a name or a point is in the way of both.

    `names`, `counts` and `heights` are (points,), the most frequent first.
    """
    low, high = np.log(axes.get_xlim())
    places = (np.log(counts) - low) / (high - low)
    taken = [(x - 0.012, x + 0.012, y) for x, y in zip(places, heights, strict=True)]
    for name, count, x, y in list(zip(names, counts, places, heights, strict=True))[:NAMED_LABELS]:
        width = 0.02 + CHARACTER_WIDTH * len(_short(name))
        for side, left, right in (("left", x + 0.013, x + width), ("right", x - width, x - 0.013)):
            if left < 0 or right > 1 or _blocked(taken, left, right, y):
                continue
            taken.append((left, right, y))
            look: dict[str, Any] = {"ha": side, "va": "center", "fontsize": 8}
            offset = 6 if side == "left" else -6
            axes.annotate(_short(name), (count, y), (offset, 0), textcoords="offset points", **look)
            break


def _blocked(taken: Sequence[tuple[float, float, float]], left: float, right: float, height: float) -> bool:
    """Whether a line of text would touch one of the `taken` stretches (left, right, height)."""
    return any(left < end and start < right and abs(height - y) < 0.055 for start, end, y in taken)


def _short(label: str, longest: int = 32) -> str:
    return label if len(label) <= longest else label[: longest - 1] + "…"


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _svg(figure: Figure, description: str, prefix: str) -> str:
    """The figure as one element, with the page's colours, without metadata, every id begun by `prefix`."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # matplotlib lays text out by its own font, which lacks many scripts; the reader's font draws it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r' xmlns(:xlink)?="[^"]*"', "", drawing)
    for colour, variable in _VARIABLES.items():
        drawing = drawing.replace(colour, f"var({variable})")
    drawing = re.sub(r'\bid="', f'id="{prefix}-', drawing)
    drawing = drawing.replace("url(#", f"url(#{prefix}-").replace('xlink:href="#', f'href="#{prefix}-')
    return drawing.replace("<svg", f'<svg role="img" aria-label="{description}"', 1)
