"""`mien audit`: thin verbs, each of which imports what it needs when it is called."""

from pathlib import Path
from typing import Annotated

import typer

from mien.errors import MienError

audit_app = typer.Typer(
    name="audit",
    help="For whom does a model fail, and is the data sound? One report, and JSON for a pipeline.",
    no_args_is_help=True,
)


@audit_app.callback()
def _audit() -> None:
    """For whom does a model fail, and is the data sound? One report, and JSON for a pipeline."""


@audit_app.command(epilog="Example: mien audit model predictions.csv --faces faces.parquet --out audit")
def model(
    predictions: Annotated[list[Path], typer.Argument(help="mien's predictions or any table; several make one.")],
    faces: Annotated[Path, typer.Option(help="The truth: a faces table.")],
    map: Annotated[
        list[str] | None, typer.Option(metavar="THEIRS=OURS", help="Their column and mien's; repeatable.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Names and values of deepface or insightface.")] = None,
    by: Annotated[str, typer.Option(help="Columns that make groups.")] = "gender,age_group,race",
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.json and the tables.")] = Path("audit"),
) -> None:
    """Say for whom a model fails: this one or any other, by its predictions and the truth."""
    from mien.audit.model import audit_model
    from mien.table import read_faces_table

    columns = [column.strip() for column in by.split(",") if column.strip()]
    audit_model(list(predictions), read_faces_table(faces), columns, out, map=pairs(map), preset=preset)
    print(f"report: {out / 'report.json'}")


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
