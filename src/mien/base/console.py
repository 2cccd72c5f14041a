"""What a person at a terminal sees: progress and tables."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mien.base.errors import printable
from mien.base.progress import ProgressCallback

# What is shown comes from files too: "[/red]" or ":smile:" in a name is text. A log has no width of its own.
console = Console(width=None if sys.stdout.isatty() else 140, markup=False, emoji=False)


@contextmanager
def progress(what: str, unit: str = "images") -> Iterator[ProgressCallback]:
    """Shows how far something long is: a bar in a terminal, a line every ten seconds elsewhere."""
    if sys.stdout.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    begin = last = time.monotonic()

    def line(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 10:
            last = now
            print(f"{what}: {done} of {total} {unit}, {done / (now - begin):.0f} a second", flush=True)

    yield line


def show(table: pd.DataFrame, title: str = "") -> None:
    """Prints a table whose cells are text already."""
    drawn = Table(title=title or None, title_justify="left", title_style="bold")
    for column in table.columns:
        right = pd.api.types.is_numeric_dtype(table[column])
        drawn.add_column(printable(str(column)), justify="right" if right else "left")
    for row in table.itertuples(index=False):
        drawn.add_row(*(printable(str(cell)) for cell in row))
    console.print(drawn)


def show_ledger(ledger: dict[str, Any]) -> None:
    """Prints what became of the rows of a source."""
    console.print(f"{ledger['source']}: {ledger['read']} rows read, {ledger['kept']} kept", highlight=False)
    if ledger["entries"]:
        show(pd.DataFrame(ledger["entries"])[["kind", "rows", "reason", "example"]])
