"""The values of labels, and the age group of an age. Without pandas, so that a single prediction starts quickly."""

from typing import Any

import numpy as np

GENDERS = ("female", "male")
"""Perceived binary gender, as labelled in the data sets."""

AGE_GROUPS = ("0-2", "4-6", "8-13", "15-20", "25-32", "38-43", "48-53", "60+")
"""Adience's age groups, youngest first."""

PREDICTED: dict[str, tuple[str, ...]] = {
    "gender": ("gender", "p_female"),
    "age_group": ("age_group", *(f"p_{group}" for group in AGE_GROUPS)),
    "age": ("age", "age_low", "age_high", "age_group"),
}
"""The tasks that a model predicts, and the columns of the predictions table that each provides for metrics."""

# An age between two groups belongs to the nearer one; a tie goes to the younger one.
_BETWEEN_GROUPS = np.array([3.0, 7.0, 14.0, 22.5, 35.0, 45.5, 56.5])


def age_group_codes(age: Any) -> np.ndarray:
    """Returns the index in `AGE_GROUPS` of each age in years (any shape), -1 for missing ages."""
    years = np.asarray(age, dtype=float)
    return np.where(np.isnan(years), -1, np.searchsorted(_BETWEEN_GROUPS, years, side="left"))
