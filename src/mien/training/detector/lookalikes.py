"""What a detector takes for faces in the training pictures, judged by the teacher at close range.

The teacher's labels are of whole pictures. Where a trained detector finds a face that has no label, either the teacher
missed one or the detector is wrong; seen large and in the middle of a picture, the teacher tells them apart. What is no
face, hands and the backs of heads above all, then appears in the training scenes as often as asked for.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mien.base.atomic import atomic_path
from mien.prediction.face_network import FaceNetwork
from mien.training.detector.cache import FACE, IGNORED, LOOKALIKE, Cache, lookalikes_file, squares
from mien.training.detector.teacher import detect, open_teacher, overlaps

SOURCES = ("photographs", "none", "aaf", "skimage")
"""Sources of pictures in which there is more to see than a face."""

LEAST = 0.4
"""Score from which on what the detector finds is judged."""

_WIDTH = 3.0  # sides of the square that the teacher sees
_SIZES = (128, 224)  # pixels of a side of what it sees, one after the other
_SURE, _NONE = 0.5, 0.25  # scores of the teacher: from the first on a face, below the second none


def find_lookalikes(cache: Path, file: Path) -> None:
    """Writes what is no face, and the faces without labels, for the training pictures of each source that has no file.

    Args:
        cache: The folder of decoded pictures; the files are written there.
        file: The trained detector.
    """
    detector, teacher = FaceNetwork(file), open_teacher(threads=1)
    detector.score = LEAST
    pictures = Cache(cache, "train")
    for source in SOURCES:
        result = lookalikes_file(cache, source)
        if result.exists() or source not in pictures.entries:
            continue
        rows = {}
        for entry in pictures.entries[source]:
            picture = Image.fromarray(pictures.pixels(entry))
            found = detector.find(picture).squares
            boxes = _boxes(entry.faces)
            new = [square for square in found if not len(boxes) or overlaps(_boxes(square[None])[0], boxes).max() < 0.2]
            if new:
                rows[entry.name] = [judged(teacher, picture, square).tolist() for square in new]
        with atomic_path(result) as part:
            part.write_text(json.dumps(rows))
        kinds = np.array([row[3] for one in rows.values() for row in one])
        told = ", ".join(f"{(kinds == kind).sum():,} {word}" for kind, word in _WORDS.items())
        print(f"{source}: {told}", flush=True)


_WORDS = {LOOKALIKE: "lookalikes", FACE: "more faces", IGNORED: "unsure"}


def judged(teacher: Any, picture: Image.Image, square: np.ndarray) -> np.ndarray:
    """The label (14,) of a square (3,), see `cache.Entry`: a face with the teacher's landmarks, or a square's."""
    half = _WIDTH * square[2] / 2
    left, top = np.floor(square[:2] - half).astype(int)
    part = picture.crop((left, top, left + round(2 * half), top + round(2 * half)))
    best, score = np.zeros(15), 0.0
    for size in _SIZES:
        for row in detect(teacher, part, size, 0.0):
            x, y, side = squares(row[None], FACE)[0, :3]
            middle = max(abs(x - half), abs(y - half)) < 0.4 * square[2]
            if middle and 0.5 < side / square[2] < 2 and row[4] > score:
                best, score = row, float(row[4])
    label = np.zeros(14)
    label[:4] = *square, LOOKALIKE if score < _NONE else IGNORED
    if score >= _SURE:
        label = squares(best[None], FACE)[0]
        label[[0, *range(4, 14, 2)]] += left
        label[[1, *range(5, 14, 2)]] += top
    return label


def _boxes(faces: np.ndarray) -> np.ndarray:
    return np.concatenate([faces[:, :2] - faces[:, 2:3] / 2, faces[:, [2, 2]]], axis=1)
