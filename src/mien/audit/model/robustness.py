"""Worse pictures by group: does what makes faces worse hurt some groups more than the others?

The same faces are scored as they are and at each level of `mien.evaluation.conditions.LEVELS`. What a level changes
for a group is compared with what it changes for all other faces, over the same resamples of subjects. A gender counts
as the likelier one here, so that accuracy and the share of unsure answers are reported separately.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mien import metrics
from mien.audit.model.groups import FEWEST, Group, Job, groupings, samples, together
from mien.audit.model.schema import Interval, Worsened
from mien.base.errors import MienError
from mien.base.progress import ProgressCallback
from mien.base.table import check_faces
from mien.evaluation.conditions import AS_IT_IS, LEVELS, likelier, predictions
from mien.metrics.definitions import METRICS
from mien.metrics.intervals import Estimate, Sample, Z, spread

if TYPE_CHECKING:
    from mien.prediction.predict import Predictor

SAMPLE = 400
"""Faces that are made worse unless another number is given: some minutes on two cores."""

_MEASURED = ("gender_accuracy", "gender_unsure", "age_mae")


@dataclass(frozen=True)
class Robustness:
    """What to ask of worse pictures.

    Attributes:
        predictor: The model.
        faces: The faces table.
        root: The folder of its paths.
        sample: Faces that are looked at, at most; drawn at random.
        progress: Told how many are done.
    """

    predictor: "Predictor"
    faces: pd.DataFrame
    root: str | Path
    sample: int = SAMPLE
    progress: ProgressCallback | None = None

    def worsened(self, by: Sequence[str], n_boot: int, seed: int) -> list[Worsened]:
        """What each level does to all faces and to each group of a column.

        Raises:
            MienError: None of the faces can be read.
        """
        faces = check_faces(self.faces).sort_values("face", ignore_index=True)
        if len(faces) > self.sample:
            faces = faces.sample(self.sample, random_state=seed).reset_index(drop=True)
        conditions = {f"{kind}, {level}": change for kind, levels in LEVELS.items() for level, change in levels.items()}
        answers = predictions(self.predictor, faces, self.root, conditions, self.progress)
        tables = {
            name: (
                metrics.sort_by_subject(metrics.join(faces, rows), "subject", n_boot),
                metrics.sort_by_subject(metrics.join(faces, likelier(rows)), "subject", n_boot),
            )
            for name, rows in answers.items()
        }
        lines: list[Worsened] = []
        for metric in self._measured(tables[AS_IT_IS][0]):
            own = {name: pair[metric != "gender_unsure"] for name, pair in tables.items()}
            lines += _by_level(metric, own, by, n_boot, seed)
        if not lines:
            raise MienError("--root: no face has a label of what the model predicts; valid: gender or age")
        return lines

    def _measured(self, rows: pd.DataFrame) -> list[str]:
        names = [name for name in _MEASURED if metrics.is_applicable(METRICS[name], rows)]
        return [name for name in names if name != "gender_unsure" or "unsure_below" in self.predictor.metadata]


@dataclass(frozen=True)
class _Change:
    """What a level does to a group, beside what it does to the others."""

    kind: str
    level: str
    group: Group
    result: Sample
    change: Estimate
    more: Estimate | None


def _by_level(
    metric: str, tables: Mapping[str, pd.DataFrame], by: Sequence[str], n_boot: int, seed: int
) -> list[Worsened]:
    spec, plain = METRICS[metric], tables[AS_IT_IS]
    jobs: dict[str, Job] = {}
    for name, rows in tables.items():
        if name != AS_IT_IS:
            both = spec.counted(plain) & spec.counted(rows)
            jobs |= {f"{name} before": Job(spec, plain, both), f"{name} after": Job(spec, rows, both)}
    single = [one for one in groupings(plain, by) if len(one.groups[0].columns) <= 1] if by else groupings(plain, ())
    found = dict(samples(single, jobs, n_boot, seed))
    changes = list(_changes(found))
    compared = [one.more for one in changes if one.more is not None and one.more.subjects >= FEWEST]
    z = together([one.resamples for one in compared], [one.value for one in compared]) if compared else Z
    return [_worsened(metric, one, z) for one in changes if one.result.n]


def _changes(found: Mapping[Group, Mapping[str, Sample]]) -> Iterator[_Change]:
    everybody = found[Group()]
    for kind, levels in LEVELS.items():
        for level in levels:
            for group, own in found.items():
                before, after = own[f"{kind}, {level} before"], own[f"{kind}, {level} after"]
                all_before, all_after = (everybody[f"{kind}, {level} {when}"] for when in ("before", "after"))
                change = _difference(before, after)
                more = None
                if group.labels and before.n < all_before.n:
                    others = _others(all_after, after) - _others(all_before, before)
                    more = _against(change, others)
                yield _Change(kind, level, group, after, change, more)


def _difference(before: Sample, after: Sample) -> Estimate:
    """After less before, of the same faces."""
    error, inverse_freedom = spread(after.resamples - before.resamples, after.deviations() - before.deviations())
    value, resamples = after.value - before.value, after.resamples - before.resamples
    return Estimate("signed", value, after.n, len(after.sums), resamples, error, inverse_freedom, np.nan)


def _others(everybody: Sample, group: Sample) -> np.ndarray:
    """The metric of all faces that are not of the group: first as they are, then in each resample, (1 + b,)."""
    sums = everybody.sums.sum(axis=0) - group.sums.sum(axis=0)
    return everybody.finish(np.vstack([sums[None], everybody.resampled - group.resampled]))


def _against(change: Estimate, others: np.ndarray) -> Estimate:
    """The change of a group less that of the others; the degrees of freedom are the group's, which are fewer."""
    value, resamples = change.value - others[0], change.resamples - others[1:]
    finite = resamples[np.isfinite(resamples)]
    error = float(finite.std(ddof=1)) if len(finite) > 1 else 0.0
    about = (change.n, change.subjects)
    return Estimate("signed", float(value), *about, resamples, error, change.inverse_freedom, np.nan)


def _worsened(metric: str, one: _Change, z: float) -> Worsened:
    result = one.result.estimate()
    nothing = Interval(value=None, low=None, high=None)
    told = one.more is not None and one.more.subjects >= FEWEST
    return Worsened(
        kind=one.kind,
        level=one.level,
        group=one.group.name,
        metric=metric,
        n=one.result.n,
        result=_interval(result),
        change=_interval(one.change),
        more_than_others=_interval(one.more, z) if one.more is not None and told else nothing,
    )


def _interval(one: Estimate, z: float = Z) -> Interval:
    low, high = one.interval(z)
    return Interval(value=one.value, low=low, high=high)
