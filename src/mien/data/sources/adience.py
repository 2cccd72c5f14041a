"""Adience: faces from Flickr albums, with gender, age intervals and five subject-exclusive folds.

The metadata alone (`fold_0_data.txt` to `fold_4_data.txt`) makes the table. Where there are images, the
aligned ones (`aligned/<user_id>/landmark_aligned_face.<face_id>.<original_image>`) are taken if their folder
is there, as in published work, else the cropped ones
(`faces/<user_id>/coarse_tilt_aligned_face.<face_id>.<original_image>`): one choice for the whole table. Folds
and images may lie in `AdienceBenchmarkGenderAndAgeClassification/` too. The files
`fold_frontal_<k>_data.txt` repeat a part of the same rows and are not read.

`subject` is the files' `face_id`, which stays within one album and one fold. Two columns of the source's own
pass through: `album` (the Flickr album, `user_id`) and `raw_age` (the age as the files write it). There is no
box: the files' `x y dx dy` refer to the uncropped photographs, which are not part of the data set.

Source: E. Eidinger, R. Enbar, T. Hassner, Age and Gender Estimation of Unfiltered Faces, IEEE Transactions on
Information Forensics and Security 9(12), 2014.
"""

from pathlib import Path

import pandas as pd

from mien.base.errors import MienError
from mien.base.ledger import Ledger
from mien.base.table import OLDEST, age_to_group, read_age_range
from mien.data.sources import _files

NOTICE = "Adience: photographs from Flickr albums, made available for research; no commercial use."
"""The terms of the data in a sentence, which the card of a published model repeats."""

FACES = 17_492
"""Faces of the complete data set under the default policy, for estimates before it is at hand."""

LABELS = {
    "gender": "gender f or m; the age may be missing, odd ages are mapped (17,492 faces, 40 without)",
    "all-ages": "gender f or m and any age; odd ages are mapped (17,452 faces)",
    "exact": "gender f or m and one of the eight age intervals as the files write them (16,156 faces)",
    "masked": "a gender or any age, the other may be missing; odd ages are mapped (18,662 faces)",
}
"""The label policies and what each leaves of the 19,370 faces. `ODD_INTERVALS` says how odd ages are mapped.

The default, `gender`, keeps every face of known gender; losses and metrics of age mask the 40 that have none.
"""

GENDERS = {"f": "female", "m": "male"}
"""The genders of the files; `u` and the empty string are missing."""

INTERVALS = {
    "(0, 2)": "0-2",
    "(4, 6)": "4-6",
    "(8, 12)": "8-13",
    "(15, 20)": "15-20",
    "(25, 32)": "25-32",
    "(38, 43)": "38-43",
    "(48, 53)": "48-53",
    "(60, 100)": "60+",
}
"""The eight intervals as the files write them, and their groups."""

ODD_INTERVALS = {
    "(8, 23)": "15-20",
    "(25, 23)": "25-32",
    "(27, 32)": "25-32",
    "(38, 42)": "38-43",
    "(38, 48)": "38-43",
}
"""The other intervals of the files: each goes to the group nearest to its middle.

Single years (`35`) go to the nearest group too, by `table.age_to_group`. Anything else is not an age.
"""

RANGES = {
    **{text: read_age_range(text) for text in (*INTERVALS, *ODD_INTERVALS)},
    "(25, 23)": (25.0, 32.0),
    "(60, 100)": (60.0, OLDEST),
}
"""The years of the intervals; `(25, 23)` is taken for `(25, 32)`, and `(60, 100)` for 60 and over."""

_HOME = "https://talhassner.github.io/home/projects/Adience/Adience-data.html"
_NESTED = "AdienceBenchmarkGenderAndAgeClassification/"
_LAYOUTS = {"aligned/": "landmark_aligned_face.", "faces/": "coarse_tilt_aligned_face."}
_LABELS = ["age", "age_from", "age_to", "age_group"]
_NEEDED = ("user_id", "original_image", "face_id", "age", "gender")


def read(root: Path, labels: str) -> tuple[pd.DataFrame, Ledger]:
    """Reads the five folds under `root` by the policy `labels`, one of `LABELS`.

    Single years set `age` and `age_group`, intervals `age_from`, `age_to` (see `RANGES`) and `age_group`.

    Raises:
        MienError: `root` is not a folder, or one of the five fold files or of their columns is absent.
    """
    _files.need_folder(root)
    ledger = Ledger("adience")
    raw = _read_folds(root, ledger)
    raw.insert(0, "face", raw["user_id"] + "/" + raw["face_id"] + "." + raw["original_image"])
    raw = ledger.drop(raw, raw.drop(columns="fold").duplicated(), "an exact duplicate of an earlier row")
    raw = ledger.drop(raw, raw["face"].duplicated(), "the face of an earlier row with other values")
    folder, prefix = _layout(root)
    faces = pd.DataFrame(
        {
            "face": raw["face"],
            "dataset": "adience",
            "path": folder + raw["user_id"] + "/" + prefix + raw["face_id"] + "." + raw["original_image"],
            "subject": raw["face_id"],
            "photo": raw["user_id"] + "/" + raw["original_image"],
            "fold": raw["fold"],
            "gender": raw["gender"].map(GENDERS),
            "album": raw["user_id"],
            "raw_age": raw["age"],
            "raw_gender": raw["gender"],
        }
    )
    return _label(faces, labels, ledger).drop(columns="raw_gender"), ledger


def _read_folds(root: Path, ledger: Ledger) -> pd.DataFrame:
    """All rows of the five files as strings, with the column `fold`."""
    folds = []
    for fold in range(5):
        name = f"fold_{fold}_data.txt"
        path = _files.find_file(root, (name, _NESTED + name))
        if path is None:
            raise _files.not_found("adience", root, f"{name} (of fold_0_data.txt to fold_4_data.txt)", _HOME)
        header, *lines = _files.read_lines(path) or [""]
        columns = header.split("\t")
        for column in _NEEDED:
            if column not in columns:
                raise MienError(f"adience: {str(path)!r} has no column {column!r}; its first line is {header[:80]!r}")
        rows = _files.parse_lines(lines, columns, "\t", path).drop_malformed(ledger)
        folds.append(rows.assign(fold=fold))
    return pd.concat(folds, ignore_index=True)


def _layout(root: Path) -> tuple[str, str]:
    """The folder of the images, relative to `root`, and how their names begin."""
    for folder, prefix in _LAYOUTS.items():
        for place in (folder, _NESTED + folder):
            if (root / place).is_dir():
                return place, prefix
    return "faces/", _LAYOUTS["faces/"]


def _label(faces: pd.DataFrame, labels: str, ledger: Ledger) -> pd.DataFrame:
    """Adds `age` and `age_group`, and drops or masks by the policy; each kind of value has its own entry."""
    written = faces["raw_age"].unique()
    ages = pd.DataFrame([_age(text) for text in written], index=written, columns=_LABELS)
    if labels == "exact":
        ages.loc[~ages.index.isin(list(INTERVALS))] = None
    faces = faces.assign(**{column: faces["raw_age"].map(ages[column]) for column in _LABELS})
    if labels == "masked":
        faces = ledger.drop(faces, faces["gender"].isna() & faces["age_group"].isna(), "neither a gender nor an age")
    faces = _without(faces, "gender", "gender is not known", labels != "masked", ledger)
    reason = "age is none of the eight intervals" if labels == "exact" else "age is not known"
    faces = _without(faces, "age", reason, labels in ("all-ages", "exact"), ledger)
    odd = faces["age_group"].notna() & ~faces["raw_age"].isin(list(INTERVALS))
    for text in faces.loc[odd, "raw_age"].value_counts().index:
        ledger.change(faces, faces["raw_age"] == text, f"age {text!r} is assigned to {ages['age_group'][text]}")
    return faces


def _age(text: str) -> tuple[float | None, float | None, float | None, str | None]:
    """The values of `_LABELS` for an age as the files write it."""
    group = INTERVALS.get(text) or ODD_INTERVALS.get(text)
    if group is None and text.isdecimal() and int(text) <= OLDEST:
        return float(text), None, None, str(age_to_group([float(text)])[0])
    return None, *(RANGES.get(text) or (None, None)), group


def _without(faces: pd.DataFrame, label: str, reason: str, needed: bool, ledger: Ledger) -> pd.DataFrame:
    """Drops the rows without `label` if it is `needed`, else notes them: an entry for each raw value."""
    column = "age_group" if label == "age" else label
    for value in faces.loc[faces[column].isna(), f"raw_{label}"].value_counts().index:
        rows = faces[column].isna() & (faces[f"raw_{label}"] == value)
        if needed:
            faces = ledger.drop(faces, rows, f"{reason}: the files say {value!r}")
        else:
            ledger.change(faces, rows, f"{reason}: the files say {value!r}")
    return faces
