"""The progress of a search in the terminal, and its final table."""

import contextlib
import math
from collections.abc import Iterator

import pandas as pd
from rich.progress import Progress

from mien.base.console import progress_bar, show
from mien.base.messages import note
from mien.experiments.brackets import best_trial
from mien.training.search.definition import Search


class SearchDisplay:
    """Progress of a search: bars in a terminal, one line per trial otherwise.

    Args:
        search: The search.
        total: Total number of trials.
        bar: The bars; None where the output is not a terminal.
    """

    def __init__(self, search: Search, total: int, bar: Progress | None) -> None:
        self._search, self._total, self._bar = search, total, bar
        if bar:
            self._trials = bar.add_task("trials", total=total)
            self._epochs = bar.add_task("", total=search.recipe.trainer.epochs)

    def trial_started(self, number: int, bracket: int) -> None:
        """Shows that a trial has started."""
        if self._bar:
            self._bar.update(self._epochs, description=f"trial {number}, bracket {bracket}: epochs", completed=0)

    def epoch_ended(self, epoch: int) -> None:
        """Shows the number of finished epochs."""
        if self._bar:
            self._bar.update(self._epochs, completed=epoch)

    def trial_ended(self, trials: pd.DataFrame, number: int) -> None:
        """Shows the result of a trial.

        Args:
            trials: The trials table.
            number: The trial that ended.
        """
        row = trials.set_index("trial").loc[number]
        over = trials[trials["state"] != "running"]
        best = best_trial(trials, self._search.direction)
        if self._bar:
            self._bar.update(self._trials, completed=len(over))
        line = f"trial {number} (bracket {row['bracket']}): {row['state']} after {row['epochs']} epochs"
        line += f", {row['error']}" if row["state"] == "failed" else f", {self._search.metric} {row['value']:.4g}"
        line += f"; best {best['value']:.4g} (trial {best['trial']})" if best is not None else ""
        note(f"{line}; {len(over)} of {self._total} trials")


@contextlib.contextmanager
def search_display(search: Search, total: int) -> Iterator[SearchDisplay]:
    """Shows the progress of a search while the block runs."""
    with progress_bar() as bar:
        yield SearchDisplay(search, total, bar)


def show_ledger(ledger: pd.DataFrame) -> None:
    """Prints the ledger with one column per bracket, so that it fits the width of a terminal."""
    best = ["" if math.isnan(value) else f"{value:.4g}" for value in ledger["best"]]
    columns = ledger.assign(best=best).astype(str).set_index("bracket").T.rename_axis(None, axis=1)
    show(columns.rename(index=lambda name: name.replace("_", " ")).reset_index(names="bracket"))
