"""The report of a model audit: a summary, charts with their numbers, and tables as CSV."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel

from mien.audit.model.schema import AgeLimit, GroupGap, GroupMetric, Interval, ModelAuditReport
from mien.audit.model.summary import percent
from mien.base.atomic import atomic_path, new_folder
from mien.base.table import write_table
from mien.metrics.definitions import METRICS, PERCENT, Unit
from mien.metrics.wording import in_unit, named, number, unit_of, with_interval
from mien.reports import figures
from mien.reports.page import Chart, Section, Table, write_report

_CHARTS = (
    "gender_accuracy",
    "gender_false_male",
    "gender_false_female",
    "gender_unsure",
    "gender_ece",
    "age_mae",
    "age_bias",
)
_MAX_CHART_ROWS = 40  # two screens of a phone
_FAIRNESS_NAMES = {"equalised_odds": "equalised odds", "demographic_parity": "demographic parity"}

_METHOD = (
    "Intervals are 95% bootstrap intervals over subjects (over faces where the subject is unknown). Missing "
    "predictions and unsure genders count as wrong in accuracies; the other metrics cover the faces with a "
    "prediction. Groups with fewer than {min_subjects} subjects are uncertain: they are reported with their interval, "
    "but never ranked. Intervals of groups with fewer than {reliable_subjects} subjects are approximate. The worst of "
    "many groups is partly chance, so that the intervals of worst groups and largest gaps are corrected for the "
    "number of groups compared. Calibration errors are never negative and are overestimated in small groups; their "
    "intervals account for this."
)


def write(report: ModelAuditReport, out: str | Path) -> Path:
    """Writes `report.html`, `report.json`, `groups.csv` and the other tables that have rows to a folder.

        Returns:
    The path of `report.html`.
    """
    folder = new_folder(out)
    with atomic_path(folder / "report.json") as part:
        part.write_text(report.to_json(), "utf-8")
    for name, table in tables(report).items():
        if len(table):
            write_table(table, folder / f"{name}.csv")
    return write_report("Audit of a model", report.summary, list(_sections(report)), folder / "report.html")


def tables(report: ModelAuditReport) -> dict[str, pd.DataFrame]:
    """Returns the lists of the report as tables, with the ends of intervals in separate columns."""
    lists: dict[str, Sequence[BaseModel]] = {
        "groups": report.groups,
        "worst": report.worst,
        "gaps": report.gaps,
        "differences": report.differences,
        "robustness": report.robustness,
        "limits": report.limits,
    }
    found = {name: pd.json_normalize([one.model_dump() for one in entries]) for name, entries in lists.items()}
    for name in ("worst", "gaps"):
        if len(found[name]):
            found[name]["by"] = found[name]["by"].map(_among)
    found["age_curves"] = pd.DataFrame(list(_curve_rows(report.age_limits)))
    rules = [{"limit": limit.limit} | rule.model_dump() for limit in report.age_limits for rule in limit.rules]
    return found | {"age_rules": pd.json_normalize(rules)}


def _curve_rows(limits: Sequence[AgeLimit]) -> Iterator[dict[str, float | str | None]]:
    for limit in limits:
        for column, points in limit.curves.items():
            for point in points:
                ends = {
                    f"{name}_{part}": getattr(getattr(point, name), part)
                    for name in ("child_as_adult", "adult_as_child")
                    for part in ("value", "low", "high")
                }
                yield {"limit": limit.limit, "column": column, "threshold": point.threshold} | ends


def _sections(report: ModelAuditReport) -> Iterator[Section]:
    if report.limits:
        yield _limits(report)
    yield _worst(report)
    yield _groups(report)
    if report.fairness:
        yield _fairness(report)
    if report.age_limits:
        yield _ages(report.age_limits)
    if report.robustness:
        yield _robustness(report)
    if report.differences:
        yield _differences(report)
    yield _about(report)


def _text(metric: str | Unit, one: Interval) -> str:
    value, low, high = (np.nan if number is None else number for number in (one.value, one.low, one.high))
    return with_interval(metric, value, low, high)


def _name(metric: str) -> str:
    return f"{_FAIRNESS_NAMES[metric]}, {PERCENT.symbol}" if metric in _FAIRNESS_NAMES else named(metric)


def _limits(report: ModelAuditReport) -> Section:
    rows = [
        {
            "limit": one.limit.replace("_", " "),
            "faces": one.scope,
            "allowed": f"{one.direction} {one.allowed:g}",
            "measured": "–" if one.measured.value is None else _plain(one.measured),
            "violated by": "–" if one.excess is None or one.excess <= 0 else f"{one.excess:.3g}",
            "result": "pass" if one.passed else "FAIL",
            "conclusive": one.problem or ("yes" if one.conclusive else "no"),
            "n": one.n,
        }
        for one in report.limits
    ]
    text = (
        "The value decides. A result is conclusive if the whole interval is on one side of the limit. A limit fails if "
        "its number is of fewer than 30 subjects, or of fewer than half of the labelled faces."
    )
    return Section("Limits", text=[text], tables=[Table("Limits and results", pd.DataFrame(rows))])


def _plain(one: Interval) -> str:
    ends = "no interval" if one.low is None or one.high is None else f"{one.low:.3f}, {one.high:.3f}"
    return f"{one.value:.3f} [{ends}]"


def _worst(report: ModelAuditReport) -> Section:
    worst = [
        {
            "metric": _name(one.metric),
            "compared": _among(one.by),
            "worst group": one.group,
            "value": number(one.metric, one.value),
            "interval of the true worst value": _ends(unit_of(one.metric), one),
            "groups": one.groups,
        }
        for one in report.worst
    ]
    gaps = [_gap_row(one) for one in report.gaps if one.value]
    own = [Table("Worst of all groups and crossings", _all(worst))] if worst else []
    own += [Table("Largest gaps between two groups of one column or crossing", _all(gaps))] if gaps else []
    own += [Table("Worst groups by column and crossing", pd.DataFrame(worst), folded=True)] if worst else []
    own += [Table("Largest gaps by column and crossing", pd.DataFrame(gaps), folded=True)] if gaps else []
    text = (
        []
        if own
        else [f"No two groups have at least {report.settings.min_subjects} subjects, so that none are ranked."]
    )
    return Section("Worst groups and largest gaps", text=text, tables=own)


def _all(rows: Sequence[dict[str, object]]) -> pd.DataFrame:
    table = pd.DataFrame([row for row in rows if row["compared"] == _among(None)])
    return table.drop(columns="compared")


def _gap_row(one: GroupGap) -> dict[str, object]:
    return {
        "metric": _name(one.metric),
        "compared": _among(one.by),
        "higher": one.higher,
        "lower": one.lower,
        "gap": number(_unit_of(one.metric), one.value),
        "interval of the true largest gap": _ends(_unit_of(one.metric), one),
        "pairs": one.pairs,
    }


def _unit_of(metric: str) -> Unit:
    return PERCENT if metric in _FAIRNESS_NAMES else unit_of(metric)


def _ends(unit: Unit, one: Interval) -> str:
    return " to ".join(number(unit, end) for end in (one.low, one.high))


def _among(by: Sequence[str] | None) -> str:
    return "all" if by is None else " × ".join(by)


def _groups(report: ModelAuditReport) -> Section:
    charts = [chart for metric in _CHARTS if (chart := _chart(report, metric)) is not None]
    rows = [
        {
            "group": one.group,
            "metric": _name(one.metric),
            "value [95% interval]": _text(one.metric, one),
            "n": one.n,
            "subjects": one.subjects,
            "reliability": one.reliability,
        }
        for one in report.groups
        if len(one.labels) <= 1
    ]
    crossings = sum(len(one.labels) > 1 for one in report.groups)
    text = [
        "Points are values with 95% intervals; the dashed line is the value over all faces. Groups marked (few) are "
        "uncertain."
    ]
    if crossings:
        text.append(f"groups.csv has all numbers, including {crossings:,} of crossings.")
    return Section(
        "By group", text=text, tables=[Table("Metrics by group", pd.DataFrame(rows), folded=True)], figures=charts
    )


def _chart(report: ModelAuditReport, metric: str) -> Chart | None:
    own = [one for one in report.groups if one.metric == metric]
    overall = [one for one in own if not one.labels]
    if not own or (metric == "gender_unsure" and not overall[0].value):
        return None
    rows = [_row("all faces", one, metric) for one in overall]
    for columns in dict.fromkeys(tuple(one.labels) for one in own if len(one.labels) == 1):
        rows.append({"label": columns[0], "value": np.nan, "low": np.nan, "high": np.nan})
        rows += [_row(next(iter(one.labels.values())), one, metric) for one in own if tuple(one.labels) == columns]
    crossed = sorted((one for one in own if len(one.labels) > 1 and one.reliability != "uncertain"), key=_bad(metric))
    if crossed and len(rows) < _MAX_CHART_ROWS:
        some = crossed[: min(10, _MAX_CHART_ROWS - len(rows))]
        rows.append({"label": f"worst of {len(crossed)} crossings", "value": np.nan, "low": np.nan, "high": np.nan})
        rows += [_row(", ".join(one.labels.values()), one, metric) for one in some]
    table = pd.DataFrame(rows)
    figure = figures.intervals(table.head(_MAX_CHART_ROWS), _name(metric), "all faces")
    numbers = table.dropna(subset="value").rename(columns={"label": "group"})
    return Chart(figure, f"{_name(metric)[:1].upper()}{_name(metric)[1:]}, by group", numbers)


def _bad(metric: str) -> Callable[[GroupMetric], float]:
    """Sort key for groups, the worst first."""
    sign = {"higher": 1, "lower": -1, None: 0}[METRICS[metric].better]
    return lambda one: sign * (one.value or 0) if sign else -abs(one.value or 0)


def _row(label: str, one: GroupMetric, metric: str) -> dict[str, object]:
    few = " (few)" if one.reliability == "uncertain" else ""
    ends: dict[str, object] = {name: in_unit(metric, getattr(one, name)) for name in ("value", "low", "high")}
    return {"label": f"{label}{few}"} | ends | {"n": one.n, "subjects": one.subjects}


def _fairness(report: ModelAuditReport) -> Section:
    rows = [
        {"by": ", ".join(one.by)} | _gap_row(gap)
        for one in report.fairness
        for gap in (one.equalised_odds, one.demographic_parity)
        if gap is not None
    ]
    text = (
        "Equalised odds: the larger of two gaps between groups, that of the share of women predicted female and that "
        "of the share of men predicted female. Demographic parity: the gap of the share predicted female, whatever the "
        "label; if the groups differ in their labels, correct predictions differ too. In percentage points."
    )
    table = pd.DataFrame(rows).drop(columns="compared")
    return Section(
        "Equalised odds and demographic parity", text=[text], tables=[Table("Fairness criteria by column", table)]
    )


def _ages(limits: Sequence[AgeLimit]) -> Section:
    text = (
        "A face passes an age limit if its predicted age is at least a threshold. With a higher threshold, fewer "
        "children are classified as adults and more adults as children. The rule age_low uses the lower end of the age "
        "interval; band leaves ages in between undecided; interval decides adult if age_low reaches the limit and "
        "child if age_high does not. Each threshold is the lowest one that keeps the allowed share with its whole "
        "interval on half of the subjects; the numbers are from the other half."
    )
    rows = [
        {
            "limit": f"{limit.limit:g}",
            "rule": rule.rule,
            "adult from": "none" if rule.adult_from is None else f"{rule.adult_from:g}",
            "child below": "–" if rule.child_below is None else f"{rule.child_below:g}",
            "children classified as adults, %": _text(PERCENT, rule.child_as_adult),
            "allowed, %": f"{100 * limit.allowed:g}",
            "adults classified as children, %": _text(PERCENT, rule.adult_as_child),
            "undecided": percent(rule.undecided) if rule.undecided is not None else "–",
            "children": rule.confirmed_on,
            "verdict": rule.verdict,
        }
        for limit in limits
        for rule in limit.rules
    ]
    charts = [_age_chart(limit) for limit in limits]
    return Section(
        "Age limits",
        text=[text],
        tables=[Table("Decision rules, measured on the other half", pd.DataFrame(rows))],
        figures=charts,
    )


def _age_chart(limit: AgeLimit) -> Chart:
    lines, numbers = {}, {}
    for column, points in limit.curves.items():
        some = [point for point in points if -8 <= point.threshold - limit.limit <= 25]
        at = [int(point.threshold) for point in some]
        for words, name in (("children as adults", "child_as_adult"), ("adults as children", "adult_as_child")):
            values = [getattr(point, name) for point in some]
            line = pd.Series([100 * (one.value or 0) for one in values], index=at, dtype=float)
            lines[f"{words}, {column}"] = line
            numbers[f"{words}, {column}, % [95% interval]"] = [_text(PERCENT, one) for one in values]
    counts = f"{limit.children:,} children and {limit.adults:,} adults"
    caption = f"Age limit {limit.limit:g}: error rates of {counts} by threshold"
    figure = figures.curves(lines, "share, %", "adult from, years")
    return Chart(figure, caption, pd.DataFrame({"adult from": at} | numbers))


def _robustness(report: ModelAuditReport) -> Section:
    rows = [
        {
            "degradation": f"{one.degradation}, {one.level}",
            "group": one.group,
            "metric": _name(one.metric),
            "result": _text(one.metric, one.result),
            "change": _text(one.metric, one.change),
            "excess over others": _text(one.metric, one.excess_over_others),
            "n": one.n,
        }
        for one in report.robustness
    ]
    table = pd.DataFrame(rows)
    hurt = [one for one in report.robustness if _hurts(one.metric, one.excess_over_others)]
    text = [
        "The same faces with degraded images, in graded levels. Change is relative to the original images; excess over "
        "others is the change of a group minus that of all other faces, with an interval corrected for all comparisons "
        "of the metric."
    ]
    if hurt:
        names = "; ".join(
            f"{one.group} at {one.degradation}, {one.level} ({named(one.metric, unit=False)})" for one in hurt[:6]
        )
        text.append(f"Some groups are affected more than others ({len(hurt)} comparisons): {names}.")
    else:
        text.append("No group is measurably more affected than the others.")
    charts = [
        chart for metric in ("gender_accuracy", "gender_unsure", "age_mae") for chart in _robust_charts(report, metric)
    ]
    overall = table[table["group"] == "all"].drop(columns=["group", "excess over others"])
    own = [Table("All faces", overall, folded=True), Table("By group", table[table["group"] != "all"], folded=True)]
    return Section("Robustness to degraded images", text=text, tables=own, figures=charts)


def _hurts(metric: str, one: Interval) -> bool:
    if one.low is None or one.high is None:
        return False
    return one.high < 0 if METRICS[metric].better == "higher" else one.low > 0


def _robust_charts(report: ModelAuditReport, metric: str) -> Iterator[Chart]:
    own = [one for one in report.robustness if one.metric == metric and one.group == "all"]
    if not own:
        return
    rows: list[dict[str, object]] = []
    for degradation in dict.fromkeys(one.degradation for one in own):
        rows.append({"label": degradation, "value": np.nan, "low": np.nan, "high": np.nan})
        for one in (one for one in own if one.degradation == degradation):
            ends = {name: in_unit(metric, getattr(one.result, name) or 0) for name in ("value", "low", "high")}
            rows.append({"label": one.level, **ends})
    table = pd.DataFrame(rows)
    numbers = table.dropna(subset="value").rename(columns={"label": "level"})
    yield Chart(figures.intervals(table, _name(metric)), f"Degraded images: {_name(metric)}, all faces", numbers)


def _differences(report: ModelAuditReport) -> Section:
    rows = [
        {
            "group": one.group,
            "metric": _name(one.metric),
            "this minus the other": _text(one.metric, one),
            "this model is": one.verdict,
            "n": one.n,
            "reliability": one.reliability,
        }
        for one in report.differences
    ]
    table = pd.DataFrame(rows)
    text = (
        "Both models on the same faces: this one minus the other, with simultaneous intervals for all groups of a "
        "metric. In percentage points; ages in years."
    )
    charts = [
        chart for metric in ("gender_accuracy", "age_mae") if (chart := _difference_chart(report, metric)) is not None
    ]
    overall = table[table["group"] == "all"].drop(columns="group")
    own = [Table("All faces", overall), Table("By group", table, folded=True)]
    return Section("Comparison with the other model", text=[text], tables=own, figures=charts)


def _difference_chart(report: ModelAuditReport, metric: str) -> Chart | None:
    own = [one for one in report.differences if one.metric == metric and one.reliability != "uncertain"][
        :_MAX_CHART_ROWS
    ]
    if not own:
        return None
    rows = [
        {"label": one.group} | {name: in_unit(metric, getattr(one, name)) for name in ("value", "low", "high")}
        for one in own
    ]
    table = pd.DataFrame(rows)
    caption = f"This model minus the other: {_name(metric)}"
    return Chart(figures.intervals(table, caption), caption, table.rename(columns={"label": "group"}))


def _about(report: ModelAuditReport) -> Section:
    settings, about = report.settings, report.predictions
    counts = (
        f"{about.faces:,} faces of {about.subjects:,} subjects; matched by {about.matched_by}; {about.missing:,} "
        f"without a prediction, {about.unmatched:,} predictions without a face. Groups: "
        f"{', '.join(settings.by) or 'none'}. {settings.resamples:,} resamples, seed {settings.seed}."
    )
    method = _METHOD.format(min_subjects=settings.min_subjects, reliable_subjects=settings.reliable_subjects)
    return Section("Method", text=[counts, method])
