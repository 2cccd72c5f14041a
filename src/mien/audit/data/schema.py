"""The audit of a data set as JSON: `mien.audit.data/1`, documented field by field; see docs/audit-data.md.

What holds for `schema` holds here: null is what cannot be told, and a change that breaks readers raises the number.
"""

from typing import Any, Literal

from pydantic import Field

from mien.audit.data.checks import Check
from mien.audit.model.schema import Part


class Data(Part):
    """What was audited."""

    datasets: list[str]
    faces: int
    subjects: int | None = Field(description="Null where the table names none.")
    images: int | None = Field(description="Files that were looked at; null without --root.")


class Suggested(Part):
    """Labels of one column that contradict out-of-fold predictions."""

    column: Literal["gender", "age", "age_group"]
    suggested: int
    flagged: int = Field(description="Those that contradict them most clearly; see docs/audit-data.md.")


class RunUsed(Part):
    """What became of one run's predictions."""

    run: str
    used: int
    trained_on: int = Field(description="Faces that it trained on: ignored.")
    shared: int = Field(description="Faces that share a subject, photograph or near-duplicates with these: ignored.")
    unreadable: int
    no_prediction: int


class DataReport(Part):
    """The audit of a data set."""

    schema_: Literal["mien.audit.data/1"] = Field("mien.audit.data/1", alias="schema")
    mien: str = Field(description="The version that wrote it.")
    summary: str = Field(description="What was found, in plain words.")
    passed: bool = Field(description="Whether no check is a problem.")
    data: Data
    checks: list[Check]
    suggestions: list[Suggested]
    runs: list[RunUsed]

    def to_json(self) -> str:
        """The report as JSON."""
        return self.model_dump_json(by_alias=True, indent=1)


def json_schema() -> dict[str, Any]:
    """The JSON schema that `data.schema.json` holds."""
    return DataReport.model_json_schema(by_alias=True)
