"""The table and the report of a study, drawn from the results of its cells."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mien.base.atomic import atomic_path
from mien.base.table import write_table
from mien.data.splits import METHODS
from mien.experiments.progress import duration
from mien.experiments.results import Combination, Results, collect, records
from mien.experiments.study import Cell, Study, StudyFolder
from mien.metrics.wording import PRIMARY, named, number, unit_of, with_interval
from mien.recipe.settings import Recipe, split_of
from mien.reports import figures
from mien.reports.page import Chart, Section, Table, write_report

_SHOWN_CURVES = ("train_loss", "val_loss", *(f"val_{metric}" for metric in PRIMARY))
_AT_ONCE = 8  # lines that can be distinguished in one chart


def write_results(study: Study, folder: StudyFolder, cells: Sequence[Cell]) -> Results:
    """Writes the tables and the report of a study from the cells that are finished."""
    results = collect(study, folder, cells)
    write_table(results.runs, folder.folder / "runs.parquet")
    write_table(results.table, folder.folder / "table.csv")
    write_table(results.comparisons, folder.folder / "comparisons.csv")
    with atomic_path(folder.folder / "table.md") as part:
        part.write_text(_markdown(study, results), "utf-8")
    sections = [
        _result(study, results),
        *_compared(study, results),
        *_warnings(results),
        *_courses(results),
        _cost(study, results),
        *_cells(results),
    ]
    write_report(f"Study {study.name}", _lead(study, results), sections, folder.folder / "report.html")
    return results


def shown_tables(study: Study, results: Results) -> dict[str, pd.DataFrame]:
    """The results as text by title: one table, or for several data sets one for each metric, with a column for each."""
    if "tested on" not in results.table:
        return {"test parts": shown_table(study, results)}
    tables = {}
    for metric in study.metrics:
        lines = []
        for combination in results.combinations:
            line = dict(combination.levels)
            for row in _rows(results, combination):
                if row["metric"] == metric:
                    value = with_interval(metric, row["value"], row["low"], row["high"])
                    line[row["tested on"]] = f"{value} (n {row['n']:,})" if row["n"] else "–"
            lines.append(line)
        tables[f"{named(metric)}: rows trained on, columns tested on"] = pd.DataFrame(lines).fillna("–")
    return tables


def shown_table(study: Study, results: Results) -> pd.DataFrame:
    """The table of combinations as text: a column for each axis, and for each metric its value with interval."""
    lines = []
    for combination in results.combinations:
        line: dict[str, str] = dict(combination.levels)
        rows = _rows(results, combination)
        for row in rows:
            metric = row["metric"]
            line[f"{named(metric)}, test"] = with_interval(metric, row["value"], row["low"], row["high"])
            spread = [_spread(metric, row, what) for what in ("folds", "seeds")]
            line[f"{named(metric)}: spread"] = "; ".join(filter(None, spread))
        counted = [row for row in rows if row["n"]]
        line["faces"] = " / ".join(dict.fromkeys(f"{row['n']:,}" for row in counted))
        line["subjects"] = " / ".join(
            dict.fromkeys(f"{row['subjects']:,}" if row["subjects"] else "not known" for row in counted)
        )
        line["runs"] = f"{rows[0]['runs_finished']} of {rows[0]['runs']}"
        lines.append(line)
    table = pd.DataFrame(lines)
    return table[[column for column in table.columns if (table[column] != "").any()]]


def protocol(study: Study, recipes: Sequence[Recipe]) -> str:
    """Returns how the faces were split, the folds and the seeds, in words."""
    splits = (split_of(recipe, name) for recipe in recipes for name in recipe.data.each())
    methods = dict.fromkeys(METHODS[split.method].study.format(**split.model_dump()) for split in splits)
    data = dict.fromkeys(recipe.data.title for recipe in recipes)
    folds = f", folds {', '.join(map(str, study.folds))}" if study.folds else ""
    seeds = f"seed{'' if len(study.seeds) == 1 else 's'} {', '.join(map(str, study.seeds))}"
    return f"{', '.join(data)}: {' and '.join(methods)}{folds}, {seeds}"


def _rows(results: Results, combination: Combination) -> list[dict[str, Any]]:
    mine = np.logical_and.reduce([results.table[axis] == level for axis, level in combination.levels.items()])
    return records(results.table[mine])


def _spread(metric: str, row: dict[str, Any], what: str) -> str:
    """As "over seeds 0.4 (SD, 3 seeds)"; empty where there is only one."""
    deviation = row[f"{what}_sd"]
    return "" if np.isnan(deviation) else f"over {what} {number(metric, deviation)} (SD, {row[what]} {what})"


def _method(study: Study) -> str:
    seeds = (
        "The variation of training is given by the spread over seeds."
        if len(study.seeds) > 1
        else "With one seed, the variation of training is unknown."
    )
    return (
        "Values are computed over the test predictions of all folds together, each face once, and averaged over seeds. "
        "Intervals are 95% bootstrap intervals over subjects (over faces where the subject is unknown): they cover the "
        f"sampling of faces, not of training runs. {seeds} A spread is a standard deviation, not an interval."
    )


def _about(study: Study, results: Results) -> list[str]:
    about = [f"Protocol: {protocol(study, [found.cell.recipe for found in results.cells])}.", _method(study)]
    if study.demonstration:
        networks = dict.fromkeys(found.cell.recipe.model.backbone for found in results.cells)
        about.insert(
            0,
            "This study used drawn demonstration faces to check that the software works: its numbers say nothing about "
            f"people or about other networks than the small ones used here ({', '.join(networks)}).",
        )
    return about


def _markdown(study: Study, results: Results) -> str:
    tables = shown_tables(study, results)
    titled = [f"{title[0].upper()}{title[1:]}:\n\n" if len(tables) > 1 else "" for title in tables]
    shown = [start + _markdown_table(table) for start, table in zip(titled, tables.values(), strict=True)]
    words = [f"- {sentence}." for sentence in results.comparisons["in words"]]
    warnings = [f"- {sentence}" for sentence in results.warnings]
    parts = [f"# {study.name}", *shown, "\n\n".join(_about(study, results))]
    parts += ["## Comparisons", "\n".join(words)] if words else []
    parts += ["## Warnings", "\n".join(warnings)] if warnings else []
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: pd.DataFrame) -> str:
    table = table.astype(str)
    rows = [list(map(str, table.columns)), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def _lead(study: Study, results: Results) -> str:
    finished = sum(found.finished for found in results.cells)
    failed = sum(found.status == "failed" for found in results.cells)
    start = f"{finished} of {len(results.cells)} runs are finished" + (f", {failed} failed" if failed else "")
    different = results.comparisons[results.comparisons["verdict"] == "different"]
    words = [f"{sentence}." for sentence in different["in words"].head(3)]
    if len(results.comparisons):
        count = f"{len(different)} of {len(results.comparisons)} comparisons found a difference."
        words = [count, *words]
    machinery = "Drawn demonstration faces: the numbers say nothing about people. " if study.demonstration else ""
    return f"{machinery}{start}. {' '.join(words)}".strip()


def _result(study: Study, results: Results) -> Section:
    tables = [
        Table(f"{title[0].upper()}{title[1:]}, with 95% intervals; {study.name}", table)
        for title, table in shown_tables(study, results).items()
    ]
    parts = _other_parts(study, results)
    if len(parts):
        caption = "Training and validation parts: mean over runs [lowest to highest run], no interval"
        tables.append(Table(caption, parts))
    return Section("Result", text=_about(study, results), tables=tables, figures=_forests(study, results))


def _other_parts(study: Study, results: Results) -> pd.DataFrame:
    """Metrics of training and validation faces, beside the test part's."""
    lines = []
    for combination in results.combinations:
        line = dict(combination.levels)
        for row in _rows(results, combination):
            metric = row["metric"]
            name = f"{row['tested on']}: {named(metric)}" if "tested on" in row else named(metric)
            for split in ("train", "val"):
                if not np.isnan(row[split]):
                    ends = f"{number(metric, row[f'{split}_lowest'])} to {number(metric, row[f'{split}_highest'])}"
                    line[f"{name}, {split}"] = f"{number(metric, row[split])} [{ends}]"
            if not np.isnan(row["value"]):
                line[f"{name}, test"] = number(metric, row["value"])
        lines.append(line)
    return pd.DataFrame(lines).fillna("")


def _forests(study: Study, results: Results) -> list[Chart]:
    """One chart per metric with the value and interval of each combination."""
    charts = []
    table = results.table
    sets = list(table["tested on"].unique()) if "tested on" in table else [""]
    for metric, dataset in itertools.product(study.metrics, sets):
        rows = table[(table["metric"] == metric) & (table["n"] > 0)]
        rows = rows[rows["tested on"] == dataset] if dataset else rows
        if rows.empty:
            continue
        levels = list(results.combinations[0].levels)
        axes = [axis for axis in levels if len(set(rows[axis])) > 1] or levels
        labels = [", ".join(row[axis] for axis in axes) for row in records(rows)]
        numbers = rows[["value", "low", "high"]] * unit_of(metric).factor
        numbers = numbers.assign(label=labels, baseline=np.nan)
        name = named(metric, unit=False)
        where = f"the test part of {dataset}" if dataset else "the test part"
        caption = f"{name.capitalize()} on {where}, with 95% intervals over faces, n {rows['n'].max():,}"
        charts.append(Chart(figures.intervals(numbers, named(metric)), caption, numbers.drop(columns="baseline")))
    return charts


def _compared(study: Study, results: Results) -> list[Section]:
    if results.comparisons.empty:
        return []
    lines = [
        {
            **({"tested on": row["tested on"]} if row["tested on"] else {}),
            "all else equal": row["others"],
            "first": row["first"],
            "second": row["second"],
            "metric": named(row["metric"]),
            "first minus second": with_interval(row["metric"], row["value"], row["low"], row["high"]),
            "spread over seeds (SD)": number(row["metric"], row["seeds_sd"]),
            "p, Holm": "" if np.isnan(row["p_holm"]) else f"{row['p_holm']:.2g}",
            "faces": row["n"],
            "verdict": row["verdict"],
        }
        for row in records(results.comparisons)
    ]
    text = [
        "Differences are paired on the faces that both were tested on. A difference is significant if its p value, "
        f"after Holm's correction over all of these comparisons, is below {study.alpha:g}; the 95% intervals are "
        "uncorrected.",
        *(f"{sentence}." for sentence in results.comparisons["in words"]),
    ]
    return [Section("Comparisons", text=text, tables=[Table("Paired differences", pd.DataFrame(lines))])]


def _warnings(results: Results) -> list[Section]:
    if not results.warnings:
        return [Section("Warnings", text=["No check raised a warning."])]
    return [Section("Warnings", warnings=results.warnings)]


def _courses(results: Results) -> list[Section]:
    """Training curves: the mean over the runs of each combination."""
    logs = {
        combination.name: pd.concat([found.run.log for found in combination.finished]).groupby("epoch").mean()
        for combination in results.combinations
        if combination.finished
    }
    charts = []
    for column in _SHOWN_CURVES:
        lines = {name: log[column] for name, log in logs.items() if column in log and log[column].notna().any()}
        names = list(lines)
        label = column.replace("val_", "validation ").replace("train_", "training ").replace("_", " ")
        for start in range(0, len(names), _AT_ONCE):
            some = {name: lines[name] for name in names[start : start + _AT_ONCE]}
            caption = f"{label.capitalize()} by epoch, mean over the runs of a combination"
            charts.append(Chart(figures.curves(some, label), caption, pd.DataFrame(some).reset_index()))
    text = "Losses of runs with different tasks, losses or augmentation are not comparable."
    return [Section("Training curves", text=[text], figures=charts)] if charts else []


def _cost(study: Study, results: Results) -> Section:
    lines = []
    for combination in results.combinations:
        infos = [found.run.info for found in combination.finished]
        seconds = [info.get("seconds_training") or 0.0 for info in infos]
        images = [info.get("images_trained") or 0 for info in infos]
        line: dict[str, Any] = dict(combination.levels) | {"runs": len(infos)}
        if infos:
            line |= {"parameters": infos[0].get("parameters"), "images": sum(images)}
            line |= {"training": duration(sum(seconds)), "images/s": round(sum(images) / max(sum(seconds), 1e-9))}
            line["on"] = ", ".join(dict.fromkeys(str(info.get("device")) for info in infos))
        lines.append(line)
    table = pd.DataFrame(lines)
    return Section(
        "Cost",
        text=["The cost of first stages is not included."],
        tables=[Table("Training of each combination", table)],
    )


def _cells(results: Results) -> list[Section]:
    rows = pd.DataFrame(
        [(found.cell.slug, found.status, found.reason) for found in results.cells],
        columns=pd.Index(["cell", "status", "reason"]),
    )
    failed = rows[rows["status"] == "failed"]
    warnings = [f"{cell} failed: {reason}" for cell, _, reason in failed.itertuples(index=False)]
    table = Table("Runs of this study, each a folder in cells/", rows, folded=True)
    return [Section("Runs", warnings=warnings, tables=[table])]
