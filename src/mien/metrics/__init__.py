"""Metrics of perceived gender and age, with intervals: the public names of this package.

`join` puts predictions beside labels, `score` computes every metric of `METRICS` with its interval, and
`paired_difference` and `mean_over_runs` compare runs on the same faces.
"""

from mien.metrics.definitions import METRICS, UNSURE, Metric, pair
from mien.metrics.diagnostics import certainty, confusion, reliability
from mien.metrics.intervals import Difference
from mien.metrics.joined import ANSWERS, TRUTHS, join
from mien.metrics.scoring import METRICS_COLUMNS, applies, in_order, mean_over_runs, paired_difference, score

__all__ = [
    "ANSWERS",
    "METRICS",
    "METRICS_COLUMNS",
    "TRUTHS",
    "UNSURE",
    "Difference",
    "Metric",
    "applies",
    "certainty",
    "confusion",
    "in_order",
    "join",
    "mean_over_runs",
    "pair",
    "paired_difference",
    "reliability",
    "score",
]
