"""Robustness by group: do degraded images hurt some groups more than others?

The same faces are scored with their original images and at each level of `mien.evaluation.conditions.DEGRADATIONS`.
The change for a group is compared with the change for all other faces, over the same resamples of subjects. Gender
accuracy uses the more probable gender here, so that accuracy and the share of unsure predictions are separate.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mien import metrics
from mien.audit.model.groups import MIN_SUBJECTS, Group, MetricJob, group_samples, groupings, simultaneous_z
from mien.audit.model.schema import DegradedResult, Interval
from mien.base.errors import MienError
from mien.base.progress import ProgressCallback
from mien.base.table import check_faces
from mien.evaluation.conditions import DEGRADATIONS, ORIGINAL, force_decision, predict_conditions
from mien.metrics.definitions import METRICS
from mien.metrics.intervals import Estimate, Sample, Z, spread

if TYPE_CHECKING:
    from mien.prediction.predict import Predictor

SAMPLE_SIZE = 400
"""Default number of faces to degrade: a few minutes on two cores."""

_METRICS = ("gender_accuracy", "gender_unsure", "age_mae")


@dataclass(frozen=True)
class RobustnessTest:
    """A robustness test by group: the model and the faces to degrade.

    Attributes:
        predictor: The model to test.
        faces: The faces table.
        root: The folder of its paths.
        sample: Maximum number of faces, drawn at random.
        progress: Called with the number of faces done and the total.
    """

    predictor: "Predictor"
    faces: pd.DataFrame
    root: str | Path
    sample: int = SAMPLE_SIZE
    progress: ProgressCallback | None = None

    def run(self, by: Sequence[str], n_boot: int, seed: int) -> list[DegradedResult]:
        """Measures the effect of each level on all faces and on each group of each column.

        Raises:
            MienError: None of the faces can be read.
        """
        faces = check_faces(self.faces).sort_values("face", ignore_index=True)
        if len(faces) > self.sample:
            faces = faces.sample(self.sample, random_state=seed).reset_index(drop=True)
        conditions = {
            f"{degradation}, {level}": change
            for degradation, levels in DEGRADATIONS.items()
            for level, change in levels.items()
        }
        answers = predict_conditions(self.predictor, faces, self.root, conditions, self.progress)
        tables = {
            name: (
                metrics.sort_by_subject(metrics.join(faces, rows), "subject", n_boot),
                metrics.sort_by_subject(metrics.join(faces, force_decision(rows)), "subject", n_boot),
            )
            for name, rows in answers.items()
        }
        lines: list[DegradedResult] = []
        for metric in self._measured(tables[ORIGINAL][0]):
            own = {name: pair[metric != "gender_unsure"] for name, pair in tables.items()}
            lines += _by_level(metric, own, by, n_boot, seed)
        if not lines:
            raise MienError("--root: no face has a label for the model's predictions; valid: gender or age")
        return lines

    def _measured(self, rows: pd.DataFrame) -> list[str]:
        names = [name for name in _METRICS if metrics.is_applicable(METRICS[name], rows)]
        return [name for name in names if name != "gender_unsure" or "unsure_below" in self.predictor.metadata]


@dataclass(frozen=True)
class _Change:
    """The effect of a level on a group, and its excess over the effect on the others."""

    degradation: str
    level: str
    group: Group
    result: Sample
    change: Estimate
    excess: Estimate | None


def _by_level(
    metric: str, tables: Mapping[str, pd.DataFrame], by: Sequence[str], n_boot: int, seed: int
) -> list[DegradedResult]:
    spec, plain = METRICS[metric], tables[ORIGINAL]
    jobs: dict[str, MetricJob] = {}
    for name, rows in tables.items():
        if name != ORIGINAL:
            both = spec.counted(plain) & spec.counted(rows)
            jobs |= {f"{name} before": MetricJob(spec, plain, both), f"{name} after": MetricJob(spec, rows, both)}
    single = [one for one in groupings(plain, by) if len(one.groups[0].columns) <= 1] if by else groupings(plain, ())
    found = dict(group_samples(single, jobs, n_boot, seed))
    changes = list(_changes(found))
    compared = [one.excess for one in changes if one.excess is not None and one.excess.subjects >= MIN_SUBJECTS]
    z = simultaneous_z([one.resamples for one in compared], [one.value for one in compared]) if compared else Z
    return [_result(metric, one, z) for one in changes if one.result.n]


def _changes(found: Mapping[Group, Mapping[str, Sample]]) -> Iterator[_Change]:
    overall = found[Group()]
    for degradation, levels in DEGRADATIONS.items():
        for level in levels:
            for group, own in found.items():
                before, after = own[f"{degradation}, {level} before"], own[f"{degradation}, {level} after"]
                all_before, all_after = (overall[f"{degradation}, {level} {when}"] for when in ("before", "after"))
                change = _difference(before, after)
                excess = None
                if group.labels and before.n < all_before.n:
                    others = _others(all_after, after) - _others(all_before, before)
                    excess = _against(change, others)
                yield _Change(degradation, level, group, after, change, excess)


def _difference(before: Sample, after: Sample) -> Estimate:
    """After minus before, on the same faces."""
    error, inverse_freedom = spread(after.resamples - before.resamples, after.deviations() - before.deviations())
    value, resamples = after.value - before.value, after.resamples - before.resamples
    return Estimate("signed", value, after.n, len(after.sums), resamples, error, inverse_freedom, np.nan)


def _others(overall: Sample, group: Sample) -> np.ndarray:
    """The metric of all faces outside the group: first the point estimate, then each resample, (1 + b,)."""
    sums = overall.sums.sum(axis=0) - group.sums.sum(axis=0)
    return overall.finish(np.vstack([sums[None], overall.resampled - group.resampled]))


def _against(change: Estimate, others: np.ndarray) -> Estimate:
    """The change of a group minus that of the others, with the group's degrees of freedom (the smaller number)."""
    value, resamples = change.value - others[0], change.resamples - others[1:]
    finite = resamples[np.isfinite(resamples)]
    error = float(finite.std(ddof=1)) if len(finite) > 1 else 0.0
    about = (change.n, change.subjects)
    return Estimate("signed", float(value), *about, resamples, error, change.inverse_freedom, np.nan)


def _result(metric: str, one: _Change, z: float) -> DegradedResult:
    result = one.result.estimate()
    nothing = Interval(value=None, low=None, high=None)
    reliable = one.excess is not None and one.excess.subjects >= MIN_SUBJECTS
    return DegradedResult(
        degradation=one.degradation,
        level=one.level,
        group=one.group.name,
        metric=metric,
        n=one.result.n,
        result=_interval(result),
        change=_interval(one.change),
        excess_over_others=_interval(one.excess, z) if one.excess is not None and reliable else nothing,
    )


def _interval(one: Estimate, z: float = Z) -> Interval:
    low, high = one.interval(z)
    return Interval(value=one.value, low=low, high=high)
