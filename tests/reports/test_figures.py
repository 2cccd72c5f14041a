"""Charts of little and of much data."""

import numpy as np
import pandas as pd

from mien import metrics
from mien.reports import figures


def test_charts_stand_little_and_much() -> None:
    nothing = pd.DataFrame({"label": [], "value": [], "low": [], "high": [], "baseline": []})
    one = pd.DataFrame({"label": ["a"], "value": [0.5], "low": [np.nan], "high": [np.nan], "baseline": [np.nan]})
    empty = metrics.reliability([], [])
    edges = np.arange(3.0)
    lines = {str(name): pd.Series([1.0, 2.0], index=[1, 2]) for name in range(9)}
    drawn = [
        figures.intervals(nothing, "x"),
        figures.intervals(one, "x", reference="all", baseline="constant"),
        figures.reliability(empty),
        figures.bars(pd.DataFrame({"faces": [0]}, index=["none"])),
        figures.histogram({"none": np.array([])}, edges, "x"),
        figures.confusion(pd.DataFrame([[0, 0], [1, 2]], index=["a", "b"], columns=["a", "b"])),
        figures.curves(lines, "loss"),
        figures.joint(np.array([0.5]), np.array([1.5]), edges, "x", "y"),
    ]
    for figure in drawn:
        assert figures.svg(figure, "f1", "what").startswith('<svg role="img" aria-label="what"')
