"""The words of the labels, and the age group of an age. No pandas: a single prediction starts with this."""

from typing import Any

import numpy as np

GENDERS = ("female", "male")
"""Perceived binary gender, as the data sets label it."""

AGE_GROUPS = ("0-2", "4-6", "8-13", "15-20", "25-32", "38-43", "48-53", "60+")
"""Adience's age groups, youngest first."""

# An age between two groups belongs to the nearer one, a tie to the younger.
_BETWEEN_GROUPS = np.array([3.0, 7.0, 14.0, 22.5, 35.0, 45.5, 56.5])


def age_group_codes(age: Any) -> np.ndarray:
    """The place in `AGE_GROUPS` of each age in years (any shape), -1 where it is missing."""
    years = np.asarray(age, dtype=float)
    return np.where(np.isnan(years), -1, np.searchsorted(_BETWEEN_GROUPS, years, side="left"))
