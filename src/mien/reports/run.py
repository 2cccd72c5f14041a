"""Reports of runs, drawn from results that are computed already: one run, or several side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mien import metrics
from mien.base.labels import AGE_GROUPS, GENDERS
from mien.base.table import FACES_COLUMNS, SPLITS, read_table
from mien.metrics.words import (
    BASELINE,
    HEADLINES,
    PRIMARY,
    Score,
    metrics_table,
    named,
    number,
    scores,
    unit_of,
    verdict,
    with_interval,
)
from mien.recipe.settings import Recipe, flat_settings
from mien.reports import figures
from mien.reports.page import Picture, Section, Table, write_report
from mien.runs.run import Run

_METHOD = (
    "Intervals are 95%, from a bootstrap that resamples whole subjects, or faces whose subject is not known. A "
    "verdict compares with the constant answer that the training part suggests, on the same faces; it is “no better” "
    "where the interval of the difference includes zero."
)


@dataclass(frozen=True)
class _Results:
    """What the folder of an evaluated run holds, read once."""

    name: str
    recipe: Recipe
    info: dict[str, Any]
    faces: pd.DataFrame
    unreadable: "pd.Series[str]"
    log: pd.DataFrame | None
    metrics: pd.DataFrame
    joined: pd.DataFrame

    @classmethod
    def of(cls, run: Run, name: str) -> "_Results":
        faces, predictions = run.faces, run.predictions
        test = faces[faces["split"] == "test"]
        joined = metrics.join(test, predictions[predictions["face"].isin(test["face"])])
        reasons = read_table(run.unreadable_file)["reason"] if run.unreadable_file.exists() else pd.Series([])
        log = run.log.set_index("epoch") if run.log_file.exists() else None
        return cls(name, run.recipe, run.info, faces, reasons.astype("str"), log, run.metrics, joined)

    def scores(self, split: str = "test", every_group: bool = False) -> list[Score]:
        """The metrics of a part, of all faces or by group too."""
        rows = scores(self.metrics[self.metrics["split"] == split])
        return [row for row in rows if every_group or row.group == "all"]


def run_report(run: Run) -> Path:
    """Writes the report of an evaluated run: what was trained on what, how well it does, and for whom."""
    found = _Results.of(run, run.name)
    sections = [
        _result(found),
        _data(found),
        *_by_group(found),
        *_mistakes(found.joined),
        *_certainty(found.joined),
        *_ages(found),
        *_training(found),
        _settings(found),
    ]
    return write_report(f"Run {found.name}", _lead(found), sections, run.report_file)


def _lead(run: _Results) -> str:
    found = []
    for row in run.scores():
        if row.metric in PRIMARY:
            value = with_interval(row.metric, row.value, row.low, row.high, unit=True)
            found.append(f"{named(row.metric, unit=False)} {value}, n {row.n:,}")
            if verdict(row):
                found[-1] += f", {verdict(row)} ({number(row.metric, row.baseline, unit=True)})"
    leaks = " A leak flatters these numbers: see below." if run.info.get("leaks") else ""
    return f"On its test part: {'; '.join(found)}. Protocol: {protocol(run)}. Intervals are 95%.{leaks}"


def protocol(run: "_Results | Run") -> str:
    """In a few words, how the faces were split."""
    split = run.recipe.split
    words = {
        "folds": f"official fold {split.test_fold}",
        "partition": "official partition",
        "subjects": f"by subject, seed {split.seed}",
        "random": f"random images, seed {split.seed}",
        "subject_folds": f"fold {split.test_fold} of {split.folds} made by subject, seed {split.seed}",
        "random_folds": f"fold {split.test_fold} of {split.folds} made of random images, seed {split.seed}",
    }
    return words[split.method] + (", WITH LEAKS" if run.info.get("leaks") else "")


def protocol_in_full(run: "_Results | Run") -> str:
    """In a sentence, how the faces were split, and what stayed together."""
    split = run.recipe.split
    unit = "subject" if run.faces["subject"].notna().any() else "photograph (subjects are not known)"
    whole = f"no {unit} is in two of them"
    together = f"{whole}, and near-duplicates stay together" if split.near_duplicates else whole
    words = {
        "folds": f"fold {split.test_fold} of the data set is the test part; the validation part is taken "
        f"from the other folds so that {together}",
        "partition": "the parts are those of the data set",
        "subjects": f"the parts are balanced in gender and age group, {together} (seed {split.seed})",
        "random": f"single images at random, so that a subject may be in several parts (seed {split.seed})",
        "subject_folds": f"the faces were dealt into {split.folds} folds, balanced in gender and age group, so that "
        f"{together} (seed {split.seed}); fold {split.test_fold} is the test part, validation comes from the others",
        "random_folds": f"single images were dealt into {split.folds} folds at random, so that a subject may be in "
        f"several parts (seed {split.seed}); fold {split.test_fold} is the test part",
    }
    return words[split.method]


def _leaks(run: _Results) -> list[str]:
    return [f"Leak, allowed by the recipe of {run.name}: {leak}." for leak in run.info.get("leaks") or ()]


def _result(run: _Results) -> Section:
    tables = [Table(f"Test part of {run.name}; {protocol(run)}", metrics_table(run.scores()))]
    val = run.scores("val")
    if val:
        caption = "Validation part, which may have chosen the weights: no estimate for new faces"
        tables.append(Table(caption, metrics_table(val), folded=True))
    return Section("Result", _leaks(run), [_METHOD], tables)


def _data(run: _Results) -> Section:
    faces, recipe = run.faces, run.recipe
    parts = faces.assign(split=faces["split"].astype("object").fillna("left out"))
    counts = label_counts(parts, "split")
    order = [part for part in (*SPLITS, "left out") if part in counts.index]
    policy = f", label policy {recipe.data.labels}" if recipe.data.labels else ""
    text = [
        f"Source: {recipe.data.faces or recipe.data.source}{policy}.",
        f"Protocol: {protocol(run)}: {protocol_in_full(run)}.",
    ]
    tables = [Table("Faces in each part", counts.loc[order].reset_index(names="part"))]
    unreadable = _unreadable(run)
    if len(unreadable):
        total = int(unreadable["images"].sum())
        text.append(f"Images that could not be read, and were left out of training: {total:,}.")
        tables.append(Table("Unreadable images by reason", unreadable))
    else:
        text.append("Every image could be read.")
    if run.info.get("ledger"):
        tables.append(ledger_table(run.info["ledger"]))
    return Section("Data and protocol", text=text, tables=tables)


def _unreadable(run: _Results) -> pd.DataFrame:
    kinds = run.unreadable.str.split(":").str[0]
    return kinds.value_counts().rename_axis("reason").reset_index(name="images")


def ledger_table(ledger: dict[str, Any]) -> Table:
    """What became of the rows of a source; `ledger` as `mien.base.ledger.Ledger.to_dict` gives it."""
    rows = pd.DataFrame(ledger["entries"], columns=pd.Index(["kind", "reason", "rows", "example"]))
    caption = f"Ledger of {ledger['source']}: {ledger['read']:,} rows read, {ledger['kept']:,} kept"
    return Table(caption, rows, folded=len(rows) > 8)


def label_counts(faces: pd.DataFrame, column: str) -> pd.DataFrame:
    """Counts of faces, of known subjects and of each label, for each value of a column (the index)."""
    known = faces[faces[column].notna()]
    by = known.groupby(column, observed=True)
    counts = pd.DataFrame({"faces": by.size()})
    if known["subject"].notna().any():
        counts["subjects"] = by["subject"].nunique()
    for label in ("gender", "age_group"):
        if known[label].notna().any():
            unknown = f"no {label.replace('_', ' ')}"
            table = pd.crosstab(known[column], known[label].astype("object").fillna(unknown))
            order = [*FACES_COLUMNS[label].categories, unknown]
            counts = counts.join(table[[name for name in order if name in table]])
    return counts


def _by_group(run: _Results) -> list[Section]:
    rows = run.scores(every_group=True)
    pictures = [_forest(metric, rows) for metric in HEADLINES if _grouped(metric, rows)]
    if not pictures:
        return []
    text = "Groups are those of the labels. A group with few subjects has a wide interval: read that first."
    groups = [row for row in rows if row.group != "all"]
    tables = [Table("All metrics by group", _group_numbers(groups), folded=True)]
    return [Section("By group", text=[text], figures=pictures, tables=tables)]


def _grouped(metric: str, rows: Sequence[Score]) -> bool:
    return any(row.metric == metric and row.group != "all" for row in rows)


def _group_numbers(rows: Sequence[Score]) -> pd.DataFrame:
    table = metrics_table(rows)
    table.insert(0, "group", [row.group for row in rows])
    return table


def _forest(metric: str, rows: Sequence[Score]) -> Picture:
    """All faces, then each kind of group under a heading."""
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
    return Picture(figure, caption, _group_numbers(mine))


def _mistakes(joined: pd.DataFrame) -> list[Section]:
    pictures = []
    for task, labels in (("gender", GENDERS), ("age_group", AGE_GROUPS)):
        if task in joined and joined[f"true_{task}"].notna().any():
            counts = metrics.confusion(joined[f"true_{task}"], joined[task], labels)
            counts = counts[counts.sum(axis=1) > 0]
            total = int(counts.to_numpy().sum())
            name = task.replace("_", " ").capitalize()
            caption = f"{name}: answers in percent of each label's faces, n {total:,}"
            numbers = counts.reset_index(names="label")
            pictures.append(Picture(figures.confusion(counts), caption, numbers))
    return [Section("Which labels get which answers", figures=pictures)] if pictures else []


def _certainty(joined: pd.DataFrame) -> list[Section]:
    pictures = []
    for task in ("gender", "age_group"):
        spec = metrics.METRICS[f"{task}_ece"]
        if {*spec.predictions, spec.truth} <= set(joined.columns) and spec.counted(joined).any():
            stated = metrics.confidence(joined, task)
            table = metrics.reliability(stated["confidence"], stated["correct"])
            name = task.replace("_", " ").capitalize()
            caption = f"{name}: is an answer right as often as it claims to be? n {len(stated):,}"
            pictures.append(Picture(figures.reliability(table), caption, table[table["n"] > 0]))
    if "p_female" in joined:
        groups = joined[joined["p_female"].notna()].groupby("true_gender", observed=True)["p_female"]
        by = {f"labelled {name}": values.to_numpy() for name, values in groups}
        edges = np.linspace(0, 1, 21)
        if by:
            caption = f"Stated probability of “female” by label, n {sum(map(len, by.values())):,}"
            figure = figures.histogram(by, edges, "stated probability of female")
            pictures.append(Picture(figure, caption, binned(by, edges)))
    text = (
        "Points under the diagonal: the model is surer than it should be. Intervals of single points take "
        "faces as independent."
    )
    return [Section("How sure it is", text=[text], figures=pictures)] if pictures else []


def binned(values: dict[str, np.ndarray], edges: np.ndarray) -> pd.DataFrame:
    """The counts behind a histogram of each series."""
    counts = {name: np.histogram(numbers, edges)[0] for name, numbers in values.items()}
    return pd.DataFrame({"from": edges[:-1].round(6), "to": edges[1:].round(6), **counts})


def _ages(run: _Results) -> list[Section]:
    joined = run.joined
    if "age" not in joined:
        return []
    both = joined[joined["true_age"].notna() & joined["age"].notna()]
    if both.empty:
        return []
    truth, answer = both["true_age"].to_numpy(), both["age"].to_numpy()
    edges = np.arange(0, max(truth.max(), answer.max()) + 5.1, 5)
    counts = np.histogram2d(truth, answer, [edges, edges])[0].astype(int)
    table = pd.DataFrame(counts, columns=[f"{edge:g}" for edge in edges[:-1]])
    table.insert(0, "label from \\ predicted from", [f"{edge:g}" for edge in edges[:-1]])
    caption = f"Predicted age against the label, in bins of 5 years, darker where more faces, n {len(both):,}"
    figure = figures.joint(truth, answer, edges, "age by label, years", "predicted age, years")
    rows = [row for row in run.scores(every_group=True) if row.group == "all" or "age_group=" in row.group]
    bias = [_forest("age_bias", rows)] if _grouped("age_bias", rows) else []
    text = "The absolute error by age group is under “By group”; the mean error says in which direction it goes."
    return [Section("Age in years", text=[text] if bias else [], figures=[Picture(figure, caption, table), *bias])]


def _training(run: _Results) -> list[Section]:
    if run.log is None:
        return []
    pictures = []
    for label, lines in _curves(run.log).items():
        numbers = pd.DataFrame(lines).reset_index()
        pictures.append(Picture(figures.curves(lines, label), f"{label.capitalize()} by epoch", numbers))
    return [Section("Course of training", text=[_cost(run)], figures=pictures)] if pictures else []


def _curves(log: pd.DataFrame) -> dict[str, dict[str, "pd.Series[float]"]]:
    """The log's columns by chart: losses, shares and years each in one."""
    charts: dict[str, dict[str, pd.Series[float]]] = {}
    for column in map(str, log.columns):
        part, _, name = column.partition("_")
        if part not in ("train", "val") or log[column].isna().all():
            continue
        chart = "loss" if "loss" in name else "error in years" if "mae" in name else "share right"
        rest = name.removeprefix("loss").strip("_").replace("_", " ")
        label = "training" if part == "train" else "validation"
        charts.setdefault(chart, {})[f"{label}: {rest}" if rest else label] = log[column]
    return charts


def _cost(run: _Results) -> str:
    info = run.info
    parts = [f"{info['epochs']} epochs"] if "epochs" in info else []
    if info.get("seconds_training") and info.get("images_trained"):
        seconds, images = info["seconds_training"], info["images_trained"]
        parts.append(f"{images:,} images in {seconds:,.0f} s ({images / seconds:,.0f} a second)")
    if "parameters" in info:
        parts.append(f"{info['parameters']:,} parameters, {info.get('parameters_frozen', 0):,} of them frozen")
    if "device" in info:
        parts.append(f"on {info['device']}")
    return f"Cost: {', '.join(parts) or 'not known'}."


def _settings(run: _Results) -> Section:
    ours, default = flat_settings(run.recipe), flat_settings(Recipe())
    changed = {key: value for key, value in ours.items() if key not in default or default[key] != value}
    versions = dict(sorted((run.info.get("versions") or {}).items()))
    tables = [
        Table("Settings that differ from the defaults", _pairs(changed, "setting")),
        Table("All settings", _pairs(ours, "setting"), folded=True),
        Table("Made with", _pairs(versions, "package"), folded=True),
    ]
    return Section("Recipe", tables=[table for table in tables if len(table.rows)])


def _pairs(values: dict[str, Any], what: str) -> pd.DataFrame:
    return pd.DataFrame({what: list(values), "value": [str(value) for value in values.values()]})
