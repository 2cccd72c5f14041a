"""The results of a study: cells, combinations of levels, comparisons of levels, and warnings."""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from mien import metrics
from mien.base.table import SPLITS
from mien.experiments.study import Cell, Study, StudyFolder, metrics_of, settings
from mien.metrics.definitions import METRICS, UNSURE
from mien.metrics.scoring import MeanScore
from mien.metrics.wording import PRIMARY, named, number, with_interval
from mien.recipe.settings import Recipe
from mien.runs.run import Run

GAP = 0.10
"""Overfitting warning: difference of a score between the training and the test part."""

COVERED = (0.75, 0.85)
"""Calibration warning of a data set: its 80% age intervals contain clearly fewer or more of the true ages."""

UNCALIBRATED = 0.04
"""Calibration warning of a data set: its calibration error of gender is clearly larger."""

_SMALLER = 0.25
"""Overfitting warning: relative difference of an error between the training and the test part."""

_Z = 1.959964


@dataclass(frozen=True)
class CellResult:
    """A cell and, where it is finished, its run."""

    cell: Cell
    status: str
    reason: str
    run: Run

    @property
    def finished(self) -> bool:
        """Whether there are results."""
        return self.status == "finished"

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """The metrics of each part: of all faces, and by data set where there are several."""
        table = self.run.metrics
        return table[(table["group"] == "all") | table["group"].str.startswith("dataset=")]

    @cached_property
    def joined(self) -> pd.DataFrame:
        """The test part with its predictions."""
        faces, predictions = self.run.faces, self.run.predictions
        test = faces[faces["split"] == "test"]
        return metrics.join(test, predictions[predictions["face"].isin(test["face"])])

    def value(self, metric: str, split: str, dataset: str | None = None) -> float:
        """A metric of a part, or of one data set in it; NaN where there is none."""
        table, group = self.metrics, "all" if dataset is None else f"dataset={dataset}"
        rows = table[(table["metric"] == metric) & (table["split"] == split) & (table["group"] == group)]
        return float(rows["value"].iloc[0]) if len(rows) else np.nan


@dataclass(frozen=True)
class Combination:
    """The cells that have the same levels."""

    levels: Mapping[str, str]
    cells: Sequence[CellResult]

    @property
    def name(self) -> str:
        """The names of its levels."""
        return ", ".join(self.levels.values())

    @property
    def finished(self) -> list[CellResult]:
        """The cells that have results."""
        return [found for found in self.cells if found.finished]

    @cached_property
    def by_seed(self) -> dict[int, list[CellResult]]:
        """The finished cells of each seed, for seeds with the most folds: they are tested on the same faces."""
        seeds: dict[int, list[CellResult]] = {}
        for found in self.finished:
            seeds.setdefault(found.cell.seed, []).append(found)
        folds = {seed: frozenset(one.cell.fold for one in own) for seed, own in seeds.items()}
        most = max(folds.values(), key=len, default=frozenset())
        return {seed: own for seed, own in seeds.items() if folds[seed] == most}

    @cached_property
    def pooled(self) -> list[pd.DataFrame]:
        """For each seed, the test predictions of all its folds: each face once."""
        return [pd.concat([found.joined for found in own], ignore_index=True) for own in self.by_seed.values()]

    @property
    def tested_on(self) -> list[str | None]:
        """The data sets whose test parts are told apart; None: there is one."""
        return list(self.cells[0].cell.recipe.data.sets) or [None]

    def test_tables(self, metric: str, dataset: str | None = None) -> list[pd.DataFrame]:
        """Returns `pooled` for the faces (of a data set) with the label of a metric; empty if it does not apply."""
        if not self.cells or metric not in metrics_of(self.cells[0].cell.recipe):
            return []
        truth = METRICS[metric].truth
        tables = [table[table[truth].notna()] for table in self.pooled]
        if dataset is not None:
            tables = [table[table["dataset"] == dataset] for table in tables]
        return tables if tables and len(tables[0]) else []


@dataclass(frozen=True)
class Results:
    """The results of a study.

    Attributes:
        cells: Every cell.
        combinations: The cells by their levels.
        runs: One row per cell.
        table: One row per combination and metric, as numbers.
        comparisons: One row per pair of levels and metric, with a sentence in `in words`.
        warnings: Warnings, one sentence each.
    """

    cells: Sequence[CellResult]
    combinations: Sequence[Combination]
    runs: pd.DataFrame
    table: pd.DataFrame
    comparisons: pd.DataFrame
    warnings: Sequence[str]


def collect(study: Study, folder: StudyFolder, cells: Iterable[Cell]) -> Results:
    """Reads the finished cells of a study and compares them."""
    found = [CellResult(cell, *folder.status(cell), folder.run(cell)) for cell in cells]
    groups: dict[tuple[str, ...], list[CellResult]] = {}
    for one in found:
        groups.setdefault(one.cell.combination, []).append(one)
    combinations = [Combination(own[0].cell.levels, own) for own in groups.values()]
    return Results(
        found,
        combinations,
        runs_table(study, found),
        combinations_table(study, combinations),
        compare(study, combinations),
        study_warnings(combinations),
    )


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as dictionaries."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def runs_table(study: Study, cells: Sequence[CellResult]) -> pd.DataFrame:
    """A row for each cell: levels, fold, seed, status, the settings that vary, cost and headline metrics."""
    given = [settings(found.cell.recipe) for found in cells]
    keys = dict.fromkeys(key for one in given for key in one)
    varying = [key for key in keys if len({repr(one.get(key)) for one in given}) > 1]
    rows = []
    for found, own in zip(cells, given, strict=True):
        cell, info = found.cell, found.run.info if found.finished else {}
        row: dict[str, Any] = {"cell": cell.slug, **cell.levels, "fold": cell.fold, "seed": cell.seed}
        row |= {"status": found.status, "reason": found.reason}
        row |= {key: json.dumps(own.get(key), default=str) for key in varying}
        row |= {key: info.get(key) for key in ("epochs", "images_trained", "seconds_training", "parameters")}
        for metric, split in itertools.product(study.metrics, SPLITS):
            row[f"{metric}_{split}"] = found.value(metric, split) if found.finished else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def combinations_table(study: Study, combinations: Sequence[Combination]) -> pd.DataFrame:
    """A row for each combination and metric, over pooled test predictions, as numbers.

    Where there are several data sets, there is a row for the test part of each of them, in the column `tested on`.
    `value low high n` and `subjects` (0 where they are not known) are those of the mean over seeds, with its interval
    over faces; `folds_sd` and `seeds_sd` are the standard deviations of the value over folds and over seeds, which is
    no interval.
    """
    rows = []
    wanted = [
        (combination, metric, dataset)
        for combination, metric in itertools.product(combinations, study.metrics)
        for dataset in combination.tested_on
    ]
    for combination, metric, dataset in wanted:
        tables = combination.test_tables(metric, dataset)
        row: dict[str, Any] = {**combination.levels, "metric": metric}
        row |= {} if dataset is None else {"tested on": dataset}
        mean = metrics.mean_over_runs(tables, metric) if tables else MeanScore(np.nan, np.nan, np.nan, 0, 0)
        row |= mean._asdict() | {"subjects": _subjects(tables)} | _spreads(combination, metric, tables, dataset)
        row |= {"runs_finished": len(combination.finished), "runs": len(combination.cells)}
        seconds = [found.run.info.get("seconds_training") or 0.0 for found in combination.finished]
        rows.append(row | {"seconds": sum(seconds) if seconds else np.nan})
    return pd.DataFrame(rows)


def _subjects(tables: Sequence[pd.DataFrame]) -> int:
    """Returns the number of subjects; 0 if they are unknown, so that each face counts as a subject."""
    return tables[0].groupby(["dataset", "subject"]).ngroups if tables else 0


def _spreads(
    combination: Combination, metric: str, tables: Sequence[pd.DataFrame], dataset: str | None
) -> dict[str, Any]:
    """Standard deviations over folds and seeds, and the mean and range over runs of other parts."""
    used = [found for own in combination.by_seed.values() for found in own] if tables else []
    frame = pd.DataFrame(
        [
            (found.cell.fold, found.cell.seed, *(found.value(metric, split, dataset) for split in SPLITS))
            for found in used
        ],
        columns=pd.Index(["fold", "seed", *SPLITS]),
    )
    folds = frame[frame["fold"].notna()].groupby("fold")["test"].mean()
    seeds = [metrics.mean_over_runs([table], metric, n_boot=2).value for table in tables] if len(tables) > 1 else []
    spread: dict[str, Any] = {"folds": len(folds), "folds_sd": folds.std() if len(folds) > 1 else np.nan}
    spread |= {"seeds": len(tables), "seeds_sd": float(np.std(seeds, ddof=1)) if seeds else np.nan}
    for split in ("train", "val"):
        values = frame[split].dropna()
        spread |= {split: values.mean(), f"{split}_lowest": values.min(), f"{split}_highest": values.max()}
    return spread


def compare(study: Study, combinations: Sequence[Combination]) -> pd.DataFrame:
    """A row for each pair of levels of an axis to compare (or with its reference), all else equal, and each metric.

    Differences are paired on the faces that both were tested on, with seeds averaged; `p_holm` is corrected by Holm's
    method (1979) over all rows that could be compared, and `verdict` follows from it.
    """
    rows = []
    for axis, metric in itertools.product(study.compare, study.metrics):
        for one, other in itertools.combinations(combinations, 2):
            reference = study.reference.get(axis)
            if reference not in (None, one.levels[axis], other.levels[axis]):
                continue
            if all((one.levels[key] != other.levels[key]) == (key == axis) for key in one.levels):
                found = (_compared(axis, one, other, metric, dataset) for dataset in one.tested_on)
                rows += [row for row in found if row is not None]
    table = pd.DataFrame(rows, columns=pd.Index(_COMPARED))
    asked = int(table["p"].notna().sum())
    table["p_holm"] = holm(table["p"].to_numpy(dtype=float))
    table["verdict"] = np.where(table["p_holm"] < study.alpha, "different", "not distinguishable")
    table.loc[table["p"].isna(), "verdict"] = "not comparable"
    words = [_in_words(row, asked) for row in records(table)]
    return table.assign(**{"in words": words}).astype({"in words": "object"})


_COMPARED = ["axis", "tested on", "others", "first", "second", "metric", "value", "low", "high", "p", "n", "subjects"]
_COMPARED += ["folds", "seeds", "seeds_sd"]


def _compared(
    axis: str, one: Combination, other: Combination, metric: str, dataset: str | None
) -> dict[str, Any] | None:
    """The paired difference of two combinations; None where the metric does not apply to both or runs are missing."""
    sides = [one.test_tables(metric, dataset), other.test_tables(metric, dataset)]
    if not all(sides):
        return None
    faces = [set(table["face"]) for side in sides for table in side]
    common = set.intersection(*faces)
    row: dict[str, Any] = {"axis": axis, "first": one.levels[axis], "second": other.levels[axis], "metric": metric}
    row["tested on"] = dataset or ""
    row["others"] = ", ".join(level for key, level in one.levels.items() if key != axis)
    row["folds"] = len({found.cell.fold for own in one.by_seed.values() for found in own} - {None})
    row["seeds"] = min(map(len, sides))
    if not common:
        return row | {"n": 0}
    a, b = ([table[table["face"].isin(common)] for table in side] for side in sides)
    found = metrics.paired_difference(a, b, metric)
    first, second = ({seed: at for at, seed in enumerate(side.by_seed)} for side in (one, other))
    seeds = first.keys() & second.keys()
    each = [
        metrics.paired_difference(a[first[seed]], b[second[seed]], metric, n_boot=2).value
        for seed in (sorted(seeds) if len(seeds) > 1 else ())
    ]
    row |= found._asdict() | {"subjects": _subjects(a)}
    return row | {"seeds_sd": float(np.std(each, ddof=1)) if each else np.nan}


def holm(p: np.ndarray) -> np.ndarray:
    """Returns p values, (k,), corrected by Holm's step-down method (Holm 1979); NaN are passed over."""
    corrected = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = len(order) - np.arange(len(order))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors)) if len(order) else []
    return corrected


def _in_words(row: Mapping[str, Any], asked: int) -> str:
    places = [row["others"], f"tested on {row['tested on']}" if row["tested on"] else ""]
    where = f"{', '.join(filter(None, places))}: " if any(places) else ""
    name = named(row["metric"], unit=False)
    if row["verdict"] == "not comparable":
        return f"{where}{row['first']} and {row['second']} are not comparable in {name}: they share no test faces"
    folds = [f"{row['folds']} folds"] if row["folds"] else []
    subjects = f"{row['subjects']:,} subjects" if row["subjects"] else "subjects not known"
    parts = [f"n {row['n']:,} faces", subjects, *folds, _count(row["seeds"], "seed")]
    test = f"p {_p(row['p_holm'])} after Holm's correction of {_count(asked, 'comparison')}"
    facts = f"{', '.join(parts)}; {test}"
    if row["verdict"] != "different":
        size = with_interval(row["metric"], row["value"], row["low"], row["high"], unit=True, difference=True)
        return (
            f"{where}{row['first']} and {row['second']} are not distinguishable in {name}: the first minus the second "
            f"is {size}, {facts}"
        )
    better = METRICS[row["metric"]].better
    ahead = (row["value"] > 0) == (better != "lower")
    first, second = (row["first"], row["second"]) if ahead else (row["second"], row["first"])
    low, high = (row["low"], row["high"]) if row["value"] > 0 else (-row["high"], -row["low"])
    size = with_interval(row["metric"], abs(row["value"]), low, high, unit=True, difference=True)
    return f"{where}{first} is {'better' if better else 'higher'} than {second} in {name} by {size}, {facts}"


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.2g}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def run_warnings(
    recipe: Recipe, scores: pd.DataFrame, joined: pd.DataFrame, log: pd.DataFrame, info: Mapping[str, Any]
) -> dict[str, str]:
    """Returns what looks wrong in one run: kind -> sentence.

    Args:
        recipe: The recipe of the run.
        scores: The metrics table, of all faces of each part and by data set.
        joined: The test part with its predictions.
        log: One row an epoch.
        info: The facts of run.json.
    """
    found = _score_warnings(scores[scores["group"] == "all"]) | set_warnings(scores)
    for task in ("gender", "age_group"):
        if task in joined and len(set(joined[f"true_{task}"].dropna())) > 1:
            predicted = joined[task].dropna()
            answers = set(predicted) - {UNSURE}
            if len(answers) == 1:
                what = f"every test face gets the same {task.replace('_', ' ')}, {answers.pop()!r}"
                found[f"one {task}"] = f"{what} (n {len(predicted):,})"
    return found | _loss_warnings(log) | _input_warnings(recipe, info)


def set_warnings(scores: pd.DataFrame) -> dict[str, str]:
    """Returns what looks wrong in one of several data sets: kind -> sentence; see `run_warnings`."""
    found = {}
    for group, rows in scores[scores["group"].str.startswith("dataset=")].groupby("group", sort=False):
        name = str(group).partition("=")[2]
        for kind, sentence in (_score_warnings(rows) | _calibration_warnings(rows)).items():
            found[f"{name}: {kind}"] = f"{name}: {sentence}"
    return found


def _calibration_warnings(scores: pd.DataFrame) -> dict[str, str]:
    """Age intervals and probabilities that do not fit the test part of one data set: one calibration serves all."""
    found = {}
    for row in records(scores[scores["split"] == "test"]):
        shown = with_interval(row["metric"], row["value"], row["low"], row["high"], unit=True)
        least, most = COVERED
        if row["metric"] == "age_interval_coverage" and (row["high"] < least or row["low"] > most):
            found["age interval"] = f"the 80% age interval contains {shown} of the true ages (n {row['n']:,})"
        if row["metric"] == "gender_ece" and row["low"] > UNCALIBRATED:
            found["gender calibration"] = f"the calibration error of gender is {shown} (n {row['n']:,})"
    return found


def _score_warnings(scores: pd.DataFrame) -> dict[str, str]:
    """Test scores that are no better than a constant, better than validation, or far below training."""
    found = {}
    for metric in PRIMARY:
        rows = {row["split"]: row for row in records(scores[scores["metric"] == metric])}
        test = rows.get("test")
        if test is None or not test["n"]:
            continue
        name, sign = named(metric, unit=False), 1 if METRICS[metric].better == "higher" else -1
        shown = {split: with_interval(metric, row["value"], row["low"], row["high"]) for split, row in rows.items()}
        if test["versus_baseline"] in ("unclear", "worse"):
            found[f"majority {metric}"] = (
                f"{name} {shown['test']} is not better than always predicting {METRICS[metric].baseline} "
                f"({number(metric, test['baseline'])}, n {test['n']:,})"
            )
        val, train = rows.get("val"), rows.get("train")
        if val is not None and _beyond_chance(sign * (test["value"] - val["value"]), test, val):
            found[f"test above val {metric}"] = (
                f"{name} of the test part, {shown['test']}, is better than that of the validation part, "
                f"{shown['val']}, by more than chance: are the two parts alike?"
            )
        if train is not None and _beyond_chance(sign * (train["value"] - test["value"]), test, train):
            large = sign * (train["value"] - test["value"]) > GAP
            if METRICS[metric].scale == "error":
                large = train["value"] < (1 - _SMALLER) * test["value"]
            if large:
                found[f"overfitting {metric}"] = (
                    f"{name} of training faces, {shown['train']}, is far better than that of the test part, "
                    f"{shown['test']}: the network overfits its training faces"
                )
    return found


def _beyond_chance(difference: float, *rows: Mapping[str, Any]) -> bool:
    """Whether a difference of two parts is above what their intervals explain (two independent samples, 5%)."""
    error = np.sqrt(sum(((row["high"] - row["low"]) / (2 * _Z)) ** 2 for row in rows))
    return bool(np.isfinite(error) and difference > _Z * error)


def _loss_warnings(log: pd.DataFrame) -> dict[str, str]:
    loss = log["train_loss"].to_numpy(dtype=float)
    broken = np.flatnonzero(~np.isfinite(loss))
    if len(broken):
        return {"loss": f"the training loss is not finite from epoch {int(log['epoch'].iloc[broken[0]])} on"}
    if len(loss) > 2 and loss[0] - loss[1:].min() < 0.01 * abs(loss[0]):
        return {"loss": f"the training loss stays flat: {loss[0]:.4g} in the first epoch, {loss[-1]:.4g} in the last"}
    return {}


def _input_warnings(recipe: Recipe, info: Mapping[str, Any]) -> dict[str, str]:
    """Returns warnings about leaks, augmented evaluation and the input range."""
    found = {}
    if info.get("leaks"):
        found["leak"] = f"the split leaks, as the recipe allows: {'; '.join(map(str, info['leaks']))}"
    if recipe.augment.evaluation:
        found["evaluation"] = (
            "validation and test images were augmented too, so that its scores are not of plain images"
        )
    given = info.get("input") or {}
    if given and recipe.init.weights != "none":
        low, high, least, most = (
            np.asarray(given[key], dtype=float) for key in ("low", "high", "expected_low", "expected_high")
        )
        if (np.maximum(abs(low - least), abs(high - most)) > 0.1 * (most - least)).any():
            found["input"] = (
                f"pixels from {low.min():.2g} to {high.max():.2g} are the input, but the pretrained network expects "
                f"{least.min():.2g} to {most.max():.2g} (model.normalize)"
            )
    return found


def study_warnings(combinations: Sequence[Combination]) -> list[str]:
    """What looks wrong, each kind once a combination, with the number of its runs and the first one's sentence."""
    sentences = []
    for combination in combinations:
        kinds: dict[str, list[str]] = {}
        for found in combination.finished:
            warnings = run_warnings(found.cell.recipe, found.metrics, found.joined, found.run.log, found.run.info)
            for kind, text in warnings.items():
                kinds.setdefault(kind, []).append(text)
        total = len(combination.finished)
        for texts in kinds.values():
            often = "" if total == 1 else f" (in {len(texts)} of {total} runs, here the first of them)"
            sentences.append(f"{combination.name}: {texts[0]}{often}.")
    return sentences
