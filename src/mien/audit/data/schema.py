"""The JSON schema of a data audit, `mien.audit.data/1`; see docs/audit-data.md.

As in `mien.audit.model.schema`, null is an unknown number, and a breaking change increments the version.
"""

from typing import Any, Literal

from pydantic import Field

from mien.audit.data.checks import Check
from mien.audit.model.schema import SchemaModel, report_html


class DatasetInfo(SchemaModel):
    """The data that was audited."""

    datasets: list[str]
    faces: int
    subjects: int | None = Field(description="Null if the table has no subjects.")
    images: int | None = Field(description="Number of image files that were read; null without --root.")


class SuggestionCounts(SchemaModel):
    """Labels of one column that contradict out-of-fold predictions."""

    column: Literal["gender", "age", "age_group"]
    suggested: int
    flagged: int = Field(description="Number of clear contradictions; see docs/audit-data.md.")


class RunUsage(SchemaModel):
    """How many predictions of a run were used, and why the others were not."""

    run: str
    used: int
    trained_on: int = Field(description="Faces that the run trained on; ignored.")
    shared: int = Field(
        description="Faces that share a subject, a photograph or near-duplicates with training faces; ignored."
    )
    unreadable: int
    no_prediction: int


class DataAuditReport(SchemaModel):
    """The report of a data audit."""

    schema_: Literal["mien.audit.data/1"] = Field("mien.audit.data/1", alias="schema")
    mien: str = Field(description="The version of mien that wrote the report.")
    summary: str = Field(description="The results in plain words.")
    passed: bool = Field(description="Whether no check found a problem.")
    data: DatasetInfo
    checks: list[Check]
    suggestions: list[SuggestionCounts]
    runs: list[RunUsage]

    def to_json(self) -> str:
        """The report as JSON."""
        return self.model_dump_json(by_alias=True, indent=1)

    def _repr_html_(self) -> str:
        """In a notebook: the summary and the checks."""
        return report_html(self.summary, self.checks)


def json_schema() -> dict[str, Any]:
    """Returns the JSON schema; `data.schema.json` is a copy."""
    return DataAuditReport.model_json_schema(by_alias=True)
