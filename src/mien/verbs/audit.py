"""Audits of a model and of a data set: what is computed, then its report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from mien.audit.data.audit import audit_faces
from mien.audit.data.schema import DataAuditReport
from mien.audit.model.audit import AuditSettings, audit_predictions
from mien.audit.model.inputs import PredictionsInput
from mien.audit.model.schema import ModelAuditReport
from mien.base.atomic import check_folder
from mien.base.progress import ProgressCallback
from mien.reports import audit_data as data_page
from mien.reports import audit_model as model_page
from mien.reports.review import SHEET
from mien.runs.run import Run

if TYPE_CHECKING:
    from mien.audit.model.robustness import RobustnessTest


def audit_model(
    predictions: PredictionsInput,
    faces: pd.DataFrame,
    by: Sequence[str] | None = None,
    out: str | Path | None = None,
    *,
    map: Mapping[str, str] | None = None,
    preset: str | None = None,
    against: PredictionsInput | None = None,
    against_preset: str | None = None,
    robustness: "RobustnessTest | None" = None,
    settings: AuditSettings = AuditSettings(),  # noqa: B008 - it cannot change
) -> ModelAuditReport:
    """Says for whom a model fails, and writes the report where a folder is given; see `audit_predictions`."""
    if out is not None:
        check_folder(out)
    report = audit_predictions(
        predictions,
        faces,
        by,
        map=map,
        preset=preset,
        against=against,
        against_preset=against_preset,
        robustness=robustness,
        settings=settings,
    )
    if out is not None:
        model_page.write(report, out)
    return report


def audit_data(
    faces: pd.DataFrame,
    root: str | Path | None,
    runs: Sequence[str | Path | Run] = (),
    out: str | Path = "audit-data",
    sheet: int = SHEET,
    progress: ProgressCallback | None = None,
) -> DataAuditReport:
    """Says whether a data set is sound, and writes the report; see `audit_faces`."""
    check_folder(out)
    audit = audit_faces(faces, root, runs, progress)
    data_page.write(audit, out, sheet)
    return audit.report
