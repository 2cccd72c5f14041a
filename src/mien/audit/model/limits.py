"""Limits that turn an audit into a pass or a fail: a strict YAML file, and what became of each."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mien.audit.model.schema import AgeLimit, Fairness, Gap, GroupNumber, Interval, LimitVerdict, Worst
from mien.base.errors import MienError, listed, validation_message
from mien.base.yaml import RecipeError, read_yaml_file

Share = Annotated[float, Field(ge=0, le=1)]
Years = Annotated[float, Field(ge=0)]


class Limits(BaseModel):
    """What a model must keep; what is not given is not judged. Shares run from 0 to 1.

    Attributes:
        accuracy: Of gender, over all faces, at least.
        worst_group_accuracy: Of gender, in the worst group or crossing, at least.
        largest_gap: Of gender accuracy, between two groups of one column or crossing, at most.
        false_rate: Women taken for men, and men for women, each at most.
        calibration_error: Of gender, over all faces, at most.
        unsure: Share of answers without a gender, at most.
        missing: Share of faces without a prediction, at most.
        age_mae: Mean absolute error of age over all faces, years, at most.
        worst_group_age_mae: In the worst group or crossing, years, at most.
        age_bias: Size of the mean error of age over all faces, years, at most.
        equalised_odds: In each column of groups, at most.
        demographic_parity: In each column of groups, at most.
        children_as_adults: By age limit (13, 16, 18 or 21): children whose predicted age reaches it, at most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    accuracy: Share | None = None
    worst_group_accuracy: Share | None = None
    largest_gap: Share | None = None
    false_rate: Share | None = None
    calibration_error: Share | None = None
    unsure: Share | None = None
    missing: Share | None = None
    age_mae: Years | None = None
    worst_group_age_mae: Years | None = None
    age_bias: Years | None = None
    equalised_odds: Share | None = None
    demographic_parity: Share | None = None
    children_as_adults: dict[Literal[13, 16, 18, 21], Share] | None = None


def read_limits(path: str | Path) -> Limits:
    """Reads a YAML file of limits.

    Raises:
        MienError: It cannot be read, holds no limit, or one that is unknown or not valid; all mistakes are named.
    """
    try:
        given = read_yaml_file(Path(path), f"limits {str(path)!r}")
    except RecipeError as error:
        raise MienError(f"{error}; {_valid()}") from None
    if not given:
        raise MienError(f"limits {str(path)!r}: must hold lines such as 'accuracy: 0.9'; {_valid()}")
    try:
        return Limits.model_validate(given)
    except ValidationError as error:
        raise MienError(f"limits {str(path)!r}:\n{listed(_mistake, error.errors())}") from None


def _mistake(problem: Any) -> str:
    return validation_message(problem, ".".join(map(str, problem["loc"])), Limits.model_fields, thing="limit")


def _valid() -> str:
    return f"valid: {', '.join(Limits.model_fields)}"


class Found(NamedTuple):
    """What the limits are held against."""

    groups: Sequence[GroupNumber]
    worst: Sequence[Worst]
    gaps: Sequence[Gap]
    fairness: Sequence[Fairness]
    age_limits: Sequence[AgeLimit]


def judge(limits: Limits, found: Found) -> list[LimitVerdict]:
    """One verdict a limit; one for which there is no number fails, because nothing shows that it holds."""
    return [
        _verdict(name, allowed, direction, where, number)
        for name, allowed, direction, where, number in _numbers(limits, found)
    ]


_Line = tuple[str, float, Literal["at least", "at most"], str, Interval | None]

_OVERALL: dict[str, tuple[str, Literal["at least", "at most"]]] = {
    "accuracy": ("gender_accuracy", "at least"),
    "calibration_error": ("gender_ece", "at most"),
    "unsure": ("gender_unsure", "at most"),
    "age_mae": ("age_mae", "at most"),
}


def _numbers(limits: Limits, found: Found) -> Iterator[_Line]:
    overall = {one.metric: one for one in found.groups if one.group == "all"}
    for name, (metric, direction) in _OVERALL.items():
        if (allowed := getattr(limits, name)) is not None:
            yield name, allowed, direction, "all faces", overall.get(metric)
    if limits.false_rate is not None:
        for metric, where in (("gender_false_male", "women"), ("gender_false_female", "men")):
            yield "false_rate", limits.false_rate, "at most", where, overall.get(metric)
    if limits.missing is not None:
        yield "missing", limits.missing, "at most", "all faces", _rest(overall.get("coverage"))
    if limits.age_bias is not None:
        yield "age_bias", limits.age_bias, "at most", "all faces", _size(overall.get("age_bias"))
    if limits.worst_group_accuracy is not None:
        worst = _first(found.worst, "gender_accuracy")
        yield "worst_group_accuracy", limits.worst_group_accuracy, "at least", worst.group if worst else "", worst
    if limits.worst_group_age_mae is not None:
        worst = _first(found.worst, "age_mae")
        yield "worst_group_age_mae", limits.worst_group_age_mae, "at most", worst.group if worst else "", worst
    if limits.largest_gap is not None:
        gap = next((one for one in found.gaps if one.metric == "gender_accuracy" and one.by is None), None)
        yield "largest_gap", limits.largest_gap, "at most", f"{gap.higher} and {gap.lower}" if gap else "", gap
    for name in ("equalised_odds", "demographic_parity"):
        if (allowed := getattr(limits, name)) is not None:
            for one in found.fairness:
                yield name, allowed, "at most", ", ".join(one.by), getattr(one, name)
            if not found.fairness:
                yield name, allowed, "at most", "", None
    for limit, allowed in (limits.children_as_adults or {}).items():
        own = next((one for one in found.age_limits if one.limit == limit), None)
        point = next((at for at in own.curves["age"] if at.threshold == limit), None) if own else None
        where = f"children under {limit}"
        yield "children_as_adults", allowed, "at most", where, point.child_as_adult if point else None


def _first(worst: Sequence[Worst], metric: str) -> Worst | None:
    return next((one for one in worst if one.metric == metric and one.by is None), None)


def _rest(share: Interval | None) -> Interval | None:
    if share is None or share.value is None or share.low is None or share.high is None:
        return None
    return Interval(value=1 - share.value, low=1 - share.high, high=1 - share.low)


def _size(number: Interval | None) -> Interval | None:
    """The size of a signed number; its interval reaches 0 where the number's does."""
    if number is None or number.value is None or number.low is None or number.high is None:
        return number
    ends = sorted((abs(number.low), abs(number.high)))
    return Interval(value=abs(number.value), low=0 if number.low <= 0 <= number.high else ends[0], high=ends[1])


def _verdict(
    name: str, allowed: float, direction: Literal["at least", "at most"], where: str, number: Interval | None
) -> LimitVerdict:
    found = Interval(value=None, low=None, high=None)
    passed, beyond, sure = False, np.nan, False
    if number is not None and number.value is not None:
        found = Interval(value=number.value, low=number.low, high=number.high)
        beyond = (number.value - allowed) * (1 if direction == "at most" else -1)
        passed = beyond <= 0
        if number.low is not None and number.high is not None:
            sure = not number.low <= allowed <= number.high or number.low == number.high
            sure = sure or (number.high == allowed if direction == "at most" else number.low == allowed)
    return LimitVerdict(
        limit=name,
        allowed=allowed,
        direction=direction,
        found=found,
        where=where or "no group has enough subjects, or the answers are not there",
        passed=passed,
        beyond=beyond,
        sure=sure,
    )
