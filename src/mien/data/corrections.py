"""Corrections of labels: a file that lists wrong labels with their corrected values.

One row a label: `face`, `column` (one of `COLUMNS`), `old`, `new` and `why`. An empty `old` or `new` is a label that is
not known. `mien audit data` writes a page that makes such a file; any table program does too.
"""

from pathlib import Path

import pandas as pd

from mien.base.errors import MienError, choices
from mien.base.labels import AGE_GROUPS, GENDERS
from mien.base.ledger import Ledger
from mien.base.table import OLDEST, age_range_text, check_faces, read_age_range, read_table

COLUMNS = ("gender", "age", "age_group")
"""The labels that can be corrected."""

NEEDED = ("face", "column", "old", "new", "why")
"""The columns of the file."""

_WORDS = {"gender": GENDERS, "age_group": AGE_GROUPS}


class CorrectionError(MienError):
    """A correction that cannot be applied: the message names the file, the face and the column."""


def read_corrections(path: str | Path) -> pd.DataFrame:
    """Reads a file of corrections, CSV or Parquet.

    Returns:
        n rows of `NEEDED`: `old` and `new` are text, None where no label is known; ages are as "26", "26.5", "25-32"
        or "60+".

    Raises:
        MienError: The file cannot be read or lacks a column, a column or value is unknown, a label is corrected twice,
            or a correction changes nothing.
    """
    table = read_table(path)
    for column in NEEDED:
        if column not in table.columns:
            listed = ", ".join(map(str, table.columns))
            raise CorrectionError(f"corrections {str(path)!r}: needed column {column!r} is absent; there are: {listed}")
    table = table[list(NEEDED)].astype("object").where(table[list(NEEDED)].notna(), None)
    table["face"] = table["face"].map(_text, na_action="ignore")
    rows = []
    for face, column, *values, why in table.to_numpy().tolist():
        where = f"corrections {str(path)!r}: face {face!r}"
        if column not in COLUMNS:
            raise CorrectionError(f"{where}: {choices('column', column, COLUMNS)}")
        old, new = (_value(column, value, f"{where}, {column}") for value in values)
        if old == new:
            raise CorrectionError(f"{where}, {column}: old and new are both {old!r}; give another new value")
        rows.append((face, column, old, new, why))
    out = pd.DataFrame(rows, columns=list(NEEDED), dtype="object")
    again = out[out.duplicated(["face", "column"])]
    if len(again):
        face, column = again.iloc[0][["face", "column"]]
        raise CorrectionError(f"corrections {str(path)!r}: {column} of face {face!r} is corrected more than once")
    return out


def apply_corrections(faces: pd.DataFrame, path: str | Path, ledger: Ledger) -> pd.DataFrame:
    """Returns a checked faces table with the corrections of a file, each written down in the ledger.

    Where an age is corrected, the age group follows from it.

    Raises:
        MienError: The file is not valid (see `read_corrections`), or names a face that the table lacks; the old value
            is not the table's; an age group is corrected of a face whose age in years is known, which it follows from.
    """
    corrections = read_corrections(path)
    out = faces.copy()
    row_of = pd.Series(range(len(out)), index=out["face"].to_numpy())
    for column, asked in corrections.groupby("column", sort=False):
        for face, old in asked[["face", "old"]].to_numpy().tolist():
            _check(out, row_of, str(column), face, old, f"corrections {str(path)!r}: face {face!r}, {column}")
        rows = row_of[asked["face"].to_numpy()].to_numpy()
        if column == "age":
            out["age"] = out["age"].astype("object")
            out.loc[out.index[rows], ["age_from", "age_to", "age_group"]] = None
        out.loc[out.index[rows], column] = asked["new"].to_numpy()
        out = check_faces(out)
        for (old, new), some in asked.fillna("unknown").groupby(_kinds(asked), sort=True):
            reason = f"{column} corrected" + (f" from {old} to {new}" if column != "age" else "")
            ledger.change(out, out["face"].isin(some["face"]), f"{reason}, by {Path(path).name}")
    return out


def _kinds(asked: pd.DataFrame) -> list[pd.Series]:
    """What makes an entry of its own in the ledger: old and new value of words, all ages together."""
    words = asked[["old", "new"]].fillna("unknown")
    words[asked["column"] == "age"] = ""
    return [words["old"], words["new"]]


def _check(faces: pd.DataFrame, row_of: pd.Series, column: str, face: str, old: str | None, where: str) -> None:
    if face not in row_of.index:
        raise CorrectionError(f"{where}: no such face among the {len(faces)} faces of this source and policy")
    found = faces.iloc[row_of[face]]
    given = found[column]
    if column == "age" and pd.notna(found["age_from"]):
        given = age_range_text(found["age_from"], found["age_to"])
    value = _value(column, None if pd.isna(given) else given, where)
    if value != old:
        raise CorrectionError(f"{where}: old is {old!r}, but the table has {value!r}; was the file made for it?")
    if column == "age_group" and pd.notna(found["age"]):
        raise CorrectionError(f"{where}: the group follows from the age, {found['age']:g} years; correct 'age'")


def _value(column: str, value: object, where: str) -> str | None:
    """A label as text, in one form whatever program wrote it."""
    if value is None or str(value).strip() == "":
        return None
    text = _text(value).strip()
    if column in _WORDS:
        if text not in _WORDS[column]:
            raise CorrectionError(f"{where}: {choices('value', text, _WORDS[column])}, or empty where it is not known")
        return text
    if ends := read_age_range(text):
        return age_range_text(*ends)
    try:
        years = float(text)
    except ValueError:
        years = float("nan")
    if not 0 <= years <= OLDEST:
        valid = f"0 to {OLDEST:g} years, a range such as 25-32, or empty"
        raise CorrectionError(f"{where}: {text!r} is not an age; valid: {valid}")
    return f"{years:g}"


def _text(value: object) -> str:
    """A cell as text; a whole number that a table program made a fraction of is whole again."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
