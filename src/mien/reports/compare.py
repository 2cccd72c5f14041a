"""The comparison of runs: their scores side by side, and paired differences on the same faces."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mien import metrics
from mien.base.errors import MienError
from mien.metrics.wording import BASELINE, HEADLINES, metrics_table, named, number, unit_of, with_interval
from mien.reports import figures
from mien.reports.page import Chart, Section, Table, write_report
from mien.reports.run_results import (
    METHOD,
    RunResults,
    calibration_sections,
    confusion_sections,
    leak_warnings,
    protocol,
    summary_sentence,
    training_cost,
)
from mien.runs.run import Run


def compare_runs(runs: Sequence[Run], path: str | Path) -> pd.DataFrame:
    """Compares runs on their test parts, and writes the report.

    Args:
        runs: Evaluated runs.
        path: The HTML file to write.

    Returns:
        One row a run, then the baseline: `run`, `tasks`, `protocol`, the headline metrics with their
        intervals, `n` test faces, `parameters`, `seconds`, `images/s`, all as text. `attrs["differences"]`
        has a sentence for each pair of runs and metric that both have.

    Raises:
        MienError: There is no run, or one is given twice.
    """
    found = _read(runs)
    lines = pd.DataFrame([*map(_line, found), *_baselines(found)]).fillna("")
    order = ["run", "tasks", "protocol", *map(named, HEADLINES), "n", "parameters", "seconds", "images/s"]
    table = lines[[column for column in order if column in lines]]
    differences = [line for pair in itertools.combinations(found, 2) for line in _differences(*pair)]
    table.attrs["differences"] = [line["in words"] for line in differences]
    cost = ["parameters", "seconds", "images/s"]
    tables = [Table("Runs on their test parts, with 95% intervals", table.drop(columns=cost))]
    text = [METHOD]
    if differences:
        tables.append(Table("Differences on the same faces", pd.DataFrame(differences).fillna("")))
        text.append("Intervals of differences are paired, without a correction for the number of comparisons.")
    tables.append(Table("Cost of training", table[["run", *cost]].head(len(found))))
    sections = [
        Section("Comparison", [leak for run in found for leak in leak_warnings(run)], text, tables, _dots(found)),
        *_compared_training(found),
        *map(_main_figures, found),
    ]
    title = f"Comparison: {', '.join(run.name for run in found)}"
    write_report(title, _compared_lead(found, differences), sections, path)
    return table


def _read(runs: Sequence[Run]) -> list[RunResults]:
    """Reads the results of runs; runs of equal names are named by their folder."""
    if not runs:
        raise MienError("no runs to compare; give at least one")
    folders = [run.folder.resolve() for run in runs]
    for folder in folders:
        if folders.count(folder) > 1:
            raise MienError(f"run {str(folder)!r} is given twice; valid: different runs")
    names = [run.name for run in runs]
    return [RunResults.of(run, str(run.folder) if names.count(run.name) > 1 else run.name) for run in runs]


def _line(run: RunResults) -> dict[str, str]:
    """The row of a run in the table."""
    info, n = run.info, int((run.faces["split"] == "test").sum())
    line = {"run": run.name, "tasks": ", ".join(run.recipe.tasks.named()), "protocol": protocol(run)}
    for row in run.scores():
        if row.metric in HEADLINES:
            own = "" if row.n == n else f" (n {row.n:,})"
            line[named(row.metric)] = with_interval(row.metric, row.value, row.low, row.high) + own
    seconds, images = info.get("seconds_training"), info.get("images_trained")
    line["n"] = f"{n:,}"
    line["parameters"] = f"{info['parameters']:,}" if "parameters" in info else ""
    line["seconds"] = f"{seconds:,.0f}" if seconds else ""
    line["images/s"] = f"{images / seconds:,.0f}" if seconds and images else ""
    return line


def _baselines(runs: Sequence[RunResults]) -> list[dict[str, str]]:
    """The row of the baseline, or several rows if the runs have different faces."""
    merged: list[tuple[list[str], dict[str, str]]] = []
    for run in runs:
        row = {
            named(score.metric): number(score.metric, score.baseline)
            for score in run.scores()
            if score.metric in HEADLINES and not np.isnan(score.baseline)
        }
        for names, other in merged:
            if all(other.get(metric, value) == value for metric, value in row.items()):
                names.append(run.name)
                other.update(row)
                break
        else:
            merged.append(([run.name], row))
    one = len(merged) == 1
    return [{"run": BASELINE if one else f"{BASELINE}: {', '.join(names)}"} | row for names, row in merged if row]


def _differences(first: RunResults, second: RunResults) -> Iterator[dict[str, str]]:
    """The paired differences of two runs, one row per headline metric that both have."""
    one, a, other, b = first.name, first.joined, second.name, second.joined
    # Equal ids in different data sets, or of different files, are different faces.
    common = a.merge(b, on=["dataset", "path", "face"])["face"]
    pair = f"{one}, {other}"
    if common.empty:
        words = f"{one} and {other} are not comparable: they share no test faces"
        yield {"runs": pair, "metric": "all", "in words": words}
        return
    for metric in HEADLINES:
        spec = metrics.METRICS[metric]
        columns = [spec.truth, *spec.predictions]
        if not all(column in table and table[column].notna().any() for table in (a, b) for column in columns):
            continue
        name = named(metric, unit=False)
        # Unlabelled faces count in neither run, so that a run without them is not penalised.
        labelled_a, labelled_b = a[a[spec.truth].notna()], b[b[spec.truth].notna()]
        shared = set(common) & set(labelled_a["face"]) & set(labelled_b["face"])
        shared_a, shared_b = (table[table["face"].isin(shared)] for table in (labelled_a, labelled_b))
        if not shared:
            words = f"{one} and {other} are not comparable in {name}: they share no face with this label"
            yield {"runs": pair, "metric": name, "in words": words}
            continue
        try:
            found = metrics.paired_difference(shared_a, shared_b, metric)
        except MienError as error:
            words = f"{one} and {other} are not comparable in {name}: {error}"
            yield {"runs": pair, "metric": name, "in words": words}
            continue
        same = len(shared) == len(labelled_a) == len(labelled_b)
        faces = f"n {found.n:,}" if same else f"on the {found.n:,} faces that both were tested on"
        yield {
            "runs": pair,
            "metric": name,
            "first minus second": with_interval(metric, found.value, found.low, found.high),
            "faces": f"{found.n:,}",
            "in words": f"{_difference_in_words(one, other, metric, found)}, {faces}",
        }


def _difference_in_words(one: str, other: str, metric: str, found: metrics.Difference) -> str:
    name = named(metric, unit=False)
    if not (found.low > 0 or found.high < 0):
        size = with_interval(metric, found.value, found.low, found.high, unit=True, difference=True)
        return f"{one} and {other} are not distinguishable in {name}: the first minus the second is {size}"
    ahead = (found.value > 0) == (metrics.METRICS[metric].better == "higher")
    better, worse = (one, other) if ahead else (other, one)
    low, high = sorted((abs(found.low), abs(found.high)))
    size = with_interval(metric, abs(found.value), low, high, unit=True, difference=True)
    return f"{better} is better than {worse} in {name} by {size}"


def _compared_lead(runs: Sequence[RunResults], differences: Sequence[dict[str, str]]) -> str:
    if len(runs) == 1:
        return summary_sentence(runs[0])
    start = f"{len(runs)} runs. {_comparability(runs)}"
    return " ".join([start, *(f"{found['in words']}." for found in differences[:3])])


def _comparability(runs: Sequence[RunResults]) -> str:
    """Returns which metrics of the table are over the same faces in all runs that have them, as sentences.

    A face without a label counts in no run, so runs of different tasks may be comparable in the one that they share.
    """
    same: dict[int, list[str]] = {}
    different = []
    for metric in HEADLINES:
        truth = metrics.METRICS[metric].truth
        tables = [run.joined for run in runs if any(row.metric == metric for row in run.scores())]
        keys = [table.loc[table[truth].notna(), ["dataset", "path", "face", truth]] for table in tables]
        sets = [frozenset(key.itertuples(index=False, name=None)) for key in keys]
        if len(sets) > 1 and len(set(sets)) == 1:
            same.setdefault(len(sets[0]), []).append(named(metric, unit=False))
        elif len(sets) > 1:
            different.append(named(metric, unit=False))
    found = [f"Tested on the same {count:,} faces: {', '.join(names)}." for count, names in same.items()]
    if different:
        found.append(
            "Tested on different faces or labels, so that the numbers in the table are not comparable: "
            f"{', '.join(different)}; differences are computed on the faces that two runs share."
        )
    return " ".join(found) or "They have no metric in common."


def _dots(runs: Sequence[RunResults]) -> list[Chart]:
    """One chart per metric with the value and interval of each run."""
    charts = []
    for metric in HEADLINES:
        rows = {run.name: row for run in runs for row in run.scores() if row.metric == metric}
        if not rows:
            continue
        numbers = pd.DataFrame(list(rows.values()))[["value", "low", "high", "baseline"]] * unit_of(metric).factor
        labels = [f"{name} (n {row.n:,})" for name, row in rows.items()]
        figure = figures.intervals(numbers.assign(label=labels), named(metric), baseline=BASELINE)
        table = metrics_table(list(rows.values()))
        table.insert(0, "run", list(rows))
        caption = f"{named(metric, unit=False).capitalize()} on test parts, with 95% intervals"
        charts.append(Chart(figure, caption, table))
    return charts


def _compared_training(runs: Sequence[RunResults]) -> list[Section]:
    logs = {run.name: run.log for run in runs if run.log is not None}
    columns = dict.fromkeys(str(column) for log in logs.values() for column in log.columns)
    charts = []
    for column in columns:
        lines = {name: log[column] for name, log in logs.items() if column in log and log[column].notna().any()}
        # The losses of single tasks are shown in the report of each run.
        if lines and column.startswith(("train_loss", "val_")) and not column.startswith("val_loss_"):
            label = column.replace("val_", "validation ").replace("train_", "training ").replace("_", " ")
            numbers = pd.DataFrame(lines).reset_index()
            charts.append(Chart(figures.curves(lines, label), f"{label.capitalize()} by epoch", numbers))
    text = "Losses of runs with different tasks or losses are not comparable."
    return [Section("Training curves", text=[text], figures=charts)] if charts else []


def _main_figures(run: RunResults) -> Section:
    parts = (*confusion_sections(run.joined), *calibration_sections(run.joined))
    charts = [chart for part in parts for chart in part.figures]
    tables = [Table(f"Test part; {protocol(run)}", metrics_table(run.scores()))]
    return Section(f"Run {run.name}", leak_warnings(run), [training_cost(run)], tables, charts)
