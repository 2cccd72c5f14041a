"""Audits a model: for which groups it fails, with intervals that show what the data can support."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from mien import metrics
from mien.audit.model import age_rules, schema
from mien.audit.model.groups import (
    MIN_SUBJECTS,
    RELIABLE_SUBJECTS,
    Group,
    MetricJob,
    MetricTable,
    group_samples,
    groupings,
    largest_gap,
    rankable_groups,
    simultaneous_z,
    worst_group,
)
from mien.audit.model.inputs import Matched, PredictionsInput, match, read_predictions
from mien.audit.model.limits import AuditLimits, Basis, ModelFindings, basis, check_limits
from mien.base.errors import MienError, choices
from mien.base.version import __version__
from mien.metrics.definitions import METRICS, PERCENT, Metric
from mien.metrics.intervals import Estimate, Sample, difference
from mien.metrics.joining import TRUTH_COLUMNS, true_years

if TYPE_CHECKING:
    from mien.audit.model.robustness import RobustnessTest

DEFAULT_GROUP_COLUMNS = ("gender", "age_group", "race")
"""The columns that define groups by default; absent columns are skipped."""

FAIRNESS_RATES: dict[str, Metric] = {
    "gender_predicted_female": Metric(
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
"""Rates that only the fairness criteria need: the share predicted female, of all faces and of women."""

PREDICTED_COLUMNS = ("gender", "age", "age_group")
"""The columns whose missing values are counted for the limit `missing`."""


def _missing_metric(column: str) -> Metric:
    return Metric(
        label=f"faces without {column}",
        unit=PERCENT,
        truth="face",
        predictions=(column,),
        parts=lambda face, values: metrics.mean_parts(pd.isna(values)),
        better=None,
    )


MISSING_RATES = {f"missing_{column}": _missing_metric(column) for column in PREDICTED_COLUMNS}
"""Rates that only the limit `missing` needs."""

AUDIT_METRICS = tuple(name for name, metric in METRICS.items() if not metric.needs_classes)
"""The metrics of an audit; those without predictions or labels are skipped."""


class AuditSettings(NamedTuple):
    """Settings of `audit_predictions`.

    Attributes:
        limits: Limits that the model must meet.
        child_rate: The allowed share of children classified as adults, for the choice of thresholds.
        n_boot: Number of resamples.
        seed: Seed of the resamples.
    """

    limits: AuditLimits | None = None
    child_rate: float = 0.05
    n_boot: int = 1000
    seed: int = 0


def audit_predictions(
    predictions: PredictionsInput,
    faces: pd.DataFrame,
    by: Sequence[str] | None = ("gender", "age_group"),
    *,
    map: Mapping[str, str] | None = None,
    preset: str | None = None,
    against: PredictionsInput | None = None,
    against_preset: str | None = None,
    robustness: "RobustnessTest | None" = None,
    settings: AuditSettings = AuditSettings(),  # noqa: B008 - it cannot change
) -> schema.ModelAuditReport:
    """Audits a model by group, from its predictions and the labels of the faces.

    The report does not depend on the order of the rows or on the number of prediction files.

    Args:
        predictions: A table, a file or several files; see `inputs.read_predictions`.
        faces: A faces table with the labels.
        by: Columns that define groups, alone and crossed; None: those of `DEFAULT_GROUP_COLUMNS` that are present.
        map: Column names of the predictions, mapped to mien's names.
        preset: A name in `inputs.PRESETS`.
        against: Predictions of another model for the same faces, to compare with.
        against_preset: The preset of `against`.
        robustness: The degradations to test, and the model to test.
        settings: Limits, rate and resamples.

    Returns:
        The report.

    Raises:
        MienError: The predictions cannot be read or do not match the faces, or a column does not exist.
    """
    matched = match(faces, read_predictions(predictions, map, preset))
    rows = metrics.sort_by_subject(matched.joined, "subject", settings.n_boot)
    columns = _columns(rows, by)
    tables = _tables(rows, columns, settings)
    findings = _findings(rows, tables, columns, settings)
    verdicts = check_limits(settings.limits, findings) if settings.limits else []
    other = None if against is None else match(faces, read_predictions(against, None, against_preset)).joined
    from mien.audit.model.summary import summary

    return schema.ModelAuditReport(
        mien=__version__,
        summary=summary(findings, matched, verdicts),
        passed=all(one.passed for one in verdicts) if verdicts else None,
        predictions=_counts(matched, rows),
        settings=_settings(columns, settings),
        groups=list(findings.groups),
        worst=list(findings.worst),
        gaps=list(findings.gaps),
        fairness=list(findings.fairness),
        age_limits=list(findings.age_limits),
        robustness=robustness.run(columns, settings.n_boot, settings.seed) if robustness else [],
        differences=[] if other is None else _differences(rows, other, columns, settings),
        limits=verdicts,
    )


def _settings(columns: Sequence[str], settings: AuditSettings) -> schema.ReportSettings:
    return schema.ReportSettings(
        by=list(columns),
        resamples=settings.n_boot,
        seed=settings.seed,
        min_subjects=MIN_SUBJECTS,
        reliable_subjects=RELIABLE_SUBJECTS,
    )


def _columns(rows: pd.DataFrame, by: Sequence[str] | None) -> list[str]:
    if by is None:
        return [
            name
            for name in DEFAULT_GROUP_COLUMNS
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


def _counts(matched: Matched, rows: pd.DataFrame) -> schema.PredictionCounts:
    return schema.PredictionCounts(
        faces=len(rows),
        subjects=int(rows["_cluster"].max()),
        missing=matched.missing,
        unmatched=matched.unmatched,
        matched_by=matched.key,
    )


def _jobs(rows: pd.DataFrame) -> dict[str, Metric]:
    wanted = {name: METRICS[name] for name in AUDIT_METRICS} | FAIRNESS_RATES | MISSING_RATES
    return {name: metric for name, metric in wanted.items() if metrics.is_applicable(metric, rows)}


def _tables(rows: pd.DataFrame, by: Sequence[str], settings: AuditSettings) -> dict[str, dict[Group, Estimate]]:
    """Each metric by group; metrics of one gender are not grouped by gender."""
    jobs = {name: MetricJob(metric, rows) for name, metric in _jobs(rows).items()}
    tables: dict[str, dict[Group, Estimate]] = {name: {} for name in jobs}
    for group, own in group_samples(groupings(rows, by), jobs, settings.n_boot, settings.seed):
        for name, sample in own.items():
            if "gender" not in group.columns or jobs[name].metric.among is None:
                tables[name][group] = sample.estimate()
    return tables


def _findings(
    rows: pd.DataFrame, tables: Mapping[str, MetricTable], by: Sequence[str], settings: AuditSettings
) -> ModelFindings:
    shown = {name: table for name, table in tables.items() if name in METRICS}
    lines = [_number(group, name, one) for name, table in shown.items() for group, one in table.items() if one.n]
    worsts, gaps = [], []
    for name, table in shown.items():
        for columns in _searched_columns(table, by):
            better = METRICS[name].better
            if better and (bad := worst_group(table, better, columns)):
                own = {"value": bad.value, "low": bad.low, "high": bad.high, "groups": bad.groups}
                worsts.append(schema.WorstGroup(metric=name, by=columns, group=bad.group.name, **own))
            if gap := _gap(name, [table], columns):
                gaps.append(gap)
    limits = age_rules.age_limits(rows, settings.child_rate, settings.n_boot, settings.seed)
    return ModelFindings(lines, worsts, gaps, _fairness(tables, by), limits, _missing(tables), _bases(rows))


def _missing(tables: Mapping[str, MetricTable]) -> dict[str, schema.Interval]:
    """The share of faces without a value, by predicted column."""
    found = {}
    for column in PREDICTED_COLUMNS:
        if f"missing_{column}" in tables:
            one = tables[f"missing_{column}"][Group()]
            low, high = one.interval()
            found[column] = schema.Interval(value=one.value, low=low, high=high)
    return found


def _bases(rows: pd.DataFrame) -> dict[str, Basis]:
    """What each metric over all faces, and each age limit, was measured on."""
    found = {}
    for name, metric in _jobs(rows).items():
        labelled = rows[metric.truth].notna() if metric.among is None else (rows[metric.truth] == metric.among)
        answered = rows[list(metric.predictions)].notna().all(axis=1)
        found[name] = basis(rows, labelled.fillna(False).to_numpy(dtype=bool), answered.to_numpy(dtype=bool))
    if "age" in rows.columns:
        last, known = true_years(rows)[1], rows["age"].notna().to_numpy()
        found |= {f"children under {limit}": basis(rows, last < limit, known) for limit in (13, 16, 18, 21)}
    return found


def _searched_columns(table: MetricTable, by: Sequence[str]) -> list[list[str] | None]:
    """The groupings to search: all together, then each column and crossing with at least two ranked groups."""
    groups = rankable_groups(table)
    own = list(dict.fromkeys(group.columns for group in groups))
    counts = {columns: sum(group.columns == columns for group in groups) for columns in own}
    several: list[list[str] | None] = [list(columns) for columns in own if counts[columns] > 1]
    return [None, *several] if several else []


def _gap(name: str, tables: Sequence[MetricTable], columns: Sequence[str] | None) -> schema.GroupGap | None:
    gap = largest_gap(tables, columns)
    if gap is None:
        return None
    return schema.GroupGap(
        metric=name,
        by=None if columns is None else list(columns),
        higher=gap.higher.name,
        lower=gap.lower.name,
        value=gap.value,
        low=gap.low,
        high=gap.high,
        pairs=gap.pairs,
    )


def _number(group: Group, name: str, one: Estimate) -> schema.GroupMetric:
    low, high = one.interval()
    return schema.GroupMetric(
        group=group.name,
        labels=dict(group.labels),
        metric=name,
        value=one.value,
        low=low,
        high=high,
        n=one.n,
        subjects=one.subjects,
        reliability=_reliability(one.subjects),
    )


def _reliability(subjects: int) -> schema.Reliability:
    return "reliable" if subjects >= RELIABLE_SUBJECTS else "approximate" if subjects >= MIN_SUBJECTS else "uncertain"


def _fairness(tables: Mapping[str, MetricTable], by: Sequence[str]) -> list[schema.Fairness]:
    """Equalised odds and demographic parity of each column except gender, whose groups have one true gender each."""
    if "gender_predicted_female" not in tables:
        return []
    odds = [tables[name] for name in ("gender_true_female", "gender_false_female")]
    lines = [
        schema.Fairness(
            by=[column],
            equalised_odds=_gap("equalised_odds", odds, [column]),
            demographic_parity=_gap("demographic_parity", [tables["gender_predicted_female"]], [column]),
        )
        for column in by
        if column != "gender"
    ]
    return [line for line in lines if line.equalised_odds or line.demographic_parity]


def _differences(
    rows: pd.DataFrame, other: pd.DataFrame, by: Sequence[str], settings: AuditSettings
) -> list[schema.PairedDifference]:
    """This model minus the other by group, on the faces that both predict, corrected for the number of groups."""
    other = metrics.sort_by_subject(other, "subject", settings.n_boot)
    names = [name for name in AUDIT_METRICS if name in _jobs(rows) and name in _jobs(other)]
    jobs: dict[str, MetricJob] = {}
    for name in names:
        both = METRICS[name].counted(rows) & METRICS[name].counted(other)
        jobs |= {f"{name} a": MetricJob(METRICS[name], rows, both), f"{name} b": MetricJob(METRICS[name], other, both)}
    pairs: dict[str, dict[Group, tuple[Sample, Sample]]] = {name: {} for name in names}
    for group, own in group_samples(groupings(rows, by), jobs, settings.n_boot, settings.seed):
        for name in names:
            pairs[name][group] = (own[f"{name} a"], own[f"{name} b"])
    return [line for name in names for line in _corrected(name, pairs[name])]


def _corrected(name: str, pairs: Mapping[Group, tuple[Sample, Sample]]) -> list[schema.PairedDifference]:
    own = {group: (a, b) for group, (a, b) in pairs.items() if a.n}
    z = simultaneous_z(
        [a.resamples - b.resamples for a, b in own.values()], [a.value - b.value for a, b in own.values()]
    )
    lines = []
    for group, (a, b) in own.items():
        estimate = difference(a, b, z)
        lines.append(
            schema.PairedDifference(
                group=group.name,
                metric=name,
                value=estimate.value,
                low=estimate.low,
                high=estimate.high,
                n=estimate.n,
                subjects=estimate.subjects,
                reliability=_reliability(estimate.subjects),
                verdict=_verdict(METRICS[name].better, estimate.low, estimate.high),
            )
        )
    return lines


def _verdict(better: str | None, low: float, high: float) -> str:
    if better is None or not (low > 0 or high < 0):
        return "inconclusive"
    return "better" if (low > 0) == (better == "higher") else "worse"
