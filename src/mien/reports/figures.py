"""Charts of tables that are computed already, drawn as SVG that follows a page's light or dark colours.

Every chart can be read without colour: series differ by hatch, marker or line, and carry their names.
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
"""The CSS variable that takes the place of each colour in the page."""

_HATCHES = ("", "////", "\\\\\\\\", "xxxx", "----")
_LINES = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v")
_WIDTH = 4.7  # inches; about as wide as a telephone, so that letters stay legible there
_LABEL = 30  # characters

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mien",  # the same figure gives the same file
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar sign in somebody's data is a dollar sign
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


def _styled(chart: Callable[_Args, Figure]) -> Callable[_Args, Figure]:
    @wraps(chart)
    def drawn(*args: _Args.args, **kwargs: _Args.kwargs) -> Figure:
        with matplotlib.rc_context(_STYLE):
            return chart(*args, **kwargs)

    return drawn


def _empty(height: float, width: float = _WIDTH) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def svg(figure: Figure, name: str, alt: str) -> str:
    """Returns a figure as an SVG element to put into a page.

    Args:
        figure: Drawn by a function of this module, or with its colours.
        name: Letters and digits, one name a figure of the page: it keeps their inner links apart.
        alt: What the figure shows, for those who cannot see it.
    """
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # The page's fonts draw the text, whatever letters matplotlib's own font has.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :]
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert box is not None, "matplotlib wrote no viewBox"
    wide = float(box[1]) / 72 * 96
    head = f'<svg role="img" aria-label="{escape(alt)}" {box[0]} style="max-width: {wide:.0f}px">'
    # The style element would hold for the whole page. Text is escaped, so that < and > occur in tags alone.
    return head + re.sub(r"<[^>]+>", lambda tag: _for_page(tag[0], name), text[text.index("</style>") + 8 :])


def _for_page(tag: str, name: str) -> str:
    """A tag with the page's colours, and with names that no other figure has."""
    for colour, variable in VARIABLES.items():
        tag = re.sub(rf"((?:fill|stroke): ?){colour}", rf"\1var(--{variable})", tag)
        tag = tag.replace(f'fill="{colour}"', f'style="fill: var(--{variable})"')
    tag = re.sub(r"font-family: [^;\"]+", "font-family: system-ui, sans-serif", tag)
    tag = re.sub(r"(\d\.\d\d)\d+", r"\1", tag)
    return re.sub(r'( id="|url\(#|href="#)', rf"\1{name}-", tag)


def _short(label: object, length: int = _LABEL) -> str:
    text = str(label)
    return text if len(text) <= length else text[: length - 1] + "…"


@_styled
def bars(counts: pd.DataFrame, xlabel: str = "faces") -> Figure:
    """Horizontal bars, one a row of `counts`, made up of its columns; the row's sum stands at the end."""
    figure, axes = _empty(0.95 + 0.27 * len(counts))
    rows = np.arange(len(counts))
    left = np.zeros(len(counts))
    for number, column in enumerate(counts.columns):
        values = counts[column].to_numpy(dtype=float)
        axes.barh(
            rows,
            values,
            0.72,
            left,
            label=_short(column),
            color=SERIES[number % 5],
            edgecolor=PAPER,
            hatch=_HATCHES[number % 5],
            linewidth=0.6,
        )
        left += values
    most = max(left.max(initial=0), 1)
    for row, total in enumerate(left):
        axes.text(total + most * 0.015, row, f"{total:,.0f}", va="center", fontsize=8)
    axes.set_yticks(rows, [_short(label) for label in counts.index])
    axes.set(xlabel=xlabel, xlim=(0, most * 1.16), ylim=(len(counts) - 0.4, -0.6))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="y", visible=False)
    axes.locator_params(axis="x", nbins=5)
    _legend(axes, len(counts.columns))
    return figure


def _legend(axes: Axes, series: int) -> None:
    if series > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.3, handlelength=2.4)


@_styled
def histogram(values: Mapping[str, np.ndarray], edges: np.ndarray, xlabel: str, ylabel: str = "faces") -> Figure:
    """Outlined histograms of one or more series over the same bins."""
    figure, axes = _empty(2.9)
    for number, (name, numbers) in enumerate(values.items()):
        counts = np.histogram(numbers, edges)[0]
        axes.stairs(counts, edges, fill=True, color=SERIES[number], alpha=0.22)
        axes.stairs(counts, edges, color=SERIES[number], linestyle=_LINES[number], linewidth=1.4, label=_short(name))
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(edges[0], edges[-1]))
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    _legend(axes, len(values))
    return figure


@_styled
def intervals(rows: pd.DataFrame, xlabel: str, reference: str = "", baseline: str = "") -> Figure:
    """Points with their intervals, one a row.

    Args:
        rows: `label`, `value`, `low`, `high`, and `baseline` (NaN where there is none); a row whose value is
            missing is a heading.
        xlabel: What the numbers are.
        reference: Says what the dashed line at the first row's value is; empty: no line.
        baseline: Names the marks at `baseline`; empty: no marks.
    """
    figure, axes = _empty(0.95 + 0.25 * len(rows))
    place = np.arange(len(rows))
    value, low, high = (rows[column].to_numpy(dtype=float) for column in ("value", "low", "high"))
    if reference and len(rows):
        axes.axvline(value[0], color=MUTED, linestyle="--", linewidth=0.9, label=reference)
    axes.hlines(place, low, high, color=SERIES[0], linewidth=1.8)
    axes.plot(value, place, "o", color=SERIES[0], markersize=4.5, label="value and 95% interval")
    if baseline and rows["baseline"].notna().any():
        axes.plot(rows["baseline"], place, "|", color=SERIES[1], markersize=9, markeredgewidth=2, label=baseline)
    axes.set_yticks(place, [_short(label, 40) for label in rows["label"]])
    for tick, number in zip(axes.get_yticklabels(), value, strict=True):
        if np.isnan(number):
            tick.set_fontweight("bold")
    axes.set(xlabel=xlabel, ylim=(len(rows) - 0.4, -0.6))
    axes.locator_params(axis="x", nbins=6)
    axes.margins(x=0.04)
    axes.grid(axis="y", visible=False)
    # Under the axis, because the labels of rows leave it less room than the names need.
    figure.legend(loc="outside lower left", ncols=1 if len(reference) + len(baseline) > 30 else 2)
    return figure


@_styled
def confusion(counts: pd.DataFrame, xlabel: str = "answer", ylabel: str = "label") -> Figure:
    """A confusion matrix: each row's shares in percent, darker where larger."""
    numbers = counts.to_numpy(dtype=float)
    with np.errstate(invalid="ignore"):
        shares = numbers / numbers.sum(axis=1, keepdims=True)
    size = 0.42 if len(counts) > 3 else 0.6
    figure, axes = _empty(1.0 + size * len(counts))
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
    axes.set_xticks(np.arange(shares.shape[1]) + 0.5, [_short(name, 14) for name in counts.columns])
    axes.set_yticks(np.arange(len(counts)) + 0.5, [_short(name, 14) for name in counts.index])
    if shares.shape[1] > 5:
        for tick in axes.get_xticklabels():
            tick.set(rotation=45, ha="right", rotation_mode="anchor")
    axes.set(xlim=(0, shares.shape[1]), ylim=(len(counts), 0), xlabel=xlabel, ylabel=ylabel)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    return figure


def _tile(axes: Axes, left: float, bottom: float, side: float, opacity: float) -> None:
    # Opacity rather than a map of colours: it is right on light and on dark paper.
    axes.add_patch(Rectangle((left, bottom), side, side, color=SERIES[0], alpha=opacity, linewidth=0))


def _percent(share: float) -> str:
    return "<1" if 0 < share < 0.005 else ">99" if 0.995 <= share < 1 else f"{100 * share:.0f}"


@_styled
def reliability(table: pd.DataFrame, xlabel: str = "stated certainty") -> Figure:
    """A reliability diagram: what came true against what was stated, with how often each was stated below.

    Args:
        table: As `mien.metrics.score.reliability`.
        xlabel: What `p` is.
    """
    figure = Figure(figsize=(_WIDTH, 3.9), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    some = table[table["n"] > 0]
    above.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=0.9, label="perfectly calibrated")
    above.vlines(some["p"], some["low"], some["high"], color=SERIES[0], linewidth=1.8)
    above.plot(some["p"], some["observed"], "o", color=SERIES[0], markersize=4.5, label="observed, 95% interval")
    above.set(ylabel="share that is right", ylim=(-0.02, 1.02))
    above.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.3)
    width = table["bin_high"] - table["bin_low"]
    below.bar(table["bin_low"], table["n"], width, align="edge", color=SERIES[0], edgecolor=PAPER, linewidth=0.6)
    start = max(0.0, float(some["bin_low"].min()) - 0.02) if len(some) else 0.0
    below.set(xlabel=xlabel, ylabel="faces", xlim=(start, 1))
    below.yaxis.set_major_formatter("{x:,.0f}")
    below.locator_params(axis="y", nbins=3)
    return figure


@_styled
def curves(lines: Mapping[str, "pd.Series[float]"], ylabel: str, xlabel: str = "epoch") -> Figure:
    """Lines over epochs, which are the index of each series."""
    figure, axes = _empty(2.9 + 0.16 * (len(lines) // 3))
    for number, (name, line) in enumerate(lines.items()):
        style = number % 5
        axes.plot(
            line.index,
            line,
            color=SERIES[style],
            linestyle=_LINES[style],
            marker=_MARKERS[style],
            markersize=3.5,
            linewidth=1.3,
            label=_short(name),
        )
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.3, handlelength=3)
    return figure


@_styled
def joint(true: np.ndarray, answer: np.ndarray, edges: np.ndarray, xlabel: str, ylabel: str) -> Figure:
    """How often each answer was given for each truth, in bins of equal width, darker where more often."""
    figure, axes = _empty(4.3)
    counts = np.histogram2d(true, answer, [edges, edges])[0]
    # A few frequent cells would drown the others in a linear scale.
    shade = np.log1p(counts) / max(np.log1p(counts.max()), 1e-9)
    side = float(edges[1] - edges[0])
    for i, j in np.argwhere(counts):
        _tile(axes, float(edges[i]), float(edges[j]), side, 0.1 + 0.8 * shade[i, j])
    axes.plot(edges[[0, -1]], edges[[0, -1]], color=INK, linestyle="--", linewidth=0.9, label="right")
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=edges[[0, -1]], ylim=edges[[0, -1]], aspect="equal")
    axes.legend(loc="upper left")
    return figure
