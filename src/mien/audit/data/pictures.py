"""What is wrong with the pictures of a data set: too small, blurred, almost uniform, or unlike all others."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mien.base.progress import ProgressCallback
from mien.data import images
from mien.data.pixels import boxes
from mien.prediction.quality import SHARPNESS, SMALL, sharpness

UNIFORM = 6.0
"""A picture whose grey values have a smaller standard deviation than this, of 255, is almost uniform."""

FAR = 4.0
"""A picture is an outlier from so many robust standard deviations on (see `outliers`)."""

COMPONENTS = 8
"""Principal components that describe what pictures of a data set have in common.

Of 3,000 faces of UTKFace one is a bar code: it is the first with 2 to 8 components, and not with 16 to 64, which
describe it too.
"""

USUAL = 0.95
"""Share of the pictures, nearest to the median one, whose components are taken."""

FEWEST = 100
"""Pictures without which nothing is said about outliers."""

_SIDE = 128  # of the squares that are measured, as quality.SHARPNESS is defined for
_THUMBNAIL = 24  # of the squares whose components are taken
_CHUNK = 1024


def measure(
    faces: pd.DataFrame, root: Path, progress: ProgressCallback | None = None
) -> tuple[pd.DataFrame, np.ndarray]:
    """Measures each face's picture.

    Args:
        faces: A checked faces table of n rows.
        root: The folder that its paths are relative to.
        progress: Told how many of the pictures are done.

    Returns:
        n rows with `status` ("ok", or why it cannot be read), `side` (pixels of the face's square), `sharpness`
        (`mien.prediction.quality.sharpness`), `brightness` and `contrast` (mean and standard deviation of grey,
        of 255); and float32 (n, 576), thumbnails of 24x24 grey pixels less their mean, divided by their contrast.
    """
    jobs = list(zip([root / path for path in faces["path"]], boxes(faces), strict=True))
    rows: list[tuple[object, ...]] = []
    thumbnails = np.zeros((len(jobs), _THUMBNAIL**2), dtype=np.float32)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside of the interpreter's lock
        for start in range(0, len(jobs), _CHUNK):
            for row, thumbnail in pool.map(_measured, jobs[start : start + _CHUNK]):
                thumbnails[len(rows)] = thumbnail
                rows.append(row)
            if progress:
                progress(len(rows), len(jobs))
    columns = ["status", "side", "sharpness", "brightness", "contrast"]
    return pd.DataFrame(rows, columns=columns, index=faces.index), thumbnails


def _measured(job: tuple[Path, images.Box | None]) -> tuple[tuple[object, ...], np.ndarray]:
    path, box = job
    try:
        face, side = images.load_face_and_side(path, _SIDE, box)
    except images.ImageError as error:
        return (error.reason, np.nan, np.nan, np.nan, np.nan), np.zeros(_THUMBNAIL**2, dtype=np.float32)
    grey = Image.fromarray(face).convert("L")
    values = np.asarray(grey, dtype=np.float32)
    small = np.asarray(grey.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX), dtype=np.float32).ravel()
    small -= small.mean()
    row = ("ok", float(side), sharpness(face), float(values.mean()), float(values.std()))
    return row, small / max(float(small.std()), 1.0)


def notes(measured: pd.DataFrame) -> pd.DataFrame:
    """Which pictures are `unreadable`, `small`, `blurred` or `uniform`: bool columns, one row a face.

    A uniform picture is not said to be blurred too.
    """
    readable = measured["status"] == "ok"
    uniform = readable & (measured["contrast"] < UNIFORM)
    return pd.DataFrame(
        {
            "unreadable": ~readable,
            "small": readable & (measured["side"] < SMALL),
            "blurred": readable & ~uniform & (measured["sharpness"] < SHARPNESS),
            "uniform": uniform,
        }
    )


def outliers(measured: pd.DataFrame, thumbnails: np.ndarray) -> pd.Series:
    """How unlike the others each picture is, in robust standard deviations; NaN where it cannot be read.

    The thumbnails are described by the `COMPONENTS` principal components of the usual ones; what these leave of a
    picture (the Q statistic of Jackson and Mudholkar 1979) is large for what other pictures do not show: no face, a
    face on its side, a drawing. The score is that rest, less its median, over 1.4826 times its median absolute
    deviation. Not found: pictures that are odd in a way that many of the data set are.

    Args:
        measured: As `measure` gives it, n rows.
        thumbnails: (n, pixels).

    Returns:
        (n,) scores; all NaN where fewer than `FEWEST` pictures can be read.
    """
    known = ((measured["status"] == "ok") & (measured["contrast"] >= UNIFORM)).to_numpy()
    scores = np.full(len(measured), np.nan)
    if known.sum() < FEWEST:
        return pd.Series(scores, index=measured.index)
    rows = thumbnails[known]
    usual = rows[_usual(rows)]
    mean = usual.mean(axis=0, dtype=np.float64)
    covariance = sum(_products(usual, mean)) / len(usual)
    components = np.linalg.eigh(covariance)[1][:, -COMPONENTS:]
    rest = np.concatenate([_rest(part - mean, components) for part in np.array_split(rows, len(rows) // _CHUNK + 1)])
    middle = np.median(rest)
    scores[known] = (rest - middle) / max(1.4826 * float(np.median(np.abs(rest - middle))), 1e-9)
    return pd.Series(scores, index=measured.index)


def _usual(rows: np.ndarray) -> np.ndarray:
    """Which rows (n, bool) are the `USUAL` share nearest to the median: no outlier shall make a component its own."""
    middle = np.median(rows, axis=0)
    away = np.concatenate(
        [((part - middle) ** 2).sum(axis=1) for part in np.array_split(rows, len(rows) // _CHUNK + 1)]
    )
    return away <= np.quantile(away, USUAL)


def _products(rows: np.ndarray, mean: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), _CHUNK):
        centred = rows[start : start + _CHUNK] - mean
        yield centred.T @ centred


def _rest(centred: np.ndarray, components: np.ndarray) -> np.ndarray:
    """The squared length of what the components leave of each row."""
    return (centred**2).sum(axis=1) - ((centred @ components) ** 2).sum(axis=1)
