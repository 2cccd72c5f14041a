"""Age limits: how many children are taken for adults, and the threshold that keeps their share under a rate.

Three rules decide whether a face is let through. `age`: its age is at least t. `age_low`: the lower end of its
interval is; a wide interval then protects a child whose age is guessed too high, while `age_high`, which is never
below `age`, could only let more children through. `band`: adult from one threshold on, child below another, unsure in
between, so that somebody else decides. `interval` asks for no choice: adult where `age_low` reaches the limit, child
where `age_high` does not, unsure otherwise.

A threshold that is chosen and judged on the same faces looks better than it is. It is chosen on half of the subjects
(as the lowest whose interval's upper end keeps the rate) and confirmed on the others.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from mien.audit.model.schema import AgeLimit, Choice, CurvePoint, Interval, Verdict
from mien.metrics.intervals import Estimate, Sample, resample

LIMITS = (13.0, 16.0, 18.0, 21.0)
"""Ages that rules speak of, in years."""

THRESHOLDS = np.arange(0.0, 71.0)
"""The thresholds that are tried, in years."""

Rule = Literal["age", "age_low", "band", "interval"]


class _Side(NamedTuple):
    """Children or adults: which rows, and the truth's share of each threshold that counts against the model."""

    rows: np.ndarray
    wrong_above: bool


def age_limits(
    rows: pd.DataFrame, allowed: float, n_boot: int, seed: int, limits: Sequence[float] = LIMITS
) -> list[AgeLimit]:
    """What each limit finds; limits without children or adults are passed over.

    Args:
        rows: The joined table in the order of `metrics.sort_by_subject`.
        allowed: The share of children who may be taken for adults.
        n_boot: Number of resamples.
        seed: Of the resamples and of the halves.
        limits: In years.
    """
    if "age" not in rows.columns:
        return []
    cluster = rows["_cluster"].to_numpy() - 1
    first = np.random.default_rng(seed).permutation(int(cluster[-1]) + 1 if len(cluster) else 0) % 2 == 0
    half, found = first[cluster], []
    for limit in limits:
        truth = rows["true_age"].to_numpy()
        child, adult = truth < limit, truth >= limit
        if min((child & half).sum(), (child & ~half).sum(), (adult & half).sum(), (adult & ~half).sum()) == 0:
            continue
        columns = [column for column in ("age", "age_low") if column in rows.columns]
        curves = {column: _curve(rows, column, child, adult, n_boot, seed) for column in columns}
        choices = _choices(rows, limit, child, adult, half, allowed, n_boot, seed)
        about = {"children": int(child.sum()), "adults": int(adult.sum()), "allowed": allowed}
        found.append(AgeLimit(limit=limit, **about, curves=curves, choices=choices))
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
    """The share of the members at or above (or else below) each of `THRESHOLDS`; without an answer they are neither."""
    values = rows.loc[members, column].to_numpy(dtype=float)
    owners = np.unique(rows.loc[members, "_cluster"].to_numpy(), return_inverse=True)[1]
    # A face is at or above as many thresholds as its place says, the first ones.
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


def _choices(
    rows: pd.DataFrame,
    limit: float,
    child: np.ndarray,
    adult: np.ndarray,
    half: np.ndarray,
    allowed: float,
    n_boot: int,
    seed: int,
) -> list[Choice]:
    age = rows["age"].to_numpy(dtype=float)
    confirm = _Confirm(rows, child & ~half, adult & ~half, int((child & half).sum()), allowed, n_boot, seed)
    adult_from = _lowest(wrong_at(rows, "age", child & half, True, n_boot, seed), allowed)
    choices = [confirm("age", adult_from, adult_from, age >= adult_from, age < adult_from)]
    if "age_low" in rows.columns:
        low = rows["age_low"].to_numpy(dtype=float)
        low_from = _lowest(wrong_at(rows, "age_low", child & half, True, n_boot, seed), allowed)
        choices.append(confirm("age_low", low_from, low_from, low >= low_from, low < low_from))
    child_below = _highest(wrong_at(rows, "age", adult & half, False, n_boot, seed), allowed)
    child_below = min(child_below, adult_from)
    choices.append(confirm("band", adult_from, child_below, age >= adult_from, age < child_below))
    if {"age_low", "age_high"} <= set(rows.columns):
        high = rows["age_high"].to_numpy(dtype=float)
        choices.append(confirm("interval", limit, limit, low >= limit, high < limit))
    return choices


def _lowest(shares: Sequence[Estimate], allowed: float) -> float:
    """The lowest threshold from which on the share of children stays under the rate, NaN where none does."""
    keeps = np.array([one.interval()[1] <= allowed for one in shares])
    return float(THRESHOLDS[int(keeps.argmax())]) if keeps.any() else np.nan


def _highest(shares: Sequence[Estimate], allowed: float) -> float:
    """The highest threshold below which the share of adults stays under the rate; 0 where none does."""
    keeps = np.array([one.interval()[1] <= allowed for one in shares])
    return float(THRESHOLDS[int(np.flatnonzero(keeps)[-1])]) if keeps.any() else 0.0


class _Confirm(NamedTuple):
    """Judges a rule on the half that it was not chosen on."""

    rows: pd.DataFrame
    child: np.ndarray
    adult: np.ndarray
    chosen_on: int
    allowed: float
    n_boot: int
    seed: int

    def __call__(
        self, rule: Rule, adult_from: float, child_below: float, called_adult: np.ndarray, called_child: np.ndarray
    ) -> Choice:
        nothing = Interval(value=None, low=None, high=None)
        one = other = nothing
        unsure, verdict = np.nan, "cannot tell"
        if np.isfinite(adult_from):
            both = self.child | self.adult
            share = self._share(called_adult, self.child)
            one, other = _interval(share), _interval(self._share(called_child, self.adult))
            unsure = float((~called_adult & ~called_child)[both].mean())
            verdict = holds(share, self.allowed)
        return Choice(
            rule=rule,
            adult_from=adult_from,
            child_below=child_below,
            chosen_on=self.chosen_on,
            confirmed_on=int(self.child.sum()),
            child_as_adult=one,
            adult_as_child=other,
            unsure=unsure,
            verdict=verdict,
        )

    def _share(self, called: np.ndarray, members: np.ndarray) -> Estimate:
        owners = np.unique(self.rows.loc[members, "_cluster"].to_numpy(), return_inverse=True)[1]
        sums = np.column_stack([np.bincount(owners, called[members]), np.bincount(owners)]).astype(float)
        return Sample(_share, "share", sums, int(members.sum()), resample(sums, self.n_boot, self.seed)).estimate()


def holds(share: Estimate, at_most: float) -> Verdict:
    """Whether a share keeps a limit, as far as its interval tells."""
    low, high = share.interval()
    return "holds" if high <= at_most else "fails" if low > at_most else "cannot tell"


def _interval(one: Estimate) -> Interval:
    low, high = one.interval()
    return Interval(value=one.value, low=low, high=high)
