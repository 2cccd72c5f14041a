"""Metrics of gender and age with intervals, computed from the predictions table.

Faces of one subject resemble each other, so intervals come from a bootstrap that resamples whole subjects
(Field and Welsh 2007, "Bootstrapping clustered data"). Every metric is a function of sums over faces; a
resample is therefore one row of counts times the sums of each subject, whatever the number of faces.

The intervals are those of `mien.intervals`; what cannot be told, such as the spread of an error within one subject,
is NaN.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mien.errors import MienError, choices
from mien.intervals import Difference, Sample, Scale, difference, resample, wilson
from mien.labels import AGE_GROUPS, GENDERS
from mien.table import FACES_COLUMNS, age_to_group, check_faces

UNSURE = "unsure"
"""The answer of a model that gives no gender; it counts as wrong and is reported as a share of its own."""

BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017."""

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

_GROUP_PROBABILITIES = tuple(f"p_{group}" for group in AGE_GROUPS)
ANSWERS = ("p_female", "gender", "age", "age_low", "age_high", "age_group", *_GROUP_PROBABILITIES)
"""The columns of predictions that are answers."""

TRUTHS = {"gender": "true_gender", "age": "true_age", "age_group": "true_age_group"}
"""The columns of the joined table that hold the labels."""
# Within a group of one true gender, a constant gender is all right or all wrong, which says nothing.
_SAME_TRUTH = {
    "gender": {"true_gender"},
    "age": {"true_age", "true_age_group"},
    "age_group": {"true_age", "true_age_group"},
}


def join(faces: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """Returns one row a face: the truth, and what was predicted for it.

    Labels become `true_gender`, `true_age`, `true_age_group` (the last from the age where only that is
    known); the other columns of faces stay, except the box. Predictions keep their names: `status` and as
    many of `p_female gender age age_low age_high age_group p_<age group>` as there are; where absent,
    `gender` follows from `p_female` (female from 0.5) and `age_group` from `age`. A face without a prediction
    has the status "no prediction"; answers beside another status than "ok" are taken out. Predictions without
    a face id (further faces in a photograph) concern no row and are ignored.

    Raises:
        MienError: An id occurs twice or is no face of the table, nothing is predicted, an answer is unknown,
            a probability lies outside of 0 to 1, or a column of faces has the name of a prediction.
    """
    truth = check_faces(faces).drop(columns=["x", "y", "w", "h"]).rename(columns=TRUTHS)
    answers = _check_predictions(predictions)
    clash = [column for column in answers.columns if column != "face" and column in truth.columns]
    if clash:
        raise MienError(f"faces table: column {clash[0]!r} has the name of a prediction; rename it")
    unknown = answers.loc[~answers["face"].isin(truth["face"]), "face"]
    if len(unknown):
        raise MienError(
            f"predictions: {len(unknown)} ids are not in the faces table, for instance {unknown.iloc[0]!r}; "
            "give the faces that were predicted, or only the predictions of these faces"
        )
    joined = truth.merge(answers, on="face", how="left", validate="one_to_one")
    joined["status"] = joined["status"].fillna("no prediction")
    return joined


def _check_predictions(predictions: pd.DataFrame) -> pd.DataFrame:
    """The columns `face`, `status` and the answers, checked, with the answers that follow from others."""
    if "face" not in predictions.columns:
        listed = ", ".join(map(str, predictions.columns))
        raise MienError(f"predictions: needed column 'face' is absent; its columns are: {listed}")
    known = [column for column in ANSWERS if column in predictions.columns]
    if not known:
        raise MienError(f"predictions: no column with an answer; valid: {', '.join(ANSWERS)}")
    rows = predictions.loc[predictions["face"].notna()]
    # The faces table's own check gives the ids the same form on both sides (7.0 and 7 are one id).
    ids = check_faces(pd.DataFrame({"face": rows["face"], "path": "-"}), "predictions")["face"]
    out = rows[known].reset_index(drop=True)
    status = rows["status"] if "status" in rows.columns else pd.Series("ok", index=rows.index)
    out.insert(0, "status", status.to_numpy())
    out.insert(0, "face", ids)
    out["status"] = out["status"].fillna("no prediction").astype("str")
    for column in known:
        out[column] = _check_answer(out[column].where(out["status"] == "ok"), column)
    if "gender" not in known and "p_female" in known:
        likelier = pd.Series(np.where(out["p_female"] >= 0.5, "female", "male"))
        out["gender"] = likelier.where(out["p_female"].notna()).astype(pd.CategoricalDtype([*GENDERS, UNSURE]))
    if "age_group" not in known and "age" in known:
        out["age_group"] = age_to_group(out["age"])
    return out


def _check_answer(values: pd.Series, column: str) -> pd.Series:
    """One column of answers in its dtype."""
    if column in ("gender", "age_group"):
        dtype = pd.CategoricalDtype([*GENDERS, UNSURE]) if column == "gender" else FACES_COLUMNS["age_group"]
        bad = values[values.notna() & ~values.astype("object").isin(list(dtype.categories))]
        if len(bad):
            raise MienError("predictions: " + choices(column, bad.iloc[0], dtype.categories))
        return values.astype("object").where(values.notna(), None).astype(dtype)
    numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    top = 1.0 if column.startswith("p_") else np.inf
    wrong = values[values.notna() & ~((numbers >= 0) & (numbers <= top) & np.isfinite(numbers))]
    if len(wrong):
        valid = "a probability from 0 to 1" if column.startswith("p_") else "a number of years, 0 or more"
        raise MienError(f"predictions: column {column!r}: {wrong.iloc[0]!r} is not {valid} ({len(wrong)} rows)")
    return numbers


def accuracy(truth: ArrayLike, answer: ArrayLike, weight: np.ndarray | None = None) -> Any:
    """The share of answers that equal the truth; a missing or unsure answer is wrong.

    Like the functions below it takes one value a face, shape (n,), and a weight a face, (n,) or (b, n) for b
    weightings at once, and returns a number or b of them; NaN where no face has a weight.
    """
    return _mean_ratio(_total(_hits(truth, answer), weight))


def balanced_accuracy(truth: ArrayLike, answer: ArrayLike, weight: np.ndarray | None = None) -> Any:
    """The mean, over the classes that occur in the truth, of the share of right answers."""
    return _mean_ratio(_total(_hits_by_class(truth, answer), weight))


def auc(truth: ArrayLike, p: ArrayLike, weight: np.ndarray | None = None) -> Any:
    """The area under the ROC curve: how often p is higher where truth (n, bool) holds, ties counting half.

    NaN where only one class occurs.
    """
    positive, scores = np.asarray(truth, dtype=bool), np.asarray(p, dtype=float)

    def one(weights: np.ndarray) -> float:
        placed = _placements(positive, scores, weights)[positive]
        total = weights[positive].sum()
        return float((placed * weights[positive]).sum() / total) if total > 0 else np.nan

    if weight is None:
        return one(np.ones(len(scores)))
    return one(weight) if weight.ndim == 1 else np.array([one(weights) for weights in weight])


def one_off(truth: ArrayLike, answer: ArrayLike, weight: np.ndarray | None = None) -> Any:
    """The share of age groups that are right or next to the right one; a missing answer is wrong."""
    return _mean_ratio(_total(_neighbours(truth, answer), weight))


def calibration_error(certainty: ArrayLike, correct: ArrayLike, weight: np.ndarray | None = None) -> Any:
    """The expected calibration error: the distance between certainty (0 to 1) and the share that is right.

    The mean over faces of |mean certainty - share right| in their bin, of `BINS` equal bins, each including
    its upper edge (Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3).
    """
    return _distance(_total(_calibration_parts(certainty, correct), weight))


def mean_absolute_error(truth: ArrayLike, age: ArrayLike, weight: np.ndarray | None = None) -> Any:
    """The mean absolute error in years."""
    return _mean_ratio(_total(pair(np.abs(_error(truth, age))), weight))


def mean_error(truth: ArrayLike, age: ArrayLike, weight: np.ndarray | None = None) -> Any:
    """The mean error in years; positive where ages are overestimated."""
    return _mean_ratio(_total(pair(_error(truth, age)), weight))


def cumulative_score(truth: ArrayLike, age: ArrayLike, weight: np.ndarray | None = None, years: float = 5.0) -> Any:
    """The share of ages that are off by at most `years`; a missing answer is wrong."""
    return _mean_ratio(_total(pair(np.abs(_error(truth, age)) <= years), weight))


def interval_coverage(truth: ArrayLike, low: ArrayLike, high: ArrayLike, weight: np.ndarray | None = None) -> Any:
    """The share of true ages inside of [low, high]."""
    return _mean_ratio(_total(_inside(truth, low, high), weight))


# What follows turns columns into parts, (n, k): numbers which are summed over faces before `finish` makes the
# metric of them. Parts come in pairs (numerator, denominator), except those of the calibration error.


def pair(outcome: ArrayLike) -> np.ndarray:
    """The parts of a mean: the outcome of each face and 1, (n, 2)."""
    outcome = np.asarray(outcome, dtype=float)
    return np.column_stack([outcome, np.ones(len(outcome))])


def _hits(truth: ArrayLike, answer: ArrayLike) -> np.ndarray:
    return pair(np.asarray(truth, dtype=object) == np.asarray(answer, dtype=object))


def _hits_by_class(truth: ArrayLike, answer: ArrayLike) -> np.ndarray:
    labels = np.asarray(truth, dtype=object)
    hits = _hits(truth, answer)
    return np.hstack([hits * (labels == label)[:, None] for label in sorted(set(labels))] or [hits])


def _placements(positive: np.ndarray, scores: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The weighted share of the other class that each face is on the right side of, ties counting half."""
    values, place = np.unique(scores, return_inverse=True)
    above_of = np.bincount(place, weight * positive, len(values))
    below_of = np.bincount(place, weight * ~positive, len(values))
    with np.errstate(invalid="ignore"):
        below = (np.cumsum(below_of) - below_of / 2) / below_of.sum()
        above = (above_of.sum() - np.cumsum(above_of) + above_of / 2) / above_of.sum()
    return np.where(positive, below[place], above[place])


def _auc_parts(truth: ArrayLike, p: ArrayLike) -> np.ndarray:
    """The AUC as a mean of two ratios, to first order in the weights of the faces.

    Exact for the faces as they are; for a resample its error is of second order. This is the clustered DeLong
    method (Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data").
    """
    female = np.asarray(truth, dtype=object) == "female"
    placed = _placements(female, np.asarray(p, dtype=float), np.ones(len(female)))
    area = placed[female].mean() if female.any() else np.nan
    parts = pair(2 * placed - area)
    return np.hstack([parts * female[:, None], parts * ~female[:, None]])


def _group_codes(groups: ArrayLike) -> np.ndarray:
    return pd.Index(AGE_GROUPS).get_indexer(pd.Index(np.asarray(groups, dtype=object)))


def _neighbours(truth: ArrayLike, answer: ArrayLike) -> np.ndarray:
    true, said = _group_codes(truth), _group_codes(answer)
    return pair((np.abs(true - said) <= 1) & (said >= 0))


def _calibration_parts(certainty: ArrayLike, correct: ArrayLike) -> np.ndarray:
    """The sum of correct minus certainty in each bin, and the number of faces."""
    stated = np.asarray(certainty, dtype=float)
    parts = np.zeros((len(stated), BINS + 1))
    parts[np.arange(len(stated)), _bin_of(stated, BINS)] = np.asarray(correct, dtype=float) - stated
    parts[:, -1] = 1
    return parts


def _bin_of(p: np.ndarray, bins: int) -> np.ndarray:
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], p, side="left")


def _error(truth: ArrayLike, age: ArrayLike) -> np.ndarray:
    return np.asarray(age, dtype=float) - np.asarray(truth, dtype=float)


def _inside(truth: ArrayLike, low: ArrayLike, high: ArrayLike) -> np.ndarray:
    years = np.asarray(truth, dtype=float)
    return pair((np.asarray(low, dtype=float) <= years) & (years <= np.asarray(high, dtype=float)))


def _gender_certainty(truth: ArrayLike, gender: ArrayLike, p_female: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Certainty of the answer, where it is unsure that of the likelier gender, and whether it is right."""
    p, said = np.asarray(p_female, dtype=float), np.asarray(gender, dtype=object)
    female = np.where(said == UNSURE, p >= 0.5, said == "female")
    return np.where(female, p, 1 - p), (np.asarray(truth, dtype=object) == "female") == female


def _group_certainty(truth: ArrayLike, group: ArrayLike, *probabilities: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The probability of the age group that was answered, and whether it is right."""
    said = _group_codes(group)
    table = np.column_stack([np.asarray(p, dtype=float) for p in probabilities])
    return table[np.arange(len(table)), said], np.asarray(truth, dtype=object) == np.asarray(group, dtype=object)


def _total(parts: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    return parts.sum(axis=0) if weight is None else weight @ parts


def _mean_ratio(sums: np.ndarray) -> Any:
    """The mean of numerator / denominator over the pairs in the last axis."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (sums[..., 0::2] / sums[..., 1::2]).mean(axis=-1)


def _distance(sums: np.ndarray) -> Any:
    """The sum of absolute differences over bins, divided by the last column."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(sums[..., :-1]).sum(axis=-1) / sums[..., -1]


@dataclass(frozen=True)
class Metric:
    """How a metric follows from columns of the joined table.

    Attributes:
        truth: Column of the truth; faces where it is missing are not counted.
        answers: Columns of the predictions, given to `parts` after the truth.
        parts: Makes numbers, (n, k), that are summed over faces.
        scale: What kind of number it is; chooses the interval.
        better: Which direction is better; None where neither is.
        missing_is_wrong: Whether faces without an answer count (as wrong), or are left out.
        has_baseline: Whether a constant answer has a meaningful value.
        among: The one value of the truth whose faces are counted; None: all.
    """

    truth: str
    answers: tuple[str, ...]
    parts: Callable[..., np.ndarray]
    scale: Scale
    better: Literal["higher", "lower"] | None = "higher"
    missing_is_wrong: bool = True
    has_baseline: bool = True
    among: str | None = None

    def finish(self, sums: np.ndarray) -> Any:
        """The metric from sums of parts, (..., k)."""
        return _distance(sums) if self.scale == "distance" else _mean_ratio(sums)

    def rows(self, joined: pd.DataFrame) -> np.ndarray:
        """Which faces count, (n,)."""
        truth = joined[self.truth]
        counted = (truth.notna() if self.among is None else (truth == self.among).fillna(False)).to_numpy(dtype=bool)
        if not self.missing_is_wrong:
            counted = counted & joined[list(self.answers)].notna().all(axis=1).to_numpy()
        return counted

    def parts_of(self, joined: pd.DataFrame, counted: np.ndarray) -> np.ndarray:
        """The parts of the faces that count, and zeros for the others, (n, k)."""
        some = self.parts(*(joined.loc[counted, column] for column in (self.truth, *self.answers)))
        parts = np.zeros((len(joined), some.shape[1]))
        parts[counted] = some
        return parts


METRICS: dict[str, Metric] = {
    "coverage": Metric("face", ("status",), lambda face, status: pair(status == "ok"), "share", has_baseline=False),
    "gender_accuracy": Metric("true_gender", ("gender",), _hits, "share"),
    "gender_balanced_accuracy": Metric("true_gender", ("gender",), _hits_by_class, "share"),
    "gender_false_male": Metric(
        "true_gender",
        ("gender",),
        lambda truth, gender: pair(gender == "male"),
        "share",
        better="lower",
        has_baseline=False,
        among="female",
    ),
    "gender_false_female": Metric(
        "true_gender",
        ("gender",),
        lambda truth, gender: pair(gender == "female"),
        "share",
        better="lower",
        has_baseline=False,
        among="male",
    ),
    "gender_auc": Metric("true_gender", ("p_female",), _auc_parts, "share", missing_is_wrong=False),
    "gender_ece": Metric(
        "true_gender",
        ("gender", "p_female"),
        lambda *columns: _calibration_parts(*_gender_certainty(*columns)),
        "distance",
        better="lower",
        missing_is_wrong=False,
        has_baseline=False,
    ),
    "gender_unsure": Metric(
        "face",
        ("gender",),
        lambda face, gender: pair(gender == UNSURE),
        "share",
        better="lower",
        missing_is_wrong=False,
        has_baseline=False,
    ),
    "age_group_exact": Metric("true_age_group", ("age_group",), _hits, "share"),
    "age_group_one_off": Metric("true_age_group", ("age_group",), _neighbours, "share"),
    "age_group_ece": Metric(
        "true_age_group",
        ("age_group", *_GROUP_PROBABILITIES),
        lambda *columns: _calibration_parts(*_group_certainty(*columns)),
        "distance",
        better="lower",
        missing_is_wrong=False,
        has_baseline=False,
    ),
    "age_mae": Metric(
        "true_age",
        ("age",),
        lambda truth, age: pair(np.abs(_error(truth, age))),
        "error",
        better="lower",
        missing_is_wrong=False,
    ),
    "age_cs5": Metric("true_age", ("age",), lambda truth, age: pair(np.abs(_error(truth, age)) <= 5), "share"),
    "age_bias": Metric(
        "true_age",
        ("age",),
        lambda truth, age: pair(_error(truth, age)),
        "signed",
        better=None,
        missing_is_wrong=False,
        has_baseline=False,
    ),
    "age_interval_coverage": Metric(
        "true_age",
        ("age_low", "age_high"),
        _inside,
        "share",
        better=None,
        missing_is_wrong=False,
        has_baseline=False,
    ),
}
"""The metrics by name; one that is added here is scored, compared and tested like the others."""


def _constant_answers(train_faces: pd.DataFrame) -> dict[str, Any]:
    """The answers that need no picture, by column: majority classes (of equal ones the first), median age."""
    faces = check_faces(train_faces, "training faces")
    answers: dict[str, Any] = {}
    for column in ("gender", "age_group"):
        if faces[column].notna().any():
            answers[column] = faces[column].value_counts(sort=False).idxmax()
    if faces["age"].notna().any():
        answers["age"] = float(faces["age"].median())
    if "gender" in answers:
        answers["p_female"] = 0.5  # any constant ranks nobody above anybody
    return answers


def score(
    joined: pd.DataFrame,
    by: Sequence[str] = ("gender", "age_group", "race"),
    train_faces: pd.DataFrame | None = None,
    subject: str = "subject",
    n_boot: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Returns every metric that the columns of `joined` (see `join`) allow, overall and by group.

    One row a number: `group` ("all", "gender=female", ... by the true labels), `metric` (a key of `METRICS`),
    `value`, its 95% interval `low` and `high`, `n` faces, `subjects`, the value of the `baseline` on the same
    faces, and `versus_baseline`: "better" or "worse" where the interval of the paired difference excludes 0,
    else "unclear"; empty without a baseline, and within groups of the very label that the metric judges.

    A face without a prediction is wrong in accuracies, exact, one-off and cumulative score; other metrics are
    over the faces predicted, as `n` says. `gender_unsure` is given where any answer is unsure. Metrics for
    which no face has a label are not listed; those for which a group has none are NaN with n 0.

    The result depends on the seed but not on the order of the rows.

    Args:
        joined: One row a face.
        by: Columns to group by; those that the table lacks are passed over.
        train_faces: The training part, whose majority classes and median age are the baseline.
        subject: Column of the clusters; a face where it is missing is a cluster of its own.
        n_boot: Number of resamples, at least 2.
        seed: Seed of the resamples; each group starts from it.

    Raises:
        MienError: Columns that `join` makes are absent, a face occurs twice, or n_boot is below 2.
    """
    rows = in_order(joined, subject, n_boot)
    names = [name for name, metric in METRICS.items() if applies(metric, rows)]
    if "gender_unsure" in names and not (rows["gender"] == UNSURE).any():
        names.remove("gender_unsure")
    constant = {} if train_faces is None else _constant_answers(train_faces)
    lines = []
    for name, value, members in _groups(rows, by):
        for metric, line in _score_group(rows[members], names, constant, n_boot, seed):
            if METRICS[metric].truth in _SAME_TRUTH.get(name, ()):
                line["versus_baseline"] = None
            lines.append({"group": f"{name}={value}" if name else "all", "metric": metric, **line})
    return pd.DataFrame(lines, columns=pd.Index(METRICS_COLUMNS))


def _score_group(
    rows: pd.DataFrame, names: Sequence[str], constant: dict[str, Any], n_boot: int, seed: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """One line a metric, for the faces of one group."""
    answered = rows.assign(**constant)
    compared = {name for name in names if METRICS[name].has_baseline and set(METRICS[name].answers) <= set(constant)}
    jobs = {}
    for name in names:
        counted = METRICS[name].rows(rows)
        jobs[name, "model"] = (METRICS[name], counted, rows)
        if name in compared:
            jobs[name, "constant"] = (METRICS[name], counted, answered)
    samples = dict(zip(jobs, _samples(list(jobs.values()), n_boot, seed), strict=True))
    for name in names:
        sample = samples[name, "model"]
        low, high = sample.estimate().interval()
        line: dict[str, Any] = {"value": sample.value, "low": low, "high": high, "n": sample.n}
        line |= {"subjects": len(sample.sums), "baseline": np.nan, "versus_baseline": None}
        if name in compared:
            constant_sample = samples[name, "constant"]
            line["baseline"] = constant_sample.value
            line["versus_baseline"] = _verdict(METRICS[name].better, sample, constant_sample)
        yield name, line


Repeats = pd.DataFrame | Sequence[pd.DataFrame]
"""A joined table, or several of the same faces: one for each of the runs whose metric is averaged."""


class Mean(NamedTuple):
    """The mean of a metric over runs that predicted the same faces, with the 95% interval of that mean."""

    value: float
    low: float
    high: float
    n: int
    subjects: int


def mean_over_runs(
    joined: Sequence[pd.DataFrame], metric: str, subject: str = "subject", n_boot: int = 1000, seed: int = 0
) -> Mean:
    """Returns the mean of a metric over the predictions of several runs for the same faces.

    The interval comes from resampling subjects, each with its predictions of all runs: it covers the choice of faces
    and not that of runs. Metrics over the faces predicted take those that every run predicted.

    Raises:
        MienError: The metric is unknown or needs other columns, there is no table, the faces or their labels differ,
            or several runs are given for a calibration error.
    """
    spec, tables = _comparable(joined, metric, subject, n_boot)
    (sample,) = _means(spec, [tables], n_boot, seed)
    return Mean(sample.value, *sample.estimate().interval(), sample.n, len(sample.sums))


def paired_difference(
    joined_a: Repeats,
    joined_b: Repeats,
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
    tables = [in_order(table, subject, n_boot) for table in joined]
    same = ["face", "_cluster", spec.truth]
    for rows in tables:
        lacking = [column for column in (spec.truth, *spec.answers) if column not in rows.columns]
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
    counted = np.logical_and.reduce([spec.rows(rows) for rows in tables])
    samples = iter(_samples([(spec, counted, rows) for rows in tables], n_boot, seed))
    means = []
    for side in sides:
        own = [next(samples) for _ in side]
        # A metric is the mean of its ratios, so that the ratios of several runs, side by side, make their mean.
        sums, resampled = (np.hstack([getattr(one, name) for one in own]) for name in ("sums", "resampled"))
        means.append(Sample(spec.finish, spec.scale, sums, own[0].n, resampled))
    return means


def applies(metric: Metric, rows: pd.DataFrame) -> bool:
    """Whether the joined table has what a metric needs, and a label for some face."""
    return {metric.truth, *metric.answers} <= set(rows.columns) and bool(rows[metric.truth].notna().any())


def in_order(joined: pd.DataFrame, subject: str, n_boot: int) -> pd.DataFrame:
    """The rows in an order that does not depend on how they came; `_cluster` numbers their clusters from 1."""
    for column in ("face", "status", *TRUTHS.values()):
        if column not in joined.columns:
            raise MienError(f"joined table: needed column {column!r} is absent; mien.metrics.join makes such tables")
    if subject not in joined.columns:
        raise MienError("joined table: " + choices("column of subjects", subject, joined.columns))
    if n_boot < 2:
        raise MienError(f"n_boot {n_boot!r}: a bootstrap needs at least 2 resamples")
    if joined["face"].duplicated().any():
        raise MienError(f"joined table: face {joined.loc[joined['face'].duplicated(), 'face'].iloc[0]!r} occurs twice")
    alone = joined[subject].isna()
    rows = joined.assign(
        _alone=alone, _cluster=joined[subject].astype("str").where(~alone, joined["face"].astype("str"))
    ).sort_values(["_alone", "_cluster", "face"], ignore_index=True)
    starts = (rows[["_alone", "_cluster"]] != rows[["_alone", "_cluster"]].shift()).any(axis=1)
    return rows.assign(_cluster=np.cumsum(starts.to_numpy())).drop(columns="_alone")


def _groups(rows: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[str, Any, np.ndarray]]:
    """All faces (under an empty name), then each value of each column, and which faces have it."""
    yield "", None, np.ones(len(rows), dtype=bool)
    for name in by:
        column = TRUTHS.get(name, name)
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


def _verdict(better: str | None, sample: Sample, baseline: Sample) -> str | None:
    found = difference(sample, baseline)
    if np.isnan(found.value):
        return None
    if found.low > 0:
        return "better" if better == "higher" else "worse"
    if found.high < 0:
        return "worse" if better == "higher" else "better"
    return "unclear"


def confusion(truth: ArrayLike, answer: ArrayLike, labels: Sequence[str]) -> pd.DataFrame:
    """Returns how often each answer (columns) was given for each true label (rows), as counts.

    Columns are the labels, then other answers that occur (as "unsure"), then "no prediction" where some have
    none. Faces without a true label are not counted.
    """
    true, said = pd.Series(np.asarray(truth, dtype=object)), pd.Series(np.asarray(answer, dtype=object))
    said = said.where(said.notna(), "no prediction")
    others = sorted(set(said[true.notna()]) - set(labels), key=lambda name: (name == "no prediction", str(name)))
    counts = pd.crosstab(true, said).reindex(index=list(labels), columns=[*labels, *others], fill_value=0)
    return counts.rename_axis(index="truth", columns="answer")


def certainty(joined: pd.DataFrame, task: str) -> pd.DataFrame:
    """Returns `certainty` and `correct` of the answers to a task, "gender" or "age_group", for `reliability`.

    Faces without a label or a prediction are left out. Certainty is the probability of the answer; for an
    unsure gender, that of the likelier one.

    Raises:
        MienError: The task is another, or its probabilities are absent.
    """
    makers: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
        "gender": _gender_certainty,
        "age_group": _group_certainty,
    }
    if task not in makers:
        raise MienError(choices("task with a certainty", task, makers))
    metric = METRICS[f"{task}_ece"]
    lacking = [column for column in (metric.truth, *metric.answers) if column not in joined.columns]
    if lacking:
        raise MienError(f"certainty of {task!r}: needed column {lacking[0]!r} is absent")
    rows = joined[metric.rows(joined)]
    stated, correct = makers[task](*(rows[column] for column in (metric.truth, *metric.answers)))
    return pd.DataFrame({"certainty": stated, "correct": correct}, index=rows.index)


def reliability(p: ArrayLike, truth: ArrayLike, bins: int = BINS) -> pd.DataFrame:
    """Returns the reliability diagram of probabilities p (n,) of what did or did not happen, truth (n, bool).

    One row a bin of equal width, its upper edge included: `bin_low`, `bin_high`, the mean `p`, the `observed`
    share with Wilson's 95% interval `low` and `high` (faces taken as independent), `n`; NaN in empty bins.
    """
    stated, happened = np.asarray(p, dtype=float), np.asarray(truth, dtype=float)
    place = _bin_of(stated, bins)
    n = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, stated, bins) / n
        observed = np.bincount(place, happened, bins) / n
    low, high = wilson(observed, n)
    edges = np.linspace(0, 1, bins + 1)
    return pd.DataFrame(
        {
            "bin_low": edges[:-1],
            "bin_high": edges[1:],
            "p": mean,
            "observed": observed,
            "low": low,
            "high": high,
            "n": n,
        }
    )
