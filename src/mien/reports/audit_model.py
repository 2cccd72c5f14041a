"""The report of a model's audit: what was found in words, charts with the numbers behind them, and tables as CSV."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel

from mien.audit.model.schema import AgeLimit, Gap, GroupNumber, Interval, Report
from mien.audit.model.words import percent
from mien.base.atomic import atomic_path, new_folder
from mien.base.table import write_table
from mien.metrics.definitions import METRICS, PERCENT, Unit
from mien.metrics.words import in_unit, named, number, unit_of, with_interval
from mien.reports import figures
from mien.reports.page import Picture, Section, Table, write_report

_CHARTS = (
    "gender_accuracy",
    "gender_false_male",
    "gender_false_female",
    "gender_unsure",
    "gender_ece",
    "age_mae",
    "age_bias",
)
_MOST_ROWS = 40  # of a chart: a telephone's screen twice
_KINDS = {"equalised_odds": "equalised odds", "demographic_parity": "demographic parity"}

_METHOD = (
    "Intervals are 95%, from a bootstrap that resamples whole subjects, or faces whose subject is not known. "
    "A missing prediction and an unsure answer count as wrong in accuracies; the other metrics are over the faces that "
    "were predicted. A group of fewer than {fewest} subjects is uncertain: it is shown with its interval and never "
    "called the worst. Intervals of fewer than {enough} subjects are approximate. Whoever looks at many groups finds "
    "one that had bad luck; the intervals of the worst group and of the largest gap are corrected for all groups that "
    "were looked at. A calibration error is never negative and grows with noise, so that it is overestimated in small "
    "groups; its interval allows for that."
)


def write(report: Report, out: str | Path) -> Path:
    """Writes `report.html`, and beside it `report.json`, `groups.csv` and the other tables that have rows.

    Returns:
        The page.
    """
    folder = new_folder(out)
    with atomic_path(folder / "report.json") as part:
        part.write_text(report.to_json(), "utf-8")
    for name, table in tables(report).items():
        if len(table):
            write_table(table, folder / f"{name}.csv")
    return write_report("Audit of a model", report.summary, list(_sections(report)), folder / "report.html")


def tables(report: Report) -> dict[str, pd.DataFrame]:
    """The lists of the report as tables: one row an entry, the ends of intervals in columns of their own."""
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
    choices = [{"limit": limit.limit} | choice.model_dump() for limit in report.age_limits for choice in limit.choices]
    return found | {"age_choices": pd.json_normalize(choices)}


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


def _sections(report: Report) -> Iterator[Section]:
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
    return f"{_KINDS[metric]}, {PERCENT.symbol}" if metric in _KINDS else named(metric)


def _limits(report: Report) -> Section:
    rows = [
        {
            "limit": one.limit.replace("_", " "),
            "where": one.where,
            "allowed": f"{one.direction} {one.allowed:g}",
            "found": "–" if one.found.value is None else _plain(one.found),
            "missed by": "–" if one.beyond is None or one.beyond <= 0 else f"{one.beyond:.3g}",
            "result": "pass" if one.passed else "FAIL",
            "the data suffices to tell": "yes" if one.sure else "no",
        }
        for one in report.limits
    ]
    text = (
        "The verdict is by the value; the data suffices to tell where the whole interval lies on one side of the limit."
    )
    return Section("Limits", text=[text], tables=[Table("limits and what was found", pd.DataFrame(rows))])


def _plain(one: Interval) -> str:
    ends = "no interval" if one.low is None or one.high is None else f"{one.low:.3f}, {one.high:.3f}"
    return f"{one.value:.3f} [{ends}]"


def _worst(report: Report) -> Section:
    worst = [
        {
            "metric": _name(one.metric),
            "among": _among(one.by),
            "worst group": one.group,
            "value": number(one.metric, one.value),
            "the true worst lies in": _ends(unit_of(one.metric), one),
            "groups": one.groups,
        }
        for one in report.worst
    ]
    gaps = [_gap_row(one) for one in report.gaps if one.value]
    own = [Table("the worst of all groups and crossings", _all(worst))] if worst else []
    own += [Table("the largest gaps between two groups of one kind", _all(gaps))] if gaps else []
    own += [Table("by column and by crossing: worst groups", pd.DataFrame(worst), folded=True)] if worst else []
    own += [Table("by column and by crossing: largest gaps", pd.DataFrame(gaps), folded=True)] if gaps else []
    text = (
        [] if own else [f"There are no two groups of at least {report.settings.fewest_subjects} subjects to compare."]
    )
    return Section("Worst groups and largest gaps", text=text, tables=own)


def _all(rows: Sequence[dict[str, object]]) -> pd.DataFrame:
    table = pd.DataFrame([row for row in rows if row["among"] == _among(None)])
    return table.drop(columns="among")


def _gap_row(one: Gap) -> dict[str, object]:
    return {
        "metric": _name(one.metric),
        "among": _among(one.by),
        "higher": one.higher,
        "lower": one.lower,
        "gap": number(_unit_of(one.metric), one.value),
        "the true largest lies in": _ends(_unit_of(one.metric), one),
        "pairs": one.pairs,
    }


def _unit_of(metric: str) -> Unit:
    return PERCENT if metric in _KINDS else unit_of(metric)


def _ends(unit: Unit, one: Interval) -> str:
    return " to ".join(number(unit, end) for end in (one.low, one.high))


def _among(by: Sequence[str] | None) -> str:
    return "all" if by is None else " × ".join(by)


def _groups(report: Report) -> Section:
    pictures = [picture for metric in _CHARTS if (picture := _chart(report, metric)) is not None]
    rows = [
        {
            "group": one.group,
            "metric": _name(one.metric),
            "value [95% interval]": _text(one.metric, one),
            "n": one.n,
            "subjects": one.subjects,
            "told": one.told,
        }
        for one in report.groups
        if len(one.labels) <= 1
    ]
    crossings = sum(len(one.labels) > 1 for one in report.groups)
    text = [
        "Points are values, lines their 95% intervals; the dashed line is the value of all faces. Groups marked (few) "
        "are uncertain."
    ]
    if crossings:
        text.append(f"groups.csv beside this file has all numbers, {crossings:,} of crossings among them.")
    return Section(
        "By group", text=text, tables=[Table("each column", pd.DataFrame(rows), folded=True)], figures=pictures
    )


def _chart(report: Report, metric: str) -> Picture | None:
    own = [one for one in report.groups if one.metric == metric]
    overall = [one for one in own if not one.labels]
    if not own or (metric == "gender_unsure" and not overall[0].value):
        return None
    rows = [_row("all faces", one, metric) for one in overall]
    for columns in dict.fromkeys(tuple(one.labels) for one in own if len(one.labels) == 1):
        rows.append({"label": columns[0], "value": np.nan, "low": np.nan, "high": np.nan})
        rows += [_row(next(iter(one.labels.values())), one, metric) for one in own if tuple(one.labels) == columns]
    crossed = sorted((one for one in own if len(one.labels) > 1 and one.told != "uncertain"), key=_bad(metric))
    if crossed and len(rows) < _MOST_ROWS:
        some = crossed[: min(10, _MOST_ROWS - len(rows))]
        rows.append({"label": f"worst of {len(crossed)} crossings", "value": np.nan, "low": np.nan, "high": np.nan})
        rows += [_row(", ".join(one.labels.values()), one, metric) for one in some]
    table = pd.DataFrame(rows)
    figure = figures.intervals(table.head(_MOST_ROWS), _name(metric), "all faces")
    numbers = table.dropna(subset="value").rename(columns={"label": "group"})
    return Picture(figure, f"{_name(metric)[:1].upper()}{_name(metric)[1:]}, by group", numbers)


def _bad(metric: str) -> Callable[[GroupNumber], float]:
    """What sorts groups, the worst first."""
    sign = {"higher": 1, "lower": -1, None: 0}[METRICS[metric].better]
    return lambda one: sign * (one.value or 0) if sign else -abs(one.value or 0)


def _row(label: str, one: GroupNumber, metric: str) -> dict[str, object]:
    few = " (few)" if one.told == "uncertain" else ""
    ends: dict[str, object] = {name: in_unit(metric, getattr(one, name)) for name in ("value", "low", "high")}
    return {"label": f"{label}{few}"} | ends | {"n": one.n, "subjects": one.subjects}


def _fairness(report: Report) -> Section:
    rows = [
        {"by": ", ".join(one.by)} | _gap_row(gap)
        for one in report.fairness
        for gap in (one.equalised_odds, one.demographic_parity)
        if gap is not None
    ]
    text = (
        "Equalised odds: the larger of the gaps, between two groups, of the share of women who are taken for women and "
        "of the share of men who are. Demographic parity: the gap of the share that is taken for a woman, whatever the "
        "truth; where the groups truly differ in it, a right answer differs too. In percentage points."
    )
    table = pd.DataFrame(rows).drop(columns="among")
    return Section("Equalised odds and demographic parity", text=[text], tables=[Table("by column", table)])


def _ages(limits: Sequence[AgeLimit]) -> Section:
    text = (
        "A face passes an age limit where its predicted age is at least a threshold. The higher it is, the fewer "
        "children are taken for adults and the more adults for children. The rule age_low compares the lower end of "
        "the age's interval, band leaves faces in between unsure, interval says adult where age_low reaches the limit "
        "and child where age_high does not. Each threshold was chosen on half of the subjects, as the lowest that "
        "keeps the allowed share with its whole interval, and confirmed on the others."
    )
    rows = [
        {
            "limit": f"{limit.limit:g}",
            "rule": choice.rule,
            "adult from": "none" if choice.adult_from is None else f"{choice.adult_from:g}",
            "child below": "–" if choice.child_below is None else f"{choice.child_below:g}",
            "children taken for adults, %": _text(PERCENT, choice.child_as_adult),
            "allowed, %": f"{100 * limit.allowed:g}",
            "adults taken for children, %": _text(PERCENT, choice.adult_as_child),
            "unsure": percent(choice.unsure) if choice.unsure is not None else "–",
            "children": choice.confirmed_on,
            "verdict": choice.verdict,
        }
        for limit in limits
        for choice in limit.choices
    ]
    pictures = [_age_chart(limit) for limit in limits]
    return Section(
        "Age limits",
        text=[text],
        tables=[Table("rules, confirmed on the other half", pd.DataFrame(rows))],
        figures=pictures,
    )


def _age_chart(limit: AgeLimit) -> Picture:
    lines, numbers = {}, {}
    for column, points in limit.curves.items():
        some = [point for point in points if -8 <= point.threshold - limit.limit <= 25]
        at = [int(point.threshold) for point in some]
        for words, name in (("children as adults", "child_as_adult"), ("adults as children", "adult_as_child")):
            values = [getattr(point, name) for point in some]
            line = pd.Series([100 * (one.value or 0) for one in values], index=at, dtype=float)
            lines[f"{words}, {column}"] = line
            numbers[f"{words}, {column}, % [95% interval]"] = [_text(PERCENT, one) for one in values]
    caption = (
        f"Age limit {limit.limit:g}: {limit.children:,} children and {limit.adults:,} adults against the threshold"
    )
    figure = figures.curves(lines, "share, %", "adult from, years")
    return Picture(figure, caption, pd.DataFrame({"adult from": at} | numbers))


def _robustness(report: Report) -> Section:
    rows = [
        {
            "picture": f"{one.kind}, {one.level}",
            "group": one.group,
            "metric": _name(one.metric),
            "result": _text(one.metric, one.result),
            "change": _text(one.metric, one.change),
            "more than others": _text(one.metric, one.more_than_others),
            "n": one.n,
        }
        for one in report.robustness
    ]
    table = pd.DataFrame(rows)
    hurt = [one for one in report.robustness if _hurts(one.metric, one.more_than_others)]
    text = [
        "The same faces, made worse step by step. Change is to the same faces as they are; “more than others” is the "
        "change of a group less that of all other faces, with an interval that is corrected for all comparisons of the "
        "metric."
    ]
    if hurt:
        names = "; ".join(
            f"{one.group} at {one.kind}, {one.level} ({named(one.metric, unit=False)})" for one in hurt[:6]
        )
        text.append(f"Some groups lose more than the others ({len(hurt)} comparisons): {names}.")
    else:
        text.append("Of no group can it be told that it loses more than the others.")
    pictures = [
        picture
        for metric in ("gender_accuracy", "gender_unsure", "age_mae")
        for picture in _robust_charts(report, metric)
    ]
    overall = table[table["group"] == "all"].drop(columns=["group", "more than others"])
    own = [Table("all faces", overall, folded=True), Table("each group", table[table["group"] != "all"], folded=True)]
    return Section("Worse pictures", text=text, tables=own, figures=pictures)


def _hurts(metric: str, one: Interval) -> bool:
    if one.low is None or one.high is None:
        return False
    return one.high < 0 if METRICS[metric].better == "higher" else one.low > 0


def _robust_charts(report: Report, metric: str) -> Iterator[Picture]:
    own = [one for one in report.robustness if one.metric == metric and one.group == "all"]
    if not own:
        return
    rows: list[dict[str, object]] = []
    for kind in dict.fromkeys(one.kind for one in own):
        rows.append({"label": kind, "value": np.nan, "low": np.nan, "high": np.nan})
        for one in (one for one in own if one.kind == kind):
            ends = {name: in_unit(metric, getattr(one.result, name) or 0) for name in ("value", "low", "high")}
            rows.append({"label": one.level, **ends})
    table = pd.DataFrame(rows)
    numbers = table.dropna(subset="value").rename(columns={"label": "picture"})
    yield Picture(figures.intervals(table, _name(metric)), f"Worse pictures: {_name(metric)}, all faces", numbers)


def _differences(report: Report) -> Section:
    rows = [
        {
            "group": one.group,
            "metric": _name(one.metric),
            "this less the other": _text(one.metric, one),
            "this is": one.found,
            "n": one.n,
            "told": one.told,
        }
        for one in report.differences
    ]
    table = pd.DataFrame(rows)
    text = (
        "Both models on the same faces: this one less the other, with intervals that hold for all groups of a metric "
        "at once. In percentage points, ages in years."
    )
    pictures = [
        picture
        for metric in ("gender_accuracy", "age_mae")
        if (picture := _difference_chart(report, metric)) is not None
    ]
    overall = table[table["group"] == "all"].drop(columns="group")
    own = [Table("all faces", overall), Table("each group", table, folded=True)]
    return Section("Compared with the other model", text=[text], tables=own, figures=pictures)


def _difference_chart(report: Report, metric: str) -> Picture | None:
    own = [one for one in report.differences if one.metric == metric and one.told != "uncertain"][:_MOST_ROWS]
    if not own:
        return None
    rows = [
        {"label": one.group} | {name: in_unit(metric, getattr(one, name)) for name in ("value", "low", "high")}
        for one in own
    ]
    table = pd.DataFrame(rows)
    caption = f"This model less the other: {_name(metric)}"
    return Picture(figures.intervals(table, caption), caption, table.rename(columns={"label": "group"}))


def _about(report: Report) -> Section:
    settings, about = report.settings, report.predictions
    counts = (
        f"{about.faces:,} faces of {about.subjects:,} subjects; matched by {about.matched_by}; {about.missing:,} "
        f"without a prediction, {about.extra:,} predictions of no face. Groups: {', '.join(settings.by) or 'none'}. "
        f"{settings.resamples:,} resamples, seed {settings.seed}."
    )
    method = _METHOD.format(fewest=settings.fewest_subjects, enough=settings.enough_subjects)
    return Section("How this was found", text=[counts, method])
