"""UTKFace: faces whose file names carry the labels, `age_gender_race_timestamp.jpg.chip.jpg`.

Images are looked for in all subfolders of the root, with or without `.chip.jpg`. Ages are in years, gender 0
is male and 1 female; `race` (white, black, asian, indian, other) passes through. There are no subjects, folds
or boxes.

Source: Z. Zhang, Y. Song, H. Qi, Age Progression/Regression by Conditional Adversarial Autoencoder, CVPR
2017.
"""

from pathlib import Path

import pandas as pd

from mien.base.ledger import Ledger
from mien.base.table import OLDEST
from mien.data.sources import _files

NOTICE = "UTKFace: made available for non-commercial research only; the pictures belong to their owners."
"""The terms of the data in a sentence, which the card of a published model repeats."""

FACES = 23_705
"""Faces of the complete data set, for estimates before it is at hand."""

LABELS = {"all": "every image whose name gives an age and a gender; the race may be missing"}

GENDERS = {"0": "male", "1": "female"}

RACES = {"0": "white", "1": "black", "2": "asian", "3": "indian", "4": "other"}

_HOME = "https://susanqq.github.io/UTKFace/"

# Some names lack the race: the timestamp, far longer than a race code, then follows the gender. Some have
# slips behind the timestamp (" .jpg", "jpg" without a dot), which matter to no label.
_NAME = r"^(?P<age>\d+)_(?P<gender>\d+)_(?:(?P<race>\d{1,2})_\d+|\d{8,})[^\d_]"


def read(root: Path, labels: str) -> tuple[pd.DataFrame, Ledger]:
    """Reads the labels from the names of the images below `root`.

    Raises:
        MienError: `root` is not a folder, or holds no images.
    """
    _files.need_folder(root)
    ledger = Ledger("utkface")
    paths = pd.Series(_files.list_images(root, ledger), dtype="str")
    if paths.empty:
        raise _files.not_found("utkface", root, "images (age_gender_race_timestamp.jpg.chip.jpg)", _HOME)
    ledger.read = len(paths)
    names = paths.str.rpartition("/")[2]
    raw = pd.concat([paths.rename("path"), names.rename("name"), names.str.extract(_NAME)], axis="columns")
    raw = ledger.drop(raw, raw["age"].isna(), "a name that is not age_gender_race_timestamp")
    raw = ledger.drop(raw, ~raw["gender"].isin(list(GENDERS)), "a gender other than 0 (male) and 1 (female)")
    raw = ledger.drop(raw, raw["age"].astype("float64") > OLDEST, f"an age above {OLDEST:g} years")
    # Mirrors of the set hold the same files in several folders; a name has its time in milliseconds.
    raw = ledger.drop(raw, raw["name"].duplicated(), "a file of the same name in an earlier folder")
    race = raw["race"].map(RACES)
    ledger.change(raw, raw["race"].isna(), "a name without the race: it is missing")
    ledger.change(raw, raw["race"].notna() & race.isna(), "a race other than 0 to 4: it is missing")
    faces = pd.DataFrame(
        {
            "face": raw["path"],
            "dataset": "utkface",
            "path": raw["path"],
            "photo": raw["path"],
            "gender": raw["gender"].map(GENDERS),
            "age": raw["age"].astype("float64"),
            "race": race,
        }
    )
    return faces, ledger
