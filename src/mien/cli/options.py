"""Arguments and options that several verbs share, and what to do when one is interrupted."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from mien.base.errors import MienError

Recipe = Annotated[str, typer.Argument(help="Name of a recipe (see mien recipes), or a YAML file.")]
Run = Annotated[str, typer.Argument(help="Folder of a finished run or a published model, or hub:OWNER/NAME.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, for example optim.lr=0.01; repeatable."),
]
Crops = Annotated[bool, typer.Option("--crops", help="Each image is a cropped face; no faces are detected.")]
Model = Annotated[
    str | None, typer.Option(help="A run, a model file or hub:OWNER/NAME; default: the model that ships with mien.")
]
Detector = Annotated[
    str | None,
    typer.Option(help="Face detector: mien (default), centerface, dlib, FILE.onnx or hub:OWNER/NAME/FILE.onnx."),
]
MinFace = Annotated[
    float | None,
    typer.Option(metavar="PIXELS", help="Find faces from this size on, more slowly; default: 1/30 of the longer side."),
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; default: one per core.")]
Root = Annotated[Path | None, typer.Option(help="Folder that the paths of the faces table are relative to.")]
Map = Annotated[
    list[str] | None,
    typer.Option(
        metavar="THEIRS=OURS", help="Rename a column (sex=gender) or state a value (gender.0=male); repeatable."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier report in --out.")]


@contextmanager
def interruptible(resumable: bool = True) -> Iterator[None]:
    """Ends a verb that the user interrupts with one message and exit status 130."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"mien: interrupted{'; rerun the same command to resume' if resumable else ''}", file=sys.stderr)
        raise typer.Exit(130) from None


def column_pairs(items: list[str] | None) -> dict[str, str]:
    """The columns that `--map theirs=ours` names."""
    found: dict[str, str] = {}
    for item in items or ():
        theirs, equals, ours = item.partition("=")
        if not (theirs and equals and ours):
            raise MienError(f"--map {item!r}: must be theirs=ours, for example --map pred_age=age")
        if theirs in found:
            raise MienError(f"--map: column {theirs!r} is mapped twice, to {found[theirs]!r} and {ours!r}")
        found[theirs] = ours
    return found
