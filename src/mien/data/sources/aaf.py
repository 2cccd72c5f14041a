"""All-Age-Faces (AAF): photographs whose file names carry a person's number and age, `NNNNNAyy.jpg`.

`yy` is the age in years; numbers up to 07380 are women, higher ones men. Each photograph shows one person, mostly East
Asian. `image sets/train.txt` and `image sets/val.txt`, where they are there, give the official partition. There are no
subjects and no folds.

Source: J. Cheng, Y. Li, J. Wang, L. Yu, S. Wang, Exploiting Effective Facial Patches for Robust Gender Recognition,
Tsinghua Science and Technology 24(3), 2019.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from mien.base.ledger import Ledger
from mien.base.table import OLDEST
from mien.data.sources import _files

NOTICE = "All-Age-Faces: no licence is stated; the authors ask to be cited, and the pictures belong to their owners."
"""The terms of the data in a sentence, which the card of a published model repeats."""

LABELS = {
    "photographs": "the original images, each with a face box from its key points",
    "aligned": "the aligned and cropped faces",
}

FACES, TRAIN_FACES = 13_322, 6_637
"""The size of the complete data set, and of `image sets/train.txt`."""

LAST_WOMAN = 7380
"""The highest number of a woman."""

FOLDERS = {"photographs": ("original images",), "aligned": ("aglined faces", "aligned faces")}
"""The folder of each policy; the published one is misspelt."""

POINTS = 49
"""Key points of an image, from the brows to the mouth."""

_HOME = "https://github.com/JingchunCheng/All-Age-Faces-Dataset"

# The key points end at the mouth, a box at the chin. The lower lip is halfway between the base of the nose and the
# chin, and the base of the nose halfway between brows and chin: brows to lip is three quarters of brows to chin.
_LIP_TO_CHIN = 4 / 3
# The boxes of the HOG detector, which define the convention, begin this share of a side above the brows (median of 56).
_ABOVE_BROWS = 0.06


def read(root: Path, labels: str) -> tuple[pd.DataFrame, Ledger]:
    """Reads the labels from the names of the images.

    Raises:
        MienError: `root` is not a folder, or holds no such images.
    """
    _files.need_folder(root)
    ledger = Ledger("aaf")
    folder = next((name for name in FOLDERS[labels] if (root / name).is_dir()), None)
    if folder is None:
        raise _files.not_found("aaf", root, f"the folder {FOLDERS[labels][0]!r}", _HOME)
    paths = pd.Series(_files.list_images(root / folder, ledger), dtype="str")
    if paths.empty:
        raise _files.not_found("aaf", root, f"images (NNNNNAyy.jpg) in {folder!r}", _HOME)
    ledger.read = len(paths)
    raw = pd.DataFrame({"face": paths.str.rpartition("/")[2], "path": folder + "/" + paths})
    raw = pd.concat([raw, raw["face"].str.extract(r"^(?P<number>\d{5})A(?P<age>\d{2,3})\.")], axis="columns")
    raw = ledger.drop(raw, raw["age"].isna(), "a name that is not NNNNNAyy")
    raw = ledger.drop(raw, raw["age"].astype("float64") > OLDEST, f"an age above {OLDEST:g} years")
    raw = ledger.drop(raw, raw["face"].duplicated(), "a file of the same name in an earlier folder")
    faces = pd.DataFrame(
        {
            "face": raw["face"],
            "dataset": "aaf",
            "path": raw["path"],
            "photo": raw["face"],
            "gender": np.where(raw["number"].astype("int64") <= LAST_WOMAN, "female", "male"),
            "age": raw["age"].astype("float64"),
            "split": _partition(root, raw["face"], ledger),
        }
    )
    if labels == "photographs":
        faces = faces.join(_boxes(root / "key points", faces, ledger))
    return faces, ledger


def _partition(root: Path, face: "pd.Series[str]", ledger: Ledger) -> "pd.Series[str]":
    """The official part of each image; missing where no list names it."""
    part = pd.Series(None, index=face.index, dtype="object")
    for name in ("train", "val"):
        path = root / "image sets" / f"{name}.txt"
        if not path.is_file():
            ledger.warn(f"image sets/{name}.txt is not there")
            continue
        listed = {line.split()[0] for line in _files.read_lines(path)}
        part[face.isin(listed)] = name
    ledger.change(pd.DataFrame({"face": face}), part.isna(), "in no list of image sets/: the split is missing")
    return part


def _boxes(folder: Path, faces: pd.DataFrame, ledger: Ledger) -> pd.DataFrame:
    """Boxes `x y w h` in pixels, the square from the brows to the chin; missing without readable key points."""
    found = np.full((len(faces), 4), np.nan)
    for row, face in enumerate(faces["face"]):
        points = _points((folder / face).with_suffix(".txt"))
        if points is not None:
            top, bottom = points[:, 1].min(), points[:, 1].max()
            side = (bottom - top) * _LIP_TO_CHIN
            found[row] = points[:, 0].mean() - side / 2, top - _ABOVE_BROWS * side, side, side
    boxes = pd.DataFrame(found, columns=["x", "y", "w", "h"], index=faces.index)
    ledger.change(faces, boxes["x"].isna(), "no readable key points: the whole photograph is used as the face")
    return boxes


def _points(path: Path) -> np.ndarray | None:
    """The key points (49, 2) of an image."""
    try:
        points = np.array([line.split() for line in path.read_text("ascii").splitlines()], dtype=float)
    except (OSError, ValueError):
        return None
    usable = points.shape == (POINTS, 2) and bool(np.isfinite(points).all()) and np.ptp(points, axis=0).min() > 0
    return points if usable else None
