"""Everything that mien prints: notes and tables to standard output, progress to standard error.

Results of commands and notes (one line each, for example the path of a report) go to standard output. Progress goes to
standard error, so that redirected output contains no progress: as a bar where both are terminals, otherwise as a line
every ten seconds.

The environment variable MIEN_QUIET=1, or the context manager `quiet`, switches all of it off. Errors are exceptions and
are not affected.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from mien.base.errors import printable
from mien.base.progress import ProgressCallback

if TYPE_CHECKING:
    import pandas as pd

console = Console(
    # A log file has no width of its own.
    width=None if sys.stdout.isatty() else 140,
    # Printed text comes from files too: "[/red]" or ":smile:" in a name is text.
    markup=False,
    emoji=False,
    quiet=os.environ.get("MIEN_QUIET", "") not in ("", "0"),
)

_INTERVAL = 10.0
"""Seconds between two progress lines where there is no bar."""


@contextmanager
def quiet() -> Iterator[None]:
    """Prints nothing while the block runs.

    Examples:
        >>> from mien.base.console import note, quiet
        >>> with quiet():
        ...     note("not printed")
    """
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


@contextmanager
def to_file(path: Path) -> Iterator[None]:
    """Appends all output of the block to a file, that of libraries included."""
    with (
        path.open("a", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        yield


def note(text: str, warning: bool = False) -> None:
    """Prints one line to standard output; a warning is yellow."""
    console.print(text, style="yellow" if warning else None, highlight=False, soft_wrap=True)


def progress_line(text: str) -> None:
    """Prints one line to standard error, for progress where there is no bar."""
    if not console.quiet:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def progress_bar(*columns: ProgressColumn) -> Iterator[Progress | None]:
    """Shows progress bars while the block runs.

    Args:
        *columns: Columns of rich; none: description, bar, count and remaining time.

    Yields:
        The bars, without a task yet; None where nothing can be shown (no terminal, or quiet).
    """
    if console.quiet or not (sys.stdout.isatty() and sys.stderr.isatty()):
        yield None
        return
    shown = columns or (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # The file is fixed: inside of `to_file`, sys.stderr is another one.
    screen = Console(file=sys.stderr, markup=False, emoji=False)
    with Progress(*shown, console=screen, transient=True) as bar:
        yield bar


@contextmanager
def progress(what: str, unit: str = "images") -> Iterator[ProgressCallback]:
    """Shows the progress of a long operation: a bar in a terminal, a line every ten seconds otherwise.

    Args:
        what: Description of the operation.
        unit: What is counted.

    Yields:
        A callback that takes the number of finished items and the total.
    """
    with progress_bar() as bar:
        if bar is not None:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
            return
        begin = last = time.monotonic()

        def line(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _INTERVAL:
                last = now
                progress_line(f"{what}: {done} of {total} {unit}, {done / (now - begin):.0f} per second")

        yield line


def show(table: "pd.DataFrame", title: str = "") -> None:
    """Prints a table to standard output; its cells are formatted text or numbers."""
    from pandas.api.types import is_numeric_dtype

    drawn = Table(title=title or None, title_justify="left", title_style="bold")
    for column in table.columns:
        drawn.add_column(printable(str(column)), justify="right" if is_numeric_dtype(table[column]) else "left")
    for row in table.itertuples(index=False):
        drawn.add_row(*(printable(str(cell)) for cell in row))
    console.print(drawn)


def show_ledger(ledger: dict[str, Any]) -> None:
    """Prints the ledger of a source: the number of rows read and kept, and what was dropped or changed."""
    import pandas as pd

    note(f"{ledger['source']}: {ledger['read']} rows read, {ledger['kept']} kept")
    if ledger["entries"]:
        show(pd.DataFrame(ledger["entries"])[["kind", "rows", "reason", "example"]])
