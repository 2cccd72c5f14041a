"""The audit of a model as JSON: `mien.audit.model/1`, documented field by field; see docs/audit.md.

A number that cannot be told is null. Shares run from 0 to 1, ages and their errors are in years, intervals are 95%.
A change that breaks readers raises the number after the slash.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Number = Annotated[
    float | None, BeforeValidator(lambda value: None if value is None or not math.isfinite(value) else float(value))
]
"""A number, or null where it cannot be told."""

Told = Literal["firm", "approximate", "uncertain"]
Verdict = Literal["holds", "fails", "cannot tell"]


class Part(BaseModel):
    """What all parts of a report share: no field is unknown, and none changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Interval(Part):
    """A number with its 95% interval."""

    value: Number
    low: Number
    high: Number


class Predictions(Part):
    """What was audited."""

    faces: int = Field(description="Faces of the truth; all stay in the denominator of accuracies and false rates.")
    subjects: int = Field(description="Their subjects; a face whose subject is not known is one of its own.")
    missing: int = Field(description="Faces without a usable prediction.")
    extra: int = Field(description="Predictions that belong to no face.")
    matched_by: Literal["face id", "path", "file name"]


class Settings(Part):
    """How it was audited."""

    by: list[str]
    resamples: int
    seed: int
    fewest_subjects: int = Field(description="Groups of fewer are uncertain: shown, never called the worst.")
    enough_subjects: int = Field(description="Intervals of fewer are approximate.")


class GroupNumber(Interval):
    """One metric of one group."""

    group: str = Field(description='As "gender=female, race=black", or "all".')
    labels: dict[str, str]
    metric: str
    n: int = Field(description="Faces that count.")
    subjects: int
    told: Told


class Worst(Interval):
    """The worst group; the interval is that of the true worst of all groups looked at."""

    metric: str
    by: list[str] | None = Field(description="The columns whose groups were looked at; null: all groups and crossings.")
    group: str
    groups: int = Field(description="How many were looked at.")


class Gap(Interval):
    """The two groups that differ most; the interval is that of the true largest gap of all pairs looked at."""

    metric: str
    by: list[str] | None
    higher: str
    lower: str
    pairs: int


class Fairness(Part):
    """Differences between the groups of one column, with "female" as the answer that is looked at."""

    by: list[str]
    equalised_odds: Gap | None = Field(description="The larger of the gaps of true and of false female rates.")
    demographic_parity: Gap | None = Field(description="The gap of the share that is answered female.")


class CurvePoint(Part):
    """What a threshold does to children and to adults."""

    threshold: float
    child_as_adult: Interval
    adult_as_child: Interval


class Choice(Part):
    """A rule that keeps the share of children who are taken for adults under a rate."""

    rule: Literal["age", "age_low", "band", "interval"]
    adult_from: Number = Field(description="The answer is adult from this on; null where no threshold keeps the rate.")
    child_below: Number = Field(description="The answer is child below this, unsure in between.")
    chosen_on: int = Field(description="Children of the half on which it was chosen.")
    confirmed_on: int = Field(description="Children of the other half.")
    child_as_adult: Interval = Field(description="On the other half.")
    adult_as_child: Interval = Field(description="On the other half.")
    unsure: Number = Field(description="Share of the other half's faces that get neither answer.")
    verdict: Verdict


class AgeLimit(Part):
    """Children below a limit and adults from it on."""

    limit: float
    children: int
    adults: int
    allowed: float = Field(description="The share of children who may be taken for adults.")
    curves: dict[Literal["age", "age_low"], list[CurvePoint]]
    choices: list[Choice]


class Worsened(Part):
    """What a worse picture does to one group."""

    kind: str
    level: str
    group: str
    metric: str
    n: int
    result: Interval
    change: Interval = Field(description="To the same faces as they are.")
    more_than_others: Interval = Field(
        description="The change less that of all other faces; its interval is corrected for all comparisons."
    )


class PairedDifference(Interval):
    """This model less the other on the same faces; the interval is corrected for the groups looked at."""

    group: str
    metric: str
    n: int
    subjects: int
    told: Told
    found: Literal["better", "worse", "unclear"]


class LimitVerdict(Part):
    """One limit, what was found, and whether the data suffices to tell."""

    limit: str
    allowed: float
    direction: Literal["at least", "at most"]
    found: Interval
    where: str
    passed: bool
    beyond: Number = Field(description="By how much it is missed (positive) or kept (negative).")
    sure: bool = Field(description="Whether the interval lies on one side of the limit.")


class Report(Part):
    """The audit of a model."""

    schema_: Literal["mien.audit.model/1"] = Field("mien.audit.model/1", alias="schema")
    mien: str = Field(description="The version that wrote it.")
    summary: str = Field(description="What was found, in plain words.")
    passed: bool | None = Field(description="Whether all limits hold; null without limits.")
    predictions: Predictions
    settings: Settings
    groups: list[GroupNumber]
    worst: list[Worst]
    gaps: list[Gap]
    fairness: list[Fairness]
    age_limits: list[AgeLimit]
    robustness: list[Worsened]
    differences: list[PairedDifference]
    limits: list[LimitVerdict]

    def to_json(self) -> str:
        """The report as JSON."""
        return self.model_dump_json(by_alias=True, indent=1)


def json_schema() -> dict[str, Any]:
    """The JSON schema that `model.schema.json` holds."""
    return Report.model_json_schema(by_alias=True)
