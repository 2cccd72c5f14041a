"""Audits a data set before training: leaks, duplicates, label errors, and image quality."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mien.audit.data import findings, image_quality, label_errors
from mien.audit.data.checks import Check, all_passed, count_check, not_checked
from mien.audit.data.label_errors import OutOfFold
from mien.audit.data.schema import DataAuditReport, DatasetInfo, RunUsage, SuggestionCounts
from mien.audit.data.summary import summary
from mien.base.errors import MienError
from mien.base.progress import ProgressCallback
from mien.base.table import check_faces
from mien.base.version import __version__
from mien.data.image_files import Images, inspect_images
from mien.data.roots import Root, Roots, open_root
from mien.metrics import METRICS
from mien.metrics.wording import Score, named, number, verdict, with_interval
from mien.runs.run import Run, open_run


@dataclass(frozen=True)
class DataAudit:
    """The result of a data audit: the content of `report.json`, and the tables and images behind it.

    Attributes:
        report: The checks and their verdicts.
        faces: The faces in the order of their ids.
        tables: Detailed tables by file name (without `.csv`).
        images: The image files and their near-duplicates; None without a root.
        root: The root of the images.
        outlier_scores: (n,) scores of `image_quality.outlier_scores`; None without a root.
    """

    report: DataAuditReport
    faces: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    images: Images | None
    root: Root | None

    outlier_scores: pd.Series | None


def audit_faces(
    faces: pd.DataFrame,
    root: str | Path | Roots | None,
    runs: Sequence[str | Path | Run] = (),
    progress: ProgressCallback | None = None,
) -> DataAudit:
    """Audits a data set; the result does not depend on the order of the rows.

    Args:
        faces: A faces table. Impossible ages are allowed here: they are reported.
        root: The root of the images, see `mien.data.roots.open_root`; None checks the metadata only.
        runs: Finished runs on these faces; together their test parts should cover all faces, as folds do.
        progress: Called with the number of images done and the total.

    Raises:
        MienError: The table is empty or invalid, `root` holds none of its images, or a run cannot be used (see
            `label_errors.out_of_fold`).
    """
    table, impossible = findings.take_out_impossible_ages(faces)
    table = check_faces(table)
    if table.empty:
        raise MienError("a faces table without rows has nothing to audit")
    home = None if root is None else open_root(root)
    opened = [open_run(run) for run in runs]
    images = None if home is None else inspect_images(table, home, progress)
    groups = None if images is None else images.groups
    predictions = label_errors.out_of_fold(table, opened, groups) if opened else None
    measured, outlier_scores = _measure_images(table, home, progress)
    results = [
        findings.leaks(table, groups),
        findings.duplicates(table, images),
        findings.subjects(table),
        findings.ages(table, impossible),
        findings.image_checks(table, measured, outlier_scores),
        findings.balance(table),
        _label_errors(table, predictions),
    ]
    checks = [check for part in results for check in part.checks]
    tables = {name: rows for part in results for name, rows in part.tables.items()}
    return DataAudit(_report(table, images, checks, tables, predictions), table, tables, images, home, outlier_scores)


def _measure_images(faces: pd.DataFrame, home: Root | None, progress: ProgressCallback | None) -> tuple[Any, Any]:
    if home is None:
        return None, None
    measured, thumbnails = image_quality.measure(faces, home, progress)
    return measured, image_quality.outlier_scores(measured, thumbnails)


def _label_errors(faces: pd.DataFrame, predictions: OutOfFold | None) -> findings.CheckResult:
    """Suggestions are notices at most: a model that disagrees with a label may be wrong."""
    if predictions is None:
        why = "Label errors need out-of-fold predictions: no --run was given."
        return findings.CheckResult([not_checked("labels", why)], {})
    found = label_errors.agreement(faces, predictions.predictions)
    # A model that a constant answer beats says nothing about single labels.
    weak = {column: score for column, score in found.items() if score.versus_baseline != "better"}
    checks = [not_checked(f"labels.{column}", _too_weak(column, score)) for column, score in weak.items()]
    suggested = label_errors.suggest(faces, predictions.predictions)
    suggested = suggested[~suggested["column"].isin(list(weak))].reset_index(drop=True)
    ranges = faces["age_from"].notna() & predictions.predictions["age"].notna()
    given = {
        "gender": faces["gender"].notna(),
        "age": faces["age"].notna() | ranges,
        "age_group": faces["age_group"].notna() & faces["age"].isna() & ~ranges,
    }
    for column, numbers in (("gender", "p_female"), ("age", "age"), ("age_group", "p_0-2")):
        if column in weak:
            continue
        labelled = given[column] & predictions.predictions[numbers].notna()
        if not labelled.any():
            continue
        rows = suggested[suggested["column"] == column]
        flagged = int(rows["flagged"].sum())
        message = (
            f"{len(rows):,} of {int(labelled.sum()):,} labels of {column} contradict out-of-fold predictions, "
            f"{flagged:,} of them clearly (flagged).{_precision(found.get(column))}"
        )
        example = str(rows["face"].iloc[0]) if len(rows) else None
        checks.append(count_check("notice", f"labels.{column}", message, flagged, int(labelled.sum()), example))
    without = int((predictions.predictions["runs"] == 0).sum())
    message = f"{without:,} faces have no out-of-fold prediction: their labels were not checked."
    checks.append(count_check("notice", "labels.unseen", message, without, len(faces)))
    return findings.CheckResult(checks, {"suggestions": suggested, "runs": predictions.used})


def _too_weak(column: str, score: Score) -> str:
    value = with_interval(score.metric, score.value, score.low, score.high, unit=True)
    return (
        f"Labels of {column} were not checked: out-of-fold predictions are {verdict(score) or 'without a baseline'} "
        f"({named(score.metric, unit=False)} {value}, baseline {number(score.metric, score.baseline, unit=True)}, "
        f"n {score.n:,})."
    )


def _precision(score: Score | None) -> str:
    """What share of the contradictions to expect to be label errors; empty for ages, whose errors have no classes."""
    if score is None or METRICS[score.metric].truth in ("true_age", "true_age_range"):
        return ""
    low, high = (label_errors.expected_precision(score.value, wrong) for wrong in (0.01, 0.05))
    return (
        f" The predictions agree with {score.value:.1%} of the labels: of the contradictions, about {low:.0%} are "
        f"label errors if 1% of the labels are wrong, {high:.0%} if 5% are."
    )


def _report(
    faces: pd.DataFrame,
    images: Images | None,
    checks: list[Check],
    tables: dict[str, pd.DataFrame],
    predictions: OutOfFold | None,
) -> DataAuditReport:
    suggested = tables.get("suggestions", pd.DataFrame(columns=["column", "flagged"]))
    return DataAuditReport(
        mien=__version__,
        summary=summary(faces, checks),
        passed=all_passed(checks),
        data=DatasetInfo(
            datasets=sorted(map(str, faces["dataset"].unique())),
            faces=len(faces),
            subjects=faces.groupby(["dataset", "subject"]).ngroups or None,
            images=None if images is None else len(images.files),
        ),
        checks=checks,
        suggestions=[
            SuggestionCounts(column=column, suggested=len(rows), flagged=int(rows["flagged"].sum()))
            for column, rows in suggested.groupby("column", sort=False)
        ],
        runs=[]
        if predictions is None
        else [RunUsage.model_validate(row) for row in predictions.used.to_dict("records")],
    )
