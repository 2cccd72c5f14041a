"""Metrics by group and crossing of groups, the worst group and the largest gap, corrected for the search.

All groups share the same resamples of subjects, so that differences between them, and the largest of many, have
intervals too. Per group and metric a resample is a product of matrices: counts of pools of subjects (see
`intervals.draws`) and sums by pool; no loop runs over faces.

The worst of many observed values is biased: some group had bad luck. Let m be the true worst value of the groups
that are compared, and let lower be worse. Then (intersection bounds; Chernozhukov, Lee and Rosen 2013):

- m is at most each group's value, so that the least of the simultaneous upper ends bounds it. Simultaneous: the
  quantile is that of the largest studentised deviation over all groups in the same resamples (max-T; Romano and Wolf
  2005).
- m is the value of one group, which does not depend on the sample, so that the least of the ordinary lower ends
  bounds it.

The largest gap is the maximum over pairs and is bounded in the same way, where the interval of each pair follows from
the two groups' intervals (Zou and Donner 2008). Each side has an error of `SIDE_ERROR`; both sides
are not exhausted at once (equal groups exhaust one, an outlying group the other), so that the coverage is about 95%;
benchmarks/coverage.py measures it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mien.base.errors import MienError
from mien.metrics.definitions import Metric
from mien.metrics.intervals import Estimate, Sample, Z, draws, pooled
from mien.metrics.joining import TRUTH_COLUMNS

MIN_SUBJECTS = 30
"""Groups with fewer subjects are reported with their interval, but never ranked: they are uncertain, not bad.

The rule depends on subjects and not on results, because a rule based on results would select by chance."""

RELIABLE_SUBJECTS = 100
"""Intervals of groups with fewer subjects are marked approximate."""

SIDE_ERROR = 0.035
"""The allowed error of each side of the interval of a worst group or largest gap; see the module docstring."""

MAX_GROUPS = 2_000
"""More groups are rejected: too few faces would remain in each."""

_SIDE_Z = NormalDist().inv_cdf(1 - SIDE_ERROR)


@dataclass(frozen=True)
class Group:
    """The faces with these label values; without labels, all faces."""

    labels: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """As "gender=female, race=black", or "all"."""
        return ", ".join(f"{column}={value}" for column, value in self.labels) or "all"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that define the group."""
        return tuple(column for column, _ in self.labels)


@dataclass(frozen=True)
class MetricJob:
    """A metric to compute by group.

    Attributes:
        metric: The metric.
        rows: The joined table, in the order of `metrics.sort_by_subject`, the same for all jobs.
        counted: Which faces count, (n,); None: as the metric defines.
    """

    metric: Metric
    rows: pd.DataFrame
    counted: np.ndarray | None = None


@dataclass(frozen=True)
class Grouping:
    """One column or several crossed ones: the groups, and the group number of each face, -1 if a label is missing."""

    groups: tuple[Group, ...]
    codes: np.ndarray


def groupings(rows: pd.DataFrame, by: Sequence[str]) -> list[Grouping]:
    """Returns the groupings: all faces, each column alone, and each crossing, with the groups that occur.

    Raises:
        MienError: There are more than `MAX_GROUPS` groups.
    """
    found = [Grouping((Group(),), np.zeros(len(rows), int))]
    columns = {name: _labels(rows[TRUTH_COLUMNS.get(name, name)]) for name in by}
    for size in range(1, len(by) + 1):
        for names in combinations(by, size):
            codes = np.zeros(len(rows), int)
            for name in names:
                own, values = columns[name]
                codes = np.where((codes < 0) | (own < 0), -1, codes * max(len(values), 1) + own)
            present, places = np.unique(codes, return_inverse=True)
            some = present >= 0
            places = np.cumsum(some)[places] - 1
            groups = tuple(_decoded(code, names, columns) for code in present[some])
            found.append(Grouping(groups, np.where(codes >= 0, places, -1)))
            _check_group_count(sum(len(one.groups) for one in found), by)
    return found


def _check_group_count(groups: int, by: Sequence[str]) -> None:
    if groups > MAX_GROUPS:
        raise MienError(
            f"--by {','.join(by)} makes more than {MAX_GROUPS:,} groups; give fewer columns, or some of fewer values"
        )


def _labels(values: pd.Series) -> tuple[np.ndarray, list[Any]]:
    """The number of each face's value, -1 where it is missing, and the values in order."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return values.cat.codes.to_numpy(), list(values.cat.categories)
    codes, uniques = pd.factorize(values, sort=True)
    return codes, list(uniques)


def _decoded(code: int, names: Sequence[str], columns: Mapping[str, tuple[np.ndarray, list[Any]]]) -> Group:
    labels: list[tuple[str, str]] = []
    for name in reversed(names):
        values = columns[name][1]
        code, place = divmod(int(code), len(values))
        labels.append((name, str(values[place])))
    return Group(tuple(reversed(labels)))


def group_samples(
    grouped: Sequence[Grouping], jobs: Mapping[str, MetricJob], n_boot: int, seed: int
) -> Iterator[tuple[Group, dict[str, Sample]]]:
    """Yields each group with its sample of each metric, over the same resamples of the subjects of the whole table."""
    cluster = next(iter(jobs.values())).rows["_cluster"].to_numpy() - 1
    pools, counts = draws(int(cluster[-1]) + 1, n_boot, seed)
    weights = np.ascontiguousarray(counts.T, dtype=float)
    counted, parts, widths = _parts(jobs)
    for grouping in grouped:
        order = np.argsort(grouping.codes, kind="stable")  # within a group the order of subjects stays
        order = order[grouping.codes[order] >= 0]
        codes, owners = grouping.codes[order], cluster[order]
        starts = np.flatnonzero((np.diff(codes, prepend=-1) != 0) | (np.diff(owners, prepend=-1) != 0))
        sums = np.add.reduceat(parts[order], starts, axis=0)
        n = np.add.reduceat(counted[order], starts, axis=0, dtype=np.int64)
        ends = np.searchsorted(codes[starts], np.arange(len(grouping.groups) + 1))
        for place, group in enumerate(grouping.groups):
            own = slice(ends[place], ends[place + 1])
            resampled = _resampled(sums[own], pools[owners[starts[own]]], weights)
            yield group, dict(_split(jobs, sums[own], n[own], resampled, widths))


def _parts(jobs: Mapping[str, MetricJob]) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Which faces count (n, jobs), the parts of all jobs side by side (n, k), and how many are of each job."""
    counted, parts = [], []
    for job in jobs.values():
        own = job.metric.counted(job.rows) if job.counted is None else job.counted
        counted.append(own)
        parts.append(job.metric.parts_of(job.rows, own))
    return np.column_stack(counted), np.hstack(parts), [part.shape[1] for part in parts]


def _resampled(sums: np.ndarray, pools: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The sums in each resample, (b, k)."""
    if len(sums) > len(weights) / 2:
        return weights.T @ pooled(sums, pools, len(weights))
    return weights[pools].T @ sums


def _split(
    jobs: Mapping[str, MetricJob], sums: np.ndarray, n: np.ndarray, resampled: np.ndarray, widths: Sequence[int]
) -> Iterator[tuple[str, Sample]]:
    start = 0
    for place, ((name, job), width) in enumerate(zip(jobs.items(), widths, strict=True)):
        own, metric = slice(start, start + width), job.metric
        with_faces = n[:, place] > 0
        yield (
            name,
            Sample(metric.finish, metric.scale, sums[with_faces, own], int(n[:, place].sum()), resampled[:, own]),
        )
        start += width


MetricTable = Mapping[Group, Estimate]
"""One metric by group."""


class WorstGroup(NamedTuple):
    """The group with the worst value, and the interval of the true worst value of all groups compared."""

    group: Group
    value: float
    low: float
    high: float
    groups: int


class LargestGap(NamedTuple):
    """The two groups that differ most, and the interval of the true largest gap of all pairs compared."""

    higher: Group
    lower: Group
    value: float
    low: float
    high: float
    pairs: int


def rankable_groups(table: MetricTable, columns: Sequence[str] | None = None) -> dict[Group, Estimate]:
    """Returns the groups that may be ranked: at least `MIN_SUBJECTS` subjects, of one grouping or of all.

    A number without an interval, such as an error that is 0 for every face, is not ranked.
    """
    return {
        group: one
        for group, one in table.items()
        if one.subjects >= MIN_SUBJECTS
        and np.isfinite(one.interval()).all()
        and group.columns
        and (columns is None or group.columns == tuple(columns))
    }


def worst_group(table: MetricTable, better: str, columns: Sequence[str] | None = None) -> WorstGroup | None:
    """Returns the worst group with its corrected interval; None if fewer than two groups can be ranked."""
    some = rankable_groups(table, columns)
    if len(some) < 2:
        return None
    sign = 1.0 if better == "higher" else -1.0
    estimates = list(some.values())
    value = np.array([one.value for one in estimates])
    resamples, errors = np.array([one.resamples for one in estimates]), _errors(estimates)
    # The max-T statistic over groups of (estimate - truth) * sign, for the simultaneous ends.
    most = np.nanmax(-sign * (resamples - value[:, None]) / errors[:, None], axis=0)
    ordinary = np.array([one.interval(_SIDE_Z) for one in estimates])
    simultaneous_z = np.array([one.interval(_critical(most)) for one in estimates])
    place = int((sign * value).argmin())
    if sign > 0:
        low, high = np.nanmin(ordinary[:, 0]), np.nanmin(simultaneous_z[:, 1])
    else:
        low, high = np.nanmax(simultaneous_z[:, 0]), np.nanmax(ordinary[:, 1])
    return WorstGroup(list(some)[place], value[place], float(low), float(high), len(some))


def largest_gap(tables: Sequence[MetricTable], columns: Sequence[str] | None = None) -> LargestGap | None:
    """Returns the largest gap between two groups of one grouping in any of the tables, with its corrected interval.

    None if no two groups can be ranked.
    """
    families = [family for table in tables for family in _families(rankable_groups(table, columns))]
    if not families:
        return None
    most = np.full(len(next(iter(families[0].values())).resamples), -np.inf)
    for family in families:
        most = np.maximum(most, _max_deviation(family))
    critical = _critical(most)
    best: LargestGap | None = None
    low = high = 0.0
    for family in families:
        groups, estimates = list(family), list(family.values())
        value = np.array([one.value for one in estimates])
        gaps = value[:, None] - value
        np.fill_diagonal(gaps, -np.inf)
        low = max(low, float(np.nanmax(_pair_ends(estimates, critical)[0])))
        high = max(high, float(np.nanmax(_pair_ends(estimates, _SIDE_Z)[1])))
        i, j = np.unravel_index(int(gaps.argmax()), gaps.shape)
        if best is None or gaps[i, j] > best.value:
            best = LargestGap(groups[i], groups[j], float(gaps[i, j]), 0.0, 0.0, 0)
    assert best is not None, "there is a family"
    pairs = sum(len(family) * (len(family) - 1) // 2 for family in families)
    return best._replace(low=min(low, best.value), high=max(high, best.value), pairs=pairs)


def _families(table: MetricTable) -> list[dict[Group, Estimate]]:
    """The groups of each grouping that has at least two: no face is in two of them."""
    families: dict[tuple[str, ...], dict[Group, Estimate]] = {}
    for group, one in table.items():
        families.setdefault(group.columns, {})[group] = one
    return [family for family in families.values() if len(family) > 1]


def _max_deviation(family: MetricTable) -> np.ndarray:
    """The largest studentised deviation over all pairs, in each resample, (b,)."""
    estimates = list(family.values())
    off = np.array([one.resamples - one.value for one in estimates])
    variance, correlation = _errors(estimates) ** 2, _correlation(estimates)
    most = np.full(off.shape[1], -np.inf)
    for i in range(len(off)):
        spread = variance[i] + variance - 2 * correlation[i] * np.sqrt(variance[i] * variance)
        spread[i] = np.inf  # a group does not differ from itself
        most = np.fmax(most, np.nanmax((off[i] - off) / np.sqrt(np.maximum(spread, 1e-18))[:, None], axis=0))
    return most


def _pair_ends(estimates: Sequence[Estimate], z: float) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the difference of each pair from the ends of the two (Zou and Donner 2008), (g, g) each."""
    ends = np.array([one.interval(z) for one in estimates])
    value = np.array([one.value for one in estimates])
    below, above = value - ends[:, 0], ends[:, 1] - value
    twice = 2 * _correlation(estimates)
    gaps = value[:, None] - value
    lower = below[:, None] ** 2 + above**2 - twice * below[:, None] * above
    upper = above[:, None] ** 2 + below**2 - twice * above[:, None] * below
    for side in (lower, upper):
        np.fill_diagonal(side, 0)
    return gaps - np.sqrt(np.maximum(lower, 0)), gaps + np.sqrt(np.maximum(upper, 0))


def _correlation(estimates: Sequence[Estimate]) -> np.ndarray:
    """The correlation of the groups' values over the resamples, (g, g); subjects may have faces in several groups."""
    resamples = np.array([np.where(np.isfinite(one.resamples), one.resamples, one.value) for one in estimates])
    off = resamples - resamples.mean(axis=1, keepdims=True)
    scale = np.sqrt((off**2).sum(axis=1))
    scale[scale < 1e-12] = np.inf
    return off @ off.T / np.outer(scale, scale)


def _errors(estimates: Sequence[Estimate]) -> np.ndarray:
    """Standard errors; if the resamples do not differ, half an ordinary interval divided by z."""
    errors = []
    for one in estimates:
        low, high = one.interval()
        errors.append(one.error if one.error > 0 else (high - low) / (2 * Z))
    found = np.array(errors)
    return np.where(np.isfinite(found) & (found > 0), found, np.inf)


def _critical(most: np.ndarray) -> float:
    """The critical value of the largest deviation at `SIDE_ERROR`, at least that of a single group."""
    return max(_SIDE_Z, float(np.nanquantile(most, 1 - SIDE_ERROR)))


def simultaneous_z(resamples: Sequence[np.ndarray], values: Sequence[float]) -> float:
    """Returns the z for simultaneous 95% intervals of all numbers, from the largest deviations (max-T)."""
    off = np.array(resamples) - np.array(values)[:, None]
    off = np.where(np.isfinite(off), off, 0)
    error = off.std(axis=1, ddof=1, keepdims=True)
    some = error[:, 0] > 1e-9
    if not some.any():
        return Z
    return max(Z, float(np.quantile(np.abs(off[some] / error[some]).max(axis=0), 0.95)))
