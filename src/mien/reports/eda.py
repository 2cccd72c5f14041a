"""The exploratory report of a faces table: labels, subjects, images, duplicates and leaks."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mien.base.errors import MienError
from mien.base.progress import ProgressCallback
from mien.base.table import check_faces, write_table
from mien.data import leaks
from mien.data.counts import (
    age_group_values,
    by_gender,
    column_values,
    duplicate_counts,
    gender_by_age_group,
    gender_values,
    subjects_in_several_folds,
    tabulate,
)
from mien.data.duplicates import RECALL
from mien.data.image_files import Images, inspect_images
from mien.data.roots import Root, Roots, open_root
from mien.reports import figures
from mien.reports.page import CaptionedFaces, Chart, ContactSheet, Section, Table, write_report
from mien.reports.tables import histogram_table, ledger_table
from mien.reports.thumbnails import labels_text, thumbnails

REPORT = "eda.html"

_FEWEST_SAMPLES, _SAMPLES = 5, 30  # faces in a cell, and about as many in all, of the contact sheet
_SHOWN_PAIRS = 12


def explore(
    faces: pd.DataFrame, root: str | Path | Roots | None, out: str | Path, progress: ProgressCallback | None = None
) -> Path:
    """Writes the exploratory report of a faces table and its tables as CSV files.

    Args:
        faces: A faces table; `attrs["ledger"]`, where there is one, is shown.
        root: The root of the images, see `mien.data.roots.open_root`; None: only the table is read.
        out: The folder to write `eda.html` and the tables to.
        progress: Called with the number of images done and the total.

    Returns:
        The HTML file.

    Raises:
        MienError: The table has no rows or breaks its contract, no image is under `root`, or `out` is a file.
    """
    ledger = faces.attrs.get("ledger")
    faces = check_faces(faces)
    if faces.empty:
        raise MienError("the faces table has no rows; there is nothing to explore")
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise MienError(f"out {str(out)!r} is a file; give a folder")
    home = None if root is None else open_root(root)
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
            f"The most common age group, {group.index[0]} ({most:,}), has {most / least:.1f} times the faces "
            f"of the rarest, {group.index[-1]} ({least:,})."
        )
    for name, values in (("gender", gender), ("age group", faces["age_group"].dropna())):
        if len(values) < len(faces):
            parts.append(f"Faces without {name}: {len(faces) - len(values):,}.")
    spanning = subjects_in_several_folds(faces)
    if spanning is not None:
        parts.append(f"Subjects in more than one fold: {spanning:,}.")
    if found is None:
        return " ".join([*parts, "The images were not read."])
    bad = int((found.files["status"] != "ok").sum())
    parts.append(f"Images that cannot be read: {bad:,} of {len(found.files):,}.")
    return " ".join([*parts, _duplicates_in_words(faces, found.pairs)])


def _duplicates_in_words(faces: pd.DataFrame, pairs: pd.DataFrame) -> str:
    words = f"Pairs of near-duplicate images: {len(pairs):,}"
    if pairs.empty:
        return f"{words}."
    kinds = {
        "gender": "disagree about gender",
        "fold": "are in different folds",
        "split": "are in different parts of the split",
    }
    counts = {says: int(pairs[f"{name}_differs"].sum()) for name, says in kinds.items() if faces[name].notna().any()}
    details = [f"{count:,} {says}" for says, count in counts.items()]
    return f"{words}: {', '.join(details)}." if details else f"{words}."


def _labels(faces: pd.DataFrame, tables: dict[str, pd.DataFrame]) -> Section:
    grouped = faces["age_group"].notna().any()
    caption = "Age group by gender" if grouped else "Gender"
    charts = [Chart(figures.bars(gender_by_age_group(faces)), caption, tables["gender_by_age_group"])]
    if faces["age"].notna().any():
        years = faces.loc[faces["age"].notna(), ["age"]].assign(gender=gender_values(faces))
        by = {str(name): part["age"].to_numpy() for name, part in years.groupby("gender")}
        edges = np.arange(np.floor(years["age"].max()) + 2)
        caption = f"Age in years by gender, {len(years):,} faces that have one"
        charts.append(Chart(figures.histogram(by, edges, "age, years"), caption, histogram_table(by, edges)))
    shown = [Table("Gender", tables["gender"])]
    if grouped:
        shown.append(Table("Age group", tables["age_group"].rename(columns={"age_group": "age group"})))
    return Section("Labels", tables=shown, figures=charts)


def _missing(faces: pd.DataFrame, tables: dict[str, pd.DataFrame]) -> list[Section]:
    return [
        Section("Known and missing values", tables=[Table(f"Known values of {len(faces):,} faces", tables["missing"])])
    ]


def _subjects(tables: dict[str, pd.DataFrame]) -> list[Section]:
    table = tables.get("images_per_subject")
    if table is None:
        text = "The table has no subjects: near-duplicates are the only indication of related images."
        return [Section("Subjects", text=[text])]
    bars = figures.bars(table.set_index("images")[["subjects"]], "subjects")
    return [Section("Subjects", figures=[Chart(bars, "Images per subject", table)])]


def _splits(faces: pd.DataFrame, found: Images | None, tables: dict[str, pd.DataFrame]) -> list[Section]:
    shown, charts, warnings = [], [], []
    for column, name in (("fold", "Fold"), ("split", "Part of the split")):
        if f"by_{column}" in tables:
            cross = by_gender(faces, faces[column])
            shown.append(Table(f"{name}: faces by label", tables[f"by_{column}"]))
            charts.append(Chart(figures.bars(cross), f"{name}: gender", cross.reset_index(names=column)))
    if not shown:
        return []
    if subjects_in_several_folds(faces):
        warnings.append(f"Leak: {subjects_in_several_folds(faces):,} subjects are in more than one fold.")
    if found is not None and faces["fold"].notna().any():
        spanning = int(leaks.spanning_parts(faces, "fold", found.groups)["near-duplicate"].sum())
        if spanning:
            warnings.append(f"Leak: {spanning:,} images have a near-duplicate in another fold.")
    groups = None if found is None else found.groups
    warnings += [f"Leak: {leak}." for leak in leaks.find_leaks(faces, groups)]
    return [Section("Folds and parts", warnings, tables=shown, figures=charts)]


def _categories(faces: pd.DataFrame, tables: dict[str, pd.DataFrame]) -> list[Section]:
    table = tables.get("categories")
    if table is None:
        return []
    sizes = table.groupby("column", sort=False).size()
    charts = []
    for column in sizes.index[(sizes >= 3) & (sizes <= 15)][:4]:
        cross = by_gender(faces, column_values(faces, column))
        charts.append(Chart(figures.bars(cross), f"{column} by gender", cross.reset_index(names=str(column))))
    pairs = table[table["column"].isin(sizes.index[sizes == 2])].groupby("column", sort=False).last()
    if len(pairs) > 2:
        labels = [f"{column}: {value}" for column, value in pairs["value"].items()]
        counts = pd.DataFrame({"faces": pairs["faces"].to_numpy()}, index=labels)
        charts.append(Chart(figures.bars(counts), "Columns with two values: faces with the second value", None))
    return [Section("Further columns", tables=[Table("Values", table, folded=len(table) > 12)], figures=charts)]


def _files(found: Images, tables: dict[str, pd.DataFrame]) -> Section:
    bad = tables["unreadable"]
    shown = [Table("Sizes in pixels, most common first", tables["image_sizes"])]
    if len(bad):
        shown.insert(0, Table("Images that cannot be read, by reason", bad))
    readable = found.files[found.files["width"].notna()]
    sides = readable[["width", "height"]].min(axis=1).to_numpy(dtype=float)
    charts = []
    if len(sides) and sides.min() < sides.max():
        edges = np.linspace(sides.min(), sides.max() + 1, 31)
        by = {"images": sides}
        figure = figures.histogram(by, edges, "shorter side, pixels", "images")
        charts.append(Chart(figure, "Shorter side of the images", histogram_table(by, edges)))
    count = int(bad["images"].sum())
    text = f"Files that cannot be read: {count:,} of {len(found.files):,}."
    return Section("Images", text=[text], tables=shown, figures=charts)


def _samples(faces: pd.DataFrame, root: Root, found: Images) -> Section:
    """A contact sheet: faces of each gender and age group, of different subjects if possible."""
    readable = faces[faces["path"].isin(found.files.loc[found.files["status"] == "ok", "path"])]
    rows = readable.assign(_gender=gender_values(readable), _group=age_group_values(readable))
    rows = rows.sample(frac=1, random_state=0)
    again = rows["subject"].notna() & rows.duplicated(["dataset", "subject"])
    rows = rows.assign(_again=again).sort_values("_again", kind="stable")
    cross = gender_by_age_group(readable)
    count = max(_FEWEST_SAMPLES, _SAMPLES // max(1, cross.size))
    lines = []
    for group in cross.index:
        cells = []
        for gender in cross.columns:
            cell = rows[(rows["_gender"] == gender) & (rows["_group"] == group)].head(count)
            cells.append(thumbnails(cell, root))
        lines.append((str(group), cells))
    text = "Random samples of each cell. These are faces of the data set: its terms of use apply to this file too."
    return Section("Samples", text=[text], sheet=ContactSheet([str(gender) for gender in cross.columns], lines))


def duplicate_section(root: Root, pairs: pd.DataFrame) -> Section:
    """Returns the section on pairs of near-duplicates: counts, and the most important pairs side by side."""
    if pairs.empty:
        return Section("Duplicates", text=[f"No near-duplicate images were found. {RECALL}"])
    gap = (pairs["age_1"] - pairs["age_2"]).abs().fillna(0)
    order = pairs.assign(gap=gap).sort_values(
        ["gender_differs", "fold_differs", "split_differs", "age_group_differs", "gap"], ascending=False
    )
    shown = []
    for _, pair in order.head(_SHOWN_PAIRS).iterrows():
        both = [_half(pair, end) for end in (1, 2)]
        said = " / ".join(labels_text(half) for half in both)
        apart = [name for name in ("fold", "split") if pair[f"{name}_differs"]]
        where = [f"{name} {pair[f'{name}_1']} and {pair[f'{name}_2']}" for name in apart]
        kind = _kind(pair)
        faces = thumbnails(pd.DataFrame(both), root)
        shown.append(CaptionedFaces(faces, "; ".join([said, kind, *where])))
    text = (
        "Images that show the same photograph, by perceptual hash and thumbnail. "
        f"{len(shown)} of {len(pairs):,} pairs are shown, first those with different labels or folds. {RECALL}"
    )
    return Section("Duplicates", text=[text], tables=[Table("Pairs", duplicate_counts(pairs))], pairs=shown)


def _kind(pair: pd.Series) -> str:
    if pair["altered"]:
        return "mirrored" if pair["mirrored"] else "cropped, moved, framed or covered"
    return "equal hash" if pair["exact"] else f"{pair['distance']} bits apart"


def _half(pair: pd.Series, end: int) -> dict[str, Any]:
    names = ("path", "face", "gender", "age", "age_group")
    return {name: pair[f"{name}_{end}"] for name in names} | dict.fromkeys("xywh", np.nan)
