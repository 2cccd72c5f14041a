"""Reports of runs, drawn from results that are computed already: one run, or several side by side."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mien import metrics
from mien.errors import MienError
from mien.labels import AGE_GROUPS, GENDERS
from mien.recipe import Recipe
from mien.reports import figures
from mien.reports.page import Picture, Section, Table, write_report
from mien.run import Run
from mien.table import FACES_COLUMNS, SPLITS, read_table

NAMES = {
    "coverage": ("faces with a prediction", "%"),
    "gender_accuracy": ("gender accuracy", "%"),
    "gender_balanced_accuracy": ("gender balanced accuracy", "%"),
    "gender_false_male": ("women taken for men", "%"),
    "gender_false_female": ("men taken for women", "%"),
    "gender_auc": ("gender AUC", ""),
    "gender_ece": ("gender calibration error", "%"),
    "gender_unsure": ("gender unsure", "%"),
    "age_group_exact": ("age group exact", "%"),
    "age_group_one_off": ("age group exact or next to it", "%"),
    "age_group_ece": ("age group calibration error", "%"),
    "age_mae": ("mean absolute error of age", "years"),
    "age_cs5": ("age within 5 years", "%"),
    "age_bias": ("mean error of age", "years"),
    "age_interval_coverage": ("age inside its 80% interval", "%"),
}
"""What reports call a metric, and its unit; one that is not here goes by its own name."""

HEADLINES = ("gender_accuracy", "age_group_exact", "age_group_one_off", "age_mae")
"""The metrics by which runs are compared."""

BASELINE = "majority class or median age"

_METHOD = (
    "Intervals are 95%, from a bootstrap that resamples whole subjects, or faces whose subject is not known. A "
    "verdict compares with the constant answer that the training part suggests, on the same faces; it is “no better” "
    "where the interval of the difference includes zero."
)


class Score(NamedTuple):
    """A row of the metrics table."""

    group: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    subjects: int
    baseline: float
    versus_baseline: str | None


def scores(table: pd.DataFrame) -> list[Score]:
    """The rows of a metrics table that have any face."""
    rows = table.loc[table["n"] > 0, list(Score._fields)]
    # Where there is no verdict (a constant gender among one gender) the baseline's value says nothing either.
    rows["baseline"] = rows["baseline"].where(rows["versus_baseline"].notna())
    return [Score(*row) for row in rows.itertuples(index=False, name=None)]


def named(metric: str, unit: bool = True) -> str:
    """What reports call a metric, as "gender accuracy, %"."""
    name, of = NAMES.get(metric, (metric, ""))
    return f"{name}, {of}" if unit and of else name


def number(metric: str, value: float) -> str:
    """A metric's value in the unit of its name, without it."""
    if np.isnan(value):
        return "–"
    scaled = value * _scale(metric)
    digits = {"%": 1, "years": 2}.get(NAMES.get(metric, ("", ""))[1], 3)
    return f"{scaled:.{digits}f}"


def _scale(metric: str) -> float:
    return 100.0 if NAMES.get(metric, ("", ""))[1] == "%" else 1.0


def with_interval(metric: str, value: float, low: float, high: float, unit: str = "") -> str:
    """A metric's value with its 95% interval, as "91.2 [89.5, 92.8]"."""
    if np.isnan(value):
        return "–"
    ends = "no interval" if np.isnan(low) else f"{number(metric, low)}, {number(metric, high)}"
    return f"{number(metric, value)}{'' if unit in ('', '%') else ' '}{unit} [{ends}]"


def verdict(score: Score) -> str:
    """In words, what the comparison with the baseline found; empty where there was none."""
    constant = "the median age" if score.metric in ("age_mae", "age_cs5") else "the majority class"
    words = {"better": "better", "worse": "worse", "unclear": "no better"}.get(str(score.versus_baseline))
    return f"{words} than always answering {constant}" if words else ""


def metrics_table(rows: Sequence[Score]) -> pd.DataFrame:
    """Scores as text: value with interval, n, subjects, the baseline and what follows."""
    return pd.DataFrame(
        {
            "metric": [named(row.metric) for row in rows],
            "value [95% interval]": [with_interval(row.metric, row.value, row.low, row.high) for row in rows],
            "faces": [row.n for row in rows],
            "subjects": [row.subjects for row in rows],
            BASELINE: [number(row.metric, row.baseline) for row in rows],
            "verdict": [verdict(row) for row in rows],
        }
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
        if row.metric in ("gender_accuracy", "age_group_exact", "age_mae"):
            unit = NAMES[row.metric][1]
            value = with_interval(row.metric, row.value, row.low, row.high, unit)
            found.append(f"{named(row.metric, unit=False)} {value}, n {row.n:,}")
            if verdict(row):
                against = number(row.metric, row.baseline) + ("%" if unit == "%" else f" {unit}")
                found[-1] += f", {verdict(row)} ({against})"
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
    """What became of the rows of a source; `ledger` as `mien.ledger.Ledger.to_dict` gives it."""
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
        numbers = np.array([row.value, row.low, row.high, row.baseline]) * _scale(metric)
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
        if {*spec.answers, spec.truth} <= set(joined.columns) and spec.rows(joined).any():
            stated = metrics.certainty(joined, task)
            table = metrics.reliability(stated["certainty"], stated["correct"])
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
    ours, default = _flat(run.recipe), _flat(Recipe())
    changed = {key: value for key, value in ours.items() if key not in default or default[key] != value}
    versions = dict(sorted((run.info.get("versions") or {}).items()))
    tables = [
        Table("Settings that differ from the defaults", _pairs(changed, "setting")),
        Table("All settings", _pairs(ours, "setting"), folded=True),
        Table("Made with", _pairs(versions, "package"), folded=True),
    ]
    return Section("Recipe", tables=[table for table in tables if len(table.rows)])


def _flat(recipe: Recipe) -> dict[str, Any]:
    """Settings by dotted key."""
    table = pd.json_normalize(recipe.model_dump(mode="json"))
    return {str(key): table[key].iloc[0] for key in table.columns}


def _pairs(values: dict[str, Any], what: str) -> pd.DataFrame:
    return pd.DataFrame({what: list(values), "value": [str(value) for value in values.values()]})


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
        columns = [spec.truth, *spec.answers]
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
    unit = "points" if _scale(metric) == 100 else NAMES[metric][1]
    name = named(metric, unit=False)
    if not (found.low > 0 or found.high < 0):
        size = with_interval(metric, found.value, found.low, found.high, unit)
        return f"{one} and {other} are not distinguishable in {name}: the first minus the second is {size}"
    ahead = (found.value > 0) == (metrics.METRICS[metric].better == "higher")
    better, worse = (one, other) if ahead else (other, one)
    low, high = sorted((abs(found.low), abs(found.high)))
    size = with_interval(metric, abs(found.value), low, high, unit)
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
        numbers = pd.DataFrame(list(rows.values()))[["value", "low", "high", "baseline"]] * _scale(metric)
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
