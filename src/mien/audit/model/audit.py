"""The audit of a model: for whom it fails, with intervals that say what the data can tell."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from mien import metrics
from mien.audit.model import ages, schema
from mien.audit.model.groups import (
    ENOUGH,
    FEWEST,
    Group,
    Job,
    Table,
    groupings,
    largest_gap,
    ranked,
    samples,
    together,
    worst,
)
from mien.audit.model.inputs import Matched, Predictions, match, read_predictions
from mien.audit.model.limits import Found, Limits, judge
from mien.base.errors import MienError, choices
from mien.metrics.definitions import METRICS, PERCENT, Metric
from mien.metrics.intervals import Estimate, Sample, difference
from mien.metrics.joined import TRUTH_COLUMNS

if TYPE_CHECKING:
    from mien.audit.model.robustness import Robustness

BY = ("gender", "age_group", "race")
"""The columns that make groups where none are named; those that a table lacks are passed over."""

RATES: dict[str, Metric] = {
    "gender_says_female": Metric(
        label="classified as women",
        unit=PERCENT,
        truth="true_gender",
        predictions=("gender",),
        parts=lambda truth, gender: metrics.mean_parts(gender == "female"),
        better=None,
    ),
    "gender_true_female": Metric(
        label="women classified as women",
        unit=PERCENT,
        truth="true_gender",
        predictions=("gender",),
        parts=lambda truth, gender: metrics.mean_parts(gender == "female"),
        among="female",
    ),
}
"""The rates that only fairness criteria need: the share predicted female, of all faces and of the women."""

AUDITED = tuple(name for name, metric in METRICS.items() if not metric.needs_classes)
"""The metrics of an audit, as far as the predictions are there; a group may have only one class of the truth."""


class Settings(NamedTuple):
    """How to audit, beside the tables.

    Attributes:
        limits: What the model must keep.
        child_rate: The share of children who may be taken for adults, for the choice of thresholds.
        n_boot: Number of resamples.
        seed: Of the resamples.
    """

    limits: Limits | None = None
    child_rate: float = 0.05
    n_boot: int = 1000
    seed: int = 0


def audit_predictions(
    predictions: Predictions,
    faces: pd.DataFrame,
    by: Sequence[str] | None = ("gender", "age_group"),
    *,
    map: Mapping[str, str] | None = None,
    preset: str | None = None,
    against: Predictions | None = None,
    against_preset: str | None = None,
    robustness: "Robustness | None" = None,
    settings: Settings = Settings(),  # noqa: B008 - it cannot change
) -> schema.Report:
    """Says for whom a model fails, from its predictions and the truth.

    The report does not depend on the order of the rows, nor on how many files the predictions come in.

    Args:
        predictions: A table, a file or several files; see `inputs.read_predictions`.
        faces: The truth, a faces table.
        by: Columns that make groups, alone and crossed; None: those of `BY` that the faces have.
        map: Their columns and ours.
        preset: A name in `inputs.PRESETS`.
        against: Predictions of another model for the same faces.
        against_preset: Their preset.
        robustness: What to do to the pictures, and which model to ask.
        settings: Limits, rates and resamples.

    Returns:
        The report, see `schema.Report`.

    Raises:
        MienError: The predictions cannot be read or do not belong to the faces, or a column is not there.
    """
    matched = match(faces, read_predictions(predictions, map, preset))
    rows = metrics.sort_by_subject(matched.joined, "subject", settings.n_boot)
    columns = _columns(rows, by)
    tables = _tables(rows, columns, settings)
    found = _found(rows, tables, columns, settings)
    verdicts = judge(settings.limits, found) if settings.limits else []
    other = None if against is None else match(faces, read_predictions(against, None, against_preset)).joined
    from mien.audit.model.words import summary

    return schema.Report(
        mien=version("mien"),
        summary=summary(found, matched, verdicts),
        passed=all(one.passed for one in verdicts) if verdicts else None,
        predictions=_about(matched, rows),
        settings=_asked(columns, settings),
        groups=list(found.groups),
        worst=list(found.worst),
        gaps=list(found.gaps),
        fairness=list(found.fairness),
        age_limits=list(found.age_limits),
        robustness=robustness.worsened(columns, settings.n_boot, settings.seed) if robustness else [],
        differences=[] if other is None else _differences(rows, other, columns, settings),
        limits=verdicts,
    )


def _asked(columns: Sequence[str], settings: Settings) -> schema.Settings:
    return schema.Settings(
        by=list(columns),
        resamples=settings.n_boot,
        seed=settings.seed,
        fewest_subjects=FEWEST,
        enough_subjects=ENOUGH,
    )


def _columns(rows: pd.DataFrame, by: Sequence[str] | None) -> list[str]:
    if by is None:
        return [
            name
            for name in BY
            if name in TRUTH_COLUMNS or name in rows.columns
            if rows[TRUTH_COLUMNS.get(name, name)].notna().any()
        ]
    for name in by:
        if TRUTH_COLUMNS.get(name, name) not in rows.columns or name.startswith("_"):
            own = dict.fromkeys(
                [*TRUTH_COLUMNS, *(column for column in rows.columns if column not in TRUTH_COLUMNS.values())]
            )
            raise MienError("--by: " + choices("column of the faces", name, [one for one in own if one[0] != "_"]))
    if len(set(by)) < len(by):
        raise MienError(f"--by {','.join(by)}: a column is named twice")
    return list(by)


def _about(matched: Matched, rows: pd.DataFrame) -> schema.Predictions:
    return schema.Predictions(
        faces=len(rows),
        subjects=int(rows["_cluster"].max()),
        missing=matched.missing,
        extra=matched.extra,
        matched_by=matched.key,
    )


def _jobs(rows: pd.DataFrame) -> dict[str, Metric]:
    wanted = {name: METRICS[name] for name in AUDITED} | RATES
    return {name: metric for name, metric in wanted.items() if metrics.is_applicable(metric, rows)}


def _tables(rows: pd.DataFrame, by: Sequence[str], settings: Settings) -> dict[str, dict[Group, Estimate]]:
    """Each metric by group; what is asked of one gender alone has no groups by gender."""
    jobs = {name: Job(metric, rows) for name, metric in _jobs(rows).items()}
    tables: dict[str, dict[Group, Estimate]] = {name: {} for name in jobs}
    for group, own in samples(groupings(rows, by), jobs, settings.n_boot, settings.seed):
        for name, sample in own.items():
            if "gender" not in group.columns or jobs[name].metric.among is None:
                tables[name][group] = sample.estimate()
    return tables


def _found(rows: pd.DataFrame, tables: Mapping[str, Table], by: Sequence[str], settings: Settings) -> Found:
    shown = {name: table for name, table in tables.items() if name in METRICS}
    lines = [_number(group, name, one) for name, table in shown.items() for group, one in table.items() if one.n]
    worsts, gaps = [], []
    for name, table in shown.items():
        for columns in _looked_at(table, by):
            better = METRICS[name].better
            if better and (bad := worst(table, better, columns)):
                own = {"value": bad.value, "low": bad.low, "high": bad.high, "groups": bad.groups}
                worsts.append(schema.Worst(metric=name, by=columns, group=bad.group.name, **own))
            if gap := _gap(name, [table], columns):
                gaps.append(gap)
    limits = ages.age_limits(rows, settings.child_rate, settings.n_boot, settings.seed)
    return Found(lines, worsts, gaps, _fairness(tables, by), limits)


def _looked_at(table: Table, by: Sequence[str]) -> list[list[str] | None]:
    """All groups and crossings, then each column alone, then each crossing, where two groups may be ranked."""
    groups = ranked(table)
    own = list(dict.fromkeys(group.columns for group in groups))
    counts = {columns: sum(group.columns == columns for group in groups) for columns in own}
    several: list[list[str] | None] = [list(columns) for columns in own if counts[columns] > 1]
    return [None, *several] if several else []


def _gap(name: str, tables: Sequence[Table], columns: Sequence[str] | None) -> schema.Gap | None:
    gap = largest_gap(tables, columns)
    if gap is None:
        return None
    return schema.Gap(
        metric=name,
        by=None if columns is None else list(columns),
        higher=gap.higher.name,
        lower=gap.lower.name,
        value=gap.value,
        low=gap.low,
        high=gap.high,
        pairs=gap.pairs,
    )


def _number(group: Group, name: str, one: Estimate) -> schema.GroupNumber:
    low, high = one.interval()
    return schema.GroupNumber(
        group=group.name,
        labels=dict(group.labels),
        metric=name,
        value=one.value,
        low=low,
        high=high,
        n=one.n,
        subjects=one.subjects,
        told=_told(one.subjects),
    )


def _told(subjects: int) -> schema.Told:
    return "firm" if subjects >= ENOUGH else "approximate" if subjects >= FEWEST else "uncertain"


def _fairness(tables: Mapping[str, Table], by: Sequence[str]) -> list[schema.Fairness]:
    """Equalised odds and demographic parity of each column but gender, whose groups have one true gender each."""
    if "gender_says_female" not in tables:
        return []
    odds = [tables[name] for name in ("gender_true_female", "gender_false_female")]
    lines = [
        schema.Fairness(
            by=[column],
            equalised_odds=_gap("equalised_odds", odds, [column]),
            demographic_parity=_gap("demographic_parity", [tables["gender_says_female"]], [column]),
        )
        for column in by
        if column != "gender"
    ]
    return [line for line in lines if line.equalised_odds or line.demographic_parity]


def _differences(
    rows: pd.DataFrame, other: pd.DataFrame, by: Sequence[str], settings: Settings
) -> list[schema.PairedDifference]:
    """This model less the other by group, on the faces that both judge, corrected for the groups looked at."""
    other = metrics.sort_by_subject(other, "subject", settings.n_boot)
    names = [name for name in AUDITED if name in _jobs(rows) and name in _jobs(other)]
    jobs: dict[str, Job] = {}
    for name in names:
        both = METRICS[name].counted(rows) & METRICS[name].counted(other)
        jobs |= {f"{name} a": Job(METRICS[name], rows, both), f"{name} b": Job(METRICS[name], other, both)}
    pairs: dict[str, dict[Group, tuple[Sample, Sample]]] = {name: {} for name in names}
    for group, own in samples(groupings(rows, by), jobs, settings.n_boot, settings.seed):
        for name in names:
            pairs[name][group] = (own[f"{name} a"], own[f"{name} b"])
    return [line for name in names for line in _corrected(name, pairs[name])]


def _corrected(name: str, pairs: Mapping[Group, tuple[Sample, Sample]]) -> list[schema.PairedDifference]:
    own = {group: (a, b) for group, (a, b) in pairs.items() if a.n}
    z = together([a.resamples - b.resamples for a, b in own.values()], [a.value - b.value for a, b in own.values()])
    lines = []
    for group, (a, b) in own.items():
        found = difference(a, b, z)
        lines.append(
            schema.PairedDifference(
                group=group.name,
                metric=name,
                value=found.value,
                low=found.low,
                high=found.high,
                n=found.n,
                subjects=found.subjects,
                told=_told(found.subjects),
                found=_compared(METRICS[name].better, found.low, found.high),
            )
        )
    return lines


def _compared(better: str | None, low: float, high: float) -> str:
    if better is None or not (low > 0 or high < 0):
        return "unclear"
    return "better" if (low > 0) == (better == "higher") else "worse"
