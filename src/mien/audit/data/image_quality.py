"""Image quality of a data set: small, blurred, almost uniform and outlying images."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mien.base.progress import ProgressCallback
from mien.data import images
from mien.data.face_pixels import boxes
from mien.data.roots import Root
from mien.prediction.quality import SHARPNESS, SMALL, sharpness

UNIFORM = 6.0
"""Images whose grey values (0 to 255) have a smaller standard deviation are almost uniform."""

OUTLIER_SCORE = 4.0
"""Images with a higher score of `outlier_scores`, in robust standard deviations, are outliers."""

COMPONENTS = 8
"""Principal components that describe the typical images of a data set.

One of 3,000 images of UTKFace is a bar code: it ranks first with 2 to 8 components, but not with 16 to 64, which
describe the bar code too.
"""

USUAL_SHARE = 0.95
"""Share of the images, those nearest to the median image, that the components are fitted on."""

MIN_IMAGES = 100
"""Outliers are scored only with at least this many readable images."""

_SIDE = 128  # of the squares that are measured, as quality.SHARPNESS is defined for
_THUMBNAIL = 24  # of the squares whose components are taken
_CHUNK = 1024


def measure(
    faces: pd.DataFrame, root: Root, progress: ProgressCallback | None = None
) -> tuple[pd.DataFrame, np.ndarray]:
    """Measures the image of each face.

    Args:
        faces: A checked faces table of n rows.
        root: What its paths are relative to.
        progress: Called with the number of images done and the total.

    Returns:
        n rows with `status` ("ok" or the reason why it cannot be read), `side` (pixels of the face's square),
        `sharpness` (`mien.prediction.quality.sharpness`), `brightness` and `contrast` (mean and standard deviation of
        grey, 0 to 255); and float32 (n, 576), thumbnails of 24x24 grey pixels minus their mean, divided by their
        contrast.
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


def quality_flags(measured: pd.DataFrame) -> pd.DataFrame:
    """Flags images as `unreadable`, `small`, `blurred` or `uniform`: bool columns, one row per face.

    A uniform image is not flagged as blurred.
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


def outlier_scores(measured: pd.DataFrame, thumbnails: np.ndarray) -> pd.Series:
    """Scores how unusual each image is, in robust standard deviations; NaN if it cannot be read.

    The first `COMPONENTS` principal components of the typical thumbnails are removed; the squared residual (the Q
    statistic of Jackson and Mudholkar 1979) is large for content that other images do not show: no face, a rotated
    face, a drawing. The score is the residual minus its median, divided by 1.4826 times its median absolute deviation.
    Defects that many images share are not detected.

    Args:
        measured: As returned by `measure`, n rows.
        thumbnails: (n, pixels).

    Returns:
        (n,) scores; all NaN if fewer than `MIN_IMAGES` images can be read.
    """
    known = ((measured["status"] == "ok") & (measured["contrast"] >= UNIFORM)).to_numpy()
    scores = np.full(len(measured), np.nan)
    if known.sum() < MIN_IMAGES:
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
    """Selects (n, bool) the rows nearest to the median, so that outliers do not shape the components."""
    middle = np.median(rows, axis=0)
    away = np.concatenate(
        [((part - middle) ** 2).sum(axis=1) for part in np.array_split(rows, len(rows) // _CHUNK + 1)]
    )
    return away <= np.quantile(away, USUAL_SHARE)


def _products(rows: np.ndarray, mean: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), _CHUNK):
        centred = rows[start : start + _CHUNK] - mean
        yield centred.T @ centred


def _rest(centred: np.ndarray, components: np.ndarray) -> np.ndarray:
    """The squared residual of each row after removing the components."""
    return (centred**2).sum(axis=1) - ((centred @ components) ** 2).sum(axis=1)
