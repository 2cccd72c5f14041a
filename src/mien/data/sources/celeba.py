"""CelebA: aligned faces of celebrities with 40 binary attributes and an official partition.

The official text files and the CSV files of a popular mirror are read (text where both are there), in `root`
or in the official folders `Anno/` and `Eval/`; the images are those of `img_align_celeba/`, which the mirror
nests once more and the official release puts into `Img/`. `split` is the official partition; `subject` is the
identity where `identity_CelebA.txt` is there. All attributes pass through as bool columns under their own
names (`Smiling`, ...); `gender` is the attribute `Male`. There is no age in years and no box.

Source: Z. Liu, P. Luo, X. Wang, X. Tang, Deep Learning Face Attributes in the Wild, ICCV 2015.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from mien.base.errors import MienError
from mien.base.ledger import Ledger
from mien.data.sources import _files

NOTICE = "CelebA: made available for non-commercial research only; the pictures belong to their owners."
"""The terms of the data in a sentence, which the card of a published model repeats."""

TASKS = ("gender",)
"""What can be learnt from it: there are no ages."""

FACES = 202_599
"""Faces of the complete data set, for estimates before it is at hand."""

TRAIN_FACES = 162_770
"""Faces in the training part of its official partition."""

LABELS = {"all": "every row of the attribute list; the gender is the attribute Male"}

PARTITION = {"0": "train", "1": "val", "2": "test"}

_HOME = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
_IMAGES = ("img_align_celeba/img_align_celeba/", "img_align_celeba/", "Img/img_align_celeba/")


def read(root: Path, labels: str) -> tuple[pd.DataFrame, Ledger]:
    """Reads the attribute list under `root`, with the partition and the identities where they are there.

    Raises:
        MienError: `root` is not a folder, or the attribute list or its attribute `Male` is absent.
    """
    _files.need_folder(root)
    ledger = Ledger("celeba")
    attributes = _read_attributes(root, ledger)
    image = attributes.pop("image_id")
    folder = next((place for place in _IMAGES if (root / place).is_dir()), "img_align_celeba/")
    partition = _lookup(root, "list_eval_partition", image, ledger)
    faces = pd.DataFrame(
        {
            "face": image,
            "dataset": "celeba",
            "path": folder + image,
            "subject": _lookup(root, "identity_CelebA", image, ledger),
            "photo": image,
            "gender": np.where(attributes["Male"], "male", "female"),
            "split": partition.map(PARTITION),
        }
    )
    unknown = partition.notna() & faces["split"].isna()
    ledger.change(faces, unknown, f"a partition other than {', '.join(PARTITION)}: the split is missing")
    return pd.concat([faces, attributes], axis="columns"), ledger


def _list_file(root: Path, stem: str) -> Path | None:
    folders = ("", "Anno/", "Eval/")
    return _files.find_file(root, [f"{folder}{stem}{end}" for end in (".txt", ".csv") for folder in folders])


def _read_attributes(root: Path, ledger: Ledger) -> pd.DataFrame:
    """The column `image_id` and a bool column per attribute."""
    path = _list_file(root, "list_attr_celeba")
    if path is None:
        raise _files.not_found("celeba", root, "list_attr_celeba.txt or list_attr_celeba.csv", _HOME)
    lines = _files.read_lines(path)
    promised = int(lines.pop(0)) if lines and lines[0].strip().isdecimal() else None
    separator = "," if path.suffix == ".csv" else None
    header, *lines = lines or [""]
    # The CSV header names the first column, that of the text file does not.
    names = [name.strip() for name in header.split(separator)][1 if separator else 0 :]
    if "Male" not in names:
        raise MienError(f"celeba: {str(path)!r} has no attribute 'Male'; its header is {header[:80]!r}")
    if promised not in (None, len(lines)):
        ledger.warn(f"{path.name} promises {promised:,} rows and holds {len(lines):,}")
    columns = ["image_id", *names]
    rows = _files.parse_lines(lines, columns, separator, path, {"image_id": "str"}).drop_malformed(ledger)
    values = rows[names].apply(pd.to_numeric, errors="coerce")
    rows = pd.concat([rows["image_id"], values == 1], axis="columns")
    odd = ~values.isin([-1, 1]).all(axis="columns")
    rows = ledger.drop(rows, odd, "an attribute that is neither -1 nor 1")
    return ledger.drop(rows, rows["image_id"].duplicated(), "the image of an earlier row")


def _lookup(root: Path, stem: str, image: "pd.Series[str]", ledger: Ledger) -> "pd.Series[str]":
    """The value of each image in the two-column list `stem`, missing where it names none."""
    path = _list_file(root, stem)
    if path is None:
        ledger.warn(f"{stem}.txt is not there")
        return pd.Series(None, index=image.index, dtype="str")
    lines, separator = _files.read_lines(path), None
    if path.suffix == ".csv":
        lines, separator = lines[1:], ","
    parsed = _files.parse_lines(lines, ["image_id", "value"], separator, path)
    if len(parsed.malformed):
        ledger.warn(f"{parsed.reason}, for instance {parsed.malformed['line'].iloc[0]}", len(parsed.malformed))
    values = parsed.rows.set_index("image_id")["value"]
    again = values.index.duplicated()
    if again.any():
        ledger.warn(f"{path.name} names an image more than once: the first counts", int(again.sum()))
    found = image.map(values[~again])
    others = int((~again).sum() - found.notna().sum())
    if others:
        ledger.warn(f"{path.name} names images that the attribute list does not", others)
    ledger.change(pd.DataFrame({"face": image}), found.isna(), f"not in {path.name}")
    return found
