"""What an audit of data found: one `Check` a question, its limit, and whether the data suffices to tell."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from mien.audit.model.schema import Number, Part
from mien.metrics.intervals import wilson

Level = Literal["sound", "notice", "problem", "not checked"]

LEVELS: tuple[Level, ...] = ("problem", "notice", "sound", "not checked")
"""Worst first. A problem makes results on this data untrustworthy; a notice is worth a look."""


class Check(Part):
    """The answer to one question about a data set."""

    name: str = Field(description='As "duplicates.gender".')
    level: Level
    says: str = Field(description="What was found, in a sentence.")
    count: int = Field(description="How many cases were found.")
    of: int = Field(description="Among how many; 0 where it was not checked.")
    low: Number = Field(None, description="End of the 95% interval of count / of (Wilson), where that has a limit.")
    high: Number = Field(None, description="The other end.")
    limit: Number = Field(None, description="The share above which it is a problem; null: none, or any case is one.")
    example: str | None = Field(None, description="A face, or a data set and subject, that is concerned.")


def any_is(level: Level, name: str, says: str, count: int, of: int, example: str | None = None) -> Check:
    """A check that is of a level as soon as there is one case."""
    shown = example if count else None
    return Check(name=name, level=level if count else "sound", says=says, count=count, of=of, example=shown)


def share(name: str, says: str, count: int, of: int, limit: float, example: str | None = None) -> Check:
    """A check of a share: a problem where the whole interval is above the limit, a notice where only the value is.

    Cases are taken as independent of each other: count subjects or groups of pictures, not pairs.
    """
    if not of:
        return Check(name=name, level="not checked", says=says, count=0, of=0, limit=limit)
    low, high = (float(end) for end in wilson(np.array(count / of), np.array(of)))
    level: Level = "problem" if low > limit else "notice" if count / of > limit else "sound"
    if level == "notice":
        says += f" That is more than {limit:.1%}, but {of:,} are too few to be sure."
    shown = example if count else None
    return Check(name=name, level=level, says=says, count=count, of=of, low=low, high=high, limit=limit, example=shown)


def not_checked(name: str, why: str) -> Check:
    """A question that the data or the arguments leave open."""
    return Check(name=name, level="not checked", says=why, count=0, of=0)


def sound(checks: Sequence[Check]) -> bool:
    """Whether no check is a problem."""
    return not any(check.level == "problem" for check in checks)
