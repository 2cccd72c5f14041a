"""What an audit found, in words."""

from collections.abc import Sequence

from mien.audit.model.inputs import Matched
from mien.audit.model.limits import Found
from mien.audit.model.schema import Gap, Interval, LimitVerdict, Worst


def percent(number: float | None) -> str:
    """A share in percent, with one digit."""
    return "?" if number is None else f"{100 * number:.1f}%"


def shares(one: Interval) -> str:
    """A share in percent with its interval."""
    return f"{percent(one.value)} ({percent(one.low)} to {percent(one.high)})"


def years(one: Interval) -> str:
    """Years with their interval."""
    if one.value is None or one.low is None or one.high is None:
        return "?"
    return f"{one.value:.1f} years ({one.low:.1f} to {one.high:.1f})"


def summary(found: Found, matched: Matched, verdicts: Sequence[LimitVerdict]) -> str:
    """The first paragraph of the report."""
    sentences = [*_limits(verdicts), *_gender(found), *_age(found)]
    if matched.missing:
        sentences.append(f"{matched.missing:,} of {len(matched.joined):,} faces have no prediction and count as wrong.")
    if matched.extra:
        sentences.append(f"{matched.extra:,} predictions belong to no face of the table and were left out.")
    return " ".join(sentences) or "There is no label of what the predictions answer."


def _limits(verdicts: Sequence[LimitVerdict]) -> list[str]:
    if not verdicts:
        return []
    failed = [one for one in verdicts if not one.passed]
    unsure = ", ".join(dict.fromkeys(one.limit for one in verdicts if not one.sure))
    told = f" The data does not suffice to tell about {unsure}." if unsure else ""
    if not failed:
        return [f"All {len(verdicts)} limits hold.{told}"]
    names = ", ".join(dict.fromkeys(one.limit for one in failed))
    return [f"{len(failed)} of {len(verdicts)} limits fail: {names}.{told}"]


def _overall(found: Found, metric: str) -> Interval | None:
    return next((one for one in found.groups if one.group == "all" and one.metric == metric), None)


def _worst(found: Found, metric: str) -> Worst | None:
    return next((one for one in found.worst if one.metric == metric and one.by is None), None)


def _gap(found: Found, metric: str) -> Gap | None:
    return next((one for one in found.gaps if one.metric == metric and one.by is None), None)


def _gender(found: Found) -> list[str]:
    overall, bad, gap = (look(found, "gender_accuracy") for look in (_overall, _worst, _gap))
    if overall is None:
        return []
    sentences = [f"Gender is right for {shares(overall)} of all faces."]
    if isinstance(bad, Worst):
        sentences.append(
            f"It is worst for {bad.group}, {percent(bad.value)}; the true worst of the {bad.groups} groups and "
            f"crossings looked at lies between {percent(bad.low)} and {percent(bad.high)}."
        )
    if isinstance(gap, Gap):
        sentences.append(_gap_in_words(gap))
    return sentences


def _gap_in_words(gap: Gap) -> str:
    if not gap.low:
        return "Whether groups truly differ in this, the data cannot tell."
    low, high, value = (100 * (number or 0) for number in (gap.low, gap.high, gap.value))
    return (
        f"The largest gap is {value:.1f} points, between {gap.higher} and {gap.lower}; the true one lies between "
        f"{low:.1f} and {high:.1f}."
    )


def _age(found: Found) -> list[str]:
    overall, bad = _overall(found, "age_mae"), _worst(found, "age_mae")
    if overall is None:
        return []
    sentence = f"Ages are off by {years(overall)} on average"
    return [f"{sentence}, most for {bad.group}: {bad.value:.1f}." if bad else f"{sentence}."]
