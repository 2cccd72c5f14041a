"""Audits of a model and of a data set: compute the audit, then write its report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mien.api.arguments import PathLike, as_columns, as_faces, as_list
from mien.base.errors import MienError

if TYPE_CHECKING:
    import pandas as pd

    from mien.audit.data.schema import DataAuditReport
    from mien.audit.model.inputs import PredictionsInput
    from mien.audit.model.robustness import RobustnessTest
    from mien.audit.model.schema import ModelAuditReport
    from mien.base.progress import ProgressCallback
    from mien.prediction.predict import Predictor
    from mien.runs.run import Run


def audit_model(
    predictions: "PredictionsInput",
    faces: "pd.DataFrame | PathLike | None" = None,
    *,
    map: Mapping[str, str] | None = None,
    preset: str | None = None,
    by: str | Sequence[str] | None = None,
    limits: PathLike | None = None,
    against: "PredictionsInput | None" = None,
    against_preset: str | None = None,
    child_rate: float = 0.05,
    root: PathLike | None = None,
    model: "PathLike | Predictor | None" = None,
    sample: int = 400,
    out: PathLike | None = None,
    overwrite: bool = False,
) -> "ModelAuditReport":
    """Finds for whom a model fails, from its predictions and the labels; any program's predictions can be audited.

    Args:
        predictions: A predictions table, its file, or several files that make one table; or the folder of a run, whose
            test part is audited.
        faces: The labels: a faces table, or its file; None for a run, which has them.
        map: Columns of the predictions and mien's columns that they stand for.
        preset: Column names and values of "deepface" or "insightface".
        by: Columns that make groups; None: gender, age_group and race, as far as the faces have them.
        limits: YAML file of limits that the model must keep.
        against: Predictions of another model for the same faces, to compare with.
        against_preset: Preset of the other model.
        child_rate: Share of children who may be predicted to be adults, for the choice of age thresholds.
        root: Folder of the faces' images: the model is then evaluated on degraded copies of them too.
        model: With `root`: what made the predictions; None: the model that ships with mien.
        sample: With `root`: largest number of faces that are degraded.
        out: Folder for report.html, report.json and the tables; None: nothing is written.
        overwrite: Replace an earlier report in `out`.

    Returns:
        The audit, as in report.json; `passed` is None without limits.

    Raises:
        MienError: The predictions cannot be read or do not match the faces, a column is missing, or `out` has a report.
    """
    from mien.audit.model.audit import AuditSettings, audit_predictions
    from mien.audit.model.limits import read_limits
    from mien.base.atomic import check_folder
    from mien.base.console import progress
    from mien.reports.audit_model import write

    if out is not None:
        check_folder(out)
        _check_replaced(out, overwrite)
    if root is not None and (preset or map):
        raise MienError("--root evaluates a model of mien's on degraded images; --map and --preset are for others")
    if root is None and model is not None:
        raise MienError("--model belongs to --root, which was not given")
    if faces is None:
        predictions, faces = _test_part(predictions)
    table = as_faces(faces)
    settings = AuditSettings(None if limits is None else read_limits(Path(limits)), child_rate)
    with progress("predicting degraded images") as update:
        report = audit_predictions(
            predictions,
            table,
            as_columns(by),
            map=map,
            preset=preset,
            against=against,
            against_preset=against_preset,
            robustness=None if root is None else _robustness(table, root, model, sample, update),
            settings=settings,
        )
    if out is not None:
        write(report, out)
    return report


def _test_part(given: "PredictionsInput") -> "tuple[pd.DataFrame, pd.DataFrame]":
    """The predictions and the faces of a run's test part."""
    from mien.runs.run import open_run

    folders = [given] if isinstance(given, str | Path) else [] if hasattr(given, "columns") else list(given)
    if len(folders) != 1 or not Path(folders[0]).is_dir():
        raise MienError("--faces is needed: the labels of the predictions; only the folder of a run has them")
    run = open_run(folders[0])
    test = run.faces[run.faces["split"] == "test"].reset_index(drop=True)
    predictions = run.predictions
    return predictions[predictions["face"].isin(test["face"])].drop(columns="file", errors="ignore"), test


def _robustness(
    faces: "pd.DataFrame", root: PathLike, model: Any, sample: int, update: "ProgressCallback"
) -> "RobustnessTest":
    from mien.audit.model.robustness import RobustnessTest
    from mien.prediction.predict import Predictor

    return RobustnessTest(model if isinstance(model, Predictor) else Predictor(model), faces, root, sample, update)


def _check_replaced(out: PathLike, overwrite: bool) -> None:
    if (Path(out) / "report.html").exists() and not overwrite:
        raise MienError(f"--out {str(out)!r} has an earlier report; give another folder, or --overwrite")


def audit_data(
    faces: "pd.DataFrame | PathLike",
    root: PathLike | None = None,
    run: "PathLike | Run | Sequence[PathLike | Run]" = (),
    out: PathLike = "audit-data",
    sheet: int = 1000,
    overwrite: bool = False,
) -> "DataAuditReport":
    """Finds what is wrong with a data set: leaks, duplicates, contradictions, bad images, likely label errors.

    Args:
        faces: A faces table, or its file. Unlike elsewhere its ages may be impossible: they are reported.
        root: Folder that its paths are relative to, or a run for those of its data sets; None: the images are not
            looked at.
        run: Finished runs on these faces, to find likely label errors; together their test parts should cover every
            face, as those of cross-validation folds do.
        out: Folder for report.html, report.json and the tables; with runs also review.html, to correct labels.
        sheet: Largest number of suggestions of each label in review.html.
        overwrite: Replace an earlier report in `out`.

    Returns:
        The audit, as in report.json; `passed` is False where results on this data set cannot be trusted.

    Raises:
        MienError: The table has no rows or breaks its contract, no image is under `root`, a run cannot be used, or
            `out` has a report.
    """
    from mien.audit.data.audit import audit_faces
    from mien.base.atomic import check_folder
    from mien.base.console import progress
    from mien.base.table import read_table
    from mien.reports.audit_data import write

    check_folder(out)
    _check_replaced(out, overwrite)
    table = read_table(Path(faces)) if isinstance(faces, str | Path) else faces
    with progress("reading images") as update:
        audit = audit_faces(table, root, as_list(run), update)
    write(audit, out, sheet)
    return audit.report
