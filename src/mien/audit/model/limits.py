"""Limits for the pass or fail of an audit, read from a strict YAML file."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mien.audit.model.schema import AgeLimit, Fairness, GroupGap, GroupMetric, Interval, LimitVerdict, WorstGroup
from mien.base.errors import MienError, listed, validation_message
from mien.base.strict_yaml import RecipeError, read_yaml_file

Share = Annotated[float, Field(ge=0, le=1)]
Years = Annotated[float, Field(ge=0)]


class AuditLimits(BaseModel):
    """Limits that a model must meet; absent ones are not checked. Shares are between 0 and 1.

    Attributes:
        accuracy: Minimum gender accuracy over all faces.
        worst_group_accuracy: Minimum gender accuracy in the worst group or crossing.
        largest_gap: Maximum gap of gender accuracy between two groups of one column or crossing.
        false_rate: Maximum share of women predicted male, and of men predicted female.
        calibration_error: Maximum calibration error of gender over all faces.
        unsure: Maximum share of predictions without a gender.
        missing: Maximum share of faces without a prediction.
        age_mae: Maximum mean absolute error of age over all faces, in years.
        worst_group_age_mae: The same in the worst group or crossing.
        age_bias: Maximum magnitude of the mean error of age over all faces, in years.
        equalised_odds: Maximum for each grouping column.
        demographic_parity: Maximum for each grouping column.
        children_as_adults: By age limit (13, 16, 18 or 21): maximum share of children whose predicted age reaches it.
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


def read_limits(path: str | Path) -> AuditLimits:
    """Reads limits from a YAML file.

    Raises:
        MienError: The file cannot be read, has no limits, or has unknown or invalid ones; all mistakes are listed.
    """
    try:
        given = read_yaml_file(Path(path), f"limits {str(path)!r}")
    except RecipeError as error:
        raise MienError(f"{error}; {_valid()}") from None
    if not given:
        raise MienError(f"limits {str(path)!r}: must have lines such as 'accuracy: 0.9'; {_valid()}")
    try:
        return AuditLimits.model_validate(given)
    except ValidationError as error:
        raise MienError(f"limits {str(path)!r}:\n{listed(_mistake, error.errors())}") from None


def _mistake(problem: Any) -> str:
    return validation_message(problem, ".".join(map(str, problem["loc"])), AuditLimits.model_fields, thing="limit")


def _valid() -> str:
    return f"valid: {', '.join(AuditLimits.model_fields)}"


class ModelFindings(NamedTuple):
    """The results that limits are checked against."""

    groups: Sequence[GroupMetric]
    worst: Sequence[WorstGroup]
    gaps: Sequence[GroupGap]
    fairness: Sequence[Fairness]
    age_limits: Sequence[AgeLimit]


def check_limits(limits: AuditLimits, findings: ModelFindings) -> list[LimitVerdict]:
    """Returns one verdict per limit; a limit without a number fails, since nothing shows that it is met."""
    return [
        _verdict(name, allowed, direction, where, number)
        for name, allowed, direction, where, number in _numbers(limits, findings)
    ]


_Line = tuple[str, float, Literal["at least", "at most"], str, Interval | None]

_OVERALL: dict[str, tuple[str, Literal["at least", "at most"]]] = {
    "accuracy": ("gender_accuracy", "at least"),
    "calibration_error": ("gender_ece", "at most"),
    "unsure": ("gender_unsure", "at most"),
    "age_mae": ("age_mae", "at most"),
}


def _numbers(limits: AuditLimits, findings: ModelFindings) -> Iterator[_Line]:
    yield from _overall_numbers(limits, {one.metric: one for one in findings.groups if one.group == "all"})
    yield from _group_numbers(limits, findings)
    yield from _fairness_numbers(limits, findings)
    for limit, allowed in (limits.children_as_adults or {}).items():
        own = next((one for one in findings.age_limits if one.limit == limit), None)
        point = next((at for at in own.curves["age"] if at.threshold == limit), None) if own else None
        where = f"children under {limit}"
        yield "children_as_adults", allowed, "at most", where, point.child_as_adult if point else None


def _overall_numbers(limits: AuditLimits, overall: Mapping[str, GroupMetric]) -> Iterator[_Line]:
    for name, (metric, direction) in _OVERALL.items():
        if (allowed := getattr(limits, name)) is not None:
            yield name, allowed, direction, "all faces", overall.get(metric)
    if limits.false_rate is not None:
        for metric, where in (("gender_false_male", "women"), ("gender_false_female", "men")):
            yield "false_rate", limits.false_rate, "at most", where, overall.get(metric)
    if limits.missing is not None:
        yield "missing", limits.missing, "at most", "all faces", _complement(overall.get("coverage"))
    if limits.age_bias is not None:
        yield "age_bias", limits.age_bias, "at most", "all faces", _magnitude(overall.get("age_bias"))


def _group_numbers(limits: AuditLimits, findings: ModelFindings) -> Iterator[_Line]:
    if limits.worst_group_accuracy is not None:
        worst = _worst_of(findings.worst, "gender_accuracy")
        yield "worst_group_accuracy", limits.worst_group_accuracy, "at least", worst.group if worst else "", worst
    if limits.worst_group_age_mae is not None:
        worst = _worst_of(findings.worst, "age_mae")
        yield "worst_group_age_mae", limits.worst_group_age_mae, "at most", worst.group if worst else "", worst
    if limits.largest_gap is not None:
        gap = next((one for one in findings.gaps if one.metric == "gender_accuracy" and one.by is None), None)
        yield "largest_gap", limits.largest_gap, "at most", f"{gap.higher} and {gap.lower}" if gap else "", gap


def _fairness_numbers(limits: AuditLimits, findings: ModelFindings) -> Iterator[_Line]:
    for name in ("equalised_odds", "demographic_parity"):
        if (allowed := getattr(limits, name)) is not None:
            for one in findings.fairness:
                yield name, allowed, "at most", ", ".join(one.by), getattr(one, name)
            if not findings.fairness:
                yield name, allowed, "at most", "", None


def _worst_of(worst: Sequence[WorstGroup], metric: str) -> WorstGroup | None:
    return next((one for one in worst if one.metric == metric and one.by is None), None)


def _complement(share: Interval | None) -> Interval | None:
    if share is None or share.value is None or share.low is None or share.high is None:
        return None
    return Interval(value=1 - share.value, low=1 - share.high, high=1 - share.low)


def _magnitude(number: Interval | None) -> Interval | None:
    """The magnitude of a signed number; its interval starts at 0 if the number's includes 0."""
    if number is None or number.value is None or number.low is None or number.high is None:
        return number
    ends = sorted((abs(number.low), abs(number.high)))
    return Interval(value=abs(number.value), low=0 if number.low <= 0 <= number.high else ends[0], high=ends[1])


def _verdict(
    name: str, allowed: float, direction: Literal["at least", "at most"], where: str, number: Interval | None
) -> LimitVerdict:
    measured = Interval(value=None, low=None, high=None)
    passed, excess, conclusive = False, np.nan, False
    if number is not None and number.value is not None:
        measured = Interval(value=number.value, low=number.low, high=number.high)
        excess = (number.value - allowed) * (1 if direction == "at most" else -1)
        passed = excess <= 0
        if number.low is not None and number.high is not None:
            conclusive = not number.low <= allowed <= number.high or number.low == number.high
            conclusive = conclusive or (number.high == allowed if direction == "at most" else number.low == allowed)
    return LimitVerdict(
        limit=name,
        allowed=allowed,
        direction=direction,
        measured=measured,
        scope=where or "no group has enough subjects, or predictions are missing",
        passed=passed,
        excess=excess,
        conclusive=conclusive,
    )
