"""Labeled Faces in the Wild (LFW): photographs of people from the news, `Name/Name_NNNN.jpg`; the name is the subject.

Any copy works: original, funneled, deep-funneled or aligned crops, in any subfolder of the root. LFW itself has no
labels of gender: a list gives them, a CSV file with a header or the text files `male_names.txt` and
`female_names.txt`, one image a line. There are no ages, folds or boxes.

Source: G. Huang, M. Ramesh, T. Berg, E. Learned-Miller, Labeled Faces in the Wild, University of Massachusetts Amherst
Technical Report 07-49, 2007. Gender lists: M. Afifi, A. Abdelhamed, AFIF4, Journal of Visual Communication and Image
Representation 62, 2019.
"""

import csv
from pathlib import Path

import pandas as pd

from mien.base.errors import MienError
from mien.base.ledger import Ledger
from mien.data.sources import _files

NOTICE = "LFW: made available for research; the pictures belong to their owners."
"""The terms of the data in a sentence, which the card of a published model repeats."""

LABELS = {
    "listed": "the images that a list of genders names",
    "all": "every image; without a listed gender it is missing",
}

TASKS = ("gender",)
"""What can be learnt from it: there are no ages."""

FACES = 13_233
"""The size of the complete data set."""

GENDERS = {"male": "male", "m": "male", "man": "male", "female": "female", "f": "female", "woman": "female"}

LISTS = ("gender.csv", "genders.csv", "lfw_gender.csv", "male_names.txt", "female_names.txt")
"""Files that are read as lists of genders, as far as they are there."""

_HOME = "https://vis-www.cs.umass.edu/lfw/"


def read(root: Path, labels: str) -> tuple[pd.DataFrame, Ledger]:
    """Reads subjects from the names of the images, and genders from the lists.

    Raises:
        MienError: `root` is not a folder, or holds no such images or no list of genders.
    """
    _files.need_folder(root)
    ledger = Ledger("lfw")
    paths = pd.Series(_files.list_images(root, ledger), dtype="str")
    if paths.empty:
        raise _files.not_found("lfw", root, "images (Name/Name_0001.jpg)", _HOME)
    raw = pd.DataFrame({"face": paths.str.rpartition("/")[2].str.rpartition(".")[0], "path": paths})
    raw["subject"] = raw["face"].str.extract(r"^(.+)_\d{4}$")[0]
    if raw["subject"].isna().all():
        raise _files.not_found("lfw", root, "images (Name/Name_0001.jpg)", _HOME)
    ledger.read = len(raw)
    raw = ledger.drop(raw, raw["subject"].isna(), "a name that is not Name_NNNN")
    raw = ledger.drop(raw, raw["face"].duplicated(), "a file of the same name in an earlier folder")
    gender = raw["face"].map(_genders(root, set(raw["face"]), ledger))
    if labels == "listed":
        raw = ledger.drop(raw, gender.isna(), "no list gives a gender")
    else:
        ledger.change(raw, gender.isna(), "no list gives a gender: it is missing")
    faces = pd.DataFrame(
        {
            "face": raw["face"],
            "dataset": "lfw",
            "path": raw["path"],
            "subject": raw["subject"],
            "photo": raw["face"],
            "gender": gender.loc[raw.index],
        }
    )
    return faces, ledger


def _genders(root: Path, there: set[str], ledger: Ledger) -> "pd.Series[str]":
    """The gender of each listed image, by the stem of its file name; contradictions are missing."""
    listed = pd.concat([_listed(root / name, ledger) for name in LISTS if (root / name).is_file()] or [pd.DataFrame()])
    if listed.empty:
        raise _files.not_found("lfw", root, f"a list of genders ({', '.join(LISTS)})", _HOME)
    unknown = ~listed["face"].isin(there)
    if unknown.any():
        ledger.warn(f"a list names images that are not there, for example {listed.loc[unknown, 'face'].iloc[0]!r}")
    by_face = listed.drop_duplicates().groupby("face")["gender"]
    contradicted = by_face.size() > 1
    if contradicted.any():
        example = contradicted.index[contradicted][0]
        ledger.warn(f"images with two genders in the lists, which is none, for example {example!r}", contradicted.sum())
    return by_face.first()[~contradicted]


def _listed(path: Path, ledger: Ledger) -> pd.DataFrame:
    """The columns `face` and `gender` of a list; rows that cannot be read are counted."""
    lines = _files.read_lines(path)
    if path.suffix == ".txt":
        gender = "female" if path.stem.startswith("female") else "male"
        rows = [(line.strip(), gender) for line in lines]
    else:
        table = list(csv.DictReader(lines))
        columns = [name for name in ("path", "file", "image", "name") if table and name in table[0]]
        if not columns or "gender" not in table[0]:
            raise MienError(f"lfw: {path.name} needs the columns path and gender; its first line is {lines[:1]!r}")
        rows = [(str(row[columns[0]]), str(row["gender"]).strip().lower()) for row in table]
    found = pd.DataFrame(rows, columns=["face", "gender"], dtype="str")
    found["face"] = found["face"].str.replace("\\", "/").str.rpartition("/")[2].str.replace(r"\.\w+$", "", regex=True)
    known = found["gender"].isin(list(GENDERS))
    if not known.all():
        example = found.loc[~known, "gender"].iloc[0]
        ledger.warn(f"{path.name}: a gender that is not one of {', '.join(GENDERS)}: {example!r}", int((~known).sum()))
    return found[known].assign(gender=found["gender"].map(GENDERS))
