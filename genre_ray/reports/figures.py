"""Draw the figures of an evaluation as inline SVG.

Every figure is one self-contained `<svg>` element. Text is stored as text. Colours are CSS variables (`--ink`,
`--grid`, `--series-1` …), which the page defines for light and dark mode. Equal values give identical SVG.
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
"""Number of colours for series, and the maximum number of series in a figure."""

NAMED_LABELS = 10
"""Maximum number of points that are annotated with their label. The most frequent labels come first."""

CHARACTER_WIDTH = 0.0145
"""Approximate width of a character of an annotation, as a share of the panel's width."""

# Placeholders that are replaced by the page's CSS variables.
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
    """Plot F and ROC AUC of each label against its number of recordings in the truth.

    Args:
        labels: the results of the labels, the most frequent first.
        prefix: prefix of all element ids; it must differ between the figures of a page.
    """
    scored = [label for label in labels if label.count and label.roc_auc is not None]
    panels = 2 if scored else 1
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.3 * panels, 3.3), layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)[0]
        found = [label for label in labels if label.count]
        _scatter(axes[0], found, [_number(label.f_score) for label in found], "F of the predicted labels")
        if scored:
            _scatter(axes[1], scored, [_number(label.roc_auc) for label in scored], "ROC AUC")
            axes[1].axhline(0.5, color=_MUTED, linewidth=0.8, linestyle=_DASHES)
        return _svg(figure, "F and ROC AUC of each label against its number of recordings", prefix)


def precision_recall(curves: Sequence[Curve], *, prefix: str = "curves") -> str:
    """Plot precision-recall curves of the first labels, with a dot at the labels as predicted.

    Args:
        curves: one curve per label; the first `SERIES` are drawn.
        prefix: prefix of all element ids; it must differ between the figures of a page.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 3.8), layout="constrained")
        axes = figure.subplots()
        for colour, curve in zip(_SERIES, curves, strict=False):
            name = f"{_short(curve.label)} ({_number(curve.average_precision):.2f})"
            # The step function whose area is the average precision.
            axes.step(curve.recall, curve.precision, where="pre", color=colour, linewidth=1.6, label=name)
            if curve.decided_precision is not None:
                axes.plot(curve.decided_recall, curve.decided_precision, "o", color=colour, markersize=6)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.05), xlabel="recall", ylabel="precision")
        figure.legend(loc="outside right upper", title="label (average precision)", alignment="left")
        return _svg(figure, "Precision against recall of the largest labels", prefix)


def score_histograms(histograms: Sequence[Histogram], *, prefix: str = "histograms") -> str:
    """Plot histograms of the scores of recordings with and without a label, one panel per label.

    Args:
        histograms: one per label; the first `SERIES` are drawn.
        prefix: prefix of all element ids; it must differ between the figures of a page.
    """
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
        figure.supylabel("% of recordings", color=_MUTED, fontsize=9)
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
    """Plot the reliability diagram before and after calibration, and the risk-coverage curve.

    Args:
        uncalibrated: calibration of the model's scores, if known.
        calibrated: calibration of the calibrated scores, if known.
        abstention: the risk-coverage curve, if known.
        prefix: prefix of all element ids; it must differ between the figures of a page.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9.4, 3.7), layout="constrained")
        left, right = figure.subplots(1, 2)
        highest = 0.0
        left.plot([0, 1], [0, 1], color=_MUTED, linewidth=0.8, linestyle=_DASHES, label="perfectly calibrated")
        # The first series has larger markers, so that it stays visible if calibration changed nothing.
        for found, colour, marker, size, name in (
            (uncalibrated, _SERIES[1], "D", 6.5, "model's scores"),
            (calibrated, _SERIES[0], "o", 4.5, "calibrated"),
        ):
            if found is not None and found.share:
                look: dict[str, Any] = {"color": colour, "linewidth": 1.4, "marker": marker, "markersize": size}
                left.plot(found.probability, found.share, label=name, **look)
                highest = max(highest, *found.probability, *found.share)
        left.set(xlabel="mean probability", ylabel="share of true pairs", title="Reliability")
        left.set(xlim=(-0.02, 1.05 * highest or 1), ylim=(-0.02, 1.05 * highest or 1))
        left.legend(loc="upper left")
        if abstention is not None and abstention.coverage:
            right.plot([100 * share for share in abstention.coverage], abstention.risk, color=_SERIES[0], linewidth=1.6)
            right.axhline(abstention.risk[-1], color=_MUTED, linewidth=0.8, linestyle=_DASHES, label="all recordings")
            right.legend(loc="lower right")
        right.set(xlim=(0, 102), xlabel="coverage: % most confident recordings", ylabel="risk: 1 − mean F")
        right.set_ylim(bottom=0)
        right.set_title("Risk against coverage")
        return _svg(figure, "Reliability diagram, and risk against coverage", prefix)


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
    """Set ticks at whole numbers 1, 2 and 5 × powers of ten.

    The default ticks of a log axis are missing, or labelled like 3 × 10⁰, if the counts are close together.
    """
    low, high = (counts.min(), counts.max()) if len(counts) else (1, 1)
    steps = [step * 10**power for power in range(10) for step in ((1,) if high / low > 100 else (1, 2, 5))]
    axes.set_xlim(low / 1.25, high * 1.6)
    axes.xaxis.set_major_locator(FixedLocator([step for step in steps if low / 1.25 <= step <= high * 1.6]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _name_points(axes: Axes, names: Sequence[str], counts: NDArray[np.int_], heights: NDArray[np.float64]) -> None:
    """Write names to the right or left of their points, if there is room.

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
    """Whether a line of text would overlap one of the `taken` intervals (left, right, height)."""
    return any(left < end and start < right and abs(height - y) < 0.055 for start, end, y in taken)


def _short(label: str, longest: int = 32) -> str:
    return label if len(label) <= longest else label[: longest - 1] + "…"


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _svg(figure: Figure, description: str, prefix: str) -> str:
    """Convert a figure to one SVG element with CSS colours, without metadata, and with `prefix` before every id."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Matplotlib's font lacks many scripts. It is used only for the layout; the browser's font draws the text.
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
