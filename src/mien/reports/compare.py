"""The comparison of runs: their scores side by side, and paired differences on the same faces."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mien import metrics
from mien.base.errors import MienError
from mien.metrics.words import (
    BASELINE,
    HEADLINES,
    metrics_table,
    named,
    number,
    unit_of,
    with_interval,
)
from mien.reports import figures
from mien.reports.page import Picture, Section, Table, write_report
from mien.reports.run import _METHOD, _certainty, _cost, _lead, _leaks, _mistakes, _Results, protocol
from mien.runs.run import Run


def compare_runs(runs: Sequence[Run], path: str | Path) -> pd.DataFrame:
    """Compares runs by their test parts, and writes the report.

    Args:
        runs: Runs that are evaluated.
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
    text = [_METHOD]
    if differences:
        tables.append(Table("Differences on the same faces", pd.DataFrame(differences).fillna("")))
        text.append("Intervals of differences are paired, and not widened for the number of comparisons.")
    tables.append(Table("Cost of training", table[["run", *cost]].head(len(found))))
    sections = [
        Section("Comparison", [leak for run in found for leak in _leaks(run)], text, tables, _dots(found)),
        *_compared_training(found),
        *map(_main_figures, found),
    ]
    title = f"Comparison: {', '.join(run.name for run in found)}"
    write_report(title, _compared_lead(found, differences), sections, path)
    return table


def _read(runs: Sequence[Run]) -> list[_Results]:
    """The runs by name; by folder, where names are equal."""
    if not runs:
        raise MienError("no run to compare; give at least one")
    folders = [run.folder.resolve() for run in runs]
    for folder in folders:
        if folders.count(folder) > 1:
            raise MienError(f"run {str(folder)!r} is given twice; valid: different runs")
    names = [run.name for run in runs]
    return [_Results.of(run, str(run.folder) if names.count(run.name) > 1 else run.name) for run in runs]


def _line(run: _Results) -> dict[str, str]:
    """A run's row of the comparison."""
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


def _baselines(runs: Sequence[_Results]) -> list[dict[str, str]]:
    """The baseline's row, or several where runs have different ones because their faces differ."""
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


def _differences(first: _Results, second: _Results) -> Iterator[dict[str, str]]:
    """What sets two runs apart, a row for each headline metric that both have."""
    one, a, other, b = first.name, first.joined, second.name, second.joined
    # The same id in another data set, or for another file, is another face.
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
        # A face without a label counts in neither, so that a run which left it out loses nothing.
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


def _compared_lead(runs: Sequence[_Results], differences: Sequence[dict[str, str]]) -> str:
    if len(runs) == 1:
        return _lead(runs[0])
    sets = {frozenset(run.joined[["dataset", "path", "face"]].itertuples(index=False, name=None)) for run in runs}
    if len(sets) == 1:
        start = f"{len(runs)} runs were tested on the same {len(next(iter(sets))):,} faces."
    else:
        start = (
            f"{len(runs)} runs were tested on different faces: their numbers in the table are not "
            "comparable; differences are taken on the faces that two runs share."
        )
    return " ".join([start, *(f"{found['in words']}." for found in differences[:3])])


def _dots(runs: Sequence[_Results]) -> list[Picture]:
    """A chart a metric: each run's value with its interval."""
    pictures = []
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
        pictures.append(Picture(figure, caption, table))
    return pictures


def _compared_training(runs: Sequence[_Results]) -> list[Section]:
    logs = {run.name: run.log for run in runs if run.log is not None}
    columns = dict.fromkeys(str(column) for log in logs.values() for column in log.columns)
    pictures = []
    for column in columns:
        lines = {name: log[column] for name, log in logs.items() if column in log and log[column].notna().any()}
        # The losses of single tasks are parts of the loss, and stand in each run's own report.
        if lines and column.startswith(("train_loss", "val_")) and not column.startswith("val_loss_"):
            label = column.replace("val_", "validation ").replace("train_", "training ").replace("_", " ")
            numbers = pd.DataFrame(lines).reset_index()
            pictures.append(Picture(figures.curves(lines, label), f"{label.capitalize()} by epoch", numbers))
    text = "Losses of runs with different tasks or losses are not comparable."
    return [Section("Course of training", text=[text], figures=pictures)] if pictures else []


def _main_figures(run: _Results) -> Section:
    parts = (*_mistakes(run.joined), *_certainty(run.joined))
    pictures = [picture for part in parts for picture in part.figures]
    tables = [Table(f"Test part; {protocol(run)}", metrics_table(run.scores()))]
    return Section(f"Run {run.name}", _leaks(run), [_cost(run)], tables, pictures)
