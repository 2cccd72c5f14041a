"""Metrics in words: labels, numbers in their unit with intervals, and comparisons with the baseline.

Everything follows from the entries of `mien.metrics.definitions.METRICS`. Screens and reports use the same functions:
a number has one form everywhere.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from mien.metrics.definitions import METRICS, Metric, Unit

HEADLINES = tuple(name for name, metric in METRICS.items() if metric.headline)
"""The metrics by which runs are compared."""


PRIMARY = tuple({METRICS[name].truth: name for name in reversed(HEADLINES)}.values())[::-1]
"""The first headline metric of each label: gender, age group, age."""


BY_SET = (*HEADLINES, "gender_ece", "age_interval_coverage")
"""The metrics that are shown for each of several data sets."""


BASELINE = "baseline"


class Score(NamedTuple):
    """A row of the metrics table."""

    group: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    subjects: int
    baseline: float
    versus_baseline: str | None


def scores(table: pd.DataFrame) -> list[Score]:
    """The rows of a metrics table that have any face."""
    rows = table.loc[table["n"] > 0, list(Score._fields)]
    # Where there is no comparison (a constant gender among one gender) the baseline's value means nothing either.
    rows["baseline"] = rows["baseline"].where(rows["versus_baseline"].notna())
    return [Score(*row) for row in rows.itertuples(index=False, name=None)]


def named(metric: str | Metric, unit: bool = True) -> str:
    """What reports call a metric, as "gender accuracy, %"."""
    spec = METRICS[metric] if isinstance(metric, str) else metric
    return f"{spec.label}, {spec.unit.symbol}" if unit and spec.unit.symbol else spec.label


def unit_of(metric: str | Unit) -> Unit:
    """The unit of a metric; a unit is its own."""
    return METRICS[metric].unit if isinstance(metric, str) else metric


def in_unit(metric: str | Unit, value: float | None) -> float:
    """A value multiplied as its unit asks, for charts; NaN for None."""
    return np.nan if value is None else value * unit_of(metric).factor


def number(metric: str | Unit, value: float | None, unit: bool = False) -> str:
    """A value in the unit of a metric (or in a unit), as "93.1", or "93.1%" with its unit; "–" where there is none."""
    if value is None or np.isnan(value):
        return "–"
    return f"{in_unit(metric, value):.{unit_of(metric).digits}f}{_suffix(unit_of(metric).symbol) if unit else ''}"


def with_interval(
    metric: str | Unit, value: float, low: float, high: float, unit: bool = False, difference: bool = False
) -> str:
    """A value with its 95% interval, as "91.2 [89.5, 92.8]".

    Args:
        metric: The metric, or a unit.
        value: The number, not multiplied yet.
        low: The lower end of the interval; NaN where there is none.
        high: The upper end.
        unit: Whether the unit follows the value, as "91.2% [89.5, 92.8]".
        difference: Whether it is a difference, whose unit may have another name, as "1.3 points [0.2, 2.4]".
    """
    if np.isnan(value):
        return "–"
    ends = "no interval" if np.isnan(low) else f"{number(metric, low)}, {number(metric, high)}"
    symbol = unit_of(metric).difference if difference else unit_of(metric).symbol
    return f"{number(metric, value)}{_suffix(symbol) if unit else ''} [{ends}]"


def _suffix(symbol: str) -> str:
    return symbol if symbol in ("", "%") else f" {symbol}"


def verdict(score: Score) -> str:
    """In words, how the score compares with the baseline; empty where there is no comparison."""
    constant = METRICS[score.metric].baseline
    words = {"better": "better", "worse": "worse", "unclear": "no better"}.get(str(score.versus_baseline))
    return f"{words} than always predicting {constant}" if words and constant else ""


def warnings_of_baseline(rows: Sequence[Score]) -> list[str]:
    """A sentence for each label whose first headline metric is not better than the baseline."""
    return [
        f"{named(row.metric, unit=False)} {with_interval(row.metric, row.value, row.low, row.high, unit=True)} is "
        f"{verdict(row)} ({number(row.metric, row.baseline, unit=True)}), n {row.n:,}: nothing shows that it was learnt"
        for row in rows
        if row.metric in PRIMARY and row.group == "all" and row.versus_baseline in ("unclear", "worse")
    ]


def metrics_table(rows: Sequence[Score]) -> pd.DataFrame:
    """Scores as text: value with interval, n, subjects, the baseline and how the value compares with it."""
    return pd.DataFrame(
        {
            "metric": [named(row.metric) for row in rows],
            "value [95% interval]": [with_interval(row.metric, row.value, row.low, row.high) for row in rows],
            "faces": [row.n for row in rows],
            "subjects": [row.subjects for row in rows],
            BASELINE: [number(row.metric, row.baseline) for row in rows],
            "verdict": [verdict(row) for row in rows],
        }
    )


def groups_table(rows: Sequence[Score], shown: Sequence[str] = HEADLINES) -> pd.DataFrame:
    """One row per group and one column per metric as text, with n where it differs from the faces of the group."""
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        if row.metric == "coverage":
            name = "all" if row.group == "all" else row.group.replace("=", ": ").replace("_", " ")
            lines[row.group] = {"group": name, "faces": f"{row.n:,}"}
    for metric in shown:
        for row in rows:
            if row.metric == metric:
                value = with_interval(metric, row.value, row.low, row.high)
                own = "" if f"{row.n:,}" == lines[row.group]["faces"] else f" (n {row.n:,})"
                lines[row.group][f"{named(metric)} [95% interval]"] = value + own
    return pd.DataFrame(list(lines.values())).fillna("\u2013")


def sets_table(rows: Sequence[Score]) -> pd.DataFrame:
    """As `groups_table`, for each of several data sets and for all faces together; empty where there is one."""
    sets = [row for row in rows if row.group.startswith("dataset=")]
    if not sets:
        return pd.DataFrame()
    named_sets = [row._replace(group=row.group.partition("=")[2]) for row in sets]
    table = groups_table([*named_sets, *(row for row in rows if row.group == "all")], BY_SET)
    return table.rename(columns={"group": "data set"})
