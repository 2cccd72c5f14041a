"""Faces turned upright by their landmarks: the same crop in training and in prediction. No torch.

Landmarks are five points (x, y), in the order of most detectors: the eye at the left of the picture, the eye at its
right, the tip of the nose, and the corners of the mouth, left and right.
"""

import math

import numpy as np
from PIL import Image

from mien.data import images
from mien.data.images import cut

UPRIGHT = math.radians(5.0)
"""A face that is turned by less is cut as it is: no detector is more exact, and resampling twice blurs."""


def roll(points: np.ndarray) -> float:
    """The angle in radians, -pi to pi, by which a face is turned clockwise in the picture.

    The line between the eyes and the line from the eyes to the mouth both tell, each as far as it is long: the first
    vanishes in a profile, where the second is as long as ever.

    Args:
        points: The landmarks, (5, 2).

    Returns:
        0 where all points are one.
    """
    across = points[1] - points[0]
    down = points[3:5].mean(axis=0) - points[:2].mean(axis=0)
    x, y = across[0] + down[1], across[1] - down[0]
    return math.atan2(y, x) if math.hypot(x, y) > 0 else 0.0


def yaw(points: np.ndarray) -> float:
    """How far a face is turned to a side: the nose's way from the middle of the eyes, in distances of eyes and mouth.

    Measured along the face's own horizontal, so that a tilted head does not count as turned. 0 for a frontal face,
    positive where it looks to the right of the picture.

    Args:
        points: The landmarks, (5, 2).

    Returns:
        About the tangent of the angle, in units of the face's height between eyes and mouth.
    """
    angle = roll(points)
    eyes, mouth = points[:2].mean(axis=0), points[3:5].mean(axis=0)
    along = np.array([math.cos(angle), math.sin(angle)])
    middle = eyes + (mouth - eyes) / 2
    height = max(float(np.linalg.norm(mouth - eyes)), 1e-6)
    return float((points[2] - middle) @ along / height)


def cut_upright(
    image: Image.Image | np.ndarray, where: tuple[float, float, float], size: int, angle: float
) -> np.ndarray:
    """Cuts the square (left, top, side), turned about its centre by `angle`, so that the face stands upright.

    Args:
        image: Upright RGB: Pillow's image, or uint8 (h, w, 3).
        where: The square as if the face were not turned, in pixels; see `images.square`.
        size: Side of the result in pixels.
        angle: Of the face, in radians clockwise; see `roll`.

    Returns:
        uint8 (size, size, 3), antialiased; what lies beyond the image repeats its edge.

    Raises:
        ImageError: The square lies outside of the image.
    """
    if abs(angle) < UPRIGHT:
        return cut(image, where, size)
    left, top, side = where
    # First the upright square around the turned one, antialiased at the result's own scale, then the turn.
    grow = abs(math.cos(angle)) + abs(math.sin(angle))
    around = max(size, round(size * grow))
    ratio = around / size
    outer = left - (ratio - 1) / 2 * side, top - (ratio - 1) / 2 * side, side * ratio
    patch = Image.fromarray(cut(image, outer, around))
    cos, sin, middle, centre = math.cos(angle), math.sin(angle), around / 2, size / 2
    turn = (cos, -sin, middle - centre * (cos - sin), sin, cos, middle - centre * (sin + cos))
    return np.asarray(patch.transform((size, size), Image.Transform.AFFINE, turn, Image.Resampling.BICUBIC))


def load_upright(
    source: images.Source, size: int, box: images.Box | None = None, margin: float = 0.0, angle: float = 0.0
) -> np.ndarray:
    """Decodes one face as the square that a network sees, turned upright.

    Args:
        source: A path, the bytes of an image file, or an image that is decoded already.
        size: Side of the square in pixels.
        box: The face in the upright image; None: the image is the face.
        margin: See `images.square`.
        angle: Of the face, in radians clockwise; see `roll`.

    Returns:
        uint8, (size, size, 3), upright RGB.

    Raises:
        ImageError: As `images.load`.
    """
    if abs(angle) < UPRIGHT:
        return images.load_face(source, size, box, margin)
    share = 1.0 if box is None else min(1.0, size / (max(box[2:]) * (1 + margin)))
    picture = images.load_reduced(source, lambda longer: longer * share)
    left, top, side = images.square(picture.width, picture.height, box, margin)
    scale = picture.scale
    return cut_upright(picture.image, (left * scale, top * scale, side * scale), size, angle)
