"""Checks of a data set: one `Check` per question, with its limit and the interval that decides."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from mien.audit.model.schema import Number, SchemaModel
from mien.metrics.intervals import wilson

CheckLevel = Literal["ok", "notice", "problem", "not checked"]

CHECK_LEVELS: tuple[CheckLevel, ...] = ("problem", "notice", "ok", "not checked")
"""Levels, the most serious first: a problem makes results on this data unreliable, a notice should be looked at."""


class Check(SchemaModel):
    """The result of one check of a data set."""

    name: str = Field(description='As "duplicates.gender".')
    level: CheckLevel
    message: str = Field(description="The result in one sentence.")
    count: int = Field(description="Number of cases found.")
    of: int = Field(description="Number of cases examined; 0 if the check did not run.")
    low: Number = Field(None, description="Lower end of the 95% Wilson interval of count / of; null without a limit.")
    high: Number = Field(None, description="Upper end of that interval.")
    limit: Number = Field(
        None, description="The share above which this is a problem; null if there is no limit, or if any case is one."
    )
    example: str | None = Field(None, description="An affected face, or data set and subject.")


def count_check(level: CheckLevel, name: str, message: str, count: int, of: int, example: str | None = None) -> Check:
    """Returns a check that has the given level as soon as there is one case, and is ok otherwise."""
    shown = example if count else None
    return Check(name=name, level=level if count else "ok", message=message, count=count, of=of, example=shown)


def share_check(name: str, message: str, count: int, of: int, limit: float, example: str | None = None) -> Check:
    """Returns a check of a share: a problem if the whole interval is above the limit, a notice if only the value is.

    Cases are assumed to be independent: count subjects or groups of images, not pairs.
    """
    if not of:
        return Check(name=name, level="not checked", message=message, count=0, of=0, limit=limit)
    low, high = (float(end) for end in wilson(np.array(count / of), np.array(of)))
    level: CheckLevel = "problem" if low > limit else "notice" if count / of > limit else "ok"
    if level == "notice":
        message += f" This is more than {limit:.1%}, but {of:,} cases are too few for a firm conclusion."
    shown = example if count else None
    return Check(
        name=name, level=level, message=message, count=count, of=of, low=low, high=high, limit=limit, example=shown
    )


def not_checked(name: str, why: str) -> Check:
    """Returns a check that could not run with this data or these arguments."""
    return Check(name=name, level="not checked", message=why, count=0, of=0)


def all_passed(checks: Sequence[Check]) -> bool:
    """Whether no check is a problem."""
    return not any(check.level == "problem" for check in checks)
