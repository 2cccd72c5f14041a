"""Labels as people write them, in words of mien's: what cannot be read is a missing label, and is counted.

Values are refused only where leaving them out would change the meaning of the column: more than a fifth of the labels.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mien.base.errors import MienError, choices, shortened
from mien.base.labels import AGE_GROUPS, GENDERS
from mien.base.ledger import Ledger
from mien.base.table import OLDEST, age_to_group, check_flat, read_age_range

GENDER_WORDS = {
    "female": "female",
    "f": "female",
    "woman": "female",
    "women": "female",
    "girl": "female",
    "male": "male",
    "m": "male",
    "man": "male",
    "men": "male",
    "boy": "male",
}
"""The words for gender, in any case. Numbers are not understood: data sets disagree about what they mean."""

MISSING = "missing"
"""What a value is mapped to that is no label."""

_NO_LABEL = {"", "?", "-", "--", "n/a", "na", "nan", "none", "null"}
_NO_LABEL |= {"unknown", "unk", "u", "unclear", "unsure", MISSING}

_LARGE = 0.2
"""Values that cannot be read are refused if they are a larger share of the labels."""

_SHOWN = 3  # values in a message

Label = str | float | None


@dataclass(frozen=True)
class LabelColumn:
    """How the values of a column are read.

    Attributes:
        understand: The label that a text without surrounding spaces stands for; None if it cannot be read.
        valid: What is valid, for messages.
        examples: Labels to map values to, for messages.
        hint: What a text that cannot be read may be, for messages; empty if nothing is known about it.
    """

    understand: Callable[[str], Label]
    valid: str
    examples: tuple[str, ...]
    hint: Callable[[str], str]


def read_labels(table: pd.DataFrame, column: str, stated: Mapping[str, str], ledger: Ledger) -> pd.Series:
    """Returns a label column of a table of n rows in the words of the faces table, (n,), missing where it has no label.

    Args:
        table: The table.
        column: One of `LABEL_COLUMNS`.
        stated: Values of the column -> their label, or `MISSING`.
        ledger: Counts what was read as something else, and what is missing because it cannot be read.

    Raises:
        MienError: More than a fifth of the labels cannot be read, or a stated value is not there or stands for none.
    """
    spec = LABEL_COLUMNS[column]
    check_flat(table[column], f"csv: column {column!r}")
    texts = table[column].astype("object").map(_text, na_action="ignore")
    texts = texts.where(texts.notna(), "")
    counts = texts.value_counts()
    meant = _stated(column, stated, counts.index)
    labels: dict[str, Label] = {}
    unread: list[str] = []
    for text in map(str, counts.index):
        labels[text] = meant[text] if text in meant else spec.understand(text)
        if labels[text] is None and text not in meant and text.lower() not in _NO_LABEL:
            unread.append(text)
    filled = int(counts.drop(labels=[text for text in counts.index if text.lower() in _NO_LABEL]).sum())
    if unread and counts[unread].sum() > _LARGE * filled:
        raise MienError(_refusal(table, column, texts, unread, counts, set(labels.values())))
    _record(table, column, texts, labels, unread, ledger)
    return texts.map(labels)


def _text(value: Any) -> str:
    """A cell as text: numbers beside empty cells are floats, so 1.0 is written 1."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _stated(column: str, stated: Mapping[str, str], there: Iterable[str]) -> dict[str, Label]:
    """The labels of stated values, by their texts in the table."""
    spec = LABEL_COLUMNS[column]
    known = {text.lower(): text for text in there if text}
    meant: dict[str, Label] = {}
    for value, label in stated.items():
        given = f"csv: map {column}.{value}={label}: "
        if value.lower() not in known:
            raise MienError(given + choices(f"value of column {column!r}", value, known.values()))
        found = None if label.lower() == MISSING else spec.understand(label.strip())
        if found is None and label.lower() != MISSING:
            raise MienError(f"{given}{label!r} is no label; valid: {spec.valid}, or {MISSING}")
        meant[known[value.lower()]] = found
    return meant


def _refusal(
    table: pd.DataFrame, column: str, texts: pd.Series, unread: list[str], counts: "pd.Series[int]", read: set[Label]
) -> str:
    spec = LABEL_COLUMNS[column]
    # What other values stand for already is the less likely meaning.
    examples = [label for label in spec.examples if label not in read] or spec.examples
    place = int((texts == unread[0]).to_numpy().argmax())
    listed = ", ".join(f"{shortened(repr(text), 40)} ({counts[text]} rows)" for text in unread[:_SHOWN])
    more = f" and {len(unread) - _SHOWN} more" if len(unread) > _SHOWN else ""
    command = " ".join(
        f"--map '{column}.{shortened(text, 40)}={label}'"
        for text, label in zip(unread[:_SHOWN], itertools.cycle(examples))  # noqa: B905 - the labels have no end
    )
    hint = spec.hint(unread[0])
    return (
        f"csv: column {column!r}: {listed}{more} cannot be read, first in row {place + 1} "
        f"({table['face'].iloc[place]!r}){f': {hint}' if hint else ''}; valid: {spec.valid}. "
        f"State what they mean, for example {command}, or {MISSING} for no label"
    )


def _record(
    table: pd.DataFrame,
    column: str,
    texts: pd.Series,
    labels: Mapping[str, Label],
    unread: list[str],
    ledger: Ledger,
) -> None:
    for text, label in labels.items():
        if isinstance(label, str) and text != label:
            ledger.change(table, texts == text, f"{column} {text!r} is read as {label}")
    if unread:
        listed = ", ".join(shortened(repr(text), 40) for text in unread[:_SHOWN])
        more = f" and {len(unread) - _SHOWN} more" if len(unread) > _SHOWN else ""
        ledger.change(table, texts.isin(unread), f"{column} is missing: {listed}{more} cannot be read")


def _gender(text: str) -> Label:
    return GENDER_WORDS.get(text.lower())


def _gender_hint(text: str) -> str:
    numeric = re.fullmatch(r"-?\d+|true|false", text.lower())
    return "what such a code means differs between data sets" if numeric else ""


_YEARS = re.compile(r"(\d+(?:[.,]\d+)?)\s*(?:y|yr|yrs|years?|years? old)?\.?", re.I)


def _age(text: str) -> Label:
    """The years of `34`, `34.5`, `34,5` or `34 years`; a range as `25-32` or `60+`, which the faces table reads."""
    if found := _YEARS.fullmatch(text):
        years = float(found[1].replace(",", "."))
        return years if years <= OLDEST else None
    ends = read_age_range(text)
    if ends is None or not ends[0] <= ends[1] <= OLDEST:
        return None
    return text


def _age_hint(text: str) -> str:
    if re.fullmatch(r"(18|19|20)\d\d", text):
        return "years of birth are no ages: the age in the photograph is needed"
    if re.search(r"\d+[-./ ][A-Za-z]{3}|[A-Za-z]{3}[-./ ]\d+|\d+[-./]\d+[-./]\d+", text):
        return "a date, which a spreadsheet may have made of a range such as 3-9"
    return ""


def _age_group(text: str) -> Label:
    """One of the groups, or a range of years inside of one: `8-12` is a part of 8-13."""
    if text in AGE_GROUPS:
        return text
    ends = read_age_range(text)
    if ends is None:
        return None
    first, last = age_to_group(list(ends))
    return str(first) if first == last else None


def _age_group_hint(text: str) -> str:
    if read_age_range(text):
        return "ranges of years that cross the groups; --map YOURS=age learns them as ranges"
    return _age_hint(text)


LABEL_COLUMNS = {
    "gender": LabelColumn(_gender, f"{', '.join(GENDER_WORDS)}, in any case, or empty", GENDERS[::-1], _gender_hint),
    "age": LabelColumn(
        _age, f"years from 0 to {OLDEST:g}, ranges such as 25-32 or 60+, or empty", ("25-32",), _age_hint
    ),
    "age_group": LabelColumn(_age_group, f"{', '.join(AGE_GROUPS)}, or empty", AGE_GROUPS[4:], _age_group_hint),
}
"""The columns of labels whose values can be stated (`--map gender.0=male`)."""
