"""From a photograph to its faces as the network sees them: decoded, found, cut and turned upright."""

from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mien.data import images
from mien.data.alignment import cut_upright
from mien.prediction.faces import DetectedFace, Detector
from mien.prediction.quality import notes

READ = 640
"""A photograph is decoded with at least so many pixels of its longer side, as far as it has them."""

ENOUGH = 0.5
"""A face needs so many pixels of those that the network sees: with half of them the shipped model is as exact as with
all (benchmarks/quality_notes.md, 64 pixels)."""


class CroppedFace(NamedTuple):
    """A face: the columns of the predictions table that are known of it, and its pixels, uint8 (size, size, 3)."""

    columns: dict[str, Any]
    pixels: np.ndarray


class FaceCropper:
    """Finds and cuts the faces of photographs; safe to use from several threads.

    A large JPEG is decoded at a reduced size. Where that leaves a face with too few pixels for the network, it is
    decoded once more, as large as this face needs.

    Args:
        detector: What finds faces.
        size: Side in pixels of what the network sees.
        margin: Around the box, see `images.square`.
    """

    def __init__(self, detector: Detector, size: int, margin: float) -> None:
        self._detector, self._size, self._margin = detector, size, margin

    def __call__(self, source: images.Source) -> list[CroppedFace]:
        """The faces of a photograph, best first.

        Raises:
            ImageError: It cannot be decoded.
        """
        photograph = images.load_reduced(source, lambda longer: max(READ, self._detector.wants(longer)))
        faces = [_scaled(face, 1 / photograph.scale) for face in self._detector(photograph.image)]
        picture = photograph.image
        if faces and photograph.scale < 1:
            least = min(face.box[2] for face in faces) * (1 + self._margin)
            needed = min(1.0, ENOUGH * self._size / least)
            if needed > photograph.scale:
                picture = images.load_reduced(source, lambda longer: needed * longer).image
        return [self._cut(picture, photograph, index, face) for index, face in enumerate(faces)]

    def _cut(self, picture: Image.Image, photograph: images.Reduced, index: int, face: DetectedFace) -> CroppedFace:
        width, height = photograph.width, photograph.height
        scale = max(picture.size) / max(width, height)
        # As the table states the box: what another runtime finds, other in the last bits of a number, is cut alike.
        x, y, w, h = (round(edge, 1) for edge in face.box)
        left, top, side = images.square(width, height, (x, y, w, h), self._margin)
        where = (left * scale, top * scale, side * scale)
        pixels = cut_upright(picture, where, self._size, round(face.roll, 3))
        place = {"x": x, "y": y, "w": w, "h": h}
        about: dict[str, Any] = {"detector_score": round(float(face.score), 3)}
        about["quality"] = notes(pixels, (x, y, w, h), width, height, face.turned)
        return CroppedFace({"face_index": index, **place, **about}, pixels)


def _scaled(face: DetectedFace, factor: float) -> DetectedFace:
    x, y, w, h = (float(edge) * factor for edge in face.box)
    points = None if face.points is None else face.points * factor
    return face._replace(box=(x, y, w, h), points=points)
