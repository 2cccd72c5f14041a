"""Charts of precomputed tables, as SVG that follows the light or dark theme of the page.

Every chart is readable without colour: series differ by hatch, marker or line style, and are labelled.
"""

import io
import re
import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from html import escape
from typing import Any, ParamSpec

import numpy as np
import pandas as pd

from mien.base.errors import MissingExtra

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator
except ImportError:
    raise MissingExtra("drawing a report", "report") from None

INK, MUTED, GRID, PAPER = "#1b1c1e", "#66686b", "#d8dadd", "#fdfdfc"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")  # Okabe and Ito 2008

VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"} | {
    colour: f"series-{number}" for number, colour in enumerate(SERIES, start=1)
}
"""The CSS variable that replaces each colour in the page."""

_HATCHES = ("", "////", "\\\\\\\\", "xxxx", "----")
LINE_STYLES = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v")
_WIDTH = 4.7  # inches; about the width of a phone, so that text stays legible
_LABEL = 30  # characters

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mien",  # the same figure gives the same file
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar sign in the data is not TeX
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "hatch.linewidth": 0.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}

_Args = ParamSpec("_Args")


def styled(chart: Callable[_Args, Figure]) -> Callable[_Args, Figure]:
    """Decorates a chart function: it draws with the style of mien's reports."""

    @wraps(chart)
    def drawn(*args: _Args.args, **kwargs: _Args.kwargs) -> Figure:
        with matplotlib.rc_context(_STYLE):
            return chart(*args, **kwargs)

    return drawn


def new_figure(height: float, width: float = _WIDTH) -> tuple[Figure, Axes]:
    """Returns an empty figure and its axes; sizes are in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def svg(figure: Figure, name: str, alt: str) -> str:
    """Returns a figure as an SVG element for an HTML page.

    Args:
        figure: Drawn by a function of this module, or with its colours.
        name: Letters and digits, unique on the page: it prefixes the ids inside the SVG.
        alt: Text alternative for screen readers.
    """
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # The browser draws the text with its own fonts, so that missing glyphs here do not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :]
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert box is not None, "matplotlib wrote no viewBox"
    wide = float(box[1]) / 72 * 96
    head = f'<svg role="img" aria-label="{escape(alt)}" {box[0]} style="max-width: {wide:.0f}px">'
    # The style element would apply to the whole page. Text is escaped, so that < and > occur only in tags.
    return head + re.sub(r"<[^>]+>", lambda tag: _for_page(tag[0], name), text[text.index("</style>") + 8 :])


def _for_page(tag: str, name: str) -> str:
    """Returns a tag with the page's colours and unique ids."""
    for colour, variable in VARIABLES.items():
        tag = re.sub(rf"((?:fill|stroke): ?){colour}", rf"\1var(--{variable})", tag)
        tag = tag.replace(f'fill="{colour}"', f'style="fill: var(--{variable})"')
    tag = re.sub(r"font-family: [^;\"]+", "font-family: system-ui, sans-serif", tag)
    tag = re.sub(r"(\d\.\d\d)\d+", r"\1", tag)
    return re.sub(r'( id="|url\(#|href="#)', rf"\1{name}-", tag)


def shorten(label: object, length: int = _LABEL) -> str:
    """Truncates a label to a number of characters."""
    text = str(label)
    return text if len(text) <= length else text[: length - 1] + "…"


@styled
def bars(counts: pd.DataFrame, xlabel: str = "faces") -> Figure:
    """Stacked horizontal bars, one per row of `counts`, with one segment per column and the total at the end."""
    figure, axes = new_figure(0.95 + 0.27 * len(counts))
    rows = np.arange(len(counts))
    left = np.zeros(len(counts))
    for number, column in enumerate(counts.columns):
        values = counts[column].to_numpy(dtype=float)
        axes.barh(
            rows,
            values,
            0.72,
            left,
            label=shorten(column),
            color=SERIES[number % 5],
            edgecolor=PAPER,
            hatch=_HATCHES[number % 5],
            linewidth=0.6,
        )
        left += values
    most = max(left.max(initial=0), 1)
    for row, total in enumerate(left):
        axes.text(total + most * 0.015, row, f"{total:,.0f}", va="center", fontsize=8)
    axes.set_yticks(rows, [shorten(label) for label in counts.index])
    axes.set(xlabel=xlabel, xlim=(0, most * 1.16), ylim=(len(counts) - 0.4, -0.6))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="y", visible=False)
    axes.locator_params(axis="x", nbins=5)
    _legend(axes, len(counts.columns))
    return figure


def _legend(axes: Axes, series: int) -> None:
    if series > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.3, handlelength=2.4)


@styled
def histogram(values: Mapping[str, np.ndarray], edges: np.ndarray, xlabel: str, ylabel: str = "faces") -> Figure:
    """Outlined histograms of one or more series over the same bins."""
    figure, axes = new_figure(2.9)
    for number, (name, numbers) in enumerate(values.items()):
        counts = np.histogram(numbers, edges)[0]
        axes.stairs(counts, edges, fill=True, color=SERIES[number], alpha=0.22)
        axes.stairs(
            counts, edges, color=SERIES[number], linestyle=LINE_STYLES[number], linewidth=1.4, label=shorten(name)
        )
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(edges[0], edges[-1]))
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    _legend(axes, len(values))
    return figure


@styled
def intervals(rows: pd.DataFrame, xlabel: str, reference: str = "", baseline: str = "") -> Figure:
    """Points with their intervals, one per row.

    Args:
        rows: `label`, `value`, `low`, `high`, and `baseline` (NaN where there is none); a row whose value is
            missing is a heading.
        xlabel: The label of the x axis.
        reference: Legend of the dashed line at the first row's value; empty: no line.
        baseline: Legend of the marks at `baseline`; empty: no marks.
    """
    figure, axes = new_figure(0.95 + 0.25 * len(rows))
    place = np.arange(len(rows))
    value, low, high = (rows[column].to_numpy(dtype=float) for column in ("value", "low", "high"))
    if reference and len(rows):
        axes.axvline(value[0], color=MUTED, linestyle="--", linewidth=0.9, label=reference)
    axes.hlines(place, low, high, color=SERIES[0], linewidth=1.8)
    axes.plot(value, place, "o", color=SERIES[0], markersize=4.5, label="value and 95% interval")
    if baseline and rows["baseline"].notna().any():
        axes.plot(rows["baseline"], place, "|", color=SERIES[1], markersize=9, markeredgewidth=2, label=baseline)
    axes.set_yticks(place, [shorten(label, 40) for label in rows["label"]])
    for tick, number in zip(axes.get_yticklabels(), value, strict=True):
        if np.isnan(number):
            tick.set_fontweight("bold")
    axes.set(xlabel=xlabel, ylim=(len(rows) - 0.4, -0.6))
    axes.locator_params(axis="x", nbins=6)
    axes.margins(x=0.04)
    axes.grid(axis="y", visible=False)
    # Below the axis: the row labels leave too little room beside it.
    figure.legend(loc="outside lower left", ncols=1 if len(reference) + len(baseline) > 30 else 2)
    return figure


@styled
def confusion(counts: pd.DataFrame, xlabel: str = "predicted", ylabel: str = "labelled") -> Figure:
    """A confusion matrix with row shares in percent, darker for larger shares."""
    numbers = counts.to_numpy(dtype=float)
    with np.errstate(invalid="ignore"):
        shares = numbers / numbers.sum(axis=1, keepdims=True)
    size = 0.42 if len(counts) > 3 else 0.6
    figure, axes = new_figure(1.0 + size * len(counts))
    for row, column in np.ndindex(*shares.shape):
        share = shares[row, column]
        if np.isnan(share):
            continue
        _tile(axes, column, row, 1, 0.04 + 0.5 * share)
        axes.text(
            column + 0.5,
            row + 0.5,
            _percent(share),
            ha="center",
            va="center",
            fontsize=8.5,
            fontweight="bold" if row == column else "normal",
        )
    axes.set_xticks(np.arange(shares.shape[1]) + 0.5, [shorten(name, 14) for name in counts.columns])
    axes.set_yticks(np.arange(len(counts)) + 0.5, [shorten(name, 14) for name in counts.index])
    if shares.shape[1] > 5:
        for tick in axes.get_xticklabels():
            tick.set(rotation=45, ha="right", rotation_mode="anchor")
    axes.set(xlim=(0, shares.shape[1]), ylim=(len(counts), 0), xlabel=xlabel, ylabel=ylabel)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    return figure


def _tile(axes: Axes, left: float, bottom: float, side: float, opacity: float) -> None:
    # Opacity instead of a colour map works on light and on dark backgrounds.
    axes.add_patch(Rectangle((left, bottom), side, side, color=SERIES[0], alpha=opacity, linewidth=0))


def _percent(share: float) -> str:
    return "<1" if 0 < share < 0.005 else ">99" if 0.995 <= share < 1 else f"{100 * share:.0f}"


@styled
def reliability(table: pd.DataFrame, xlabel: str = "confidence") -> Figure:
    """A reliability diagram: observed accuracy against predicted confidence, with the counts of each bin below.

    Args:
        table: As `mien.metrics.score.reliability`.
        xlabel: The label of the x axis.
    """
    figure = Figure(figsize=(_WIDTH, 3.9), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    some = table[table["n"] > 0]
    above.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=0.9, label="perfectly calibrated")
    above.vlines(some["p"], some["low"], some["high"], color=SERIES[0], linewidth=1.8)
    above.plot(some["p"], some["observed"], "o", color=SERIES[0], markersize=4.5, label="observed, 95% interval")
    above.set(ylabel="accuracy", ylim=(-0.02, 1.02))
    above.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.3)
    width = table["bin_high"] - table["bin_low"]
    below.bar(table["bin_low"], table["n"], width, align="edge", color=SERIES[0], edgecolor=PAPER, linewidth=0.6)
    start = max(0.0, float(some["bin_low"].min()) - 0.02) if len(some) else 0.0
    below.set(xlabel=xlabel, ylabel="faces", xlim=(start, 1))
    below.yaxis.set_major_formatter("{x:,.0f}")
    below.locator_params(axis="y", nbins=3)
    return figure


@styled
def curves(lines: Mapping[str, "pd.Series[float]"], ylabel: str, xlabel: str = "epoch") -> Figure:
    """Lines over epochs, the index of each series."""
    figure, axes = new_figure(2.9 + 0.16 * (len(lines) // 3))
    for number, (name, line) in enumerate(lines.items()):
        style = number % 5
        axes.plot(
            line.index,
            line,
            color=SERIES[style],
            linestyle=LINE_STYLES[style],
            marker=_MARKERS[style],
            markersize=3.5,
            linewidth=1.3,
            label=shorten(name),
        )
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.3, handlelength=3)
    return figure


@styled
def joint(true: np.ndarray, predicted: np.ndarray, edges: np.ndarray, xlabel: str, ylabel: str) -> Figure:
    """A two-dimensional histogram of predictions against labels, in bins of equal width, darker for higher counts."""
    figure, axes = new_figure(4.3)
    counts = np.histogram2d(true, predicted, [edges, edges])[0]
    # With a linear scale, a few frequent cells would hide the others.
    shade = np.log1p(counts) / max(np.log1p(counts.max()), 1e-9)
    side = float(edges[1] - edges[0])
    for i, j in np.argwhere(counts):
        _tile(axes, float(edges[i]), float(edges[j]), side, 0.1 + 0.8 * shade[i, j])
    axes.plot(edges[[0, -1]], edges[[0, -1]], color=INK, linestyle="--", linewidth=0.9, label="prediction = label")
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=edges[[0, -1]], ylim=edges[[0, -1]], aspect="equal")
    axes.legend(loc="upper left")
    return figure
