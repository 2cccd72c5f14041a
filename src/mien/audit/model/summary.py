"""The summary of a model audit in plain words."""

from collections.abc import Sequence

from mien.audit.model.inputs import Matched
from mien.audit.model.limits import ModelFindings
from mien.audit.model.schema import GroupGap, Interval, LimitVerdict, WorstGroup


def percent(number: float | None) -> str:
    """Formats a share in percent with one digit."""
    return "?" if number is None else f"{100 * number:.1f}%"


def shares(one: Interval) -> str:
    """Formats a share in percent with its interval."""
    return f"{percent(one.value)} ({percent(one.low)} to {percent(one.high)})"


def years(one: Interval) -> str:
    """Formats years with their interval."""
    if one.value is None or one.low is None or one.high is None:
        return "?"
    return f"{one.value:.1f} years ({one.low:.1f} to {one.high:.1f})"


def summary(findings: ModelFindings, matched: Matched, verdicts: Sequence[LimitVerdict]) -> str:
    """Returns the first paragraph of the report."""
    sentences = [*_limits(verdicts), *_gender(findings), *_age(findings)]
    if matched.missing:
        sentences.append(f"{matched.missing:,} of {len(matched.joined):,} faces have no prediction and count as wrong.")
    if matched.unmatched:
        sentences.append(f"{matched.unmatched:,} predictions match no face and were ignored.")
    return " ".join(sentences) or "The faces have no labels for these predictions."


def _limits(verdicts: Sequence[LimitVerdict]) -> list[str]:
    if not verdicts:
        return []
    failed = [one for one in verdicts if not one.passed]
    unsure = ", ".join(dict.fromkeys(one.limit for one in verdicts if not one.conclusive))
    note = f" The data are inconclusive about {unsure}." if unsure else ""
    if not failed:
        return [f"All {len(verdicts)} limits are met.{note}"]
    names = ", ".join(dict.fromkeys(one.limit for one in failed))
    return [f"{len(failed)} of {len(verdicts)} limits fail: {names}.{note}"]


def _overall(findings: ModelFindings, metric: str) -> Interval | None:
    return next((one for one in findings.groups if one.group == "all" and one.metric == metric), None)


def _worst(findings: ModelFindings, metric: str) -> WorstGroup | None:
    return next((one for one in findings.worst if one.metric == metric and one.by is None), None)


def _gap(findings: ModelFindings, metric: str) -> GroupGap | None:
    return next((one for one in findings.gaps if one.metric == metric and one.by is None), None)


def _gender(findings: ModelFindings) -> list[str]:
    overall, bad, gap = (look(findings, "gender_accuracy") for look in (_overall, _worst, _gap))
    if overall is None:
        return []
    sentences = [f"Gender accuracy is {shares(overall)} over all faces."]
    if isinstance(bad, WorstGroup):
        sentences.append(
            f"The worst group is {bad.group}, {percent(bad.value)}; the true worst value of the {bad.groups} groups "
            f"and crossings compared is between {percent(bad.low)} and {percent(bad.high)}."
        )
    if isinstance(gap, GroupGap):
        sentences.append(_gap_in_words(gap))
    return sentences


def _gap_in_words(gap: GroupGap) -> str:
    if not gap.low:
        return "The data do not show whether the groups differ."
    low, high, value = (100 * (number or 0) for number in (gap.low, gap.high, gap.value))
    return (
        f"The largest gap is {value:.1f} points, between {gap.higher} and {gap.lower}; the true largest gap is between "
        f"{low:.1f} and {high:.1f}."
    )


def _age(findings: ModelFindings) -> list[str]:
    overall, bad = _overall(findings, "age_mae"), _worst(findings, "age_mae")
    if overall is None:
        return []
    sentence = f"The mean absolute error of age is {years(overall)}"
    return [f"{sentence}; the worst group is {bad.group}, {bad.value:.1f}." if bad else f"{sentence}."]
