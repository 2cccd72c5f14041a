"""The tables of the spine: their columns, dtypes and checks, and how they are read and written."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

import numpy as np
import pandas as pd

from mien.base.atomic import atomic_path
from mien.base.errors import MienError, MissingExtra, columns_of, plain, shortened
from mien.base.labels import AGE_GROUPS, GENDERS, age_group_codes

_NESTED = (bytes, list, tuple, dict, np.ndarray)

_CELLS_A_BYTE = 100  # of a Parquet file, at most

SPLITS = ("train", "val", "test")

OLDEST = 130.0
"""Ages above this are taken for errors."""

_GENDER = pd.CategoricalDtype(list(GENDERS))
_AGE_GROUP = pd.CategoricalDtype(list(AGE_GROUPS), ordered=True)
_SPLIT = pd.CategoricalDtype(list(SPLITS))

TEXT_COLUMNS = ("face", "dataset", "path", "file", "subject", "photo")
"""Columns whose values are text, whatever they look like."""

_IDS = {"face", "subject", "photo"}

FACES_COLUMNS: dict[str, Any] = {
    "face": "str",
    "dataset": "str",
    "path": "str",
    "x": "float64",
    "y": "float64",
    "w": "float64",
    "h": "float64",
    "subject": "str",
    "photo": "str",
    "gender": _GENDER,
    "age": "float64",
    "age_from": "float64",
    "age_to": "float64",
    "age_group": _AGE_GROUP,
    "fold": "Int64",
    "split": _SPLIT,
}
"""Columns of the faces table and their dtypes; a label or box that is not known is missing. More columns may follow.

An age is in `age` where its year is known, and in `age_from` and `age_to` (years, both included) where only a range is.
"""

_RANGE = re.compile(r"[(\[]?(\d+(?:\.\d+)?)(?:[-\u2013,]|to)(\d+(?:\.\d+)?)[)\]]?")
_OPEN_RANGE = re.compile(r"(\d+(?:\.\d+)?)\+")


class TableError(MienError):
    """A table that does not keep to the contract of this module."""


def age_to_group(age: "Sequence[float] | np.ndarray | pd.Series[float]") -> pd.Categorical:
    """The age group of each age in years (any shape (n,)); missing stays missing.

    An age between two groups goes to the nearer one, a tie to the younger.
    """
    return pd.Categorical.from_codes(age_group_codes(age), dtype=_AGE_GROUP)


def read_age_range(text: str) -> tuple[float, float] | None:
    """The first and the last year of an age range as people write it; None for any other text, such as one year.

    Understood are `25-32`, `25 to 32`, `(25, 32)`, `[25, 32]` and `60+`, whose last year is `OLDEST`.
    """
    written = "".join(text.split())
    if found := _OPEN_RANGE.fullmatch(written):
        return float(found[1]), OLDEST
    found = _RANGE.fullmatch(written)
    # Without brackets, 25,32 may be a number with a decimal comma.
    if found is None or ("," in written and written[0] not in "(["):
        return None
    return float(found[1]), float(found[2])


def age_range_text(first: float, last: float) -> str:
    """A range of years in words: `25-32`, `60+`, and `25` for a year."""
    if first == last:
        return f"{first:g}"
    return f"{first:g}+" if last >= OLDEST else f"{first:g}-{last:g}"


def check_faces(faces: pd.DataFrame, name: str = "faces table") -> pd.DataFrame:
    """Returns the table with every column of `FACES_COLUMNS`, in its dtype, further columns after them.

    `face` and `path` must be there and complete; what else is absent becomes a missing value, except that
    `dataset` becomes "unknown" and `age_group` follows from the age where only the latter is known: of a range, where
    all its years are in one group.

    A range in the column `age` (see `read_age_range`) goes to `age_from` and `age_to`. If one of these is missing, the
    range is open at that end: it begins at 0 or ends at `OLDEST`. A range of one year is an age, and beside an age
    there is no range.

    Raises:
        TableError: A needed column is absent, an id occurs twice, a label is unknown, an age is impossible or outside
            of its range, or a path is absolute or leaves the root. The message names `name`, the column and an example.
    """
    for column in ("face", "path"):
        if column not in faces.columns:
            raise TableError(f"{name}: needed column {column!r} is absent; its columns are: {columns_of(faces)}")
    twice = faces.columns[faces.columns.duplicated()]
    if len(twice):
        raise TableError(f"{name}: column {twice[0]!r} occurs more than once")
    out = _split_ages(faces.copy())
    for column, dtype in FACES_COLUMNS.items():
        if column in out.columns:
            number = "a number of years, or a range such as 25-32 or 60+" if column == "age" else "a number"
            out[column] = _convert(out[column], dtype, f"{name}: column {column!r}", number)
        else:
            out[column] = pd.Series("unknown" if column == "dataset" else None, index=out.index, dtype=dtype)
    for column in ("face", "path"):
        if out[column].isna().any():
            raise TableError(f"{name}: column {column!r} is empty in {int(out[column].isna().sum())} rows")
    duplicated = out["face"][out["face"].duplicated()]
    if len(duplicated):
        raise TableError(
            f"{name}: column 'face' must be unique; {len(duplicated)} ids occur again, "
            f"for instance {duplicated.iloc[0]!r}"
        )
    _check_ages(out, name)
    check_paths(out["path"], name)
    out["age_group"] = out["age_group"].fillna(_groups_of_ages(out))
    extra = [column for column in out.columns if column not in FACES_COLUMNS]
    checked = out[[*FACES_COLUMNS, *extra]].reset_index(drop=True)
    checked.attrs = dict(faces.attrs)
    return checked


def known_labels(faces: pd.DataFrame, task: str) -> "pd.Series[bool]":
    """Which faces of a checked table (n,) have a label of a task; of `age`, a year, a range or a group is one."""
    columns = ["age", "age_from", "age_group"] if task == "age" else [task]
    return faces[columns].notna().any(axis=1)


def age_ranges(faces: pd.DataFrame) -> np.ndarray:
    """The first and the last year (n, 2) that the age of each face of a checked table lies in; NaN if not known.

    That is the year itself, else the range, else the whole years that belong to the age group.
    """
    years = np.arange(OLDEST + 1)
    code = age_group_codes(years)
    of_group = np.array([years[code == group][[0, -1]] for group in range(len(AGE_GROUPS))] + [[np.nan] * 2])
    found = of_group[faces["age_group"].cat.codes]
    for columns in (["age_from", "age_to"], ["age", "age"]):
        values = faces[columns].to_numpy(dtype=float)
        found = np.where(np.isnan(values), found, values)
    return found


def check_flat(values: pd.Series, where: str, wanted: str = "text") -> None:
    """Raises `TableError` where a column holds lists, mappings or bytes; `where` names it."""
    if values.dtype == object or isinstance(values.dtype, pd.ArrowDtype):
        nested = values[values.map(lambda value: isinstance(value, _NESTED)).astype(bool)]
        if len(nested):
            raise TableError(f"{where}: {shortened(repr(nested.iloc[0]))} is not {wanted} ({len(nested)} rows)")


def _convert(values: pd.Series, dtype: Any, where: str, number: str = "a number") -> pd.Series:
    check_flat(values, where, "text" if dtype == "str" or isinstance(dtype, pd.CategoricalDtype) else "a number")
    if isinstance(dtype, pd.CategoricalDtype):
        known = values.isna() | values.astype("object").isin(list(dtype.categories))
        if not known.all():
            bad = values[~known]
            raise TableError(
                f"{where}: {len(bad)} values are unknown, for instance {plain(bad.iloc[0])!r}; "
                f"valid: {', '.join(dtype.categories)}, or empty where it is not known"
            )
        return values.astype("object").where(values.notna(), None).astype(dtype)
    if dtype == "str":
        # Ids that look like numbers come back from CSV as floats where some are missing: 7, not 7.0.
        if pd.api.types.is_float_dtype(values) and (values.dropna() % 1 == 0).all():
            values = values.astype("Int64")
        return values.astype("object").where(values.notna(), None).map(str, na_action="ignore").astype("str")
    try:
        numbers = pd.to_numeric(values)
        return numbers.astype(dtype)
    except (ValueError, TypeError) as error:
        broken = values[pd.to_numeric(values, errors="coerce").isna() & values.notna()]
        example = broken.iloc[0] if len(broken) else values.dropna().iloc[0]
        kind = "a whole number" if dtype == "Int64" else number
        raise TableError(f"{where}: {plain(example)!r} is not {kind}") from error


def _split_ages(faces: pd.DataFrame) -> pd.DataFrame:
    """The faces with the ranges of the column `age` in `age_from` and `age_to`."""
    if "age" not in faces or pd.api.types.is_numeric_dtype(faces["age"]):
        return faces
    texts = faces["age"].astype("object").map(lambda value: value if isinstance(value, str) else None)
    ranges = {text: found for text in texts.dropna().unique() if (found := read_age_range(text))}
    rows = texts.isin(list(ranges))
    for place, column in enumerate(("age_from", "age_to")):
        if rows.any():
            ends = texts.map({text: years[place] for text, years in ranges.items()}).astype("float64")
            faces[column] = faces[column].where(~rows, ends) if column in faces else ends
    return faces.assign(age=faces["age"].where(~rows)) if rows.any() else faces


def _check_ages(faces: pd.DataFrame, name: str) -> None:
    """Checks the ages and their ranges, and completes the latter."""
    for column in ("age", "age_from", "age_to"):
        odd = faces.loc[(faces[column] < 0) | (faces[column] > OLDEST), column]
        if len(odd):
            raise TableError(
                f"{name}: column {column!r}: {odd.iloc[0]:g} is outside of 0 to {OLDEST:g} years ({len(odd)} rows)"
            )
    known = faces["age_from"].notna() | faces["age_to"].notna()
    faces["age_from"] = faces["age_from"].mask(known & faces["age_from"].isna(), 0.0)
    faces["age_to"] = faces["age_to"].mask(known & faces["age_to"].isna(), OLDEST)
    first, last, age = faces["age_from"], faces["age_to"], faces["age"]
    for wrong, words in (
        (first > last, "{1:g} to {2:g} is no range of years: its end is before its beginning"),
        # The last year is a whole one: a person of 32 years and 10 months is in 25-32.
        ((age < first) | (age >= np.floor(last) + 1), "the age {0:g} is outside of {1:g} to {2:g}"),
    ):
        if wrong.any():
            example = words.format(*faces.loc[wrong, ["age", "age_from", "age_to"]].iloc[0])
            raise TableError(f"{name}: columns 'age_from' and 'age_to': {example} ({int(wrong.sum())} rows)")
    faces["age"] = age.mask(age.isna() & (first == last), first)
    faces.loc[faces["age"].notna(), ["age_from", "age_to"]] = np.nan


def _groups_of_ages(faces: pd.DataFrame) -> pd.Series:
    """The age group of each age, and of each range that lies in one group."""
    first = age_to_group(faces["age"].fillna(faces["age_from"]))
    last = age_to_group(faces["age"].fillna(faces["age_to"]))
    return pd.Series(first, index=faces.index).where(first.codes == last.codes)


def check_paths(paths: "pd.Series[str]", name: str) -> None:
    """Raises `TableError` for a path (n,) that is absolute or leaves the root; `name` is that of the table.

    Links below the root are followed: a table cannot make any, and whoever owns the folder can.
    """
    suspicious = paths[paths.str.contains(r"\.\.|^/|^[A-Za-z]:|\\|\x00", regex=True)]
    for path in suspicious:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or path[1:2] == ":" or "\x00" in path:
            raise TableError(
                f"{name}: column {paths.name!r}: {path!r} must be relative to the data root and stay inside it"
            )


def read_table(path: str | Path, text: Iterable[str] = ()) -> pd.DataFrame:
    """Reads a table from a `.parquet` or `.csv` file.

    A CSV whose columns are not separated by commas, or whose text is not UTF-8, is read too; `attrs["read_as"]` then
    says how, a sentence each.

    Args:
        path: The file.
        text: Columns of a CSV that are text besides `TEXT_COLUMNS`, such as a path under another name.

    Raises:
        TableError: The file is absent, has another ending, or cannot be read as what its ending says.
    """
    path = Path(path)
    check_ending(path)
    if not path.is_file():
        raise TableError(f"table {str(path)!r} does not exist or is not a file")
    try:
        return _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path, text)
    except TableError as error:
        raise TableError(f"table {str(path)!r}: {error}") from None
    except Exception as error:  # pandas and pyarrow raise many kinds
        raise TableError(f"table {str(path)!r} cannot be read: {shortened(str(error))}") from error


def _read_parquet(path: Path) -> pd.DataFrame:
    from pyarrow import parquet

    about, size = parquet.read_metadata(path), path.stat().st_size
    # Faces have ids of their own, so a table grows with its rows; a small file of very many is a bomb.
    if about.num_rows * about.num_columns > _CELLS_A_BYTE * size:
        shape = f"{about.num_rows:,} rows of {about.num_columns:,} columns"
        raise TableError(f"states {shape} in {size:,} bytes, which no table of faces is")
    table = pd.read_parquet(path, engine="pyarrow")
    table.attrs = {}
    return table.reset_index(drop=True)


_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
"""Separators besides the comma, recognised in a first line without any comma."""


def _read_csv(path: Path, text: Iterable[str]) -> pd.DataFrame:
    encoding = _encoding(path)
    with path.open(encoding=encoding, newline="") as file:
        line = next(csv.reader(file), [])
        separator = next((one for one in _SEPARATORS if len(line) == 1 and one in line[0]), ",")
        file.seek(0)
        names = next(csv.reader(file, delimiter=separator), [])
    # pandas would call the second one "path.1".
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise TableError(f"column {shortened(twice[0])!r} occurs more than once")
    # An id is not a number: "0001" would become 1, and beside an empty field 18 digits would lose their last ones.
    texts = {name: "str" for name in names if name.strip() in {*TEXT_COLUMNS, *text}}
    # Only an empty field is missing: "NA" or "null" may be somebody's file name.
    table = pd.read_csv(
        path,
        sep=separator,
        decimal="," if separator == ";" else ".",  # as the spreadsheets that write semicolons do
        keep_default_na=False,
        na_values=[""],
        encoding=encoding,
        low_memory=False,
        dtype=cast(Any, texts),
    )
    for name in set(texts) & set(table.columns) & _IDS:
        table[name] = _without_zero(table[name])
    table = _stripped(table)
    read_as = [f"columns separated by {_SEPARATORS[separator]}"] if separator in _SEPARATORS else []
    read_as += [] if encoding == "utf-8-sig" else [f"text not in UTF-8, read as {_ENCODINGS[encoding]}"]
    if read_as:
        table.attrs["read_as"] = read_as
    return table


_ENCODINGS = {"utf-16": "UTF-16", "cp1252": "Windows-1252"}


def _encoding(path: Path) -> str:
    """The encoding of a text file: UTF-8, or those of older spreadsheets where it cannot be UTF-8."""
    content = path.read_bytes()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        # Bytes of an image are no text of any encoding.
        return "utf-8-sig" if b"\0" in content else "cp1252"
    return "utf-8-sig"


def _without_zero(ids: pd.Series) -> pd.Series:
    """Ids that another program wrote as floats, since some are missing: 7, not 7.0."""
    known = ids.dropna()
    if len(known) and known.str.fullmatch(r"\d{1,15}\.0").all():
        return ids.str.removesuffix(".0")
    return ids


def _stripped(table: pd.DataFrame) -> pd.DataFrame:
    """The table without spaces around the names of its columns; texts of such a column lose those before them."""
    names = {name: name.strip() for name in table.columns if isinstance(name, str) and name != name.strip()}
    taken = [short for short in names.values() if short in table.columns or list(names.values()).count(short) > 1]
    if taken:
        raise TableError(f"column {shortened(taken[0])!r} occurs more than once, with and without spaces")
    for name in names:
        if name[:1].isspace() and not pd.api.types.is_numeric_dtype(table[name]):
            values = table[name].astype("str").str.strip()
            table[name] = values.where(values != "")
    return table.rename(columns=names)


def write_table(table: pd.DataFrame, path: str | Path) -> Path:
    """Writes a table as `.parquet` or `.csv`; the file appears whole or not at all."""
    path = Path(path)
    check_ending(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part:
        if path.suffix == ".parquet":
            table.to_parquet(part, engine="pyarrow", index=False)
        else:
            quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if _has_carriage_return(table) else csv.QUOTE_MINIMAL
            table.to_csv(part, index=False, errors="backslashreplace", quoting=quoting)
    return path


def _has_carriage_return(table: pd.DataFrame) -> bool:
    """Whether a text needs quotes that Python's CSV writer would leave out."""
    texts = (
        table.iloc[:, place] for place, dtype in enumerate(table.dtypes) if not pd.api.types.is_numeric_dtype(dtype)
    )
    return any("\r" in value for text in texts for value in text.astype("str").dropna().unique())


def check_ending(path: Path) -> None:
    """Raises `TableError` for an ending other than .parquet and .csv, `MissingExtra` for Parquet without pyarrow."""
    if path.suffix not in (".parquet", ".csv"):
        raise TableError(f"table {str(path)!r}: unknown ending {path.suffix!r}; valid: .parquet, .csv")
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise MissingExtra(f"Parquet ({str(path)!r}; .csv needs no extra)", "parquet") from None


def read_faces_table(path: str | Path) -> pd.DataFrame:
    """Reads and checks a faces table, which holds at least one face."""
    faces = check_faces(read_table(path), str(path))
    if faces.empty:
        raise TableError(f"table {str(path)!r} has no rows; valid: at least one face")
    return faces
