"""`mien audit`: thin verbs, each of which imports what it needs when it is called."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.base.atomic import check_folder
from mien.base.errors import MienError

if TYPE_CHECKING:
    import pandas as pd

    from mien.audit.model.robustness import Robustness
    from mien.audit.model.schema import LimitVerdict
    from mien.base.progress import ProgressCallback

audit_app = typer.Typer(
    name="audit",
    help="For whom does a model fail, and is the data sound? One report, and JSON for a pipeline.",
    no_args_is_help=True,
)


@audit_app.callback()
def _audit() -> None:
    """For whom does a model fail, and is the data sound? One report, and JSON for a pipeline."""


@audit_app.command("model", epilog="Example: mien audit model predictions.csv --faces faces.parquet --out audit")
def audit_a_model(
    predictions: Annotated[list[Path], typer.Argument(help="mien's predictions or any table; several make one.")],
    faces: Annotated[Path, typer.Option(help="The truth: a faces table.")],
    map: Annotated[
        list[str] | None, typer.Option(metavar="THEIRS=OURS", help="Their column and mien's; repeatable.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Names and values of deepface or insightface.")] = None,
    by: Annotated[
        str | None, typer.Option(help="Columns that make groups; default: gender, age_group and race, where there.")
    ] = None,
    limits: Annotated[Path | None, typer.Option(help="YAML of what must hold, for a pass or fail.")] = None,
    against: Annotated[Path | None, typer.Option(help="Predictions of another model, to compare.")] = None,
    against_preset: Annotated[str | None, typer.Option(help="The other's preset.")] = None,
    child_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Share of children who may be taken for adults, for the thresholds.")
    ] = 0.05,
    root: Annotated[
        Path | None, typer.Option(help="The faces' folder: then the model is asked about worse pictures, too.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="With --root: what made the predictions; default: the shipped model.")
    ] = None,
    sample: Annotated[int, typer.Option(min=2, help="With --root: faces that are made worse, at most.")] = 400,
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.json and the tables.")] = Path("audit"),
) -> None:
    """Say for whom a model fails: this one or any other, by its predictions and the truth.

    Exit status: 0 without limits or where all hold, 3 where one fails.
    """
    from mien.audit.model.audit import Settings
    from mien.audit.model.limits import read_limits
    from mien.base.console import console, progress
    from mien.base.table import read_faces_table
    from mien.verbs.audit import audit_model

    check_folder(out)
    if root is not None and (preset or map):
        raise MienError("--root asks a model of mien's about worse pictures; --map and --preset are for others")
    if root is None and model is not None:
        raise MienError("--model belongs to --root, which was not given")
    settings = Settings(read_limits(limits) if limits else None, child_rate)
    truth = read_faces_table(faces)
    with progress("making faces worse") as update:
        report = audit_model(
            list(predictions),
            truth,
            None if by is None else [column.strip() for column in by.split(",") if column.strip()],
            out,
            map=pairs(map),
            preset=preset,
            against=against,
            against_preset=against_preset,
            robustness=_robustness(truth, root, model, sample, update),
            settings=settings,
        )
    console.print(report.summary, highlight=False, soft_wrap=True, markup=False)
    for one in report.limits:
        console.print(in_words(one), highlight=False, soft_wrap=True, markup=False)
    console.print(f"report: {out / 'report.html'}", highlight=False, soft_wrap=True, markup=False)
    if report.passed is False:
        raise typer.Exit(3)


def _robustness(
    faces: "pd.DataFrame", root: Path | None, model: str | None, sample: int, update: "ProgressCallback"
) -> "Robustness | None":
    """What to ask of worse pictures, where the folder of the pictures is given."""
    if root is None:
        return None
    from mien.audit.model.robustness import Robustness
    from mien.prediction.predict import Predictor

    return Robustness(Predictor(model), faces, root, sample, update)


def in_words(one: "LimitVerdict") -> str:
    """A verdict in a line."""
    found = "nothing" if one.found.value is None else f"{one.found.value:.3f}"
    missed = f", missed by {one.beyond:.3f}" if not one.passed and one.beyond is not None else ""
    told = "" if one.sure else "; the data does not suffice to tell"
    result = "pass" if one.passed else "FAIL"
    return f"{result}: {one.limit} {one.direction} {one.allowed:g}: {found} ({one.where}){missed}{told}"


@audit_app.command(epilog="Example: mien audit data faces.parquet --root photos --run runs/fold-0 --run runs/fold-1")
def data(
    faces: Annotated[Path, typer.Argument(help="A faces table.")],
    root: Annotated[Path | None, typer.Option(help="Folder of the images; without it, metadata alone.")] = None,
    run: Annotated[
        list[str] | None, typer.Option(help="A finished run on these faces, for likely label errors; repeatable.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.json, review.html and tables.")] = Path(
        "audit-data"
    ),
    sheet: Annotated[int, typer.Option(min=1, help="Suggestions of each label in review.html, at most.")] = 1000,
) -> None:
    """Say whether a data set is sound: leaks, duplicates, contradictions, bad pictures, likely label errors.

    Exit status: 0 when it is, 3 when a problem was found that makes results on it untrustworthy. (mien eda looks, and
    judges nothing.)
    """
    from mien.base.console import console, progress
    from mien.base.table import read_table
    from mien.verbs.audit import audit_data

    with progress("looking at images") as update:
        report = audit_data(read_table(faces), root, run or (), out, sheet, update)
    for check in report.checks:
        if check.level in ("problem", "notice"):
            console.print(f"{check.level}: {check.says}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"report: {out / 'report.html'}", highlight=False, soft_wrap=True, markup=False)
    if not report.passed:
        raise typer.Exit(3)


def pairs(items: list[str] | None) -> dict[str, str]:
    """The columns that `--map theirs=ours` names."""
    found: dict[str, str] = {}
    for item in items or ():
        theirs, equals, ours = item.partition("=")
        if not (theirs and equals and ours):
            raise MienError(f"--map {item!r}: must be theirs=ours, for instance --map pred_age=age")
        if theirs in found:
            raise MienError(f"--map: column {theirs!r} is mapped twice, to {found[theirs]!r} and {ours!r}")
        found[theirs] = ours
    return found
