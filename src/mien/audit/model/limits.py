"""Limits for the pass or fail of an audit, read from a strict YAML file."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mien.audit.model.groups import MIN_SUBJECTS
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
        missing: Maximum share of faces without a prediction, in each predicted column.
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
    children_as_adults: Annotated[dict[Literal[13, 16, 18, 21], Share] | None, Field(min_length=1)] = None

    @field_validator("*", mode="before")
    @classmethod
    def _stated(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("has no value; valid: a number, or leave the line out")
        return value


MIN_ANSWERED = 0.5
"""A limit fails where fewer of the labelled faces have a prediction: those that have one may be the easy ones."""


class Basis(NamedTuple):
    """What a number was measured on: faces with label and prediction, their subjects, and all faces with the label."""

    n: int
    subjects: int
    labelled: int


def basis(rows: pd.DataFrame, labelled: np.ndarray, answered: np.ndarray) -> Basis:
    """Counts the faces of (n,) `labelled` that are also `answered`."""
    both = labelled & answered
    return Basis(int(both.sum()), int(rows.loc[both, "_cluster"].nunique()), int(labelled.sum()))


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
    missing: Mapping[str, Interval]
    """By predicted column: the share of faces without a value."""
    bases: Mapping[str, Basis]
    """By metric over all faces, and by age limit ("children under 18")."""


def check_limits(limits: AuditLimits, findings: ModelFindings) -> list[LimitVerdict]:
    """Returns the verdicts of each limit.

    A limit fails without a number, or where the number is of fewer than `MIN_SUBJECTS` subjects or of fewer than
    `MIN_ANSWERED` of the labelled faces, since nothing shows that it is met.
    """
    return [_verdict(line) for line in _numbers(limits, findings)]


class _Line(NamedTuple):
    name: str
    allowed: float
    direction: Literal["at least", "at most"]
    where: str
    number: Interval | None
    basis: Basis | None


_OVERALL: dict[str, tuple[str, Literal["at least", "at most"]]] = {
    "accuracy": ("gender_accuracy", "at least"),
    "calibration_error": ("gender_ece", "at most"),
    "unsure": ("gender_unsure", "at most"),
    "age_mae": ("age_mae", "at most"),
}

_WORST: tuple[tuple[str, str, Literal["at least", "at most"]], ...] = (
    ("worst_group_accuracy", "gender_accuracy", "at least"),
    ("worst_group_age_mae", "age_mae", "at most"),
)


def _numbers(limits: AuditLimits, findings: ModelFindings) -> Iterator[_Line]:
    yield from _overall_numbers(limits, findings)
    yield from _group_numbers(limits, findings)
    yield from _fairness_numbers(limits, findings)
    for limit, allowed in (limits.children_as_adults or {}).items():
        own = next((one for one in findings.age_limits if one.limit == limit), None)
        point = next((at for at in own.curves["age"] if at.threshold == limit), None) if own else None
        where = f"children under {limit}"
        of = findings.bases.get(where)
        share = _among_answered(point.child_as_adult, of) if point and of else None
        yield _Line("children_as_adults", allowed, "at most", where, share, of)


def _overall_numbers(limits: AuditLimits, findings: ModelFindings) -> Iterator[_Line]:
    overall = {one.metric: one for one in findings.groups if one.group == "all"}
    for name, (metric, direction) in _OVERALL.items():
        if (allowed := getattr(limits, name)) is not None:
            yield _Line(name, allowed, direction, "all faces", overall.get(metric), findings.bases.get(metric))
    if limits.false_rate is not None:
        for metric, where in (("gender_false_male", "women"), ("gender_false_female", "men")):
            of = findings.bases.get(metric)
            share = _among_answered(overall[metric], of) if metric in overall and of else None
            yield _Line("false_rate", limits.false_rate, "at most", where, share, of)
    if limits.missing is not None:
        for column, share in findings.missing.items():
            of = findings.bases["coverage"]
            yield _Line("missing", limits.missing, "at most", f"all faces, {column}", share, of)
    if limits.age_bias is not None:
        number, of = _magnitude(overall.get("age_bias")), findings.bases.get("age_bias")
        yield _Line("age_bias", limits.age_bias, "at most", "all faces", number, of)


def _group_numbers(limits: AuditLimits, findings: ModelFindings) -> Iterator[_Line]:
    for name, metric, direction in _WORST:
        if (allowed := getattr(limits, name)) is not None:
            worst = _worst_of(findings.worst, metric)
            where, of = (worst.group, _group_basis(findings, metric, worst.group)) if worst else ("", None)
            yield _Line(name, allowed, direction, where, worst, of)
    if limits.largest_gap is not None:
        gap = next((one for one in findings.gaps if one.metric == "gender_accuracy" and one.by is None), None)
        where = f"{gap.higher} and {gap.lower}" if gap else ""
        yield _Line("largest_gap", limits.largest_gap, "at most", where, gap, findings.bases.get("gender_accuracy"))


def _group_basis(findings: ModelFindings, metric: str, group: str) -> Basis | None:
    """The faces of a group; of how many labelled ones is known over all faces."""
    own = next((one for one in findings.groups if one.metric == metric and one.group == group), None)
    overall = findings.bases.get(metric)
    if own is None or overall is None or not overall.n:
        return None
    return Basis(own.n, own.subjects, round(own.n * overall.labelled / overall.n))


def _fairness_numbers(limits: AuditLimits, findings: ModelFindings) -> Iterator[_Line]:
    of = findings.bases.get("gender_accuracy")
    for name in ("equalised_odds", "demographic_parity"):
        if (allowed := getattr(limits, name)) is not None:
            for one in findings.fairness:
                yield _Line(name, allowed, "at most", ", ".join(one.by), getattr(one, name), of)
            if not findings.fairness:
                yield _Line(name, allowed, "at most", "", None, None)


def _worst_of(worst: Sequence[WorstGroup], metric: str) -> WorstGroup | None:
    return next((one for one in worst if one.metric == metric and one.by is None), None)


def _among_answered(share: Interval, of: Basis) -> Interval:
    """A share of the labelled faces as a share of those with a prediction: the others cannot be counted as right."""
    scale = of.labelled / of.n if of.n else math.inf
    ends = (None if one is None else min(1.0, one * scale) for one in (share.value, share.low, share.high))
    value, low, high = ends
    return Interval(value=value, low=low, high=high)


def _magnitude(number: Interval | None) -> Interval | None:
    """The magnitude of a signed number; its interval starts at 0 if the number's includes 0."""
    if number is None or number.value is None or number.low is None or number.high is None:
        return number
    ends = sorted((abs(number.low), abs(number.high)))
    return Interval(value=abs(number.value), low=0 if number.low <= 0 <= number.high else ends[0], high=ends[1])


def _verdict(line: _Line) -> LimitVerdict:
    number, of, allowed = line.number, line.basis, line.allowed
    measured = Interval(value=None, low=None, high=None)
    passed, excess, conclusive = False, np.nan, False
    if number is not None and number.value is not None:
        measured = Interval(value=number.value, low=number.low, high=number.high)
        excess = (number.value - allowed) * (1 if line.direction == "at most" else -1)
        passed = excess <= 0
        if number.low is not None and number.high is not None:
            conclusive = not number.low <= allowed <= number.high or number.low == number.high
            conclusive = conclusive or (number.high if line.direction == "at most" else number.low) == allowed
    problem = _too_few(of)
    return LimitVerdict(
        limit=line.name,
        allowed=allowed,
        direction=line.direction,
        measured=measured,
        scope=line.where or "no group has enough subjects, or predictions are missing",
        n=of.n if of else 0,
        subjects=of.subjects if of else 0,
        problem=problem,
        passed=passed and not problem,
        excess=excess,
        conclusive=conclusive and not problem,
    )


def _too_few(of: Basis | None) -> str:
    if of is None or not of.n:
        return "no face has both label and prediction"
    if of.subjects < MIN_SUBJECTS:
        return f"{of.subjects} subjects, at least {MIN_SUBJECTS} are needed"
    if of.n < MIN_ANSWERED * of.labelled:
        return f"only {of.n:,} of {of.labelled:,} labelled faces have a prediction"
    return ""
