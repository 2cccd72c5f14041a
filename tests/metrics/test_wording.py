"""Numbers, units and verdicts as reports show them."""

import numpy as np
import pandas as pd
import pytest

from mien import metrics
from mien.metrics.definitions import PERCENT
from mien.metrics.wording import metrics_table, number, scores, verdict, with_interval


@pytest.mark.parametrize(
    ("metric", "numbers", "text"),
    [
        ("gender_accuracy", (0.9123, 0.8951, 0.9278), "91.2 [89.5, 92.8]"),
        ("gender_auc", (0.9623, 0.951, 0.9701), "0.962 [0.951, 0.970]"),
        ("age_mae", (4.897, 4.7, 5.104), "4.90 [4.70, 5.10]"),
        ("age_mae", (4.897, np.nan, np.nan), "4.90 [no interval]"),
        ("age_bias", (-0.3, -0.5, -0.1), "-0.30 [-0.50, -0.10]"),
        ("gender_accuracy", (np.nan, np.nan, np.nan), "–"),
    ],
)
def test_numbers_are_written_in_their_units(metric: str, numbers: tuple[float, ...], text: str) -> None:
    assert with_interval(metric, *numbers) == text


def test_units_follow_numbers() -> None:
    assert number("gender_accuracy", 0.931, unit=True) == "93.1%" and number("age_mae", 4.4, unit=True) == "4.40 years"
    assert with_interval("age_mae", 4.4, 4, 5, unit=True) == "4.40 years [4.00, 5.00]"
    size = with_interval("gender_accuracy", 0.01, 0.005, 0.015, unit=True, difference=True)
    assert size == "1.0 points [0.5, 1.5]"
    assert with_interval(PERCENT, 0.5, 0.4, 0.6) == "50.0 [40.0, 60.0]"


def test_verdicts_and_missing_baselines() -> None:
    columns = list(metrics.METRICS_COLUMNS)
    table = pd.DataFrame(
        [
            ("all", "gender_accuracy", 0.5, 0.4, 0.6, 9, 3, 0.5, "unclear"),
            ("all", "age_mae", 9.0, 8.0, 10.0, 9, 3, 5.0, "worse"),
            ("gender=male", "gender_accuracy", 0.5, 0.4, 0.6, 9, 3, 0.0, None),
            ("race=b", "gender_accuracy", np.nan, np.nan, np.nan, 0, 0, np.nan, None),
        ],
        columns=columns,
    )
    rows = scores(table)
    assert [verdict(row) for row in rows] == [
        "no better than always predicting the majority class",
        "worse than always predicting the median age",
        "",
    ]
    assert metrics_table(rows)["baseline"].tolist() == ["50.0", "5.00", "–"]
