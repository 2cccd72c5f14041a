"""The results of an evaluated run, and the parts that reports of one run and of several share."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mien import metrics
from mien.base.labels import AGE_GROUPS, GENDERS
from mien.base.table import read_table
from mien.data.splits import METHODS
from mien.metrics.wording import PRIMARY, Score, named, number, scores, verdict, with_interval
from mien.recipe.settings import Recipe, split_of
from mien.reports import figures
from mien.reports.page import Chart, Section
from mien.reports.tables import histogram_table
from mien.runs.run import Run

METHOD = (
    "Intervals are 95% bootstrap intervals over subjects (over faces where the subject is unknown). The baseline is "
    "the constant prediction from the training part (the majority class, or the median age), scored on the same "
    "faces; the verdict is “no better” if the interval of the paired difference includes zero."
)


@dataclass(frozen=True)
class RunResults:
    """The results in the folder of an evaluated run, read once.

    Attributes:
        name: The name shown in the report.
        recipe: The recipe of the run.
        info: The content of `run.json`.
        faces: The faces table with the split.
        unreadable: The reason for each unreadable image.
        log: The training log by epoch; None if there is none.
        metrics: The metrics table.
        joined: The test faces joined with their predictions.
    """

    name: str
    recipe: Recipe
    info: dict[str, Any]
    faces: pd.DataFrame
    unreadable: "pd.Series[str]"
    log: pd.DataFrame | None
    metrics: pd.DataFrame
    joined: pd.DataFrame

    @classmethod
    def of(cls, run: Run, name: str) -> "RunResults":
        """Reads the results of a run."""
        faces, predictions = run.faces, run.predictions
        test = faces[faces["split"] == "test"]
        joined = metrics.join(test, predictions[predictions["face"].isin(test["face"])])
        reasons = read_table(run.unreadable_file)["reason"] if run.unreadable_file.exists() else pd.Series([])
        log = run.log.set_index("epoch") if run.log_file.exists() else None
        return cls(name, run.recipe, run.info, faces, reasons.astype("str"), log, run.metrics, joined)

    def scores(self, split: str = "test", every_group: bool = False) -> list[Score]:
        """Returns the metrics of a part, over all faces or also by group."""
        rows = scores(self.metrics[self.metrics["split"] == split])
        return [row for row in rows if every_group or row.group == "all"]


def summary_sentence(run: RunResults) -> str:
    """Returns the headline metrics on the test part, the protocol, and a warning about leaks."""
    found = []
    for row in run.scores():
        if row.metric in PRIMARY:
            value = with_interval(row.metric, row.value, row.low, row.high, unit=True)
            found.append(f"{named(row.metric, unit=False)} {value}, n {row.n:,}")
            if verdict(row):
                found[-1] += f", {verdict(row)} ({number(row.metric, row.baseline, unit=True)})"
    leaks = " Data leaks inflate these numbers; see below." if run.info.get("leaks") else ""
    return f"Test part: {'; '.join(found)}. Protocol: {protocol(run)}. Intervals are 95%.{leaks}"


def protocol(run: "RunResults | Run") -> str:
    """Returns how the faces were split, in a few words."""
    recipe, faces = run.recipe, run.faces
    words = {}
    for name, own in _sets(recipe, faces).items():
        split = split_of(recipe, name)
        words[name] = METHODS[split.method].protocol.format(**split.model_dump())
        if split.method in ("subjects", "subject_folds") and own["subject"].isna().all():
            words[name] = words[name].replace("by subject", "by photograph (subjects are not known)")
    return _by_set(words) + (", WITH LEAKS" if run.info.get("leaks") else "")


def _sets(recipe: Recipe, faces: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The faces of each data set of a run."""
    if not recipe.data.sets:
        return {recipe.data.source: faces}
    return {name: faces[faces["dataset"] == name] for name in recipe.data.sets}


def _by_set(words: dict[str, str]) -> str:
    """The words about each data set; once, where they are the same."""
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return "; ".join(f"{name}: {own}" for name, own in words.items())


def protocol_sentence(run: "RunResults | Run") -> str:
    """Returns how the faces were split and what was kept together, as a sentence."""
    recipe, faces = run.recipe, run.faces
    words = {}
    for name, own in _sets(recipe, faces).items():
        split = split_of(recipe, name)
        unit = "subject" if own["subject"].notna().any() else "photograph (subjects are not known)"
        whole = f"no {unit} is in two parts"
        together = f"{whole}, and near-duplicates stay together" if split.near_duplicates else whole
        words[name] = METHODS[split.method].sentence.format(together=together, **split.model_dump())
    return _by_set(words)


def leak_warnings(run: RunResults) -> list[str]:
    """Returns a warning for each leak that the recipe allowed."""
    return [f"Leak, allowed by the recipe of {run.name}: {leak}." for leak in run.info.get("leaks") or ()]


def confusion_sections(joined: pd.DataFrame) -> list[Section]:
    """Returns the section with the confusion matrices of gender and age group, if there are any."""
    charts = []
    for task, labels in (("gender", GENDERS), ("age_group", AGE_GROUPS)):
        if task in joined and joined[f"true_{task}"].notna().any():
            counts = metrics.confusion(joined[f"true_{task}"], joined[task], labels)
            counts = counts[counts.sum(axis=1) > 0]
            total = int(counts.to_numpy().sum())
            name = task.replace("_", " ").capitalize()
            caption = f"{name}: predictions in percent of the faces with each label, n {total:,}"
            numbers = counts.reset_index(names="label")
            charts.append(Chart(figures.confusion(counts), caption, numbers))
    return [Section("Confusion matrix", figures=charts)] if charts else []


def calibration_sections(joined: pd.DataFrame) -> list[Section]:
    """Returns the section with reliability diagrams and the histogram of probabilities, if there are any."""
    charts = []
    for task in ("gender", "age_group"):
        spec = metrics.METRICS[f"{task}_ece"]
        if {*spec.predictions, spec.truth} <= set(joined.columns) and spec.counted(joined).any():
            stated = metrics.confidence(joined, task)
            table = metrics.reliability(stated["confidence"], stated["correct"])
            name = task.replace("_", " ").capitalize()
            caption = f"{name}: accuracy by confidence, n {len(stated):,}"
            charts.append(Chart(figures.reliability(table), caption, table[table["n"] > 0]))
    if "p_female" in joined:
        groups = joined[joined["p_female"].notna()].groupby("true_gender", observed=True)["p_female"]
        by = {f"labelled {name}": values.to_numpy() for name, values in groups}
        edges = np.linspace(0, 1, 21)
        if by:
            caption = f"Predicted probability of “female” by label, n {sum(map(len, by.values())):,}"
            figure = figures.histogram(by, edges, "predicted probability of female")
            charts.append(Chart(figure, caption, histogram_table(by, edges)))
    text = "Points below the diagonal mean overconfidence. Intervals of single points assume independent faces."
    return [Section("Calibration", text=[text], figures=charts)] if charts else []


def training_cost(run: RunResults) -> str:
    """Returns epochs, images, time, parameters and device of the training."""
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
