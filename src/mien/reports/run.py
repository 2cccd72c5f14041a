"""The report of an evaluated run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mien.base.table import SPLITS, age_range_text
from mien.data.counts import label_counts
from mien.experiments.results import set_warnings
from mien.metrics.definitions import years_outside
from mien.metrics.joining import true_years
from mien.metrics.wording import BASELINE, HEADLINES, Score, metrics_table, named, sets_table, unit_of
from mien.recipe.settings import DataSet, Recipe, Source, flat_settings
from mien.reports import figures
from mien.reports.page import Chart, Section, Table, write_report
from mien.reports.run_results import (
    METHOD,
    RunResults,
    calibration_sections,
    confusion_sections,
    leak_warnings,
    protocol,
    protocol_sentence,
    summary_sentence,
    training_cost,
)
from mien.reports.tables import ledger_table
from mien.runs.run import Run


def run_report(run: Run) -> Path:
    """Writes the report of an evaluated run: data, scores, scores by group, calibration and training."""
    found = RunResults.of(run, run.name)
    sections = [
        _result(found),
        *_by_set(found),
        _data(found),
        *_by_group(found),
        *confusion_sections(found.joined),
        *calibration_sections(found.joined),
        *_ages(found),
        *_training(found),
        _settings(found),
    ]
    return write_report(f"Run {found.name}", summary_sentence(found), sections, run.report_file)


def _result(run: RunResults) -> Section:
    tables = [Table(f"Test part of {run.name}; {protocol(run)}", metrics_table(run.scores()))]
    val = run.scores("val")
    if val:
        caption = "Validation part (used to select the weights, so not an estimate for new faces)"
        tables.append(Table(caption, metrics_table(val), folded=True))
    return Section("Result", leak_warnings(run), [METHOD], tables)


def _by_set(run: RunResults) -> list[Section]:
    """The scores of each of several data sets."""
    table = sets_table(run.scores(every_group=True))
    if table.empty:
        return []
    warnings = [f"{sentence}." for sentence in set_warnings(run.metrics).values()]
    text = (
        "Each data set is split by itself, and its rows are of its own test part. The calibration is one for all, made "
        "on the validation faces of all data sets that were trained on."
    )
    untrained = [name for name, one in run.recipe.data.sets.items() if not one.weight]
    if untrained:
        text += f" Not trained on: {', '.join(untrained)}."
    return [Section("By data set", warnings, [text], [Table("Test part of each data set", table)])]


def _data(run: RunResults) -> Section:
    faces, recipe = run.faces, run.recipe
    parts = faces.assign(split=faces["split"].astype("object").fillna("not used"))
    counts = label_counts(parts, "split")
    order = [part for part in (*SPLITS, "not used") if part in counts.index]
    text = [
        f"Source: {'; '.join(_described(name, one) for name, one in recipe.data.each().items())}.",
        f"Protocol: {protocol(run)}: {protocol_sentence(run)}.",
    ]
    tables = [Table("Faces in each part", counts.loc[order].reset_index(names="part"))]
    unreadable = _unreadable(run)
    if len(unreadable):
        total = int(unreadable["images"].sum())
        text.append(f"Unreadable images, excluded from training: {total:,}.")
        tables.append(Table("Unreadable images by reason", unreadable))
    else:
        text.append("All images are readable.")
    if run.info.get("ledger"):
        tables.append(ledger_table(run.info["ledger"]))
    return Section("Data and protocol", text=text, tables=tables)


def _described(name: str, one: Source | DataSet) -> str:
    """A data set of the recipe in words."""
    parts = [one.faces or one.source]
    if isinstance(one, DataSet):
        parts = [f"{name} ({parts[0]})" if parts[0] != name else name, f"weight {one.weight:g}"]
    parts += [f"label policy {one.labels}"] if one.labels else []
    parts += ["cropped by the detector"] if one.crop == "detector" else []
    return ", ".join(parts)


def _unreadable(run: RunResults) -> pd.DataFrame:
    kinds = run.unreadable.str.split(":").str[0]
    return kinds.value_counts().rename_axis("reason").reset_index(name="images")


def _by_group(run: RunResults) -> list[Section]:
    rows = run.scores(every_group=True)
    charts = [_forest(metric, rows) for metric in HEADLINES if _grouped(metric, rows)]
    if not charts:
        return []
    text = "Groups are defined by the labels. Groups with few subjects have wide intervals."
    groups = [row for row in rows if row.group != "all"]
    tables = [Table("All metrics by group", _group_numbers(groups), folded=True)]
    return [Section("By group", text=[text], figures=charts, tables=tables)]


def _grouped(metric: str, rows: Sequence[Score]) -> bool:
    return any(row.metric == metric and row.group != "all" for row in rows)


def _group_numbers(rows: Sequence[Score]) -> pd.DataFrame:
    table = metrics_table(rows)
    table.insert(0, "group", [row.group for row in rows])
    return table


def _forest(metric: str, rows: Sequence[Score]) -> Chart:
    """All faces, then the groups of each column under a heading."""
    mine = [row for row in rows if row.metric == metric]
    lines: list[tuple[Any, ...]] = []
    kind = ""
    for row in mine:
        column, _, value = row.group.partition("=")
        if value and column != kind:
            kind = column
            lines.append((column.replace("_", " "), *[np.nan] * 4))
        numbers = np.array([row.value, row.low, row.high, row.baseline]) * unit_of(metric).factor
        lines.append((f"{value or 'all faces'} (n {row.n:,})", *numbers))
    table = pd.DataFrame(lines, columns=["label", "value", "low", "high", "baseline"])
    figure = figures.intervals(table, named(metric), reference="all faces", baseline=BASELINE)
    caption = f"{named(metric, unit=False).capitalize()} by group, test part, with 95% intervals"
    return Chart(figure, caption, _group_numbers(mine))


def _ages(run: RunResults) -> list[Section]:
    joined = run.joined
    if "age" not in joined:
        return []
    return [*_years(run, joined), *_age_ranges(joined)]


def _age_ranges(joined: pd.DataFrame) -> list[Section]:
    """Where predicted ages lie that are to be compared with a range."""
    both = joined[joined["true_age_range"].notna() & joined["age"].notna()]
    if both.empty:
        return []
    first, last = true_years(both)
    outside = years_outside(both["true_age_range"], both["age"])
    younger = (outside > 0) & (both["age"] < first).to_numpy()
    numbers = pd.DataFrame({"first": first, "last": last, "faces": 1.0, "outside": outside, "younger": younger})
    numbers = numbers.assign(inside=outside == 0, older=(outside > 0) & ~younger)
    found = numbers.groupby(["first", "last"], as_index=False).agg(
        {"faces": "sum", "outside": "mean", "younger": "mean", "inside": "mean", "older": "mean"}
    )
    ranges = [age_range_text(*ends) for ends in zip(found["first"], found["last"], strict=True)]
    table = pd.DataFrame({"age range": ranges, "faces": [f"{count:,.0f}" for count in found["faces"]]})
    for name in ("younger", "inside", "older"):
        table[f"{name}, %"] = [f"{100 * share:.1f}" for share in found[name]]
    table["years outside"] = [f"{years:.2f}" for years in found["outside"]]
    caption = f"Predicted age against the range of the label, n {len(both):,}"
    return [Section("Ages known as ranges", tables=[Table(caption, table)])]


def _years(run: RunResults, joined: pd.DataFrame) -> list[Section]:
    both = joined[joined["true_age"].notna() & joined["age"].notna()]
    if both.empty:
        return []
    truth, predicted = both["true_age"].to_numpy(), both["age"].to_numpy()
    edges = np.arange(0, max(truth.max(), predicted.max()) + 5.1, 5)
    counts = np.histogram2d(truth, predicted, [edges, edges])[0].astype(int)
    table = pd.DataFrame(counts, columns=[f"{edge:g}" for edge in edges[:-1]])
    table.insert(0, "label from \\ predicted from", [f"{edge:g}" for edge in edges[:-1]])
    caption = f"Predicted age against the label, in bins of 5 years, n {len(both):,}"
    figure = figures.joint(truth, predicted, edges, "labelled age, years", "predicted age, years")
    rows = [row for row in run.scores(every_group=True) if row.group == "all" or "age_group=" in row.group]
    bias = [_forest("age_bias", rows)] if _grouped("age_bias", rows) else []
    text = "The absolute error by age group is in the section “By group”; the mean error shows its direction."
    return [Section("Age in years", text=[text] if bias else [], figures=[Chart(figure, caption, table), *bias])]


def _training(run: RunResults) -> list[Section]:
    if run.log is None:
        return []
    charts = []
    for label, lines in _curves(run.log).items():
        numbers = pd.DataFrame(lines).reset_index()
        charts.append(Chart(figures.curves(lines, label), f"{label.capitalize()} by epoch", numbers))
    return [Section("Training curves", text=[training_cost(run)], figures=charts)] if charts else []


def _curves(log: pd.DataFrame) -> dict[str, dict[str, "pd.Series[float]"]]:
    """The columns of the log by chart: losses, accuracies and errors in years."""
    charts: dict[str, dict[str, pd.Series[float]]] = {}
    for column in map(str, log.columns):
        part, _, name = column.partition("_")
        if part not in ("train", "val") or log[column].isna().all():
            continue
        chart = "loss" if "loss" in name else "error in years" if "mae" in name or "error" in name else "accuracy"
        rest = name.removeprefix("loss").strip("_").replace("_", " ")
        label = "training" if part == "train" else "validation"
        charts.setdefault(chart, {})[f"{label}: {rest}" if rest else label] = log[column]
    return charts


def _settings(run: RunResults) -> Section:
    ours, default = flat_settings(run.recipe), flat_settings(Recipe())
    changed = {key: value for key, value in ours.items() if key not in default or default[key] != value}
    versions = dict(sorted((run.info.get("versions") or {}).items()))
    tables = [
        Table("Settings that differ from the defaults", _pairs(changed, "setting")),
        Table("All settings", _pairs(ours, "setting"), folded=True),
        Table("Package versions", _pairs(versions, "package"), folded=True),
    ]
    return Section("Recipe", tables=[table for table in tables if len(table.rows)])


def _pairs(values: dict[str, Any], what: str) -> pd.DataFrame:
    return pd.DataFrame({what: list(values), "value": [str(value) for value in values.values()]})
