"""`mien draw`, `mien faces`, `mien eda`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mien.cli.options import Map, column_pairs
from mien.data.source_names import SOURCE_NAMES

app = typer.Typer()


@app.command(epilog="Example: mien draw demo/adience --layout adience --seed 0")
def draw(
    root: Annotated[Path, typer.Argument(help="Folder to write; it must be new, or hold an earlier drawing.")],
    layout: Annotated[str, typer.Option(help="Layout of the files: adience or celeba.")] = "adience",
    seed: Annotated[int, typer.Option(help="Another seed draws other faces.")] = 0,
) -> None:
    """Draw demonstration faces. They show that the software works and say nothing about people."""
    from mien.api.data import draw
    from mien.base.console import console

    counts = draw(root, layout, seed)
    console.print(f"{root}: {', '.join(f'{count} {name}' for name, count in counts.items())}", highlight=False)


@app.command(epilog="Example: mien faces adience ~/adience --labels exact --out adience.parquet")
def faces(
    source: Annotated[str, typer.Argument(help=f"Data set: {', '.join(SOURCE_NAMES)}.")],
    path: Annotated[
        Path, typer.Argument(help="Folder of the data set; csv: a table, or a folder with one folder per class.")
    ],
    labels: Annotated[
        str | None, typer.Option(help="Label policy of the data set; an unknown name lists all of them.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Faces table to write, .parquet or .csv.")] = Path("faces.parquet"),
    root: Annotated[
        Path | None, typer.Option(help="csv: folder that the table's paths are relative to; default: its own folder.")
    ] = None,
    map: Map = None,
    corrections: Annotated[
        Path | None, typer.Option(help="CSV of corrected labels: face, column, old, new, why.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the ledger as JSON.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")] = False,
) -> None:
    """Read a data set into the faces table, and report what became of every row."""
    from mien.api.data import faces
    from mien.base.console import console, show_ledger

    table = faces(
        source,
        path,
        labels,
        root=root,
        map=column_pairs(map),
        corrections=corrections,
        out=out,
        overwrite=overwrite,
    )
    ledger = table.attrs["ledger"]
    if as_json:
        print(json.dumps(ledger | {"out": str(out)}, indent=2))
    else:
        show_ledger(ledger)
        console.print(f"{len(table)} faces in {out}", highlight=False)


@app.command(epilog="Example: mien eda faces.parquet --root ~/adience --out eda")
def eda(
    faces: Annotated[Path, typer.Argument(help="A faces table.")],
    root: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the images, or a run for those of its data sets; default: only the table is read."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the report and its tables.")] = Path("eda"),
) -> None:
    """Explore a data set: labels, image sizes, duplicates and leaks, as one HTML report."""
    from mien.api.data import eda
    from mien.base.console import console

    console.print(f"report: {eda(faces, root, out)}", highlight=False)
