"""What is wrong with the picture of a face, or with the answer: notes that go with a prediction."""

from collections.abc import Mapping

import numpy as np
from PIL import Image

from mien.base.labels import AGE_GROUPS
from mien.data.images import Box

SMALL = 40.0
"""A face whose box has a shorter side than this, in pixels, is small."""

BEYOND = 0.1
"""A face of which a larger share of the box lies beyond the image is cut off."""

SHARPNESS = 8.0
"""A face whose Laplacian has less variance than this, in a picture of 128 pixels, is blurred.

Chosen on 500 validation faces of UTKFace: below it lie 0.2% as they are, 5% after a Gaussian blur of 1% of the
side, which costs no accuracy, and 96% after one of 2% (docs/detection.md).
"""

UNIFORM = 4.0
"""A face whose grey values have less standard deviation than this, of 255, is a picture of one colour: no face."""

SECOND_PEAK = 0.05
"""An answer is unusual if its second peak over the age groups has so much probability, and half of it or less lies in
one group between the peaks. Over the groups' years, a distribution with a single peak has no such valley, except one
that is spread widely over the old."""

UNUSUAL = "unusual"

_SIDE = 128


def notes(face: np.ndarray, box: Box | None, width: float, height: float, turned: bool) -> str:
    """Words for what is wrong, joined by "; ", or nothing.

    Args:
        face: As the network sees it, uint8 (size, size, 3).
        box: In the image; None: the image is the face.
        width: Of the image, in its own pixels.
        height: The same.
        turned: Whether the detector says that the face looks to a side.
    """
    _, _, w, h = box if box is not None else (0, 0, width, height)
    uniform = float(np.std(face.mean(axis=2))) < UNIFORM
    found = {
        "one colour": uniform,
        "small": min(w, h) < SMALL,
        "blurred": not uniform and sharpness(face) < SHARPNESS,
        "cut off": box is not None and _beyond(box, width, height) > BEYOND,
        "turned away": turned,
    }
    return "; ".join(word for word, true in found.items() if true)


def unusual(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which answers (n,) have two separate peaks of age (see `SECOND_PEAK`).

    Args:
        columns: The outputs of a model, each (n,); without probabilities of age groups, no answer is unusual.
    """
    names = [f"p_{group}" for group in AGE_GROUPS]
    if not set(names) <= set(columns):
        return np.zeros(len(next(iter(columns.values()))), dtype=bool)
    groups = np.stack([columns[name] for name in names])
    younger = np.maximum.accumulate(groups)[:-2]
    older = np.maximum.accumulate(groups[::-1])[::-1][2:]
    second = np.minimum(younger, older)
    two = (second >= SECOND_PEAK) & (groups[1:-1] <= second / 2)
    return np.any(two, axis=0, keepdims=False)


def with_note(quality: str, note: str) -> str:
    """The notes of a face and one more."""
    return f"{quality}; {note}" if quality else note


def sharpness(face: np.ndarray) -> float:
    """The variance of the Laplacian of a face, uint8 (size, size, 3), in grey and at a fixed size."""
    grey = Image.fromarray(face).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    values = np.asarray(grey, dtype=np.float32)
    inner = values[1:-1, 1:-1]
    around = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:]
    return float((around - 4 * inner).var())


def _beyond(box: Box, width: float, height: float) -> float:
    x, y, w, h = box
    inside = max(0.0, min(x + w, width) - max(x, 0.0)) * max(0.0, min(y + h, height) - max(y, 0.0))
    return 1 - inside / (w * h)
