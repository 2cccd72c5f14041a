"""Age limits: how many children are classified as adults, and the threshold that keeps their share below a rate.

Four rules decide whether a face passes as an adult. `age`: the predicted age is at least t. `age_low`: the lower end
of the interval is at least t; a wide interval then protects a child whose age is overestimated, while `age_high`,
which is never below `age`, could only admit more children. `band`: adult from one threshold on, child below another,
undecided in between, for a manual decision. `interval` has no threshold to choose: adult if `age_low` reaches the
limit, child if `age_high` does not, undecided otherwise.

A threshold that is chosen and evaluated on the same faces looks too good. It is chosen on half of the subjects
(the lowest one whose interval's upper end keeps the rate) and confirmed on the others.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from mien.audit.model.schema import AgeLimit, AgeRule, CurvePoint, Interval, RateVerdict
from mien.metrics.intervals import Estimate, Sample, resample
from mien.metrics.joining import true_years

LIMITS = (13.0, 16.0, 18.0, 21.0)
"""Common legal age limits, in years."""

THRESHOLDS = np.arange(0.0, 71.0)
"""Candidate thresholds, in years."""

Rule = Literal["age", "age_low", "band", "interval"]


class _Side(NamedTuple):
    """Children or adults: their rows, and on which side of a threshold the model is wrong."""

    rows: np.ndarray
    wrong_above: bool


def age_limits(
    rows: pd.DataFrame, allowed: float, n_boot: int, seed: int, limits: Sequence[float] = LIMITS
) -> list[AgeLimit]:
    """Evaluates each age limit; limits without children or adults in either half are skipped.

    A face whose age is known as a range is a child if the whole range is below the limit, an adult if none of it is,
    and else neither.

    Args:
        rows: The joined table in the order of `metrics.sort_by_subject`.
        allowed: The allowed share of children classified as adults.
        n_boot: Number of resamples.
        seed: Seed of the resamples and of the halves.
        limits: Age limits in years.
    """
    if "age" not in rows.columns:
        return []
    cluster = rows["_cluster"].to_numpy() - 1
    chosen = np.random.default_rng(seed).permutation(int(cluster[-1]) + 1 if len(cluster) else 0) % 2 == 0
    half, found = chosen[cluster], []
    first, last = true_years(rows)
    for limit in limits:
        child, adult = last < limit, first >= limit
        if min((child & half).sum(), (child & ~half).sum(), (adult & half).sum(), (adult & ~half).sum()) == 0:
            continue
        columns = [column for column in ("age", "age_low") if column in rows.columns]
        curves = {column: _curve(rows, column, child, adult, n_boot, seed) for column in columns}
        rules = _rules(rows, limit, child, adult, half, allowed, n_boot, seed)
        about = {"children": int(child.sum()), "adults": int(adult.sum()), "allowed": allowed}
        found.append(AgeLimit(limit=limit, **about, curves=curves, rules=rules))
    return found


def _curve(
    rows: pd.DataFrame, column: str, child: np.ndarray, adult: np.ndarray, n_boot: int, seed: int
) -> list[CurvePoint]:
    children = wrong_at(rows, column, child, True, n_boot, seed)
    adults = wrong_at(rows, column, adult, False, n_boot, seed)
    return [
        CurvePoint(threshold=threshold, child_as_adult=_interval(one), adult_as_child=_interval(other))
        for threshold, one, other in zip(THRESHOLDS.tolist(), children, adults, strict=True)
    ]


def wrong_at(
    rows: pd.DataFrame, column: str, members: np.ndarray, above: bool, n_boot: int, seed: int
) -> list[Estimate]:
    """Returns the share of members at or above (or below) each of `THRESHOLDS`; missing predictions are neither."""
    values = rows.loc[members, column].to_numpy(dtype=float)
    owners = np.unique(rows.loc[members, "_cluster"].to_numpy(), return_inverse=True)[1]
    # A face at place k is at or above the first k thresholds.
    place = np.where(np.isnan(values), 0, np.searchsorted(THRESHOLDS, values, side="right"))
    subjects, width = int(owners.max()) + 1, len(THRESHOLDS) + 1
    counts = np.bincount(owners * width + place, minlength=subjects * width).reshape(subjects, width)
    reached = counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:].astype(float)
    faces = np.bincount(owners, minlength=subjects).astype(float)[:, None]
    answered = np.bincount(owners, np.isfinite(values), subjects)[:, None]
    sums = np.hstack([reached if above else answered - reached, faces])
    resampled = resample(sums, n_boot, seed)
    n = len(values)
    return [
        Sample(_share, "share", sums[:, [place, -1]], n, resampled[:, [place, -1]]).estimate()
        for place in range(len(THRESHOLDS))
    ]


def _share(sums: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., 0] / sums[..., 1]


def _rules(
    rows: pd.DataFrame,
    limit: float,
    child: np.ndarray,
    adult: np.ndarray,
    half: np.ndarray,
    allowed: float,
    n_boot: int,
    seed: int,
) -> list[AgeRule]:
    age = rows["age"].to_numpy(dtype=float)
    confirm = _Confirm(rows, child & ~half, adult & ~half, int((child & half).sum()), allowed, n_boot, seed)
    adult_from = _lowest(wrong_at(rows, "age", child & half, True, n_boot, seed), allowed)
    rules = [confirm("age", adult_from, adult_from, age >= adult_from, age < adult_from)]
    if "age_low" in rows.columns:
        low = rows["age_low"].to_numpy(dtype=float)
        low_from = _lowest(wrong_at(rows, "age_low", child & half, True, n_boot, seed), allowed)
        rules.append(confirm("age_low", low_from, low_from, low >= low_from, low < low_from))
    child_below = _highest(wrong_at(rows, "age", adult & half, False, n_boot, seed), allowed)
    child_below = min(child_below, adult_from)
    rules.append(confirm("band", adult_from, child_below, age >= adult_from, age < child_below))
    if {"age_low", "age_high"} <= set(rows.columns):
        high = rows["age_high"].to_numpy(dtype=float)
        rules.append(confirm("interval", limit, limit, low >= limit, high < limit))
    return rules


def _lowest(shares: Sequence[Estimate], allowed: float) -> float:
    """The lowest threshold that keeps the share of children within the rate; NaN if none does."""
    keeps = np.array([one.interval()[1] <= allowed for one in shares])
    return float(THRESHOLDS[int(keeps.argmax())]) if keeps.any() else np.nan


def _highest(shares: Sequence[Estimate], allowed: float) -> float:
    """The highest threshold that keeps the share of adults within the rate; 0 if none does."""
    keeps = np.array([one.interval()[1] <= allowed for one in shares])
    return float(THRESHOLDS[int(np.flatnonzero(keeps)[-1])]) if keeps.any() else 0.0


class _Confirm(NamedTuple):
    """Evaluates a rule on the half that its threshold was not chosen on."""

    rows: pd.DataFrame
    child: np.ndarray
    adult: np.ndarray
    chosen_on: int
    allowed: float
    n_boot: int
    seed: int

    def __call__(
        self, rule: Rule, adult_from: float, child_below: float, called_adult: np.ndarray, called_child: np.ndarray
    ) -> AgeRule:
        nothing = Interval(value=None, low=None, high=None)
        one = other = nothing
        undecided, verdict = np.nan, "inconclusive"
        if np.isfinite(adult_from):
            both = self.child | self.adult
            share = self._share(called_adult, self.child)
            one, other = _interval(share), _interval(self._share(called_child, self.adult))
            undecided = float((~called_adult & ~called_child)[both].mean())
            verdict = holds(share, self.allowed)
        return AgeRule(
            rule=rule,
            adult_from=adult_from,
            child_below=child_below,
            chosen_on=self.chosen_on,
            confirmed_on=int(self.child.sum()),
            child_as_adult=one,
            adult_as_child=other,
            undecided=undecided,
            verdict=verdict,
        )

    def _share(self, called: np.ndarray, members: np.ndarray) -> Estimate:
        owners = np.unique(self.rows.loc[members, "_cluster"].to_numpy(), return_inverse=True)[1]
        sums = np.column_stack([np.bincount(owners, called[members]), np.bincount(owners)]).astype(float)
        return Sample(_share, "share", sums, int(members.sum()), resample(sums, self.n_boot, self.seed)).estimate()


def holds(share: Estimate, at_most: float) -> RateVerdict:
    """Returns whether a share meets a limit, according to its interval."""
    low, high = share.interval()
    return "met" if high <= at_most else "not met" if low > at_most else "inconclusive"


def _interval(one: Estimate) -> Interval:
    low, high = one.interval()
    return Interval(value=one.value, low=low, high=high)
