"""Likely label errors: labels that contradict out-of-fold predictions of the same faces."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mien import metrics
from mien.base.errors import MienError, MissingExtra
from mien.base.labels import AGE_GROUPS, GENDERS
from mien.base.table import FACES_COLUMNS, age_range_text, age_ranges
from mien.data import leaks
from mien.metrics import METRICS
from mien.metrics.wording import PRIMARY, Score, scores
from mien.runs.run import Run

COLUMNS = ("column", "rank", "face", "path", "given", "suggested", "score", "flagged", "p_given", "p_suggested", "runs")
"""The columns of the suggestions."""

_NUMBERS = ("p_female", "age", "age_low", "age_high", *(f"p_{group}" for group in AGE_GROUPS))
_MIN_LABELLED = 50  # labelled faces with a prediction; fewer are not analysed


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of faces by runs that did not train on them.

    Attributes:
        predictions: One row per face, in the order of the faces table: the mean over runs, and `runs`, their number.
        used: One row per run: how many predictions were used, and how many were not, by reason.
    """

    predictions: pd.DataFrame
    used: pd.DataFrame


def out_of_fold(faces: pd.DataFrame, runs: Sequence[Run], groups: np.ndarray | None) -> OutOfFold:
    """Collects predictions by runs that did not train on the predicted faces.

    A prediction is excluded, and counted, if its face is in the run's training part, or shares a subject, a
    photograph or a group of near-duplicates with a training face. Predictions of several runs are averaged.

    Args:
        faces: A checked faces table of n rows.
        runs: Finished runs on all or some of these faces.
        groups: (n,) group numbers of near-duplicates; None if they were not searched.

    Raises:
        MienError: A run predicted none of the faces; started or was distilled from a run on the same source (whose
            training faces are unknown); or is a published model, which has no predictions.
    """
    sums = pd.DataFrame(0.0, index=faces["face"], columns=list(_NUMBERS))
    counts = pd.DataFrame(0, index=faces["face"], columns=list(_NUMBERS))
    lines = []
    for run in runs:
        _check_lineage(run)
        predictions, line = _usable_predictions(faces, run, groups)
        known = [column for column in _NUMBERS if column in predictions.columns]
        values = predictions[known].reindex(sums.index)
        sums[known] += values.fillna(0.0)
        counts[known] += values.notna().astype(int)
        lines.append(line)
    means = (sums / counts.where(counts > 0)).reset_index(drop=True)
    means["runs"] = counts.max(axis=1).to_numpy()
    means.index = faces.index
    return OutOfFold(means, pd.DataFrame(lines))


def _usable_predictions(
    faces: pd.DataFrame, run: Run, groups: np.ndarray | None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The usable predictions of a run by face, and counts of the excluded ones."""
    own, predictions = run.faces, run.predictions
    trained = faces["face"].isin(own.loc[own["split"] == "train", "face"]).to_numpy()
    alike = leaks.related_to(faces, trained, groups)
    predictions = predictions[predictions["face"].isin(faces["face"])]
    if predictions.empty:
        raise MienError(
            f"run {run.name!r} predicted none of the {len(faces)} faces: its faces are as {own['face'].iloc[0]!r}, "
            f"the table's as {faces['face'].iloc[0]!r}"
        )
    ids = faces["face"].to_numpy(dtype=object)
    kind = predictions["face"].map(dict(zip(ids, np.where(trained, 1, np.where(alike, 2, 0)), strict=True)))
    kind = kind.where(predictions["status"] == "ok", 3)
    line: dict[str, Any] = {"run": run.name}
    for number, name in enumerate(("used", "trained_on", "shared", "unreadable")):
        line[name] = int((kind == number).sum())
    line["no_prediction"] = len(faces) - len(predictions)
    return predictions[kind == 0].set_index("face"), line


def _check_lineage(run: Run) -> None:
    """Rejects a run whose initial weights or teachers may have been trained on the faces in question."""
    lineage, own = run.info.get("lineage") or {}, set(run.recipe.data.title.split("+"))
    earlier = [lineage, *lineage.get("teachers", [])]
    while earlier:
        before = earlier.pop()
        shared = own & set(str(before.get("dataset")).split("+"))
        if before.get("run") is not None and shared:
            raise MienError(
                f"run {run.name!r} was initialised or distilled from run {before['run']!r}, which was also trained on "
                f"{min(shared)!r}, on unknown faces: its predictions may repeat their labels; use runs with other "
                "initial weights"
            )
        earlier += [before["from"]] if before.get("from") else []


def agreement(faces: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, Score]:
    """Returns the score of out-of-fold predictions by label column: how well they agree with the labels.

    Args:
        faces: A checked faces table of n rows.
        predictions: As returned by `out_of_fold`, n rows.

    Returns:
        Label column -> accuracy or mean absolute error, compared with the majority class or the median of the faces.
    """
    known = predictions["runs"] > 0
    answers = predictions[known].drop(columns="runs").dropna(axis="columns", how="all")
    if answers.empty or answers.columns.empty:
        return {}
    own = faces[[column for column in faces.columns if column in FACES_COLUMNS]]
    joined = metrics.join(own[known], answers.assign(face=faces.loc[known, "face"]))
    rows = scores(metrics.score(joined, by=(), train_faces=own))
    found: dict[str, Score] = {}
    for row in rows:
        if row.metric in PRIMARY:  # of ages known as ranges, where no year is known
            found.setdefault(METRICS[row.metric].truth.removeprefix("true_").removesuffix("_range"), row)
    return found


def expected_precision(accuracy: float, wrong: float) -> float:
    """Returns the share of label errors to expect among the labels that contradict predictions.

    Errors of the model and of the labels are taken for independent, and to have no class in common.

    Args:
        accuracy: Agreement of predictions and labels, 0 to 1.
        wrong: Share of wrong labels, 0 to 1.
    """
    return min(1.0, wrong * min(1.0, accuracy / (1 - wrong)) / max(1 - accuracy, 1e-9))


def suggest(faces: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """Ranks labels that contradict the out-of-fold predictions, the most likely errors of each column first.

    - `gender`, and `age_group` of faces that have no age, and no range that a predicted age is compared with: labels
      other than the most probable class, by the probability of the given label (cleanlab's self-confidence, Northcutt,
      Jiang and Chuang 2021), the lowest first; `flagged` are the errors found by confident learning.
    - `age`: ages, or ranges of ages, outside the 80% interval, by their distance from the predicted median in units of
      the half of the interval on that side, the largest first; `flagged` are distances above 2.5 (3.2 standard
      deviations for normal errors). `score` is 1 / (1 + that distance).

    Args:
        faces: A checked faces table of n rows.
        predictions: As returned by `out_of_fold`, n rows.

    Returns:
        Rows of `COLUMNS`; `score` is between 0 and 1, low for likely errors. The result does not depend on the order
        of the faces.
    """
    parts = []
    if "p_female" in predictions and predictions["p_female"].notna().any():
        female = predictions["p_female"].to_numpy()
        parts.append(_classes(faces, predictions, "gender", GENDERS, np.column_stack([female, 1 - female])))
    years = predictions["age"].notna() & (faces["age"].notna() | faces["age_from"].notna())
    if years.any():
        parts.append(_years(faces[years], predictions[years]))
    alone = (faces["age"].isna() & ~years).to_numpy()
    probabilities = predictions[[f"p_{group}" for group in AGE_GROUPS]].to_numpy()
    if alone.any() and not np.isnan(probabilities).all():
        parts.append(_classes(faces[alone], predictions[alone], "age_group", AGE_GROUPS, probabilities[alone]))
    parts = [part for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))


def _classes(
    faces: pd.DataFrame, predictions: pd.DataFrame, column: str, names: Sequence[str], probabilities: np.ndarray
) -> pd.DataFrame:
    filter_, rank = _cleanlab()
    known = (faces[column].notna() & ~np.isnan(probabilities).any(axis=1)).to_numpy()
    order = np.flatnonzero(known)[np.argsort(faces["face"].to_numpy(dtype=object)[known], kind="stable")]
    if len(order) < _MIN_LABELLED:
        return pd.DataFrame(columns=list(COLUMNS))
    given = faces[column].cat.codes.to_numpy()[order]
    p = probabilities[order] / probabilities[order].sum(axis=1, keepdims=True)
    classes = np.unique(given)  # cleanlab needs labels from 0 without gaps
    labels = np.searchsorted(classes, given)
    quality = rank.get_label_quality_scores(labels, p[:, classes], method="self_confidence")
    flagged = np.zeros(len(order), dtype=bool)
    if len(classes) > 1:
        among = p[:, classes] / p[:, classes].sum(axis=1, keepdims=True)
        flagged = filter_.find_label_issues(labels, among, filter_by="prune_by_noise_rate", n_jobs=1)
    best = p.argmax(axis=1)
    out = pd.DataFrame(
        {
            "face": faces["face"].to_numpy()[order],
            "path": faces["path"].to_numpy()[order],
            "given": np.array(names, dtype=object)[given],
            "suggested": np.array(names, dtype=object)[best],
            "score": quality,
            "flagged": flagged,
            "p_given": p[np.arange(len(p)), given],
            "p_suggested": p.max(axis=1),
            "runs": predictions["runs"].to_numpy()[order],
        }
    )
    return _ranked(out[best != given], column)


def _years(faces: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    first, last = age_ranges(faces).T
    age = predictions["age"].to_numpy()
    given = np.clip(age, first, last)  # of a range, the nearest year
    # Without an interval, 5 years plus a tenth of the age replace half of it.
    half = 5 + age / 10
    low = (age - predictions["age_low"].fillna(pd.Series(age - half, index=predictions.index))).to_numpy()
    high = (predictions["age_high"].fillna(pd.Series(age + half, index=predictions.index)) - age).to_numpy()
    away = np.abs(given - age) / np.maximum(np.where(given < age, low, high), 1.0)
    out = pd.DataFrame(
        {
            "face": faces["face"].to_numpy(),
            "path": faces["path"].to_numpy(),
            "given": [age_range_text(*ends) for ends in zip(first, last, strict=True)],
            "suggested": [f"{value:.0f}" for value in age],
            "score": 1 / (1 + away),
            "flagged": away > 2.5,
            "p_given": np.nan,
            "p_suggested": np.nan,
            "runs": predictions["runs"].to_numpy(),
        }
    )
    return _ranked(out[away > 1], "age")


def _ranked(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    rows = rows.sort_values(["score", "face"], ignore_index=True)
    rows.insert(0, "column", column)
    rows.insert(1, "rank", np.arange(1, len(rows) + 1))
    return rows[list(COLUMNS)]


def _cleanlab() -> tuple[Any, Any]:
    try:
        from cleanlab import filter, rank
    except ImportError:
        raise MissingExtra("the search for label errors", "audit") from None
    return filter, rank
