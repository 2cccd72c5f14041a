"""The exploratory report of a faces table: labels, subjects, images, duplicates and what would leak."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from mien.base.errors import MienError
from mien.base.labels import AGE_GROUPS, GENDERS
from mien.base.progress import ProgressCallback
from mien.base.table import FACES_COLUMNS, check_faces, write_table
from mien.data import images, leaks
from mien.data.inspect import Images, inspect_images
from mien.data.pixels import boxes
from mien.data.sources import data_root
from mien.reports import figures
from mien.reports.page import Face, Pair, Picture, Section, Sheet, Table, write_report
from mien.reports.run import binned, label_counts, ledger_table

REPORT = "eda.html"

_NO_GENDER, _NO_AGE_GROUP = "no gender", "no age group"
_MOST_CATEGORIES = 30  # a column with more values is no grouping
_FEWEST_SAMPLES, _SAMPLES = 5, 30  # faces in a cell, and about as many in all, of the contact sheet
_SHOWN_PAIRS = 12
_THUMBNAIL = 96  # pixels
_SIZES = 10  # sizes of images that are listed
_PICTURES = ((1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, 50), (51, 100), (101, np.inf))


def explore(
    faces: pd.DataFrame, root: str | Path | None, out: str | Path, progress: ProgressCallback | None = None
) -> Path:
    """Writes the exploratory report of a faces table, and its tables as CSV files beside it.

    Args:
        faces: A faces table; `attrs["ledger"]`, where there is one, is shown.
        root: The folder that the paths are relative to; None: metadata alone.
        out: The folder to write `eda.html` and the tables to.
        progress: Told how many of the images are done.

    Returns:
        The HTML file.

    Raises:
        MienError: The table has no rows or breaks its contract, no image is under `root`, or `out` is a file.
    """
    ledger = faces.attrs.get("ledger")
    faces = check_faces(faces)
    if faces.empty:
        raise MienError("a faces table without rows has nothing to explore")
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise MienError(f"out {str(out)!r} is a file; give a folder")
    home = None if root is None else data_root(root)
    found = None if home is None else inspect_images(faces, home, progress)
    tables = tabulate(faces, found)
    for name, table in tables.items():
        write_table(table, out / f"{name}.csv")
    sections = [
        _labels(faces, tables),
        *_missing(faces, tables),
        *_subjects(tables),
        *_splits(faces, found, tables),
        *_categories(faces, tables),
    ]
    if found is not None and home is not None:
        sections += [_files(found, tables), _samples(faces, home, found), duplicate_section(home, found.pairs)]
    if ledger:
        sections.append(Section("Source", tables=[ledger_table(ledger)]))
    names = ", ".join(faces["dataset"].unique()[:3])
    return write_report(f"Data set {names}", _lead(faces, found), sections, out / REPORT)


def tabulate(faces: pd.DataFrame, found: Images | None = None) -> dict[str, pd.DataFrame]:
    """The counts of the report by name; a table that would be empty is absent.

    Args:
        faces: A checked faces table.
        found: What `inspect_images` found in the images.
    """
    tables = {
        "gender": _counts(_gender(faces), "gender", [*GENDERS, _NO_GENDER]),
        "age_group": _counts(_age_group(faces), "age_group", [*AGE_GROUPS, _NO_AGE_GROUP]),
        "gender_by_age_group": _cross(faces).reset_index(names="age_group"),
        "missing": _known(faces),
    }
    for column in ("fold", "split"):
        if faces[column].notna().any():
            tables[f"by_{column}"] = label_counts(faces, column).reset_index(names=column)
    if faces["subject"].notna().any():
        tables["pictures_per_subject"] = _per_subject(faces)
    categories = _category_counts(faces)
    if len(categories):
        tables["categories"] = categories
    if found is not None:
        tables["image_sizes"] = _sizes(found.files)
        tables["unreadable"] = _unreadable(found.files)
        tables["unreadable_files"] = found.files.loc[found.files["status"] != "ok", ["path", "status"]]
        tables["duplicates"] = found.pairs
        tables["duplicate_counts"] = _duplicate_counts(found.pairs)
    return tables


def _gender(faces: pd.DataFrame) -> pd.Series:
    return faces["gender"].astype("object").fillna(_NO_GENDER)


def _age_group(faces: pd.DataFrame) -> pd.Series:
    return faces["age_group"].astype("object").fillna(_NO_AGE_GROUP)


def _counts(values: pd.Series, name: str, order: Sequence[str]) -> pd.DataFrame:
    counts = values.value_counts()
    counts = counts.reindex([value for value in order if value in counts or value in order[:-1]], fill_value=0)
    shares = [f"{100 * count / len(values):.1f} %" for count in counts]
    return pd.DataFrame({name: counts.index, "faces": counts.to_numpy(), "share": shares})


def _cross(faces: pd.DataFrame) -> pd.DataFrame:
    """Age groups (rows) by gender (columns), without those that no face has."""
    table = _by_gender(faces, _age_group(faces))
    return table.loc[[group for group in (*AGE_GROUPS, _NO_AGE_GROUP) if group in table.index]]


def _by_gender(faces: pd.DataFrame, values: pd.Series) -> pd.DataFrame:
    table = pd.crosstab(values, _gender(faces))
    return table[[gender for gender in (*GENDERS, _NO_GENDER) if gender in table]]


def _known(faces: pd.DataFrame) -> pd.DataFrame:
    labels = {
        "gender": faces["gender"],
        "age in years": faces["age"],
        "age group": faces["age_group"],
        "subject": faces["subject"],
        "photograph": faces["photo"],
        "fold": faces["fold"],
        "part of a split": faces["split"],
        "box": faces["w"],
    }
    known = {name: int(values.notna().sum()) for name, values in labels.items()}
    return pd.DataFrame(
        {
            "label": list(known),
            "known": list(known.values()),
            "missing": [len(faces) - count for count in known.values()],
            "share missing": [f"{100 * (1 - count / len(faces)):.1f} %" for count in known.values()],
        }
    )


def _per_subject(faces: pd.DataFrame) -> pd.DataFrame:
    pictures = faces.groupby(["dataset", "subject"]).size()
    lines = []
    for low, high in _PICTURES:
        some = pictures[(pictures >= low) & (pictures <= high)]
        name = f"{low}" if low == high else f"{low} and more" if np.isinf(high) else f"{low}-{high:g}"
        lines.append((name, len(some), int(some.sum())))
    return pd.DataFrame(lines, columns=["pictures", "subjects", "faces"])


def _category_counts(faces: pd.DataFrame) -> pd.DataFrame:
    """Counts of the values of further columns that have 2 to `_MOST_CATEGORIES` of them."""
    lines = []
    for column in faces.columns.difference(list(FACES_COLUMNS), sort=False):
        values = _values(faces, column).dropna()
        if len(values.unique()) in range(2, _MOST_CATEGORIES + 1):
            counts = values.value_counts(sort=False).sort_index()
            lines += [(column, value, int(count)) for value, count in counts.items() if count]
    return pd.DataFrame(lines, columns=["column", "value", "faces"])


def _values(faces: pd.DataFrame, column: str) -> pd.Series:
    """A further column, which may hold anything, in a form that can be counted and ordered."""
    values = faces[column]
    return values.map(str, na_action="ignore") if values.dtype == object else values


def _sizes(files: pd.DataFrame) -> pd.DataFrame:
    known = files[files["width"].notna()]
    sizes = known["width"].astype(str) + " x " + known["height"].astype(str)
    counts = sizes.value_counts()
    rare = counts.iloc[_SIZES:]
    if len(rare) > 1:
        counts = pd.concat([counts.iloc[:_SIZES], pd.Series({f"{len(rare)} other sizes": rare.sum()})])
    return counts.rename_axis("width x height").reset_index(name="images")


def _unreadable(files: pd.DataFrame) -> pd.DataFrame:
    bad = files[files["status"] != "ok"]
    by = bad.groupby("status")["path"].agg(["size", "first"]).sort_values("size", ascending=False)
    return by.reset_index().set_axis(["reason", "images", "example"], axis=1)


def _duplicate_counts(pairs: pd.DataFrame) -> pd.DataFrame:
    kinds = {
        "equal perceptual hash": pairs["exact"],
        "near-duplicate": ~pairs["exact"],
        "all": pd.Series(True, index=pairs.index),
    }
    differs = {
        "gender differs": "gender_differs",
        "age group differs": "age_group_differs",
        "other subject": "subject_differs",
        "in two folds": "fold_differs",
        "in two parts": "split_differs",
    }
    lines = [
        {"pairs": name, "number": int(rows.sum())}
        | {words: int((rows & pairs[column]).sum()) for words, column in differs.items()}
        for name, rows in kinds.items()
    ]
    return pd.DataFrame(lines)


def _lead(faces: pd.DataFrame, found: Images | None) -> str:
    """The main findings in a few sentences."""
    subjects = faces.groupby(["dataset", "subject"]).ngroups
    parts = [f"{len(faces):,} faces" + (f" of {subjects:,} subjects" if subjects else "") + "."]
    gender = faces["gender"].dropna()
    if len(gender):
        parts.append(f"{100 * (gender == 'female').mean():.1f}% of the {len(gender):,} with a gender are female.")
    group = faces["age_group"].value_counts()
    group = group[group > 0]
    if len(group) > 1:
        most, least = int(group.iloc[0]), int(group.iloc[-1])
        parts.append(
            f"The commonest age group, {group.index[0]} ({most:,}), has {most / least:.1f} times the faces "
            f"of the rarest, {group.index[-1]} ({least:,})."
        )
    for name, values in (("gender", gender), ("age group", faces["age_group"].dropna())):
        if len(values) < len(faces):
            parts.append(f"Faces without {name}: {len(faces) - len(values):,}.")
    spanning = _in_several_folds(faces)
    if spanning is not None:
        parts.append(f"Subjects in more than one fold: {spanning:,}.")
    if found is None:
        return " ".join([*parts, "The images were not looked at."])
    bad = int((found.files["status"] != "ok").sum())
    parts.append(f"Images that cannot be read: {bad:,} of {len(found.files):,}.")
    return " ".join([*parts, _duplicates_in_words(faces, found.pairs)])


def _duplicates_in_words(faces: pd.DataFrame, pairs: pd.DataFrame) -> str:
    words = f"Pairs of near-duplicate pictures: {len(pairs):,}"
    if pairs.empty:
        return f"{words}."
    kinds = {
        "gender": "disagree about gender",
        "fold": "straddle folds",
        "split": "straddle parts of the split",
    }
    counts = {says: int(pairs[f"{name}_differs"].sum()) for name, says in kinds.items() if faces[name].notna().any()}
    details = [f"{count:,} {says}" for says, count in counts.items()]
    return f"{words}: {', '.join(details)}." if details else f"{words}."


def _in_several_folds(faces: pd.DataFrame) -> int | None:
    """Subjects that are in more than one fold; None where there are no subjects or no folds."""
    known = faces[faces["subject"].notna() & faces["fold"].notna()]
    if known.empty:
        return None
    return int((known.groupby(["dataset", "subject"])["fold"].nunique() > 1).sum())  # noqa: PD101


def _labels(faces: pd.DataFrame, tables: dict[str, pd.DataFrame]) -> Section:
    grouped = faces["age_group"].notna().any()
    caption = "Age group by gender" if grouped else "Gender"
    pictures = [Picture(figures.bars(_cross(faces)), caption, tables["gender_by_age_group"])]
    if faces["age"].notna().any():
        years = faces.loc[faces["age"].notna(), ["age"]].assign(gender=_gender(faces))
        by = {str(name): part["age"].to_numpy() for name, part in years.groupby("gender")}
        edges = np.arange(np.floor(years["age"].max()) + 2)
        caption = f"Age in years by gender, {len(years):,} faces that have one"
        pictures.append(Picture(figures.histogram(by, edges, "age, years"), caption, binned(by, edges)))
    shown = [Table("Gender", tables["gender"])]
    if grouped:
        shown.append(Table("Age group", tables["age_group"].rename(columns={"age_group": "age group"})))
    return Section("Labels", tables=shown, figures=pictures)


def _missing(faces: pd.DataFrame, tables: dict[str, pd.DataFrame]) -> list[Section]:
    return [Section("What is known", tables=[Table(f"Of {len(faces):,} faces", tables["missing"])])]


def _subjects(tables: dict[str, pd.DataFrame]) -> list[Section]:
    table = tables.get("pictures_per_subject")
    if table is None:
        text = "The table names no subjects: near-duplicates are the only sign of pictures that belong together."
        return [Section("Subjects", text=[text])]
    bars = figures.bars(table.set_index("pictures")[["subjects"]], "subjects")
    return [Section("Subjects", figures=[Picture(bars, "Pictures per subject", table)])]


def _splits(faces: pd.DataFrame, found: Images | None, tables: dict[str, pd.DataFrame]) -> list[Section]:
    shown, pictures, warnings = [], [], []
    for column, name in (("fold", "Fold"), ("split", "Part of the split")):
        if f"by_{column}" in tables:
            cross = _by_gender(faces, faces[column])
            shown.append(Table(f"{name}: faces by label", tables[f"by_{column}"]))
            pictures.append(Picture(figures.bars(cross), f"{name}: gender", cross.reset_index(names=column)))
    if not shown:
        return []
    if _in_several_folds(faces):
        warnings.append(f"Leak: {_in_several_folds(faces):,} subjects are in more than one fold.")
    if found is not None and faces["fold"].notna().any():
        spanning = int(leaks.spanning_parts(faces, "fold", found.groups)["near-duplicate"].sum())
        if spanning:
            warnings.append(f"Leak: {spanning:,} images have a near-duplicate in another fold.")
    groups = None if found is None else found.groups
    warnings += [f"Leak: {leak}." for leak in leaks.find_leaks(faces, groups)]
    return [Section("Folds and parts", warnings, tables=shown, figures=pictures)]


def _categories(faces: pd.DataFrame, tables: dict[str, pd.DataFrame]) -> list[Section]:
    table = tables.get("categories")
    if table is None:
        return []
    sizes = table.groupby("column", sort=False).size()
    pictures = []
    for column in sizes.index[(sizes >= 3) & (sizes <= 15)][:4]:
        cross = _by_gender(faces, _values(faces, column))
        pictures.append(Picture(figures.bars(cross), f"{column} by gender", cross.reset_index(names=str(column))))
    pairs = table[table["column"].isin(sizes.index[sizes == 2])].groupby("column", sort=False).last()
    if len(pairs) > 2:
        labels = [f"{column}: {value}" for column, value in pairs["value"].items()]
        counts = pd.DataFrame({"faces": pairs["faces"].to_numpy()}, index=labels)
        pictures.append(Picture(figures.bars(counts), "Columns with two values: how many have the second", None))
    return [Section("Further columns", tables=[Table("Values", table, folded=len(table) > 12)], figures=pictures)]


def _files(found: Images, tables: dict[str, pd.DataFrame]) -> Section:
    bad = tables["unreadable"]
    shown = [Table("Sizes in pixels, commonest first", tables["image_sizes"])]
    if len(bad):
        shown.insert(0, Table("Images that cannot be read, by reason", bad))
    readable = found.files[found.files["width"].notna()]
    sides = readable[["width", "height"]].min(axis=1).to_numpy(dtype=float)
    pictures = []
    if len(sides) and sides.min() < sides.max():
        edges = np.linspace(sides.min(), sides.max() + 1, 31)
        by = {"images": sides}
        figure = figures.histogram(by, edges, "shorter side, pixels", "images")
        pictures.append(Picture(figure, "Shorter side of the images", binned(by, edges)))
    count = int(bad["images"].sum())
    text = f"Files that cannot be read: {count:,} of {len(found.files):,}."
    return Section("Images", text=[text], tables=shown, figures=pictures)


def _samples(faces: pd.DataFrame, root: Path, found: Images) -> Section:
    """A contact sheet: some faces of each gender and age group, of different subjects where possible."""
    readable = faces[faces["path"].isin(found.files.loc[found.files["status"] == "ok", "path"])]
    rows = readable.assign(_gender=_gender(readable), _group=_age_group(readable))
    rows = rows.sample(frac=1, random_state=0)
    again = rows["subject"].notna() & rows.duplicated(["dataset", "subject"])
    rows = rows.assign(_again=again).sort_values("_again", kind="stable")
    cross = _cross(readable)
    count = max(_FEWEST_SAMPLES, _SAMPLES // max(1, cross.size))
    lines = []
    for group in cross.index:
        cells = []
        for gender in cross.columns:
            cell = rows[(rows["_gender"] == gender) & (rows["_group"] == group)].head(count)
            cells.append(thumbnails(cell, root))
        lines.append((str(group), cells))
    text = "Chosen at random in each cell. These are faces of the data set: its terms hold for this file too."
    return Section("Samples", text=[text], sheet=Sheet([str(gender) for gender in cross.columns], lines))


def thumbnails(faces: pd.DataFrame, root: Path) -> list[Face]:
    """Small images of faces; one that cannot be read is left out."""
    shown = []
    for (_, face), box in zip(faces.iterrows(), boxes(faces), strict=True):
        try:
            pixels = images.load_face(root / face["path"], _THUMBNAIL, box, 0.3)
        except images.ImageError:
            continue
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=78)
        uri = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
        shown.append(Face(uri, f"{face['face']}: {_said(face['gender'], face['age'], face['age_group'])}"))
    return shown


def _said(gender: Any, age: Any, group: Any) -> str:
    """What the labels say of a face."""
    years = f"{age:g}" if pd.notna(age) else str(group) if pd.notna(group) else "no age"
    return f"{gender if pd.notna(gender) else _NO_GENDER}, {years}"


def duplicate_section(root: Path, pairs: pd.DataFrame) -> Section:
    """Pairs of near-duplicates, as `inspect_images` finds them: counts, and the most telling ones side by side."""
    if pairs.empty:
        return Section("Duplicates", text=["There are no near-duplicate pictures."])
    gap = (pairs["age_1"] - pairs["age_2"]).abs().fillna(0)
    order = pairs.assign(gap=gap).sort_values(
        ["gender_differs", "fold_differs", "split_differs", "age_group_differs", "gap"], ascending=False
    )
    shown = []
    for _, pair in order.head(_SHOWN_PAIRS).iterrows():
        both = [_half(pair, end) for end in (1, 2)]
        said = " / ".join(_said(half["gender"], half["age"], half["age_group"]) for half in both)
        apart = [name for name in ("fold", "split") if pair[f"{name}_differs"]]
        where = [f"{name} {pair[f'{name}_1']} and {pair[f'{name}_2']}" for name in apart]
        kind = "equal hash" if pair["exact"] else f"{pair['distance']} bits apart"
        faces = thumbnails(pd.DataFrame(both), root)
        shown.append(Pair(faces, "; ".join([said, kind, *where])))
    text = (
        "Pictures that show the same photograph by their perceptual hash and thumbnail. Shown are "
        f"{len(shown)} of {len(pairs):,} pairs: first those whose labels differ or that straddle folds."
    )
    return Section("Duplicates", text=[text], tables=[Table("Pairs", _duplicate_counts(pairs))], pairs=shown)


def _half(pair: pd.Series, end: int) -> dict[str, Any]:
    names = ("path", "face", "gender", "age", "age_group")
    return {name: pair[f"{name}_{end}"] for name in names} | dict.fromkeys("xywh", np.nan)
