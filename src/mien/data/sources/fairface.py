"""FairFace: faces of seven groups of race, balanced, with age in nine ranges.

The two label files, `fairface_label_train.csv` and `fairface_label_val.csv`, make the table; one of them is enough.
`split` says which of the two a face is in (there is no official test part); there are no subjects and no boxes. Images
are `train/1.jpg` and so on, in the root or in the folder of the release with one of the two margins.

An age is known as a range only: `age_from` and `age_to`, and the range in words in the further column `age_range`
(`3-9`, `70+`). The ranges are not Adience's groups, so which `age_group` a range stands for is a label policy. `race`
is in words as the files have it; `service_test` marks the faces on which the authors tested commercial services.

Copies of the files went through a spreadsheet, which took ranges for dates: `9-Mar` for `3-9`, `19-Oct` for `10-19`.

Source: K. Karkkainen, J. Joo, FairFace: Face Attribute Dataset for Balanced Race, Gender, and Age for Bias Measurement
and Mitigation, WACV 2021.
"""

from pathlib import Path

import pandas as pd

from mien.base.errors import MienError
from mien.base.ledger import Ledger
from mien.base.table import OLDEST, age_to_group
from mien.data.sources import _files

NOTICE = "FairFace: CC BY 4.0, to be credited to its authors; the pictures belong to their owners."
"""The terms of the data in a sentence, which the card of a published model repeats."""

FACES = 97_698
"""Faces of the complete data set, for estimates before it is at hand."""

LABELS = {
    "middle": "every face; an age range goes to the age group of its middle (of 97,698 faces all have a group)",
    "within": "every face; an age group only where all ages of the range are in it (0-2 and 60+: 6,051 faces)",
}
"""The label policies, and how many faces of the real files each leaves an age group.

The default repeats what is done with Adience's odd intervals. It is wrong for a part of the faces of most ranges: a
face of 30-39 goes to 25-32, though at 36 years it would be nearer to 38-43.
"""

RANGES = {
    "0-2": (0.0, 2.0),
    "3-9": (3.0, 9.0),
    "10-19": (10.0, 19.0),
    "20-29": (20.0, 29.0),
    "30-39": (30.0, 39.0),
    "40-49": (40.0, 49.0),
    "50-59": (50.0, 59.0),
    "60-69": (60.0, 69.0),
    "70+": (70.0, OLDEST),
}
"""The ranges, and their first and last year."""

WORDS = {"more than 70": "70+"}
"""Ranges that the files write in another way."""

DATES = {"9-Mar": "3-9", "3-Sep": "3-9", "19-Oct": "10-19", "Oct-19": "10-19"}
"""What spreadsheets of different countries make of ranges that look like a month and a day, or a day and a month."""

GENDERS = {"Female": "female", "Male": "male"}

_HOME = "https://github.com/joojs/fairface"
_PARTS = ("train", "val")
_NEEDED = ("file", "age", "gender", "race")
_FOLDERS = ("", "fairface-img-margin025-trainval/", "fairface-img-margin125-trainval/")


def read(root: Path, labels: str) -> tuple[pd.DataFrame, Ledger]:
    """Reads the label files under `root` by the policy `labels`, one of `LABELS`.

    Raises:
        MienError: `root` is not a folder, neither of the files is there, or one lacks a needed column.
    """
    _files.need_folder(root)
    ledger = Ledger("fairface")
    raw = _read_parts(root, ledger)
    raw = ledger.drop(raw, raw["file"].duplicated(), "the file of an earlier row")
    folder = next((place for place in _FOLDERS if (root / place / raw["file"].iloc[0]).is_file()), "")
    age_range = _ranges(raw, ledger)
    gender = raw["gender"].map(GENDERS)
    ledger.change(raw, gender.isna(), "a gender other than Female and Male: it is missing")
    years = pd.DataFrame(list(RANGES.values()), index=list(RANGES), columns=["from", "to"])
    faces = pd.DataFrame(
        {
            "face": raw["file"],
            "dataset": "fairface",
            "path": folder + raw["file"],
            "photo": raw["file"],
            "gender": gender,
            "age_from": age_range.map(years["from"]),
            "age_to": age_range.map(years["to"]),
            "age_group": _groups(raw, age_range, labels, ledger),
            "split": raw["part"],
            "race": raw["race"].where(raw["race"] != ""),
            "age_range": age_range,
        }
    )
    if "service_test" in raw:
        faces["service_test"] = raw["service_test"].str.upper().map({"TRUE": True, "FALSE": False}).astype("boolean")
    return faces, ledger


def _read_parts(root: Path, ledger: Ledger) -> pd.DataFrame:
    """The rows of the files that are there, as strings, with the column `part`."""
    tables = []
    for part in _PARTS:
        path = root / f"fairface_label_{part}.csv"
        if not path.is_file():
            ledger.warn(f"{path.name} is not there")
            continue
        header, *lines = _files.read_lines(path) or [""]
        columns = header.strip().split(",")
        for column in _NEEDED:
            if column not in columns:
                raise MienError(f"fairface: {str(path)!r} has no column {column!r}; its first line is {header[:80]!r}")
        rows = _files.parse_lines([line.rstrip("\r") for line in lines], columns, ",", path).drop_malformed(ledger)
        tables.append(rows.apply(lambda values: values.str.strip()).assign(part=part))
    if not tables:
        raise _files.not_found("fairface", root, "fairface_label_train.csv or fairface_label_val.csv", _HOME)
    return pd.concat(tables, ignore_index=True)


def _ranges(raw: pd.DataFrame, ledger: Ledger) -> pd.Series:
    """The age ranges in our words; each repaired spelling, and each that is no range, has its own entry."""
    written = raw["age"].replace(WORDS)
    # A spreadsheet may write a day with two digits, and a month in capitals.
    repaired = written.str.lstrip("0").str.title().map(DATES).where(~written.isin(list(RANGES)))
    for text in written[repaired.notna()].unique():
        rows = written == text
        ledger.change(raw, rows, f"age {text!r} is a date that a spreadsheet made of {repaired[rows].iloc[0]!r}")
    found = repaired.fillna(written.where(written.isin(list(RANGES))))
    for text in written[found.isna()].unique():
        ledger.change(raw, written == text, f"age is not known: the files say {text!r}")
    return found


def _groups(raw: pd.DataFrame, age_range: pd.Series, labels: str, ledger: Ledger) -> pd.Series:
    """The age group of each range by the policy; each range has its own entry."""
    groups: dict[str, str | None] = {}
    for name, (first, last) in RANGES.items():
        inside = {str(group) for group in age_to_group([first, last])}
        middle = str(age_to_group([(first + last) / 2])[0])
        groups[name] = middle if labels == "middle" or len(inside) == 1 else None
        said = "is in no single age group: it is missing" if groups[name] is None else f"is assigned to {groups[name]}"
        if groups[name] != name:
            ledger.change(raw, age_range == name, f"age range {name!r} {said}")
    return age_range.map(groups)
