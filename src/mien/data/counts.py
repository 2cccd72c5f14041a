"""Counts of a faces table: labels, missing values, subjects, folds, further columns, image files and duplicates."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mien.base.labels import AGE_GROUPS, GENDERS
from mien.base.table import FACES_COLUMNS
from mien.data.image_files import Images

NO_GENDER, NO_AGE_GROUP = "no gender", "no age group"
_MOST_CATEGORIES = 30  # a column with more values is not a grouping
_SIZES = 10  # sizes of images that are listed
_PICTURES = ((1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, 50), (51, 100), (101, np.inf))


def tabulate(faces: pd.DataFrame, found: Images | None = None) -> dict[str, pd.DataFrame]:
    """Counts a faces table; returns tables by name, without empty ones.

    Args:
        faces: A checked faces table.
        found: The result of `inspect_images`; None skips the image tables.
    """
    tables = {
        "gender": _counts(gender_values(faces), "gender", [*GENDERS, NO_GENDER]),
        "age_group": _counts(age_group_values(faces), "age_group", [*AGE_GROUPS, NO_AGE_GROUP]),
        "gender_by_age_group": gender_by_age_group(faces).reset_index(names="age_group"),
        "missing": _known(faces),
    }
    for column in ("fold", "split"):
        if faces[column].notna().any():
            tables[f"by_{column}"] = label_counts(faces, column).reset_index(names=column)
    if faces["subject"].notna().any():
        tables["images_per_subject"] = _per_subject(faces)
    categories = _category_counts(faces)
    if len(categories):
        tables["categories"] = categories
    if found is not None:
        tables["image_sizes"] = _sizes(found.files)
        tables["unreadable"] = _unreadable(found.files)
        tables["unreadable_files"] = found.files.loc[found.files["status"] != "ok", ["path", "status"]]
        tables["duplicates"] = found.pairs
        tables["duplicate_counts"] = duplicate_counts(found.pairs)
    return tables


def label_counts(faces: pd.DataFrame, column: str) -> pd.DataFrame:
    """Counts faces, known subjects and each label for each value of a column (the index)."""
    known = faces[faces[column].notna()]
    by = known.groupby(column, observed=True)
    counts = pd.DataFrame({"faces": by.size()})
    if known["subject"].notna().any():
        counts["subjects"] = by["subject"].nunique()
    for label in ("gender", "age_group"):
        if known[label].notna().any():
            unknown = f"no {label.replace('_', ' ')}"
            table = pd.crosstab(known[column], known[label].astype("object").fillna(unknown))
            order = [*FACES_COLUMNS[label].categories, unknown]
            counts = counts.join(table[[name for name in order if name in table]])
    return counts


def gender_values(faces: pd.DataFrame) -> pd.Series:
    """Returns the gender of each face, or "no gender"."""
    return faces["gender"].astype("object").fillna(NO_GENDER)


def age_group_values(faces: pd.DataFrame) -> pd.Series:
    """Returns the age group of each face, or "no age group"."""
    return faces["age_group"].astype("object").fillna(NO_AGE_GROUP)


def _counts(values: pd.Series, name: str, order: Sequence[str]) -> pd.DataFrame:
    counts = values.value_counts()
    counts = counts.reindex([value for value in order if value in counts or value in order[:-1]], fill_value=0)
    shares = [f"{100 * count / len(values):.1f} %" for count in counts]
    return pd.DataFrame({name: counts.index, "faces": counts.to_numpy(), "share": shares})


def gender_by_age_group(faces: pd.DataFrame) -> pd.DataFrame:
    """Cross-tabulates age groups (rows) by gender (columns), without empty ones."""
    table = by_gender(faces, age_group_values(faces))
    return table.loc[[group for group in (*AGE_GROUPS, NO_AGE_GROUP) if group in table.index]]


def by_gender(faces: pd.DataFrame, values: pd.Series) -> pd.DataFrame:
    """Cross-tabulates values (rows) by gender (columns)."""
    table = pd.crosstab(values, gender_values(faces))
    return table[[gender for gender in (*GENDERS, NO_GENDER) if gender in table]]


def _known(faces: pd.DataFrame) -> pd.DataFrame:
    labels = {
        "gender": faces["gender"],
        "age in years": faces["age"],
        "age as a range": faces["age_from"],
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
    return pd.DataFrame(lines, columns=["images", "subjects", "faces"])


def _category_counts(faces: pd.DataFrame) -> pd.DataFrame:
    """Counts of the values of further columns that have 2 to `_MOST_CATEGORIES` of them."""
    lines = []
    for column in faces.columns.difference(list(FACES_COLUMNS), sort=False):
        values = column_values(faces, column).dropna()
        if len(values.unique()) in range(2, _MOST_CATEGORIES + 1):
            counts = values.value_counts(sort=False).sort_index()
            lines += [(column, value, int(count)) for value, count in counts.items() if count]
    return pd.DataFrame(lines, columns=["column", "value", "faces"])


def column_values(faces: pd.DataFrame, column: str) -> pd.Series:
    """Returns a further column, which may hold any type, in a countable and sortable form."""
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


def duplicate_counts(pairs: pd.DataFrame) -> pd.DataFrame:
    """Counts pairs of near-duplicates by kind, and how many differ in labels, subject, fold or split."""
    kinds = {
        "equal hash": pairs["exact"],
        "near-duplicate": ~pairs["exact"] & ~pairs["altered"],
        "mirrored": pairs["mirrored"],
        "cropped, moved, framed or covered": pairs["altered"] & ~pairs["mirrored"],
        "all": pd.Series(True, index=pairs.index),
    }
    differs = {
        "gender differs": "gender_differs",
        "age group differs": "age_group_differs",
        "subject differs": "subject_differs",
        "fold differs": "fold_differs",
        "split differs": "split_differs",
    }
    lines = [
        {"pairs": name, "number": int(rows.sum())}
        | {words: int((rows & pairs[column]).sum()) for words, column in differs.items()}
        for name, rows in kinds.items()
    ]
    return pd.DataFrame(lines)


def subjects_in_several_folds(faces: pd.DataFrame) -> int | None:
    """Counts subjects in more than one fold; None without subjects or folds."""
    known = faces[faces["subject"].notna() & faces["fold"].notna()]
    if known.empty:
        return None
    return int((known.groupby(["dataset", "subject"])["fold"].nunique() > 1).sum())  # noqa: PD101
