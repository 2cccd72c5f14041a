"""What the image files of a faces table are: size, readability, near-duplicates."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mien.base.errors import MienError
from mien.base.progress import ProgressCallback
from mien.data import images
from mien.data.duplicates import copies, fingerprints, groups
from mien.data.face_pixels import cache_folder
from mien.data.roots import Root


@dataclass(frozen=True)
class Images:
    """What was found in the image files.

    Attributes:
        files: One row a file: `path`, `status` ("ok", or why it cannot be read), `width`, `height` (pixels).
        pairs: One row a pair of near-duplicates, with the labels, folds and parts of both.
        groups: (n,) label of each face's group of near-duplicates.
    """

    files: pd.DataFrame
    pairs: pd.DataFrame
    groups: np.ndarray


def inspect_images(faces: pd.DataFrame, root: Root, progress: ProgressCallback | None = None) -> Images:
    """Reads every image file once.

    Raises:
        MienError: None of the files is there.
    """
    paths = faces["path"].drop_duplicates()
    if not any(os.path.exists(root / path) for path in paths):  # noqa: PTH110 - unlike Path's, it takes any text
        raise MienError(
            f"none of the {len(paths)} images is in {str(root)!r}; looked for {paths.iloc[0]!r} and others "
            "(without a root the report is of the table alone)"
        )
    prints = fingerprints([root / path for path in paths], progress=progress, cache=cache_folder())
    sizes = [
        _size(root / path) if status == "ok" else (None, None)
        for path, status in zip(paths, prints["status"], strict=True)
    ]
    files = pd.DataFrame(sizes, columns=["width", "height"], dtype="Int64")
    files.insert(0, "path", paths.to_numpy())
    files.insert(1, "status", prints["status"].to_numpy())
    pairs = copies(prints)
    of_file = pd.Series(groups(pairs, len(paths)), index=paths.to_numpy())
    return Images(files, _described(pairs, faces), faces["path"].map(of_file).to_numpy())


def _size(path: Path) -> tuple[int | None, int | None]:
    """Width and height of the upright image, from the file's header."""
    try:
        return images.dimensions(path)
    except images.ImageError:
        return None, None


def _described(pairs: pd.DataFrame, faces: pd.DataFrame) -> pd.DataFrame:
    """Pairs of files (positions among the different paths) with what the table says of both."""
    several = faces["path"].duplicated(keep=False)
    columns = ["path", "face", "subject", "gender", "age", "age_group", "fold", "split"]
    files = faces[columns].astype({"gender": "object", "age_group": "object", "split": "object"})
    # Of a photograph with several faces it is not known which one is whose duplicate.
    labels = ["subject", "gender", "age_group", "age"]
    files[labels] = files[labels].mask(several)
    files = files.drop_duplicates("path")
    first, second = (files.iloc[pairs[end]].reset_index(drop=True) for end in ("i", "j"))
    out = pairs[["distance", "difference", "exact", "altered", "mirrored"]].reset_index(drop=True)
    for column in columns:
        out[f"{column}_1"], out[f"{column}_2"] = first[column], second[column]
    for column in ("subject", "gender", "age_group", "fold", "split"):
        both = first[column].notna() & second[column].notna()
        out[f"{column}_differs"] = both & (first[column] != second[column]).fillna(False).astype(bool)
    return out
