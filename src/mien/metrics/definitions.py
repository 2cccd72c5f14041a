"""Every metric, defined once: how it follows from the joined table, and what reports call it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mien.base.labels import AGE_GROUPS
from mien.metrics.intervals import Scale

UNSURE = "unsure"
"""The answer of a model that gives no gender; it counts as wrong and is reported as a share of its own."""


BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017."""


GROUP_PROBABILITIES = tuple(f"p_{group}" for group in AGE_GROUPS)


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
    parts[np.arange(len(stated)), bin_of(stated, BINS)] = np.asarray(correct, dtype=float) - stated
    parts[:, -1] = 1
    return parts


def bin_of(p: np.ndarray, bins: int) -> np.ndarray:
    """The bin (n,) of each probability, of equal bins that include their upper edge."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], p, side="left")


def _error(truth: ArrayLike, age: ArrayLike) -> np.ndarray:
    return np.asarray(age, dtype=float) - np.asarray(truth, dtype=float)


def _inside(truth: ArrayLike, low: ArrayLike, high: ArrayLike) -> np.ndarray:
    years = np.asarray(truth, dtype=float)
    return pair((np.asarray(low, dtype=float) <= years) & (years <= np.asarray(high, dtype=float)))


def gender_certainty(truth: ArrayLike, gender: ArrayLike, p_female: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Certainty of the answer, where it is unsure that of the likelier gender, and whether it is right."""
    p, said = np.asarray(p_female, dtype=float), np.asarray(gender, dtype=object)
    female = np.where(said == UNSURE, p >= 0.5, said == "female")
    return np.where(female, p, 1 - p), (np.asarray(truth, dtype=object) == "female") == female


def group_certainty(truth: ArrayLike, group: ArrayLike, *probabilities: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
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
        lambda *columns: _calibration_parts(*gender_certainty(*columns)),
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
        ("age_group", *GROUP_PROBABILITIES),
        lambda *columns: _calibration_parts(*group_certainty(*columns)),
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
