"""The JSON schema of a model audit, `mien.audit.model/1`; see docs/audit.md.

An unknown number is null. Shares are between 0 and 1, ages and age errors are in years, intervals are 95%.
A breaking change increments the version after the slash.
"""

import html
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Number = Annotated[
    float | None, BeforeValidator(lambda value: None if value is None or not math.isfinite(value) else float(value))
]
"""A number; null if it is unknown."""

Reliability = Literal["reliable", "approximate", "uncertain"]
"""How far an interval can be trusted, by the number of subjects; see `ReportSettings`."""

RateVerdict = Literal["met", "not met", "inconclusive"]


class SchemaModel(BaseModel):
    """Base class of all parts of a report: immutable, and unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Interval(SchemaModel):
    """A number with its 95% interval."""

    value: Number
    low: Number
    high: Number


class PredictionCounts(SchemaModel):
    """How the predictions match the faces."""

    faces: int = Field(description="Faces with labels; all count in the denominators of accuracies and false rates.")
    subjects: int = Field(description="Subjects; a face without a known subject counts as one.")
    missing: int = Field(description="Faces without a usable prediction.")
    unmatched: int = Field(description="Predictions that match no face.")
    matched_by: Literal["face id", "path", "file name"]


class ReportSettings(SchemaModel):
    """The settings of the audit."""

    by: list[str] = Field(description="The columns that define the groups.")
    resamples: int
    seed: int
    min_subjects: int = Field(description="Groups with fewer subjects are uncertain: reported, but never ranked.")
    reliable_subjects: int = Field(description="Intervals of groups with fewer subjects are approximate.")


class GroupMetric(Interval):
    """One metric of one group."""

    group: str = Field(description='For example "gender=female, race=black", or "all".')
    labels: dict[str, str]
    metric: str
    n: int = Field(description="Number of faces that count.")
    subjects: int
    reliability: Reliability


class WorstGroup(Interval):
    """The worst group; the interval covers the true worst value of all groups compared."""

    metric: str
    by: list[str] | None = Field(description="The columns whose groups were compared; null: all groups and crossings.")
    group: str
    groups: int = Field(description="Number of groups compared.")


class GroupGap(Interval):
    """The largest difference between two groups; the interval covers the true largest gap of all pairs compared."""

    metric: str
    by: list[str] | None
    higher: str
    lower: str
    pairs: int = Field(description="Number of pairs compared.")


class Fairness(SchemaModel):
    """Fairness criteria for the groups of one column, with "female" as the positive class."""

    by: list[str]
    equalised_odds: GroupGap | None = Field(description="The larger of the gaps of true and of false female rates.")
    demographic_parity: GroupGap | None = Field(description="The gap of the share predicted female.")


class CurvePoint(SchemaModel):
    """Error rates at one age threshold."""

    threshold: float
    child_as_adult: Interval
    adult_as_child: Interval


class AgeRule(SchemaModel):
    """A decision rule that keeps the share of children classified as adults below a rate."""

    rule: Literal["age", "age_low", "band", "interval"]
    adult_from: Number = Field(description="Adult from this age on; null if no threshold keeps the rate.")
    child_below: Number = Field(description="Child below this age; undecided in between.")
    chosen_on: int = Field(description="Children of the half that the threshold was chosen on.")
    confirmed_on: int = Field(description="Children of the other half.")
    child_as_adult: Interval = Field(description="Measured on the other half.")
    adult_as_child: Interval = Field(description="Measured on the other half.")
    undecided: Number = Field(description="Share of the faces of the other half with neither decision.")
    verdict: RateVerdict


class AgeLimit(SchemaModel):
    """Children below an age limit against adults from it on."""

    limit: float
    children: int
    adults: int
    allowed: float = Field(description="The allowed share of children classified as adults.")
    curves: dict[Literal["age", "age_low"], list[CurvePoint]]
    rules: list[AgeRule]


class DegradedResult(SchemaModel):
    """The effect of one image degradation on one group."""

    degradation: str
    level: str
    group: str
    metric: str
    n: int
    result: Interval
    change: Interval = Field(description="Relative to the original images of the same faces.")
    excess_over_others: Interval = Field(
        description="The change minus that of all other faces; the interval is corrected for all comparisons."
    )


class PairedDifference(Interval):
    """This model minus the other on the same faces; the interval is corrected for the number of groups."""

    group: str
    metric: str
    n: int
    subjects: int
    reliability: Reliability
    verdict: Literal["better", "worse", "inconclusive"]


class LimitVerdict(SchemaModel):
    """The result for one limit."""

    limit: str
    allowed: float
    direction: Literal["at least", "at most"]
    measured: Interval
    scope: str = Field(description="The faces or groups that the number was measured on.")
    n: int = Field(0, description="Faces with label and prediction that the number was measured on.")
    subjects: int = Field(0, description="Their subjects.")
    problem: str = Field("", description="Why the limit fails whatever its number is; empty if nothing is wrong.")
    passed: bool
    excess: Number = Field(description="Distance from the limit: positive if it is violated, negative if it is met.")
    conclusive: bool = Field(description="Whether the whole interval is on one side of the limit.")


class ModelAuditReport(SchemaModel):
    """The report of a model audit."""

    schema_: Literal["mien.audit.model/1"] = Field("mien.audit.model/1", alias="schema")
    mien: str = Field(description="The version of mien that wrote the report.")
    summary: str = Field(description="The results in plain words.")
    passed: bool | None = Field(description="Whether all limits are met; null without limits.")
    predictions: PredictionCounts
    settings: ReportSettings
    groups: list[GroupMetric]
    worst: list[WorstGroup]
    gaps: list[GroupGap]
    fairness: list[Fairness]
    age_limits: list[AgeLimit]
    robustness: list[DegradedResult]
    differences: list[PairedDifference]
    limits: list[LimitVerdict]

    def to_json(self) -> str:
        """Returns the report as JSON."""
        return self.model_dump_json(by_alias=True, indent=1)

    def _repr_html_(self) -> str:
        """In a notebook: the summary and the limits."""
        return report_html(self.summary, self.limits)


def report_html(summary: str, rows: Sequence[BaseModel]) -> str:
    """Returns a summary and a table of results as HTML."""
    import pandas as pd

    table = pd.json_normalize([row.model_dump() for row in rows])
    return f"<p>{html.escape(summary)}</p>" + (table.to_html(index=False, border=0) if len(table) else "")


def json_schema() -> dict[str, Any]:
    """Returns the JSON schema; `model.schema.json` is a copy."""
    return ModelAuditReport.model_json_schema(by_alias=True)
