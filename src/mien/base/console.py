"""Tables and progress in the terminal, with rich; see `mien.base.messages` for what goes where, and the quiet switch.

Progress is a bar where standard output and standard error are terminals, otherwise a line every ten seconds.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from mien.base.errors import printable
from mien.base.messages import is_quiet, note, progress_line, set_quiet
from mien.base.progress import ProgressCallback

if TYPE_CHECKING:
    import pandas as pd


class _Console(Console):
    """A console that follows the quiet switch."""

    @property
    def quiet(self) -> bool:
        """Whether output is switched off."""
        return is_quiet()

    @quiet.setter
    def quiet(self, value: bool) -> None:
        set_quiet(value)


console = _Console(
    # A log file has no width of its own.
    width=None if sys.stdout.isatty() else 140,
    # Printed text comes from files too: "[/red]" or ":smile:" in a name is text.
    markup=False,
    emoji=False,
    quiet=is_quiet(),
)

_INTERVAL = 10.0
"""Seconds between two progress lines where there is no bar."""


@contextmanager
def progress_bar(*columns: ProgressColumn) -> Iterator[Progress | None]:
    """Shows progress bars while the block runs.

    Args:
        *columns: Columns of rich; none: description, bar, count and remaining time.

    Yields:
        The bars, without a task yet; None where nothing can be shown (no terminal, or quiet).
    """
    if is_quiet() or not (sys.stdout.isatty() and sys.stderr.isatty()):
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
