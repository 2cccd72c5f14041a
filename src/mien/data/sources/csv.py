"""A data set of one's own: a CSV or Parquet table of images, or a folder per class.

A table needs a column `path` (relative to the table's folder). Columns under other names are renamed by
`map`; further columns pass through. A folder per class holds its images in folders named by gender (`female`,
`male`, or another of `GENDER_WORDS`) or by age group (`0-2`, ... `60+`).
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from mien.base.errors import MienError, choices, columns_of
from mien.base.labels import AGE_GROUPS
from mien.base.ledger import Ledger
from mien.base.table import FACES_COLUMNS, TEXT_COLUMNS, check_flat, read_table
from mien.data.sources import _files

NOTICE = "A data set of the publisher's own: its terms are not known to mien; ask the publisher."
"""The terms of the data in a sentence, which the card of a published model repeats."""

LABELS = {"all": "every row of the table, or every image in a class folder"}

GENDER_WORDS = {
    "female": "female",
    "f": "female",
    "woman": "female",
    "women": "female",
    "male": "male",
    "m": "male",
    "man": "male",
    "men": "male",
}
"""The words for gender, in any case. Numbers are not understood: data sets disagree about what they mean."""

COLUMNS = (*FACES_COLUMNS, "race")
"""The columns that a column of the user's own may be mapped to."""


def read(root: Path, labels: str, map: Mapping[str, str] | None = None) -> tuple[pd.DataFrame, Ledger]:
    """Reads the table at `root`, or the class folders below it.

    Args:
        root: A `.csv` or `.parquet` file, or a folder with one folder per class.
        labels: The label policy, `all`.
        map: The user's names of columns and those of `COLUMNS` that they stand for.

    Raises:
        MienError: `root` does not exist, a column of `map` is unknown or given twice, there is no column
            `path`, or a gender or class is not understood.
    """
    if not root.exists():
        raise MienError(f"data root {str(root)!r} does not exist")
    ledger = Ledger("csv")
    if root.is_dir():
        if map:
            raise MienError(f"csv: {str(root)!r} is a folder per class and has no columns to map; given: {dict(map)}")
        faces = _read_classes(root, ledger)
    else:
        faces = _read_columns(root, map or {}, ledger)
    if "dataset" not in faces:
        faces["dataset"] = root.resolve().stem
    return faces, ledger


def _read_columns(path: Path, map: Mapping[str, str], ledger: Ledger) -> pd.DataFrame:
    text = [theirs for theirs, ours in map.items() if ours in TEXT_COLUMNS]
    table = _rename(read_table(path, text), map)
    ledger.read = len(table)
    if "path" not in table:
        raise MienError(
            f"csv: {str(path)!r} has no column 'path' and none is mapped to it (--map theirs=path); "
            f"its columns are: {columns_of(table)}"
        )
    if "face" not in table:
        table.insert(0, "face", table["path"])
    if "gender" in table:
        table["gender"] = _read_genders(table, ledger)
    return table


def _rename(table: pd.DataFrame, map: Mapping[str, str]) -> pd.DataFrame:
    """The table with its columns renamed by `map`, which must be unambiguous."""
    table = table.rename(columns=str)
    taken = {name: name for name in table.columns if name not in map}
    for theirs, ours in map.items():
        given = f"csv: map {theirs}={ours}: "
        if theirs not in table.columns:
            raise MienError(given + choices("column of the table", theirs, table.columns))
        if ours not in COLUMNS:
            raise MienError(
                given + choices("column", ours, COLUMNS) + "; further columns keep their name without being mapped"
            )
        if ours in taken:
            raise MienError(given + f"column {ours!r} is already taken by {taken[ours]!r}; map that to another name")
        taken[ours] = theirs
    return table.rename(columns=dict(map))


def _read_genders(table: pd.DataFrame, ledger: Ledger) -> pd.Series:
    """The column `gender` in our words; each other spelling is written down as changed."""
    check_flat(table["gender"], "csv: column 'gender'")
    values = table["gender"].where(table["gender"] != "")
    read_as = {value: GENDER_WORDS.get(str(value).strip().lower()) for value in values.dropna().unique()}
    for value, gender in read_as.items():
        rows = values == value
        if gender is None:
            raise MienError(
                f"csv: column 'gender': {str(value)!r} is not understood ({int(rows.sum())} rows); "
                f"valid: {', '.join(GENDER_WORDS)}, in any case, or empty where it is not known"
            )
        if value != gender:
            ledger.change(table, rows, f"gender {value!r} is read as {gender}")
    return values.map(read_as)


def _read_classes(root: Path, ledger: Ledger) -> pd.DataFrame:
    paths = pd.Series(_files.list_images(root, ledger), dtype="str")
    ledger.read = len(paths)
    faces = pd.DataFrame({"face": paths, "path": paths, "class": paths.str.split("/").str[0]})
    faces = ledger.drop(faces, ~paths.str.contains("/"), "an image outside of the class folders")
    valid = f"{', '.join(GENDER_WORDS)}, in any case, or {', '.join(AGE_GROUPS)}"
    if faces.empty:
        raise MienError(
            f"csv: {str(root)!r} is a folder without images in class folders; "
            f"give a .csv or .parquet file, or a folder with folders named: {valid}"
        )
    classes = {name: GENDER_WORDS.get(name.lower(), name) for name in faces["class"].unique()}
    for name, label in classes.items():
        if label not in (*GENDER_WORDS.values(), *AGE_GROUPS):
            raise MienError(f"csv: unknown class folder {name!r} in {str(root)!r}; valid: {valid}")
    by_group = [name for name, label in classes.items() if label in AGE_GROUPS]
    if 0 < len(by_group) < len(classes):
        raise MienError(f"csv: the class folders of {str(root)!r} mix genders and age groups: {', '.join(classes)}")
    faces["age_group" if by_group else "gender"] = faces.pop("class").map(classes)
    return faces
