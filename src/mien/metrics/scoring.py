"""Metrics of gender and age with intervals, computed from the predictions table.

Faces of one subject resemble each other, so intervals come from a bootstrap that resamples whole subjects
(Field and Welsh 2007, "Bootstrapping clustered data"). Every metric is a function of sums over faces; a
resample is therefore one row of counts times the sums of each subject, whatever the number of faces.

The intervals are those of `mien.metrics.intervals`; what cannot be known, such as the spread of an error within one
subject, is NaN.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mien.base.errors import MienError, choices
from mien.base.table import check_faces
from mien.metrics.definitions import METRICS, UNSURE, Metric
from mien.metrics.intervals import Difference, Sample, difference, resample
from mien.metrics.joining import TRUTH_COLUMNS

METRICS_COLUMNS = (
    "group",
    "metric",
    "value",
    "low",
    "high",
    "n",
    "subjects",
    "baseline",
    "versus_baseline",
)
"""Columns of the table that `score` returns."""


GROUPS = ("gender", "age_group", "race")
"""The columns by which metrics are given, as far as they are known."""

# Within a group of one true gender, a constant gender is all right or all wrong: no comparison with it means anything.
_SAME_TRUTH = {
    "gender": {"true_gender"},
    "age": {"true_age", "true_age_range", "true_age_group"},
    "age_group": {"true_age", "true_age_range", "true_age_group"},
}


def _constant_predictions(train_faces: pd.DataFrame) -> dict[str, Any]:
    """The predictions that need no image, by column: majority classes (of equal ones the first), median age."""
    faces = check_faces(train_faces, "training faces")
    constant: dict[str, Any] = {}
    for column in ("gender", "age_group"):
        if faces[column].notna().any():
            constant[column] = faces[column].value_counts(sort=False).idxmax()
    # The median of both ends of all ranges is the constant with the least distance to them.
    ends = pd.concat([faces[column].fillna(faces["age"]) for column in ("age_from", "age_to")])
    if ends.notna().any():
        constant["age"] = float(ends.median())
    if "gender" in constant:
        constant["p_female"] = 0.5  # any constant gives all faces the same rank
    return constant


def score(
    joined: pd.DataFrame,
    by: Sequence[str] | None = None,
    train_faces: pd.DataFrame | None = None,
    subject: str = "subject",
    n_boot: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Returns every metric that the columns of `joined` (see `join`) allow, overall and by group.

    One row a number: `group` ("all", "gender=female", ... by the true labels), `metric` (a key of `METRICS`),
    `value`, its 95% interval `low` and `high`, `n` faces, `subjects`, the value of the `baseline` on the same
    faces, and `versus_baseline`: "better" or "worse" where the interval of the paired difference excludes 0,
    else "unclear"; empty without a baseline, and within groups of the very label that the metric evaluates.

    A face without a prediction is wrong in accuracies, exact, one-off and cumulative score; other metrics are
    over the faces predicted, as `n` says. `gender_unsure` is given where any answer is unsure. Metrics for
    which no face has a label are not listed; those for which a group has none are NaN with n 0.

    The result depends on the seed but not on the order of the rows.

    Args:
        joined: One row a face.
        by: Columns to group by; those that the table lacks are passed over. None: gender, age group, race and, where
            there are several, the data set.
        train_faces: The training part, whose majority classes and median age are the baseline.
        subject: Column of the clusters; a face where it is missing is a cluster of its own.
        n_boot: Number of resamples, at least 2.
        seed: Seed of the resamples; each group starts from it.

    Raises:
        MienError: Columns that `join` makes are absent, a face occurs twice, or n_boot is below 2.
    """
    rows = sort_by_subject(joined, subject, n_boot)
    names = [name for name, metric in METRICS.items() if is_applicable(metric, rows)]
    if "gender_unsure" in names and not (rows["gender"] == UNSURE).any():
        names.remove("gender_unsure")
    constant = {} if train_faces is None else _constant_predictions(train_faces)
    if by is None:
        several = "dataset" in rows.columns and len(rows["dataset"].unique()) > 1
        by = (*GROUPS, "dataset") if several else GROUPS
    lines = []
    for name, value, members in _groups(rows, by):
        for metric, line in _group_scores(rows[members], names, constant, n_boot, seed):
            if METRICS[metric].truth in _SAME_TRUTH.get(name, ()):
                line["versus_baseline"] = None
            lines.append({"group": f"{name}={value}" if name else "all", "metric": metric, **line})
    return pd.DataFrame(lines, columns=pd.Index(METRICS_COLUMNS))


def _group_scores(
    rows: pd.DataFrame, names: Sequence[str], constant: dict[str, Any], n_boot: int, seed: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """One line a metric, for the faces of one group."""
    constant_rows = rows.assign(**constant)
    compared = {name for name in names if METRICS[name].baseline and set(METRICS[name].predictions) <= set(constant)}
    jobs = {}
    for name in names:
        counted = METRICS[name].counted(rows)
        jobs[name, "model"] = (METRICS[name], counted, rows)
        if name in compared:
            jobs[name, "constant"] = (METRICS[name], counted, constant_rows)
    samples = dict(zip(jobs, _samples(list(jobs.values()), n_boot, seed), strict=True))
    for name in names:
        sample = samples[name, "model"]
        low, high = sample.estimate().interval()
        line: dict[str, Any] = {"value": sample.value, "low": low, "high": high, "n": sample.n}
        line |= {"subjects": len(sample.sums), "baseline": np.nan, "versus_baseline": None}
        if name in compared:
            constant_sample = samples[name, "constant"]
            line["baseline"] = constant_sample.value
            line["versus_baseline"] = _versus_baseline(METRICS[name].better, sample, constant_sample)
        yield name, line


JoinedRuns = pd.DataFrame | Sequence[pd.DataFrame]
"""A joined table, or several of the same faces: one for each of the runs whose metric is averaged."""


class MeanScore(NamedTuple):
    """The mean of a metric over runs that predicted the same faces, with the 95% interval of that mean."""

    value: float
    low: float
    high: float
    n: int
    subjects: int


def mean_over_runs(
    joined: Sequence[pd.DataFrame], metric: str, subject: str = "subject", n_boot: int = 1000, seed: int = 0
) -> MeanScore:
    """Returns the mean of a metric over the predictions of several runs for the same faces.

    The interval comes from resampling subjects, each with its predictions of all runs: it covers the choice of faces
    and not that of runs. Metrics over the faces predicted take those that every run predicted.

    Raises:
        MienError: The metric is unknown or needs other columns, there is no table, the faces or their labels differ,
            or several runs are given for a calibration error.
    """
    spec, tables = _comparable(joined, metric, subject, n_boot)
    (sample,) = _means(spec, [tables], n_boot, seed)
    return MeanScore(sample.value, *sample.estimate().interval(), sample.n, len(sample.sums))


def paired_difference(
    joined_a: JoinedRuns,
    joined_b: JoinedRuns,
    metric: str,
    subject: str = "subject",
    n_boot: int = 1000,
    seed: int = 0,
) -> Difference:
    """Returns the metric of a minus that of b on the same faces, by a paired bootstrap of subjects.

    Where several tables are given for one, their metrics are averaged (see `mean_over_runs`). Metrics over the faces
    predicted take those that all models predicted. The p value is two-sided and is below 0.05 exactly where the 95%
    interval excludes 0.

    Raises:
        MienError: The metric is unknown or needs other columns, or the faces or their labels differ.
    """
    sides = [[side] if isinstance(side, pd.DataFrame) else list(side) for side in (joined_a, joined_b)]
    spec, tables = _comparable([*sides[0], *sides[1]], metric, subject, n_boot)
    first = len(sides[0])
    a, b = _means(spec, [tables[:first], tables[first:]], n_boot, seed)
    return difference(a, b)


def _comparable(
    joined: Sequence[pd.DataFrame], metric: str, subject: str, n_boot: int
) -> tuple[Metric, list[pd.DataFrame]]:
    """The metric, and the tables in one order, of the same faces."""
    if metric not in METRICS:
        raise MienError(choices("metric", metric, METRICS))
    if not joined:
        raise MienError(f"metric {metric!r}: no table is given; valid: one for each run")
    spec = METRICS[metric]
    tables = [sort_by_subject(table, subject, n_boot) for table in joined]
    same = ["face", "_cluster", spec.truth]
    for rows in tables:
        lacking = [column for column in (spec.truth, *spec.predictions) if column not in rows.columns]
        if lacking:
            raise MienError(f"metric {metric!r} needs the column {lacking[0]!r}, which a table to compare lacks")
        if not rows[same].reset_index(drop=True).equals(tables[0][same].reset_index(drop=True)):
            raise MienError("models are compared on the same faces only: ids, subjects or labels of the tables differ")
    return spec, tables


def _means(spec: Metric, sides: Sequence[Sequence[pd.DataFrame]], n_boot: int, seed: int) -> list[Sample]:
    """For each side, the mean of the metric over its tables, in the same resamples of subjects."""
    tables = [rows for side in sides for rows in side]
    if spec.scale == "distance" and max(map(len, sides)) > 1:
        raise MienError("a calibration error is not averaged over runs; valid: one run a side, or another metric")
    counted = np.logical_and.reduce([spec.counted(rows) for rows in tables])
    samples = iter(_samples([(spec, counted, rows) for rows in tables], n_boot, seed))
    means = []
    for side in sides:
        own = [next(samples) for _ in side]
        sums, resampled = (np.hstack([getattr(one, name) for one in own]) for name in ("sums", "resampled"))
        means.append(Sample(_mean_over_blocks(spec, len(own)), spec.scale, sums, own[0].n, resampled))
    return means


def _mean_over_blocks(spec: Metric, runs: int) -> Callable[[np.ndarray], Any]:
    """Makes the mean of a metric over runs of their sums side by side, (..., runs * k)."""
    if runs == 1:
        return spec.finish
    return lambda sums: np.mean([spec.finish(block) for block in np.split(sums, runs, axis=-1)], axis=0)


def is_applicable(metric: Metric, rows: pd.DataFrame) -> bool:
    """Whether the joined table has what a metric needs, and a label for some face."""
    return {metric.truth, *metric.predictions} <= set(rows.columns) and bool(rows[metric.truth].notna().any())


def sort_by_subject(joined: pd.DataFrame, subject: str, n_boot: int) -> pd.DataFrame:
    """The rows in an order that does not depend on how they came; `_cluster` numbers their clusters from 1."""
    for column in ("face", "status", *TRUTH_COLUMNS.values()):
        if column not in joined.columns:
            raise MienError(f"joined table: needed column {column!r} is absent; mien.metrics.join makes such tables")
    if subject not in joined.columns:
        raise MienError("joined table: " + choices("column of subjects", subject, joined.columns))
    if n_boot < 2:
        raise MienError(f"n_boot {n_boot!r}: a bootstrap needs at least 2 resamples")
    if joined["face"].duplicated().any():
        raise MienError(f"joined table: face {joined.loc[joined['face'].duplicated(), 'face'].iloc[0]!r} occurs twice")
    alone = joined[subject].isna()
    names = joined[subject].astype("str")
    if "dataset" in joined.columns:  # two data sets may number their subjects alike
        names = joined["dataset"].astype("str") + "/" + names
    rows = joined.assign(_alone=alone, _cluster=names.where(~alone, joined["face"].astype("str"))).sort_values(
        ["_alone", "_cluster", "face"], ignore_index=True
    )
    starts = (rows[["_alone", "_cluster"]] != rows[["_alone", "_cluster"]].shift()).any(axis=1)
    return rows.assign(_cluster=np.cumsum(starts.to_numpy())).drop(columns="_alone")


def _groups(rows: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[str, Any, np.ndarray]]:
    """All faces (under an empty name), then each value of each column, and which faces have it."""
    yield "", None, np.ones(len(rows), dtype=bool)
    for name in by:
        column = TRUTH_COLUMNS.get(name, name)
        if column in rows.columns:
            present = rows[column].dropna()
            if isinstance(present.dtype, pd.CategoricalDtype):
                values = list(present.cat.remove_unused_categories().cat.categories)
            else:
                values = sorted(present.unique())
            for value in values:
                yield name, value, (rows[column] == value).fillna(False).to_numpy(dtype=bool)


def _samples(jobs: Sequence[tuple[Metric, np.ndarray, pd.DataFrame]], n_boot: int, seed: int) -> list[Sample]:
    """Each metric's sums by subject, and in the same resamples of subjects."""
    if not jobs:
        return []
    cluster = jobs[0][2]["_cluster"].to_numpy()
    starts = np.flatnonzero(np.diff(cluster, prepend=-1))
    sums = [np.add.reduceat(metric.parts_of(rows, counted), starts, axis=0) for metric, counted, rows in jobs]
    resampled = resample(np.hstack(sums), n_boot, seed)
    pieces = np.split(resampled, np.cumsum([part.shape[1] for part in sums])[:-1], axis=1)
    samples = []
    for (metric, counted, _), part, piece in zip(jobs, sums, pieces, strict=True):
        with_faces = np.logical_or.reduceat(counted, starts)
        samples.append(Sample(metric.finish, metric.scale, part[with_faces], int(counted.sum()), piece))
    return samples


def _versus_baseline(better: str | None, sample: Sample, baseline: Sample) -> str | None:
    found = difference(sample, baseline)
    if np.isnan(found.value):
        return None
    if found.low > 0:
        return "better" if better == "higher" else "worse"
    if found.high < 0:
        return "worse" if better == "higher" else "better"
    return "unclear"
