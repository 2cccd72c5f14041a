"""Every metric, defined once: how it is computed from the joined table, and how reports present it.

A metric is a function of sums over faces. `parts` turns the columns of the joined table into numbers, one row a face,
shape (n, k); these are summed over faces, and `finish` makes the metric of the sums, (..., k). Intervals, groups and
paired comparisons need nothing else, so that a metric is one entry of `METRICS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mien.base.labels import AGE_GROUPS
from mien.metrics.intervals import Scale

UNSURE = "unsure"
"""The prediction of a model that gives no gender; it counts as wrong and is reported as a share of its own."""


BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017."""


GROUP_PROBABILITIES = tuple(f"p_{group}" for group in AGE_GROUPS)


class Unit(NamedTuple):
    """How numbers are shown.

    Attributes:
        symbol: What follows a number, as "%" or "years"; empty for a number without a unit.
        factor: What a number is multiplied by to be shown in this unit.
        digits: Decimal places.
        difference: The unit of differences, as "points" for percentages.
    """

    symbol: str
    factor: float
    digits: int
    difference: str


PERCENT = Unit("%", 100.0, 1, "points")
YEARS = Unit("years", 1.0, 2, "years")
UNITLESS = Unit("", 1.0, 3, "")

MAJORITY_CLASS = "the majority class"
MEDIAN_AGE = "the median age"
CONSTANT_PROBABILITY = "a constant probability"


def mean_parts(values: ArrayLike) -> np.ndarray:
    """The parts of a mean: the value of each face and 1, (n, 2)."""
    values = np.asarray(values, dtype=float)
    return np.column_stack([values, np.ones(len(values))])


def mean_of_ratios(sums: np.ndarray) -> Any:
    """The mean of numerator / denominator over the pairs in the last axis; for one pair, the mean of its values."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (sums[..., 0::2] / sums[..., 1::2]).mean(axis=-1)


def root_of_mean(sums: np.ndarray) -> Any:
    """The square root of the mean, for the root mean squared error."""
    return np.sqrt(np.maximum(mean_of_ratios(sums), 0))  # rounding may leave less than 0 where a subject is left out


def calibration_error(sums: np.ndarray) -> Any:
    """The expected calibration error (ECE) from the sums of `_calibration_parts`.

    The mean over faces of |mean confidence - share correct| in their bin, of `BINS` equal bins, each including its
    upper edge (Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(sums[..., :-1]).sum(axis=-1) / sums[..., -1]


def quadratic_weighted_kappa(sums: np.ndarray) -> Any:
    """Cohen's kappa with quadratic weights (Cohen 1968) from the sums of `_kappa_parts`.

    With quadratic weights the observed and the expected disagreement of a confusion matrix follow from the first two
    moments of its margins. NaN where only one class occurs in the truth, since agreement beyond chance is undefined.
    """
    disagreement, truth, truth_squared, predicted, predicted_squared, n = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = truth_squared + predicted_squared - 2 * truth * predicted / n
        several_classes = n * truth_squared > truth**2
        return np.where(several_classes, 1 - disagreement / expected, np.nan)


def _correct(truth: ArrayLike, prediction: ArrayLike) -> np.ndarray:
    """Whether each prediction equals the truth; a missing or unsure prediction is wrong."""
    return mean_parts(np.asarray(truth, dtype=object) == np.asarray(prediction, dtype=object))


def _correct_by_class(truth: ArrayLike, prediction: ArrayLike) -> np.ndarray:
    """A pair of columns for each class that occurs in the truth."""
    labels = np.asarray(truth, dtype=object)
    correct = _correct(truth, prediction)
    return np.hstack([correct * (labels == label)[:, None] for label in sorted(set(labels))] or [correct])


def _auc_parts(truth: ArrayLike, p: ArrayLike) -> np.ndarray:
    """The area under the ROC curve as a mean of two ratios, to first order in the weights of the faces.

    Exact for the faces as they are; for a resample its error is of second order. This is the clustered DeLong
    method (Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data"). NaN where only one class occurs.
    """
    female = np.asarray(truth, dtype=object) == "female"
    ranked = _share_ranked_correctly(female, np.asarray(p, dtype=float))
    area = ranked[female].mean() if female.any() else np.nan
    parts = mean_parts(2 * ranked - area)
    return np.hstack([parts * female[:, None], parts * ~female[:, None]])


def _share_ranked_correctly(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """For each face, the share of the other class that it is ranked correctly against, ties counting half, (n,)."""
    values, place = np.unique(scores, return_inverse=True)
    positives = np.bincount(place, positive, len(values))
    negatives = np.bincount(place, ~positive, len(values))
    with np.errstate(invalid="ignore"):
        below = (np.cumsum(negatives) - negatives / 2) / negatives.sum()
        above = (positives.sum() - np.cumsum(positives) + positives / 2) / positives.sum()
    return np.where(positive, below[place], above[place])


def _age_group_index(groups: ArrayLike) -> np.ndarray:
    """The position of each age group, -1 where it is missing, (n,)."""
    return pd.Index(AGE_GROUPS).get_indexer(pd.Index(np.asarray(groups, dtype=object)))


def _within_one_group(truth: ArrayLike, prediction: ArrayLike) -> np.ndarray:
    """Whether each age group is the true one or a neighbour of it; a missing prediction is wrong."""
    true, predicted = _age_group_index(truth), _age_group_index(prediction)
    return mean_parts((np.abs(true - predicted) <= 1) & (predicted >= 0))


def _kappa_parts(truth: ArrayLike, prediction: ArrayLike) -> np.ndarray:
    """The squared disagreement of each face, the moments of truth and prediction, and 1, (n, 6)."""
    true, predicted = (_age_group_index(groups).astype(float) for groups in (truth, prediction))
    return np.column_stack([(true - predicted) ** 2, true, true**2, predicted, predicted**2, np.ones(len(true))])


def _calibration_parts(confidence: ArrayLike, correct: ArrayLike) -> np.ndarray:
    """Correct (0 or 1) minus confidence in the column of the face's bin, and 1 in the last column."""
    stated = np.asarray(confidence, dtype=float)
    parts = np.zeros((len(stated), BINS + 1))
    parts[np.arange(len(stated)), bin_of(stated, BINS)] = np.asarray(correct, dtype=float) - stated
    parts[:, -1] = 1
    return parts


def bin_of(p: np.ndarray, bins: int) -> np.ndarray:
    """The bin (n,) of each probability, of equal bins that include their upper edge."""
    return np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], p, side="left")


def _years_off(truth: ArrayLike, age: ArrayLike) -> np.ndarray:
    """Predicted minus true age, (n,); NaN where there is no prediction."""
    return np.asarray(age, dtype=float) - np.asarray(truth, dtype=float)


def within_years(years: float) -> Callable[..., np.ndarray]:
    """The parts of the cumulative score CS@years: ages off by at most so many years; a missing prediction is wrong."""
    return lambda truth, age: mean_parts(np.abs(_years_off(truth, age)) <= years)


def years_outside(truth: pd.Series, age: ArrayLike) -> np.ndarray:
    """How far each predicted age is from the range of the true one, (n,); 0 inside, NaN where there is no prediction.

    The ends of a range are whole years, which here and in the network reach from half a year before to half after.
    """
    ranges: Any = pd.arrays.IntervalArray(truth)
    years = np.asarray(age, dtype=float)
    return np.maximum(np.maximum(ranges.left - years, years - ranges.right) - 0.5, 0.0)


def _inside_interval(truth: ArrayLike, low: ArrayLike, high: ArrayLike) -> np.ndarray:
    """Whether each true age is in [low, high]."""
    years = np.asarray(truth, dtype=float)
    return mean_parts((np.asarray(low, dtype=float) <= years) & (years <= np.asarray(high, dtype=float)))


def gender_confidence(truth: ArrayLike, gender: ArrayLike, p_female: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The confidence of each predicted gender, and whether it is correct; for unsure, of the more probable gender."""
    p, predicted = np.asarray(p_female, dtype=float), np.asarray(gender, dtype=object)
    female = np.where(predicted == UNSURE, p >= 0.5, predicted == "female")
    return np.where(female, p, 1 - p), (np.asarray(truth, dtype=object) == "female") == female


def group_confidence(truth: ArrayLike, group: ArrayLike, *probabilities: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The probability of each predicted age group, and whether it is correct."""
    predicted = _age_group_index(group)
    table = np.column_stack([np.asarray(p, dtype=float) for p in probabilities])
    correct = np.asarray(truth, dtype=object) == np.asarray(group, dtype=object)
    return table[np.arange(len(table)), predicted], correct


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a metric is computed from columns of the joined table, and how it is presented.

    Attributes:
        label: What reports call it.
        unit: How its numbers are shown.
        truth: Column of the truth; faces where it is missing are not counted.
        predictions: Columns of the predictions, given to `parts` after the truth.
        parts: Makes numbers, (n, k), that are summed over faces.
        finish: Makes the metric, (...), from sums of parts, (..., k).
        scale: What kind of number it is; chooses the interval (see `mien.metrics.intervals`). The parts of a "share"
            are pairs of numerator and denominator.
        better: Which direction is better; None where neither is.
        baseline: In words, the constant prediction that it is compared with, as "the median age"; None where a
            constant prediction has no meaningful value.
        headline: Whether runs are compared by it.
        missing_is_wrong: Whether faces without a prediction count (as wrong), or are left out.
        among: The one value of the truth whose faces are counted; None: all.
        needs_classes: Whether it compares classes of the truth, so that it has no value where only one occurs.
    """

    label: str
    unit: Unit
    truth: str
    predictions: tuple[str, ...]
    parts: Callable[..., np.ndarray]
    finish: Callable[[np.ndarray], Any] = mean_of_ratios
    scale: Scale = "share"
    better: Literal["higher", "lower"] | None = "higher"
    baseline: str | None = None
    headline: bool = False
    missing_is_wrong: bool = True
    among: str | None = None
    needs_classes: bool = False

    def counted(self, joined: pd.DataFrame) -> np.ndarray:
        """Which faces count, (n,)."""
        truth = joined[self.truth]
        counted = (truth.notna() if self.among is None else (truth == self.among).fillna(False)).to_numpy(dtype=bool)
        if not self.missing_is_wrong:
            counted = counted & joined[list(self.predictions)].notna().all(axis=1).to_numpy()
        return counted

    def parts_of(self, joined: pd.DataFrame, counted: np.ndarray) -> np.ndarray:
        """The parts of the faces that count, and zeros for the others, (n, k)."""
        some = self.parts(*(joined.loc[counted, column] for column in (self.truth, *self.predictions)))
        parts = np.zeros((len(joined), some.shape[1]))
        parts[counted] = some
        return parts


METRICS: dict[str, Metric] = {
    "coverage": Metric(
        label="faces with a prediction",
        unit=PERCENT,
        truth="face",
        predictions=("status",),
        parts=lambda face, status: mean_parts(status == "ok"),
    ),
    "gender_accuracy": Metric(
        label="gender accuracy",
        unit=PERCENT,
        truth="true_gender",
        predictions=("gender",),
        parts=_correct,
        baseline=MAJORITY_CLASS,
        headline=True,
    ),
    "gender_balanced_accuracy": Metric(
        label="gender balanced accuracy",
        unit=PERCENT,
        truth="true_gender",
        predictions=("gender",),
        parts=_correct_by_class,
        baseline=MAJORITY_CLASS,
        needs_classes=True,
    ),
    "gender_false_male": Metric(
        label="women classified as men",
        unit=PERCENT,
        truth="true_gender",
        predictions=("gender",),
        parts=lambda truth, gender: mean_parts(gender == "male"),
        better="lower",
        among="female",
    ),
    "gender_false_female": Metric(
        label="men classified as women",
        unit=PERCENT,
        truth="true_gender",
        predictions=("gender",),
        parts=lambda truth, gender: mean_parts(gender == "female"),
        better="lower",
        among="male",
    ),
    "gender_auc": Metric(
        label="gender AUC",
        unit=UNITLESS,
        truth="true_gender",
        predictions=("p_female",),
        parts=_auc_parts,
        baseline=CONSTANT_PROBABILITY,
        missing_is_wrong=False,
        needs_classes=True,
    ),
    "gender_ece": Metric(
        label="gender calibration error",
        unit=PERCENT,
        truth="true_gender",
        predictions=("gender", "p_female"),
        parts=lambda *columns: _calibration_parts(*gender_confidence(*columns)),
        finish=calibration_error,
        scale="distance",
        better="lower",
        missing_is_wrong=False,
    ),
    "gender_unsure": Metric(
        label="gender unsure",
        unit=PERCENT,
        truth="face",
        predictions=("gender",),
        parts=lambda face, gender: mean_parts(gender == UNSURE),
        better="lower",
        missing_is_wrong=False,
    ),
    "age_group_exact": Metric(
        label="age group accuracy",
        unit=PERCENT,
        truth="true_age_group",
        predictions=("age_group",),
        parts=_correct,
        baseline=MAJORITY_CLASS,
        headline=True,
    ),
    "age_group_one_off": Metric(
        label="age group 1-off accuracy",
        unit=PERCENT,
        truth="true_age_group",
        predictions=("age_group",),
        parts=_within_one_group,
        baseline=MAJORITY_CLASS,
        headline=True,
    ),
    "age_group_qwk": Metric(
        label="age group quadratic weighted kappa",
        unit=UNITLESS,
        truth="true_age_group",
        predictions=("age_group",),
        parts=_kappa_parts,
        finish=quadratic_weighted_kappa,
        scale="correlation",
        baseline=MAJORITY_CLASS,
        missing_is_wrong=False,
        needs_classes=True,
    ),
    "age_group_ece": Metric(
        label="age group calibration error",
        unit=PERCENT,
        truth="true_age_group",
        predictions=("age_group", *GROUP_PROBABILITIES),
        parts=lambda *columns: _calibration_parts(*group_confidence(*columns)),
        finish=calibration_error,
        scale="distance",
        better="lower",
        missing_is_wrong=False,
    ),
    "age_mae": Metric(
        label="mean absolute error of age",
        unit=YEARS,
        truth="true_age",
        predictions=("age",),
        parts=lambda truth, age: mean_parts(np.abs(_years_off(truth, age))),
        scale="error",
        better="lower",
        baseline=MEDIAN_AGE,
        headline=True,
        missing_is_wrong=False,
    ),
    "age_rmse": Metric(
        label="root mean squared error of age",
        unit=YEARS,
        truth="true_age",
        predictions=("age",),
        parts=lambda truth, age: mean_parts(_years_off(truth, age) ** 2),
        finish=root_of_mean,
        scale="error",
        better="lower",
        baseline=MEDIAN_AGE,
        missing_is_wrong=False,
    ),
    "age_cs5": Metric(
        label="age within 5 years",
        unit=PERCENT,
        truth="true_age",
        predictions=("age",),
        parts=within_years(5),
        baseline=MEDIAN_AGE,
    ),
    "age_bias": Metric(
        label="mean error of age",
        unit=YEARS,
        truth="true_age",
        predictions=("age",),
        parts=lambda truth, age: mean_parts(_years_off(truth, age)),
        scale="signed",
        better=None,
        missing_is_wrong=False,
    ),
    "age_range_error": Metric(
        label="years outside of the age range",
        unit=YEARS,
        truth="true_age_range",
        predictions=("age",),
        parts=lambda truth, age: mean_parts(years_outside(truth, age)),
        scale="error",
        better="lower",
        baseline=MEDIAN_AGE,
        headline=True,
        missing_is_wrong=False,
    ),
    "age_in_range": Metric(
        label="age inside of its range",
        unit=PERCENT,
        truth="true_age_range",
        predictions=("age",),
        parts=lambda truth, age: mean_parts(years_outside(truth, age) == 0),
        baseline=MEDIAN_AGE,
    ),
    "age_interval_coverage": Metric(
        label="coverage of the 80% age interval",
        unit=PERCENT,
        truth="true_age",
        predictions=("age_low", "age_high"),
        parts=_inside_interval,
        better=None,
        missing_is_wrong=False,
    ),
}
"""The metrics by name; one that is added here is scored, compared, reported and tested like the others."""
