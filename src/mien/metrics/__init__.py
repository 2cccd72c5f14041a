"""Metrics of perceived gender and age, with intervals: the public names of this package.

`join` puts predictions beside labels, `score` computes every metric of `METRICS` with its interval, and
`paired_difference` and `mean_over_runs` compare runs on the same faces.
"""

from mien.metrics.definitions import METRICS, UNSURE, Metric, mean_parts
from mien.metrics.diagnostics import confidence, confusion, reliability
from mien.metrics.intervals import Difference
from mien.metrics.joining import PREDICTION_COLUMNS, TRUTH_COLUMNS, join
from mien.metrics.scoring import (
    METRICS_COLUMNS,
    is_applicable,
    mean_over_runs,
    paired_difference,
    score,
    sort_by_subject,
)

__all__ = [
    "METRICS",
    "METRICS_COLUMNS",
    "PREDICTION_COLUMNS",
    "TRUTH_COLUMNS",
    "UNSURE",
    "Difference",
    "Metric",
    "confidence",
    "confusion",
    "is_applicable",
    "join",
    "mean_over_runs",
    "mean_parts",
    "paired_difference",
    "reliability",
    "score",
    "sort_by_subject",
]
