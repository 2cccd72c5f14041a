"""The audit of a data set: what is wrong with it before anything is trained on it, and whether that is serious."""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from mien.atomic import atomic_path
from mien.audit import data_checks, data_report, label_errors, pictures
from mien.audit.checks import Check, any_is, not_checked, sound
from mien.audit.data_schema import Data, DataReport, RunUsed, Suggested
from mien.audit.label_errors import OutOfFold
from mien.audit.review import SHEET, write_review
from mien.datasets import data_root
from mien.errors import MienError
from mien.pixels import Progress
from mien.reports.eda import Images, inspect_images
from mien.run import Run, open_run
from mien.table import check_faces, write_table


def audit_data(
    faces: pd.DataFrame,
    root: str | Path | None,
    runs: Sequence[str | Path | Run] = (),
    out: str | Path = "audit-data",
    sheet: int = SHEET,
    progress: Progress | None = None,
) -> DataReport:
    """Audits a data set and writes `report.html`, `report.json` and its tables; with runs `review.html` too.

    The order of the rows changes nothing.

    Args:
        faces: A faces table. Unlike elsewhere, its ages may be impossible: they are reported.
        root: The folder that the paths are relative to; None: metadata alone.
        runs: Finished runs on these faces; together their test parts should hold every face, as those of folds do.
        out: The folder to write to.
        sheet: How many suggestions of each column `review.html` shows.
        progress: Told how many of the pictures are done.

    Returns:
        What `report.json` holds.

    Raises:
        MienError: The table has no rows or breaks its contract in another way, no image is under `root`, `out` is a
            file, or a run cannot be used (see `label_errors.out_of_fold`).
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise MienError(f"--out {str(out)!r} is a file; give a folder")
    table, impossible = data_checks.take_out_impossible_ages(faces)
    table = check_faces(table)
    if table.empty:
        raise MienError("a faces table without rows has nothing to audit")
    home = None if root is None else data_root(root)
    opened = [open_run(run) for run in runs]
    images = None if home is None else inspect_images(table, home, progress)
    groups = None if images is None else images.groups
    answers = label_errors.out_of_fold(table, opened, groups) if opened else None
    measured, apart = _measured(table, home, progress)
    found = [
        data_checks.leaks(table, groups),
        data_checks.duplicates(table, images),
        data_checks.subjects(table),
        data_checks.ages(table, impossible),
        data_checks.pictures_of(table, measured, apart),
        data_checks.balance(table),
        _label_errors(table, answers),
    ]
    checks = [check for part in found for check in part.checks]
    tables = {name: rows for part in found for name, rows in part.tables.items()}
    report = _report(table, images, checks, tables, answers)
    _write(report, table, tables, images, home, apart, out, sheet)
    return report


def _measured(faces: pd.DataFrame, home: Path | None, progress: Progress | None) -> tuple[Any, Any]:
    if home is None:
        return None, None
    measured, thumbnails = pictures.measure(faces, home, progress)
    return measured, pictures.outliers(measured, thumbnails)


def _label_errors(faces: pd.DataFrame, answers: OutOfFold | None) -> data_checks.Found:
    """Suggestions are never a problem by themselves: a model that disagrees with a label may be wrong."""
    if answers is None:
        why = "Likely label errors were not looked for: no --run with predictions of faces that it did not train on."
        return data_checks.Found([not_checked("labels", why)], {})
    suggested = label_errors.suggest(faces, answers.answers)
    checks = []
    for column, numbers in (("gender", "p_female"), ("age", "age"), ("age_group", "p_0-2")):
        labelled = faces[column].notna() & answers.answers[numbers].notna()
        if column == "age_group":
            labelled &= faces["age"].isna()
        if not labelled.any():
            continue
        rows = suggested[suggested["column"] == column]
        flagged = int(rows["flagged"].sum())
        says = (
            f"{len(rows):,} of {int(labelled.sum()):,} labels of {column} contradict out-of-fold predictions, "
            f"{flagged:,} of them so clearly that they are flagged."
        )
        example = str(rows["face"].iloc[0]) if len(rows) else None
        checks.append(any_is("notice", f"labels.{column}", says, flagged, int(labelled.sum()), example))
    without = int((answers.answers["runs"] == 0).sum())
    says = f"{without:,} faces have no out-of-fold prediction: of their labels nothing is said."
    checks.append(any_is("notice", "labels.unseen", says, without, len(faces)))
    return data_checks.Found(checks, {"suggestions": suggested, "runs": answers.used})


def _report(
    faces: pd.DataFrame,
    images: Images | None,
    checks: list[Check],
    tables: dict[str, pd.DataFrame],
    answers: OutOfFold | None,
) -> DataReport:
    suggested = tables.get("suggestions", pd.DataFrame(columns=["column", "flagged"]))
    return DataReport(
        mien=metadata.version("mien"),
        summary=data_report.lead(faces, checks),
        passed=sound(checks),
        data=Data(
            datasets=sorted(map(str, faces["dataset"].unique())),
            faces=len(faces),
            subjects=faces.groupby(["dataset", "subject"]).ngroups or None,
            images=None if images is None else len(images.files),
        ),
        checks=checks,
        suggestions=[
            Suggested(column=column, suggested=len(rows), flagged=int(rows["flagged"].sum()))
            for column, rows in suggested.groupby("column", sort=False)
        ],
        runs=[] if answers is None else [RunUsed.model_validate(row) for row in answers.used.to_dict("records")],
    )


def _write(
    report: DataReport,
    faces: pd.DataFrame,
    tables: dict[str, pd.DataFrame],
    images: Images | None,
    home: Path | None,
    apart: pd.Series | None,
    out: Path,
    sheet: int,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    suggested = tables.get("suggestions")
    reviewed = 0
    if suggested is not None and home is not None:
        reviewed = write_review(faces, suggested, home, out / "review.html", sheet)
    checks = pd.DataFrame([check.model_dump() for check in report.checks])
    for name, rows in {"checks": checks, **tables}.items():
        write_table(rows, out / f"{name}.csv")
    data_report.write(report, faces, tables, images, home, apart, reviewed, out / "report.html")
    with atomic_path(out / "report.json") as part:
        part.write_text(report.to_json(), "utf-8")
