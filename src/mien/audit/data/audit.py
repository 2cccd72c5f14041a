"""The audit of a data set: what is wrong with it before anything is trained on it, and whether that is serious."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mien import __version__
from mien.audit.data import findings, label_errors, pictures
from mien.audit.data.checks import Check, any_is, not_checked, sound
from mien.audit.data.label_errors import OutOfFold
from mien.audit.data.schema import Data, DataReport, RunUsed, Suggested
from mien.audit.data.words import lead
from mien.base.errors import MienError
from mien.base.progress import ProgressCallback
from mien.base.table import check_faces
from mien.data.inspect import Images, inspect_images
from mien.data.sources import data_root
from mien.runs.run import Run, open_run


@dataclass(frozen=True)
class DataAudit:
    """An audit of a data set: what `report.json` holds, and the tables and pictures behind it.

    Attributes:
        report: The checks and their verdicts.
        faces: The faces in the order of their ids.
        tables: One for each kind of finding, by the name of its file.
        images: The files and their near-duplicates; None without a root.
        root: The folder of the images.
        outliers: (n,) how unlike the others each picture is; None without a root.
    """

    report: DataReport
    faces: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    images: Images | None
    root: Path | None
    outliers: pd.Series | None


def audit_faces(
    faces: pd.DataFrame,
    root: str | Path | None,
    runs: Sequence[str | Path | Run] = (),
    progress: ProgressCallback | None = None,
) -> DataAudit:
    """Audits a data set; the order of the rows changes nothing.

    Args:
        faces: A faces table. Unlike elsewhere, its ages may be impossible: they are reported.
        root: The folder that the paths are relative to; None: metadata alone.
        runs: Finished runs on these faces; together their test parts should hold every face, as those of folds do.
        progress: Told how many of the pictures are done.

    Raises:
        MienError: The table has no rows or breaks its contract in another way, no image is under `root`, or a run
            cannot be used (see `label_errors.out_of_fold`).
    """
    table, impossible = findings.take_out_impossible_ages(faces)
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
        findings.leaks(table, groups),
        findings.duplicates(table, images),
        findings.subjects(table),
        findings.ages(table, impossible),
        findings.pictures_of(table, measured, apart),
        findings.balance(table),
        _label_errors(table, answers),
    ]
    checks = [check for part in found for check in part.checks]
    tables = {name: rows for part in found for name, rows in part.tables.items()}
    return DataAudit(_report(table, images, checks, tables, answers), table, tables, images, home, apart)


def _measured(faces: pd.DataFrame, home: Path | None, progress: ProgressCallback | None) -> tuple[Any, Any]:
    if home is None:
        return None, None
    measured, thumbnails = pictures.measure(faces, home, progress)
    return measured, pictures.outliers(measured, thumbnails)


def _label_errors(faces: pd.DataFrame, answers: OutOfFold | None) -> findings.Found:
    """Suggestions are never a problem by themselves: a model that disagrees with a label may be wrong."""
    if answers is None:
        why = "Likely label errors were not looked for: no --run with predictions of faces that it did not train on."
        return findings.Found([not_checked("labels", why)], {})
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
    return findings.Found(checks, {"suggestions": suggested, "runs": answers.used})


def _report(
    faces: pd.DataFrame,
    images: Images | None,
    checks: list[Check],
    tables: dict[str, pd.DataFrame],
    answers: OutOfFold | None,
) -> DataReport:
    suggested = tables.get("suggestions", pd.DataFrame(columns=["column", "flagged"]))
    return DataReport(
        mien=__version__,
        summary=lead(faces, checks),
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
