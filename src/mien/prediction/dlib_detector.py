"""dlib's detector of histograms of oriented gradients: upright frontal faces. Of the extra `dlib`."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mien.base.errors import MissingExtra
from mien.data.images import cut
from mien.prediction.faces import DetectedFace, Picture, as_image, distinct

_AROUND = 1.8  # sides of a face that are looked at again


class Dlib:
    """dlib's detector: histograms of oriented gradients in a sliding window of 80 pixels (King, 2015).

    It sees steps of a tenth of a face and of a fifth in size. So each face that it may have found is looked at again,
    at `LOOKS` sizes within one step: the mean of these boxes is finer than any, and what is found by chance is not
    found again. `score` is the mean over these looks, about 0 to 3.

    An image is looked at in at most `PIXELS` pixels, enlarged twice at most: the smallest face that can be found is
    40 pixels wide, or 1/41 of the longer side of a photograph of 4 to 3 if that is more.
    """

    PIXELS = 8_000_000
    LOOKS = 4
    SMALLEST = 80
    STEP = 1.2
    WEAK = -0.2
    SCORE = 0.4

    def __init__(self) -> None:
        if find_spec("dlib") is None and find_spec("_dlib_pybind11") is None:
            raise MissingExtra("the detector 'dlib'", "dlib")
        self._spare: list[Any] = []

    def __call__(self, picture: Picture) -> list[DetectedFace]:
        """See `faces.Detector`."""
        image = np.asarray(as_image(picture))
        scaled, scale = _fitted(image, self.PIXELS, 2.0)
        # dlib lets other threads run while it searches, and a search writes into its detector: one for each.
        with _lent(self._spare, _load_dlib) as hog:
            candidates = [_moved(seen, 1 / scale) for seen in _search(hog, scaled, self.WEAK)]
            found = [self._look_again(hog, image, seen) for seen in candidates]
        return distinct([face for face in found if face.score >= self.SCORE])

    def wants(self, longer: int) -> float:
        """See `faces.Detector`."""
        return longer

    def _look_again(self, hog: Any, image: np.ndarray, first: "_Seen") -> DetectedFace:
        side = _AROUND * first.side
        left, top = first.x - side / 2, first.y - side / 2
        smallest = 1.05 * _AROUND * self.SMALLEST
        window = Image.fromarray(_patch(image, (left, top, side), round(smallest * self.STEP)))
        seen = []
        for look in range(self.LOOKS):
            size = round(smallest * self.STEP ** (look / self.LOOKS))
            pixels = np.asarray(window.resize((size, size), Image.Resampling.BILINEAR))
            near = [one for one in _search(hog, pixels, self.WEAK) if _in_the_middle(one, size)]
            if near:
                best = max(near, key=lambda one: one.score)
                seen.append(_moved(best, side / size, left, top))
        score = (sum(one.score for one in seen) + (self.LOOKS - len(seen)) * self.WEAK) / self.LOOKS
        placed = [(one.x, one.y, math.log(one.side), one.turned) for one in seen or [first]]
        x, y, log_side, turned = np.mean(placed, axis=0)
        half = math.exp(log_side) / 2
        return DetectedFace((float(x - half), float(y - half), 2 * half, 2 * half), score, bool(turned > 0.5))


class _Seen(NamedTuple):
    """A square in the convention, by its centre."""

    x: float
    y: float
    side: float
    score: float
    turned: bool


# dlib's detector is five, of which those for faces to the left and to the right draw another square than the one for
# frontal faces: (right, down, size) bring it to that, in shares of its side; medians of faces that both of them find.
_PARTS = {1: (0.028, 0.047, 0.93), 2: (0.006, 0.044, 0.91)}


def _search(hog: Any, pixels: np.ndarray, least: float) -> list[_Seen]:
    seen = []
    for rect, score, part in zip(*hog.run(pixels, 0, least), strict=True):
        right, down, size = _PARTS.get(part, (0.0, 0.0, 1.0))
        side = rect.width()
        x, y = rect.left() + side / 2 + right * side, rect.top() + side / 2 + down * side
        seen.append(_Seen(x, y, side * size, score, part in _PARTS))
    return seen


def _moved(seen: _Seen, scale: float, left: float = 0.0, top: float = 0.0) -> _Seen:
    return seen._replace(x=seen.x * scale + left, y=seen.y * scale + top, side=seen.side * scale)


def _in_the_middle(seen: _Seen, size: int) -> bool:
    side, middle = size / _AROUND, size / 2
    return max(abs(seen.x - middle), abs(seen.y - middle)) < 0.35 * side and 0.6 < seen.side / side < 1.67


def _patch(image: np.ndarray, where: tuple[float, float, float], size: int) -> np.ndarray:
    """`images.cut`, which takes the whole image in hand, of no more than the pixels around."""
    left, top, side = where
    x, y = (max(0, math.floor(edge)) for edge in (left, top))
    part = image[y : math.ceil(top + side) + 1, x : math.ceil(left + side) + 1]
    return cut(part, (left - x, top - y, side), size)


def _load_dlib() -> Any:
    import dlib

    return dlib.get_frontal_face_detector()


@contextmanager
def _lent(spare: list[Any], make: Callable[[], Any]) -> Iterator[Any]:
    """One of the spare things, or a new one, for one thread at a time; threads come and go, the things stay."""
    try:
        thing = spare.pop()
    except IndexError:
        thing = make()
    try:
        yield thing
    finally:
        spare.append(thing)


def _fitted(image: np.ndarray, most: int, enlarge: float) -> tuple[np.ndarray, float]:
    """The image in at most `most` pixels, enlarged at most so much, and its scale."""
    height, width = image.shape[:2]
    scale = min(enlarge, math.sqrt(most / (height * width)))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)), scale
