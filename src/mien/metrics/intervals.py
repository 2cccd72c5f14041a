"""Intervals of numbers that are functions of sums over faces, from resamples of whole subjects.

The intervals take the standard error from the bootstrap and the quantile of the t distribution for the degrees of
freedom that the scatter of the subjects allows (Satterthwaite's, from the jackknife), and then, by `Scale`:

- share: Wilson's interval with the effective n, value * (1 - value) / standard error ** 2, lowered for the t
  quantile (Wilson 1927; Korn and Graubard 1998). Where the resamples do not differ, as at 0 and 1, it is the
  number of subjects, or fewer if their sizes are unequal (Kish 1965): as if all faces of a subject agreed.
  The t quantile lowers it no further than that.
- error: on the logarithm, so that it stays above zero.
- signed: symmetric.
- correlation: a number from -1 to 1, as kappa: symmetric in Fisher's z (Fisher 1915), so that it stays in that range.
- distance: a calibration error never falls below zero and grows with noise. Its lower end is moved by twice
  the bias that the bootstrap shows (of a small distance it shows less than half), and is 0 where noise alone
  would explain the value; its upper end is moved by half of that bias.

With 100 subjects and more, 93 to 98% of such intervals of 95% cover the truth in simulations; with fewer, take them
as approximate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

Scale = Literal["share", "error", "signed", "correlation", "distance"]
"""What kind of number a metric is; see above for the interval of each."""

_NORMAL = NormalDist()
Z = _NORMAL.inv_cdf(0.975)
"""The normal quantile of a 95% interval."""

# Quantiles 0.975 of the t distribution are almost linear in 1 / degrees of freedom between these.
_FREEDOM = np.array([np.inf, 60, 30, 20, 15, 10, 8, 6, 5, 4, 3, 2, 1])
_T = np.array([Z, 2.0003, 2.0423, 2.0860, 2.1314, 2.2281, 2.3060, 2.4469, 2.5706, 2.7764, 3.1824, 4.3027, 12.7062])
# Standard errors below this are rounding.
_NO_SPREAD = 1e-9
# More subjects than this are pooled before they are resampled: it costs no precision and bounds the work.
_MOST = 20_000
# Resamples in one matrix product: enough to be quick, few enough to be small (16 MB).
_AT_ONCE = 100


def wilson(share: ArrayLike, n: ArrayLike, z: float = Z) -> tuple[np.ndarray, np.ndarray]:
    """The ends of Wilson's score interval of a share seen in n cases; 95% by default, NaN where n is 0."""
    p, n = np.asarray(share, dtype=float), np.asarray(n, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    # Rounding must not push the value itself out at 0 and 1.
    return np.clip(np.minimum(centre - half, p), 0, 1), np.clip(np.maximum(centre + half, p), 0, 1)


def t_quantile(inverse_freedom: float, z: float = Z) -> float:
    """The quantile of the t distribution that stands where z stands in the normal one.

    At 95% from a table; at other levels that, times the ratio which the expansion of Cornish and Fisher gives
    (Abramowitz and Stegun 26.7.5), good to 4% from 5 degrees of freedom on.
    """
    table = float(np.interp(inverse_freedom, 1 / _FREEDOM, _T))
    return table if z == Z else table * _expansion(inverse_freedom, z) / _expansion(inverse_freedom, Z)


def _expansion(v: float, z: float) -> float:
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first * v + second * v**2 + third * v**3


class Difference(NamedTuple):
    """A metric of one model minus that of another on the same faces."""

    value: float
    low: float
    high: float
    p: float
    n: int
    subjects: int


@dataclass(frozen=True)
class Estimate:
    """A number with all that its interval at any level needs.

    Attributes:
        scale: What kind of number it is; chooses the interval.
        value: The number.
        n: Faces.
        subjects: Their subjects.
        resamples: The number in each resample of subjects, (b,).
        error: The standard error; 0 where the resamples do not differ.
        inverse_freedom: 1 / degrees of freedom of that error.
        effective: Equal subjects that would weigh as these do (Kish).
        noise: For a distance, what it would be in each resample if there were none, (b,).
    """

    scale: Scale
    value: float
    n: int
    subjects: int
    resamples: np.ndarray
    error: float
    inverse_freedom: float
    effective: float
    noise: np.ndarray | None = None

    def interval(self, z: float = Z) -> tuple[float, float]:
        """The interval in which a normal number would lie within z standard errors; see the head of this module."""
        value = self.value
        if not np.isfinite(value):
            return np.nan, np.nan
        t = t_quantile(self.inverse_freedom, z)
        if self.scale == "share":
            n = self.effective
            if self.error > 0 and 0 < value < 1:
                n = value * (1 - value) / self.error**2
                n = max(n * (z / t) ** 2, min(n, self.effective))
            low, high = wilson(value, n, z)
            return float(low), float(high)
        half = t * self.error
        if self.error == 0:
            return np.nan, np.nan
        if self.scale == "error":
            return value * np.exp(-half / value), value * np.exp(half / value)
        if self.scale == "signed":
            return value - half, value + half
        if self.scale == "correlation":
            if abs(value) >= 1:
                return np.nan, np.nan
            z_value, z_half = np.arctanh(value), half / (1 - value**2)
            return float(np.tanh(z_value - z_half)), float(np.tanh(z_value + z_half))
        return self._distance_interval(half, z)

    def _distance_interval(self, half: float, z: float) -> tuple[float, float]:
        """The interval of a distance, which noise can only make larger."""
        assert self.noise is not None, "a distance has noise"
        bias = max(0.0, float(np.nanmean(self.resamples)) - self.value)
        high = min(1.0, self.value + max(0.0, half - bias / 2))
        if self.value <= np.nanquantile(self.noise, _NORMAL.cdf(z)):
            return 0.0, high
        return max(0.0, self.value - 2 * bias - half), high


@dataclass
class Sample:
    """A metric's parts summed by subject, (subjects, k), and in each resample, (b, k).

    Attributes:
        finish: Makes the metric of sums of parts, (..., k).
        scale: What kind of number it is.
        sums: By subject, those with faces that count.
        n: Faces that count.
        resampled: The sums in each resample.
    """

    finish: Callable[[np.ndarray], Any]
    scale: Scale
    sums: np.ndarray
    n: int
    resampled: np.ndarray

    def __post_init__(self) -> None:
        self.value = float(self.finish(self.sums.sum(axis=0))) if self.n else np.nan

    @cached_property
    def resamples(self) -> np.ndarray:
        """The metric in each resample, (b,)."""
        return self.finish(self.resampled)

    def deviations(self) -> np.ndarray:
        """How the metric changes when a subject is left out (the jackknife), (subjects,)."""
        return self.finish(self.sums.sum(axis=0) - self.sums) - self.value

    def effective_subjects(self) -> float:
        """The number of equal subjects that would weigh as these do (Kish), from the pairs of parts of a share."""
        sizes = self.sums[:, 1::2]
        with np.errstate(invalid="ignore"):
            weight = (sizes / sizes.sum(axis=0)).mean(axis=1)
            return float(1 / (weight**2).sum()) if len(sizes) else 0.0

    def estimate(self) -> Estimate:
        """The number, and all that its interval needs."""
        error, inverse_freedom = (0.0, 0.0)
        if np.isfinite(self.value):
            error, inverse_freedom = spread(self.resamples, self.deviations())
        effective = self.effective_subjects() if self.scale == "share" else np.nan
        noise = self._noise() if self.scale == "distance" and self.n else None
        subjects = len(self.sums)
        return Estimate(
            self.scale, self.value, self.n, subjects, self.resamples, error, inverse_freedom, effective, noise
        )

    def _noise(self) -> np.ndarray:
        mean = self.sums.sum(axis=0) / self.sums[:, -1].sum()
        noise = self.resampled - self.resampled[:, -1:] * mean
        noise[:, -1] = self.resampled[:, -1]
        return self.finish(noise)


def resample(sums: np.ndarray, n_boot: int, seed: int) -> np.ndarray:
    """The sums, (subjects, k), over each of n_boot draws of as many subjects, (n_boot, k).

    Above `_MOST` subjects, that many pools of subjects, made at random, are drawn instead (the method of
    random groups, Wolter 2007): so many pools tell the standard error to 0.5%, 1,000 resamples to 2.2%.
    """
    pools, counts = draws(len(sums), n_boot, seed)
    if counts.shape[1] < len(sums):
        sums = pooled(sums, pools, counts.shape[1])
    out = np.empty((n_boot, sums.shape[1]))
    for start in range(0, n_boot, _AT_ONCE):
        out[start : start + _AT_ONCE] = counts[start : start + _AT_ONCE].astype(float) @ sums
    return out


def draws(subjects: int, n_boot: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The pool of each subject, (subjects,), and how often each resample draws each pool, (n_boot, pools)."""
    rng = np.random.default_rng(seed)
    pools, units = np.arange(subjects), min(subjects, _MOST)
    if subjects > _MOST:
        starts = np.linspace(0, subjects, _MOST, endpoint=False).astype(int)
        pools = np.empty(subjects, int)
        pools[rng.permutation(subjects)] = np.repeat(np.arange(_MOST), np.diff(starts, append=subjects))
    counts = np.empty((n_boot, units), np.uint8)
    for row in counts:
        row[:] = np.bincount(rng.integers(0, units, units), minlength=units)
    return pools, counts


def pooled(sums: np.ndarray, pools: np.ndarray, units: int) -> np.ndarray:
    """The sums, (subjects, k), by pool, (units, k)."""
    return np.column_stack([np.bincount(pools, column, units) for column in sums.T])


def spread(values: np.ndarray, deviations: np.ndarray) -> tuple[float, float]:
    """The standard error from the resamples, and 1 / its degrees of freedom.

    The variance of a variance follows from the fourth moment of what each subject contributes; where few
    subjects make most of the scatter, the degrees of freedom are few (Satterthwaite 1946).
    """
    values, subjects = values[np.isfinite(values)], len(deviations)
    squares = deviations[np.isfinite(deviations)] ** 2
    if subjects < 2 or len(values) < 2 or squares.sum() == 0:
        return 0.0, 0.0
    excess = (squares**2).sum() / squares.sum() ** 2 - 1 / subjects
    error = values.std(ddof=1) * np.sqrt(subjects / (subjects - 1))
    return (float(error), float(np.clip(excess / 2, 1 / (subjects - 1), 1))) if error > _NO_SPREAD else (0.0, 0.0)


def difference(a: Sample, b: Sample, z: float = Z) -> Difference:
    """The difference of two metrics over the same resamples.

    Where the resamples of two shares do not differ, the interval reaches as far as Wilson's for a share of 0
    among the effective number of subjects.
    """
    value, share = a.value - b.value, a.scale == "share"
    if np.isnan(value):
        return Difference(np.nan, np.nan, np.nan, np.nan, a.n, len(a.sums))
    error, inverse_freedom = spread(a.resamples - b.resamples, a.deviations() - b.deviations())
    half = t_quantile(inverse_freedom, z) * error if error > 0 else np.nan
    if error == 0 and share:
        half = z**2 / (a.effective_subjects() + z**2)
    p = 2 * _NORMAL.cdf(-z * abs(value) / half)
    low, high = value - half, value + half
    if share:
        low, high = max(low, -1.0), min(high, 1.0)
    return Difference(value, low, high, p, a.n, len(a.sums))
