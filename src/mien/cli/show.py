"""Tables that several verbs print."""

from typing import TYPE_CHECKING

import pandas as pd

from mien.base.console import console, show
from mien.base.messages import note
from mien.metrics.wording import BASELINE, metrics_table, scores, sets_table, warnings_of_baseline
from mien.runs.run import Run

if TYPE_CHECKING:
    from mien.training.plan import Plan


def show_metrics(run: Run, metrics: pd.DataFrame | None = None) -> None:
    """Prints the metrics of a run's test part (or those given), with intervals and baselines."""
    table = run.metrics if metrics is None else metrics
    if metrics is None:
        table = table[table["split"] == "test"]
    every = scores(table)
    rows = [row for row in every if row.group == "all"]
    show(
        metrics_table(rows)[["metric", "value [95% interval]", "faces", BASELINE]],
        title=f"{run.name}, test part" if metrics is None else f"{run.name}, other data",
    )
    by_set = sets_table(every)
    if len(by_set):
        show(by_set.set_index("data set").T.reset_index(names=""), title="by data set")
    for sentence in warnings_of_baseline(rows):
        note(sentence, warning=True)
    console.print(f"run: {run.folder}", highlight=False)


def show_plan(plan: "Plan") -> None:
    """Prints what a study will train, what is missing, and how long it takes."""
    if len(plan.runs):
        show(plan.runs)
    for sentence in plan.missing:
        console.print(f"missing: {sentence}", highlight=False, markup=False, soft_wrap=True)
    console.print(plan.time, highlight=False, soft_wrap=True)
