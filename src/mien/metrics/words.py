"""Metrics in words: names, units, values with intervals, and verdicts against the baseline."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

NAMES = {
    "coverage": ("faces with a prediction", "%"),
    "gender_accuracy": ("gender accuracy", "%"),
    "gender_balanced_accuracy": ("gender balanced accuracy", "%"),
    "gender_false_male": ("women taken for men", "%"),
    "gender_false_female": ("men taken for women", "%"),
    "gender_auc": ("gender AUC", ""),
    "gender_ece": ("gender calibration error", "%"),
    "gender_unsure": ("gender unsure", "%"),
    "age_group_exact": ("age group exact", "%"),
    "age_group_one_off": ("age group exact or next to it", "%"),
    "age_group_ece": ("age group calibration error", "%"),
    "age_mae": ("mean absolute error of age", "years"),
    "age_cs5": ("age within 5 years", "%"),
    "age_bias": ("mean error of age", "years"),
    "age_interval_coverage": ("age inside its 80% interval", "%"),
}
"""What reports call a metric, and its unit; one that is not here goes by its own name."""


HEADLINES = ("gender_accuracy", "age_group_exact", "age_group_one_off", "age_mae")
"""The metrics by which runs are compared."""


BASELINE = "majority class or median age"


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
    # Where there is no verdict (a constant gender among one gender) the baseline's value says nothing either.
    rows["baseline"] = rows["baseline"].where(rows["versus_baseline"].notna())
    return [Score(*row) for row in rows.itertuples(index=False, name=None)]


def named(metric: str, unit: bool = True) -> str:
    """What reports call a metric, as "gender accuracy, %"."""
    name, of = NAMES.get(metric, (metric, ""))
    return f"{name}, {of}" if unit and of else name


def number(metric: str, value: float) -> str:
    """A metric's value in the unit of its name, without it."""
    if np.isnan(value):
        return "–"
    scaled = value * scale_of(metric)
    digits = {"%": 1, "years": 2}.get(NAMES.get(metric, ("", ""))[1], 3)
    return f"{scaled:.{digits}f}"


def scale_of(metric: str) -> float:
    """What a metric is multiplied by to be shown in its unit."""
    return 100.0 if NAMES.get(metric, ("", ""))[1] == "%" else 1.0


def with_interval(metric: str, value: float, low: float, high: float, unit: str = "") -> str:
    """A metric's value with its 95% interval, as "91.2 [89.5, 92.8]"."""
    if np.isnan(value):
        return "–"
    ends = "no interval" if np.isnan(low) else f"{number(metric, low)}, {number(metric, high)}"
    return f"{number(metric, value)}{'' if unit in ('', '%') else ' '}{unit} [{ends}]"


def verdict(score: Score) -> str:
    """In words, what the comparison with the baseline found; empty where there was none."""
    constant = "the median age" if score.metric in ("age_mae", "age_cs5") else "the majority class"
    words = {"better": "better", "worse": "worse", "unclear": "no better"}.get(str(score.versus_baseline))
    return f"{words} than always answering {constant}" if words else ""


def metrics_table(rows: Sequence[Score]) -> pd.DataFrame:
    """Scores as text: value with interval, n, subjects, the baseline and what follows."""
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
