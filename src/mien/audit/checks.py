"""What an audit of data found: one `Check` a question, its limit, and whether the data suffices to tell."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from mien.metrics import wilson

Level = Literal["sound", "notice", "problem", "not checked"]

LEVELS: tuple[Level, ...] = ("problem", "notice", "sound", "not checked")
"""Worst first. A problem makes results on this data untrustworthy; a notice is worth a look."""


@dataclass(frozen=True)
class Check:
    """The answer to one question about a data set.

    Attributes:
        name: Names the check in `report.json`, as "duplicates.gender".
        level: One of `LEVELS`.
        says: What was found, in a sentence.
        count: How many cases were found.
        of: Among how many.
        low: The lower end of the 95% interval of count / of (Wilson), where there is a limit for that share.
        high: The upper end.
        limit: The share above which it is a problem; None: there is none, or any case is one.
        example: A face that is concerned.
    """

    name: str
    level: Level
    says: str
    count: int
    of: int
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    example: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The check as plain values, for JSON."""
        return asdict(self)


def any_is(level: Level, name: str, says: str, count: int, of: int, example: str | None = None) -> Check:
    """A check that is of a level as soon as there is one case."""
    return Check(name, level if count else "sound", says, count, of, example=example if count else None)


def share(name: str, says: str, count: int, of: int, limit: float, example: str | None = None) -> Check:
    """A check of a share: a problem where the whole interval is above the limit, a notice where only the value is.

    Cases are taken as independent of each other: count subjects or groups of pictures, not pairs.
    """
    if not of:
        return Check(name, "not checked", says, 0, 0, limit=limit)
    low, high = (float(end) for end in wilson(np.array(count / of), np.array(of)))
    level: Level = "problem" if low > limit else "notice" if count / of > limit else "sound"
    if level == "notice":
        says += f" That is more than {limit:.1%}, but {of:,} are too few to be sure."
    return Check(name, level, says, count, of, low, high, limit, example if count else None)


def not_checked(name: str, why: str) -> Check:
    """A question that the data or the arguments leave open."""
    return Check(name, "not checked", why, 0, 0)


def sound(checks: Sequence[Check]) -> bool:
    """Whether no check is a problem."""
    return not any(check.level == "problem" for check in checks)
