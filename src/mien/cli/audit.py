"""`mien audit model`, `mien audit data`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.cli.options import Map, Overwrite, column_pairs

if TYPE_CHECKING:
    from mien.audit.model.schema import LimitVerdict

app = typer.Typer(
    name="audit",
    help="Audit a model or a data set: for whom does a model fail, and is the data sound?",
    no_args_is_help=True,
)


@app.callback()
def _audit() -> None:
    """Audit a model or a data set: for whom does a model fail, and is the data sound?"""


@app.command("model", epilog="Example: mien audit model predictions.csv --faces faces.parquet --out audit")
def model_(
    predictions: Annotated[
        list[Path],
        typer.Argument(help="Predictions of mien or of any program, several files make one table; or a run."),
    ],
    faces: Annotated[
        Path | None, typer.Option(help="The labels: a faces table; default: those of the run's test part.")
    ] = None,
    map: Map = None,
    preset: Annotated[str | None, typer.Option(help="Column names and values of deepface or insightface.")] = None,
    by: Annotated[
        str | None, typer.Option(help="Columns that make groups; default: gender, age_group and race if there.")
    ] = None,
    limits: Annotated[Path | None, typer.Option(help="YAML file of limits to keep; the exit status follows.")] = None,
    against: Annotated[Path | None, typer.Option(help="Predictions of another model, to compare with.")] = None,
    against_preset: Annotated[str | None, typer.Option(help="Preset of the other model.")] = None,
    child_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Share of children who may be predicted adult, for age thresholds.")
    ] = 0.05,
    root: Annotated[
        Path | None,
        typer.Option(help="Folder of the faces' images, or a run: also evaluate on degraded copies of them."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="With --root: the model of the predictions; default: the one that ships."),
    ] = None,
    sample: Annotated[int, typer.Option(min=2, help="With --root: largest number of degraded faces.")] = 400,
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.json and the tables.")] = Path("audit"),
    overwrite: Overwrite = False,
) -> None:
    """Find for whom a model fails, from its predictions and the labels.

    Exit status: 0 without limits or where all hold, 3 where one fails.
    """
    from mien.api.audit import audit_model
    from mien.base.console import console

    report = audit_model(
        list(predictions),
        faces,
        map=column_pairs(map),
        preset=preset,
        by=by,
        limits=limits,
        against=against,
        against_preset=against_preset,
        child_rate=child_rate,
        root=root,
        model=model,
        sample=sample,
        out=out,
        overwrite=overwrite,
    )
    console.print(report.summary, highlight=False, soft_wrap=True, markup=False)
    for verdict in report.limits:
        console.print(_line(verdict), highlight=False, soft_wrap=True, markup=False)
    console.print(f"report: {out / 'report.html'}", highlight=False, soft_wrap=True, markup=False)
    if report.passed is False:
        raise typer.Exit(3)


def _line(verdict: "LimitVerdict") -> str:
    """A verdict in one line."""
    measured = "no value" if verdict.measured.value is None else f"{verdict.measured.value:.3f}"
    excess = f", violated by {verdict.excess:.3f}" if not verdict.passed and verdict.excess is not None else ""
    note = f"; {verdict.problem}" if verdict.problem else "" if verdict.conclusive else "; inconclusive"
    result = "pass" if verdict.passed else "FAIL"
    limit = f"{verdict.limit} {verdict.direction} {verdict.allowed:g}"
    return f"{result}: {limit}: {measured} ({verdict.scope}, n {verdict.n:,}){excess}{note}"


@app.command(epilog="Example: mien audit data faces.parquet --root photos --run runs/fold-0 --run runs/fold-1")
def data(
    faces: Annotated[Path, typer.Argument(help="A faces table.")],
    root: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the images, or a run for those of its data sets; default: only the table is read."
        ),
    ] = None,
    run: Annotated[
        list[str] | None, typer.Option(help="Finished run on these faces, to find likely label errors; repeatable.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.json, review.html and tables.")] = Path(
        "audit-data"
    ),
    sheet: Annotated[
        int, typer.Option(min=1, help="Largest number of suggestions of each label in review.html.")
    ] = 1000,
    overwrite: Overwrite = False,
) -> None:
    """Find what is wrong with a data set: leaks, duplicates, contradictions, bad images, likely label errors.

    Exit status: 0 when results on it can be trusted, 3 when a problem was found. (mien eda shows a data set and
    evaluates nothing.)
    """
    from mien.api.audit import audit_data
    from mien.base.console import console

    report = audit_data(faces, root, run or (), out, sheet, overwrite)
    for check in report.checks:
        if check.level in ("problem", "notice"):
            console.print(f"{check.level}: {check.message}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"report: {out / 'report.html'}", highlight=False, soft_wrap=True, markup=False)
    if not report.passed:
        raise typer.Exit(3)
