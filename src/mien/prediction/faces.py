"""What every detector gives: faces with boxes of one convention and, where it knows them, landmarks.

The convention is a square from the brows to the chin, in pixels of the upright picture, upright even where the face is
not; it may reach beyond the picture. `images.square` turns it, with the margin of a model, into the crop that the
model was trained for.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from mien.base.errors import MienError
from mien.data.alignment import roll, yaw
from mien.data.images import Box

TURNED = 0.22
"""A face whose `alignment.yaw` is larger is turned away: the median of All-Age-Faces at 35 degrees."""

SAME = 0.4
"""Boxes with a larger intersection over union are one face."""

FIT = (0.076, 0.752)
"""From the boxes of detectors that learnt from WIDER FACE, which reach up to the hair, to the convention: (down, size)
in shares of the longer side. Medians over the 141 of 148 pictures of CelebA in which CenterFace and dlib find a face
(spread 0.02, 0.04)."""

Picture = Image.Image | np.ndarray
"""An upright picture: Pillow's image, or uint8 RGB (h, w, 3)."""


class DetectedFace(NamedTuple):
    """A face in a picture."""

    box: Box
    score: float
    """How sure the detector is, in its own units."""
    turned: bool
    """Whether the face looks to a side."""
    points: np.ndarray | None = None
    """Landmarks (5, 2): the eyes, the tip of the nose, the corners of the mouth; None: the detector gives none."""

    @property
    def roll(self) -> float:
        """The angle in radians by which the face is turned clockwise in the picture."""
        return 0.0 if self.points is None else roll(self.points)


class Detector(Protocol):
    """What finds faces; safe to use from several threads."""

    def __call__(self, picture: Picture) -> list[DetectedFace]:
        """The faces of an upright picture, best first; raises MienError for arrays of another kind."""
        ...

    def wants(self, longer: int) -> float:
        """How many pixels of the longer side of a picture, which has so many, are of use to the detector."""
        ...


def as_image(picture: Picture) -> Image.Image:
    """The picture as Pillow's RGB image.

    Raises:
        MienError: It is an array of another kind than uint8 (h, w, 3).
    """
    if isinstance(picture, Image.Image):
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise MienError(f"image: pixels are {picture.dtype} {picture.shape}; valid: uint8 (height, width, 3)")
    return Image.fromarray(picture)


def with_landmarks(box: Box, score: float, points: np.ndarray) -> DetectedFace:
    """A face whose landmarks say whether it is turned away."""
    return DetectedFace(box, score, bool(abs(yaw(points)) > TURNED), points)


def distinct(found: Iterable[DetectedFace]) -> list[DetectedFace]:
    """Best first, without those that lie on a better one."""
    kept: list[DetectedFace] = []
    for face in sorted(found, key=lambda face: -face.score):
        if all(overlap(face.box, other.box) <= SAME for other in kept):
            kept.append(face)
    return kept


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def fitted(boxes: np.ndarray, scores: np.ndarray, points: np.ndarray) -> list[DetectedFace]:
    """Faces from boxes (n, 4) as x, y, w, h of such a detector, scores (n,) and landmarks (n, 5, 2)."""
    down, size = FIT
    found = []
    for (x, y, w, h), score, marks in zip(boxes.tolist(), scores.tolist(), points, strict=True):
        longer = max(w, h)
        side = longer * size
        box = (x + w / 2 - side / 2, y + h / 2 + down * longer - side / 2, side, side)
        found.append(with_landmarks(box, score, marks))
    return distinct(found)
