"""The program `mien`: its verbs, and how a mistake of the user ends it."""

import errno
import io
import sys
import warnings
from typing import Annotated, Any

import typer

from mien.base.errors import MienError, printable
from mien.cli import audit, data, prediction, training

app = typer.Typer(
    name="mien",
    help="Train, compare, explain and ship classifiers of perceived gender and age from photographs of faces.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for family in (prediction.app, data.app, training.app):
    app.add_typer(family)
app.add_typer(audit.app, name="audit")


def _version(value: bool) -> None:
    if value:
        from mien.base.version import __version__

        print(f"mien {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> Any:
    """Runs a verb; a mistake of the user ends in one message and status 1."""
    # The status of a damaged image states what is wrong with it; the decoder's warning adds nothing.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file name may hold characters that the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return app(args=arguments)
    except MienError as error:
        words = str(error)
    except OSError as error:  # no permission, no space, a name that is too long
        place = f": {str(error.filename)!r}" if error.filename else ""
        words = f"{error.strerror}{place}" if error.strerror else str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            words = f"a disk is full{place}; free some space and rerun the same command"
    print("mien:", printable(words, keep="\n"), file=sys.stderr)
    raise SystemExit(1)
