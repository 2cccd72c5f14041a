"""A data set of one's own: a CSV or Parquet table of images, or a folder per class.

A table needs a column `path`. Columns under other names are renamed by `map` ("sex": "gender"), which also states
values ("gender.0": "male"); further columns pass through. A folder per class holds its images in folders named by
gender (`female`, `male`, or another of `GENDER_WORDS`) or by age group (`0-2`, ... `60+`).

What cannot be read is left out and counted; see `_label_values`.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from mien.base.errors import MienError, choices, columns_of, shortened
from mien.base.labels import AGE_GROUPS
from mien.base.ledger import Ledger
from mien.base.table import FACES_COLUMNS, TEXT_COLUMNS, check_flat, read_table
from mien.data.sources import _files
from mien.data.sources._label_values import GENDER_WORDS, LABEL_COLUMNS, MISSING, read_labels
from mien.data.sources._row_paths import find_paths

NOTICE = "A data set of the publisher's own: its terms are not known to mien; ask the publisher."
"""The terms of the data in a sentence, which the card of a published model repeats."""

LABELS = {"all": "every row of the table, or every image in a class folder"}

COLUMNS = (*FACES_COLUMNS, "race")
"""The columns that a column of the user's own may be mapped to."""


_BOX = ("x", "y", "w", "h")


def read(
    root: Path, labels: str, map: Mapping[str, str] | None = None, images: Path | None = None
) -> tuple[pd.DataFrame, Ledger]:
    """Reads the table at `root`, or the class folders below it.

    Args:
        root: A `.csv` or `.parquet` file, or a folder with one folder per class.
        labels: The label policy, `all`.
        map: The user's names of columns and those of `COLUMNS` that they stand for; also values of a label, as
            "gender.0": "male", "age.child": "4-12" or "gender.x": "missing".
        images: The folder that the paths of the table are relative to; None: its own folder.

    Raises:
        MienError: `root` does not exist, a column of `map` is unknown or given twice, there is no column `path`, a
            path is outside of the folder, or more than a fifth of the labels of a column cannot be read.
    """
    if not root.exists():
        raise MienError(f"data root {str(root)!r} does not exist")
    ledger = Ledger("csv")
    if root.is_dir():
        names, values = split_map(map or {}, ())
        if names:
            raise MienError(f"csv: {str(root)!r} is a folder per class and has no columns to map; given: {names}")
        if images is not None:
            raise MienError(f"csv: {str(root)!r} is a folder, which its paths are relative to; --root is for a table")
        faces = _read_classes(root, values, ledger)
    else:
        faces = _read_rows(root, map or {}, root.parent if images is None else images, ledger)
    if "dataset" not in faces:
        faces["dataset"] = root.resolve().stem
    return faces, ledger


def _read_rows(path: Path, map: Mapping[str, str], images: Path, ledger: Ledger) -> pd.DataFrame:
    text = [theirs for theirs, ours in map.items() if ours in TEXT_COLUMNS]
    table = read_table(path, text).rename(columns=str)
    for words in table.attrs.pop("read_as", ()):
        ledger.warn(words)
    names, values = split_map(map, table.columns)
    table = _rename(table, names)
    ledger.read = len(table)
    if "path" not in table:
        raise MienError(
            f"csv: {str(path)!r} has no column 'path' and none is mapped to it (--map theirs=path); "
            f"its columns are: {columns_of(table)}"
        )
    check_flat(table["path"], "csv: column 'path'")
    table = ledger.drop(table, table.astype("str").duplicated(), "an exact repeat of an earlier row")
    table = ledger.drop(table, table["path"].isna() | (table["path"].astype("str").str.strip() == ""), "no path")
    table = table.reset_index(drop=True)
    table["path"] = find_paths(table, images, ledger)
    own_ids = "face" in table
    if not own_ids:
        table.insert(0, "face", table["path"])
    for column in LABEL_COLUMNS:
        if column in table:
            table[column] = read_labels(table, column, values.pop(column, {}), ledger)
    if values:
        raise MienError(f"csv: map {next(iter(values))}.VALUE: {str(path)!r} has no such column; map one to it first")
    return table if own_ids else _one_row_a_face(table, ledger)


def split_map(map: Mapping[str, str], columns: Iterable[str]) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """The renamed columns of a map, and by label column the values that it states."""
    names: dict[str, str] = {}
    values: dict[str, dict[str, str]] = {}
    for theirs, ours in map.items():
        column, dot, value = theirs.partition(".")
        if dot and theirs not in columns and column in LABEL_COLUMNS:
            values.setdefault(column, {})[value] = ours
        else:
            names[theirs] = ours
    return names, values


def _rename(table: pd.DataFrame, map: Mapping[str, str]) -> pd.DataFrame:
    """The table with its columns renamed by `map`, which must be unambiguous."""
    taken = {name: name for name in table.columns if name not in map}
    for theirs, ours in map.items():
        given = f"csv: map {theirs}={ours}: "
        if theirs not in table.columns:
            column, dot, value = theirs.partition(".")
            hint = f"; values are stated of our columns, as gender.{value}={ours}" if dot and column in table else ""
            raise MienError(given + choices("column of the table", theirs, table.columns) + hint)
        if ours not in COLUMNS:
            raise MienError(
                given + choices("column", ours, COLUMNS) + "; further columns keep their name without being mapped"
            )
        if ours in taken:
            raise MienError(given + f"column {ours!r} is already taken by {taken[ours]!r}; map that to another name")
        taken[ours] = theirs
    return table.rename(columns=dict(map))


def _one_row_a_face(table: pd.DataFrame, ledger: Ledger) -> pd.DataFrame:
    """The table of n rows with one row for each box of an image, and an id of its own for each.

    Of several rows of the same box the first stays. A label about which they disagree is missing.
    """
    place = [column for column in ("path", *_BOX) if column in table]
    again = table.duplicated(place)
    if again.any():
        same = table.groupby(place, dropna=False, sort=False)
        for column in (column for column in LABEL_COLUMNS if column in table):
            disagree = same[column].transform("nunique").to_numpy() > 1
            ledger.change(table, disagree & ~again, f"rows of the same face disagree: {column} is missing")
            table[column] = same[column].transform("first").where(~disagree)
        table = ledger.drop(table, again, "another row of the same face").reset_index(drop=True)
    number = table.groupby("path", sort=False).cumcount()
    return table.assign(face=table["path"].where(number == 0, table["path"] + "#" + (number + 1).astype("str")))


def _read_classes(root: Path, values: Mapping[str, Mapping[str, str]], ledger: Ledger) -> pd.DataFrame:
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
    stated = {name: label for column in values.values() for name, label in column.items()}
    classes = {name: stated.get(name) or GENDER_WORDS.get(name.lower(), name) for name in faces["class"].unique()}
    for name, label in classes.items():
        if label not in (*GENDER_WORDS.values(), *AGE_GROUPS, MISSING):
            example = f"--map 'gender.{shortened(name, 40)}=female'"
            raise MienError(
                f"csv: unknown class folder {name!r} in {str(root)!r}; valid: {valid}. State what it means, for "
                f"example {example}, or {MISSING} for no label"
            )
    by_group = [name for name, label in classes.items() if label in AGE_GROUPS]
    if 0 < len(by_group) < len([label for label in classes.values() if label != MISSING]):
        raise MienError(f"csv: the class folders of {str(root)!r} mix genders and age groups: {', '.join(classes)}")
    labels = faces.pop("class").map(classes)
    faces["age_group" if by_group else "gender"] = labels.where(labels != MISSING)
    return faces
