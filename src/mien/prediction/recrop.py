"""The faces of a data set cut as in prediction: with the box and the angle that a detector finds in each image."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd

from mien.base.atomic import atomic_path
from mien.base.ledger import Ledger
from mien.base.progress import ProgressCallback
from mien.data import images
from mien.data.duplicates import file_key
from mien.data.face_pixels import boxes, cache_folder
from mien.prediction.detect import make_detector
from mien.prediction.face_cropper import READ
from mien.prediction.face_network import FILE
from mien.prediction.faces import Detector, overlap

FITS = 0.2
"""A found face is that of a given box if their intersection over union is larger: conventions of boxes differ."""

_Places = np.ndarray
"""What was found in an image, float64 (faces, 5): x, y, w, h in pixels of the full image, and the angle in radians."""


def recrop(
    faces: pd.DataFrame, paths: Sequence[Path], ledger: Ledger, progress: ProgressCallback | None = None
) -> pd.DataFrame:
    """Replaces the boxes of faces by those of mien's detector, and adds the column `roll`.

    Of the faces found in an image, the one that fits the face's own box best is taken; without a box, the largest, from
    whose side its distance from the middle of the image is subtracted. Where none fits, the face keeps the crop of the
    data set, upright, and is counted.

    Args:
        faces: A checked faces table of n rows.
        paths: n files.
        ledger: Where faces that are not found are counted, by data set.
        progress: Called with the number of images done and the total.

    Returns:
        The table with the columns `x y w h` and `roll` (radians clockwise).
    """
    found = detect_places(paths, progress)
    chosen = np.full((len(faces), 5), np.nan)
    for row, (path, box) in enumerate(zip(paths, boxes(faces), strict=True)):
        place = _best(found[row], box, path)
        if place is not None:
            chosen[row] = place
    missed = np.isnan(chosen[:, 0])
    for name in pd.unique(faces["dataset"]):
        where = missed & (faces["dataset"] == name).to_numpy()
        ledger.change(faces, where, f"{name}: the detector finds no such face, so the crop of the data set is used")
    kept = faces[["x", "y", "w", "h"]].to_numpy(dtype=float)
    # Rounded as in prediction, so that both cut the same pixels.
    new = np.where(missed[:, None], kept, chosen[:, :4].round(1))
    out = faces.assign(**{column: new[:, at] for at, column in enumerate("xywh")})
    return out.assign(roll=np.where(missed, 0.0, chosen[:, 4].round(3)))


def _best(found: _Places, box: images.Box | None, path: Path) -> np.ndarray | None:
    """The row of the face that is meant, (5,); None: there is none."""
    if not len(found):
        return None
    if box is not None:
        fits = [overlap(box, tuple(place[:4])) for place in found]
        return found[int(np.argmax(fits))] if max(fits) > FITS else None
    width, height = images.dimensions(path)
    middle = found[:, :2] + found[:, 2:4] / 2 - (width / 2, height / 2)
    return found[int(np.argmax(found[:, 2] - np.hypot(*middle.T)))]


def detect_places(paths: Sequence[Path], progress: ProgressCallback | None = None) -> list[_Places]:
    """Finds the faces of image files (n,); an image that cannot be read has none.

    What was found is kept in the user's cache folder, by path, size and time of change of each file.
    """
    keys = [file_key(path) for path in paths]
    cache = cache_folder() / f"places-{_detector_key()}.npz"
    known = _read(cache)
    waiting = {key: path for key, path in zip(keys, paths, strict=True) if key and key not in known}
    if waiting:
        try:
            for key, place in _detect_all(waiting, progress):
                known[key] = place
        finally:  # an interruption keeps what is done
            _write(cache, known)
    nothing = np.empty((0, 5))
    return [known.get(key, nothing) for key in keys]


def _detect_all(waiting: dict[bytes, Path], progress: ProgressCallback | None) -> Iterator[tuple[bytes, _Places]]:
    detector = make_detector()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        places = pool.map(partial(_detect, detector), waiting.values())
        for done, (key, place) in enumerate(zip(waiting, places, strict=True), 1):
            if place is not None:
                yield key, place
            if progress:
                progress(done, len(waiting))


def _detect(detector: Detector, path: Path) -> _Places | None:
    try:
        photograph = images.load_reduced(path, lambda longer: max(READ, detector.wants(longer)))
    except images.ImageError:
        return None  # reading the pixels says why
    scale = 1 / photograph.scale
    found = [(*(edge * scale for edge in face.box), face.roll) for face in detector(photograph.image)]
    return np.array(found, dtype=float).reshape(-1, 5)


def _detector_key() -> str:
    weights = resources.files("mien") / "weights" / FILE
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:12]


def _read(cache: Path) -> dict[bytes, _Places]:
    try:
        with np.load(cache) as kept:
            keys, counts, places = kept["keys"], kept["counts"], kept["places"]
        if keys.shape != (len(counts), 16) or places.shape != (counts.sum(), 5):
            return {}
        split = np.split(places, np.cumsum(counts)[:-1])
        return {key.tobytes(): place for key, place in zip(keys, split, strict=True)}
    except Exception:  # numpy and zipfile raise many kinds for what is absent, cut short or foreign
        return {}


def _write(cache: Path, known: dict[bytes, _Places]) -> None:
    with atomic_path(cache) as part:
        np.savez(
            part,
            keys=np.frombuffer(b"".join(known), dtype=np.uint8).reshape(-1, 16),
            counts=np.array([len(place) for place in known.values()]),
            places=np.concatenate([np.empty((0, 5)), *known.values()]),
        )
