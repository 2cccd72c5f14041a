"""mien's own face detector: a small network with three output maps, in an ONNX file that states how it is to be read.

A row of 14 numbers stands for a face all through this module: the centre (x, y) and the side of its square, the score,
and five landmarks (x, y).

How it was made: `training/detector`; what it learnt from and how well it does: docs/detection.md.
"""

import json
import math
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mien.base.errors import MienError, shortened
from mien.prediction.onnx_graph import GraphError
from mien.prediction.onnx_session import limited_session
from mien.prediction.second_look import PatchSource, SecondLook, best_rows, brightening_table

FILE = "mien-face-1.onnx"
"""The detector that ships with the package, in `weights/`."""

SMALLEST = 1 / 30
"""Without `min_face`, faces are found from this share of the longer side on."""

_KEY = "mien-detector"
_TILE = 640  # pixels of a side of what the network sees at once, at most
_SHARED = 128  # pixels that neighbouring tiles have in common; larger faces are found in a smaller picture
_AS_IT_IS = 1.25  # a picture that is larger by this factor at most is not made smaller: that would take as long
_ENLARGED = 2.0  # pictures are enlarged at most so much
_CANDIDATES = 5000  # of the cells that answer, the best
_SMALLEST = 10.0  # pixels of a side of the smallest face, unless smaller ones are asked for: none can be judged
_AT_ONCE = 32  # candidates that the network sees in one run: memory does not grow with their number
_SAME = 0.4  # squares with more in common (intersection over union) are one face


def is_own(path: Path) -> bool:
    """Whether an ONNX file is a detector that mien's training wrote; False for what is no ONNX file."""
    try:
        return _KEY in open_session(path).get_modelmeta().custom_metadata_map
    except MienError:
        return False


class Faces(NamedTuple):
    """Faces, best first, in pixels.

    Squares (n, 3) are centre and side; scores (n,) 0 to 1; points (n, 5, 2) the eyes, the nose, the mouth's corners.
    """

    squares: np.ndarray
    scores: np.ndarray
    points: np.ndarray


class _View(NamedTuple):
    """A part of a picture at a scale: its corner in pixels of the scaled picture, and whether it is the whole."""

    scale: float
    left: int
    top: int
    width: int
    height: int
    whole: bool


class FaceNetwork:
    """The network and what its file says of it; safe to use from several threads.

    Args:
        file: An ONNX file written by `training/detector`; None: the one that ships with mien.
        min_face: Side in pixels of the smallest face that is looked for; None: a 30th of the longer side, at least 10.

    Raises:
        MienError: The file is missing, damaged, or not of this kind.
    """

    def __init__(self, file: Path | None = None, min_face: float | None = None) -> None:
        path = file or Path(str(resources.files("mien") / "weights" / FILE))
        self._session = open_session(path)
        about = _metadata(self._session, path)
        self._strides: list[int] = about["strides"]
        self._sizes: list[float] = about["sizes"]
        self.side: int = about["side"]
        self.score: float = about["score"]
        self._least: float = about.get("candidates", self.score)
        self._looks: list[float] = sorted(about.get("looks", []))
        self._min_face = min_face
        self._smallest = _SMALLEST if min_face is None else min(_SMALLEST, min_face * 0.75)

    def find(self, picture: Image.Image) -> Faces:
        """The faces of an upright RGB picture, in its pixels.

        First the network sees the whole picture, then each candidate on its own (see `second_look.py`).
        """
        whole, *tiles = self._views(*picture.size)
        small = _part(picture, whole)
        pixels = np.asarray(small)
        table = brightening_table(pixels)
        rows = [self._look(pixels, whole, picture.size, table)]
        rows += [self._look(np.asarray(_part(picture, tile)), tile, picture.size, table) for tile in tiles]
        candidates = _distinct(np.concatenate(rows))
        if self._looks and len(candidates):
            source = PatchSource(picture, small, whole.scale, table)
            candidates = _distinct(self._confirmed(candidates, source))
        return _faces(candidates)

    def _confirmed(self, candidates: np.ndarray, source: PatchSource) -> np.ndarray:
        """Rows (k, 14) of those candidates, rows (n, 14), that are faces.

        The score is the mean of the second looks, where one that finds nothing counts as 0; the place is that of the
        closest one. A candidate that can no longer reach the score is not looked at again.
        """
        least = self.score * len(self._looks)
        second = [SecondLook.at(row) for row in candidates]
        for done, share in enumerate(self._looks):
            still = [one for one in second if one.total + len(self._looks) - done >= least]
            for start in range(0, len(still), _AT_ONCE):
                batch = still[start : start + _AT_ONCE]
                patches = source.patches(batch, share)
                number, rows = self._decode(self._session.run(None, {"images": patches}))
                for one, row in zip(batch, best_rows(number, rows, len(batch), share), strict=True):
                    one.add(row, share)
        found = [one.face(len(self._looks)) for one in second if one.rows and one.total >= least]
        return np.array(found).reshape(-1, 14)

    def wants(self, longer: int) -> float:
        """How many pixels of the longer side of a picture, which has so many, are of use."""
        return self.side if self._min_face is None else longer

    def _views(self, width: int, height: int) -> Iterator[_View]:
        """The whole picture, then, where smaller faces are asked for, tiles at twice the scale, and so on."""
        longer = max(width, height)
        scale = min(_ENLARGED, self.side / longer)
        if 1 / _AS_IT_IS <= scale < 1:
            scale = 1.0
        yield _View(scale, 0, 0, *_scaled(width, height, scale), True)
        if self._min_face is None:
            return
        finest = min(_ENLARGED, self.side * SMALLEST / self._min_face)
        while scale < finest:
            scale = min(2 * scale, finest)
            wide, high = _scaled(width, height, scale)
            for top, bottom in _tiles(high):
                for left, right in _tiles(wide):
                    whole = (right - left, bottom - top) == (wide, high)
                    yield _View(scale, left, top, right - left, bottom - top, whole)

    def _look(self, pixels: np.ndarray, view: _View, size: tuple[int, int], table: np.ndarray | None) -> np.ndarray:
        """Rows (n, 14) of one view in pixels of the picture of that size: centre, side, score, points."""
        canvas = np.zeros((1, -(-view.height // 32) * 32, -(-view.width // 32) * 32, 3), np.uint8)
        canvas[0, : view.height, : view.width] = pixels if table is None else table[pixels]
        _, rows = self._decode(self._session.run(None, {"images": canvas}))
        if not view.whole:
            rows = rows[_in_tile(rows, view, *_scaled(*size, view.scale))]
        rows[:, [0, *range(4, 14, 2)]] += view.left
        rows[:, [1, *range(5, 14, 2)]] += view.top
        rows[:, [0, 1, 2, *range(4, 14)]] /= view.scale
        return rows[rows[:, 2] >= self._smallest]

    def _decode(self, maps: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Of all cells that are sure enough: the numbers of their images (m,), and rows (m, 14) in pixels of these."""
        parts, numbers = [np.empty((0, 14))], [np.empty(0, np.intp)]
        for one, stride, size in zip(maps, self._strides, self._sizes, strict=True):
            of, y, x = np.nonzero(one[:, 0] >= self._least)
            if not len(x):
                continue
            values = one[of, :, y, x]
            cells = stride * (np.stack([x, y], axis=1) + 0.5)
            rows = np.empty((len(values), 14))
            rows[:, :2] = cells + stride * values[:, 1:3]
            rows[:, 2] = size * np.exp(np.clip(values[:, 3], -4, 4))
            rows[:, 3] = values[:, 0]
            rows[:, 4:] = np.tile(cells, 5) + size / 2 * values[:, 4:]
            parts.append(rows)
            numbers.append(of)
        return np.concatenate(numbers), np.concatenate(parts)


def _part(picture: Image.Image, view: _View) -> Image.Image:
    """The pixels of a view."""
    right = min((view.left + view.width) / view.scale, picture.width)
    bottom = min((view.top + view.height) / view.scale, picture.height)
    edges = (view.left / view.scale, view.top / view.scale, right, bottom)
    return picture.resize((view.width, view.height), Image.Resampling.BILINEAR, edges, reducing_gap=2.0)


def _scaled(width: int, height: int, scale: float) -> tuple[int, int]:
    return max(1, round(width * scale)), max(1, round(height * scale))


def _tiles(length: int) -> list[tuple[int, int]]:
    """Begin and end of the tiles along a side, evenly spread, neighbours sharing at least `_SHARED` pixels."""
    if length <= _TILE:
        return [(0, length)]
    count = math.ceil((length - _SHARED) / (_TILE - _SHARED))
    begins = [round(index * (length - _TILE) / (count - 1)) for index in range(count)]
    return [(begin, begin + _TILE) for begin in begins]


def _in_tile(rows: np.ndarray, view: _View, width: int, height: int) -> np.ndarray:
    """Which faces of a tile lie wholly in it: others are seen by its neighbour, or are large and were seen before."""
    half = rows[:, 2] / 2
    fits = rows[:, 2] < _SHARED
    fits &= (rows[:, 0] >= half) | (view.left == 0)
    fits &= (rows[:, 1] >= half) | (view.top == 0)
    fits &= (rows[:, 0] + half <= view.width) | (view.left + view.width >= width)
    fits &= (rows[:, 1] + half <= view.height) | (view.top + view.height >= height)
    return fits


def _distinct(rows: np.ndarray) -> np.ndarray:
    """The rows, best first, without those that lie on a better one."""
    rows = rows[np.argsort(-rows[:, 3], kind="stable")[:_CANDIDATES]]
    low, high = rows[:, :2] - rows[:, 2:3] / 2, rows[:, :2] + rows[:, 2:3] / 2
    area = rows[:, 2] ** 2
    free = np.ones(len(rows), bool)
    kept = []
    for index in range(len(rows)):
        if free[index]:
            kept.append(index)
            shared = np.clip(np.minimum(high[index], high) - np.maximum(low[index], low), 0, None).prod(axis=1)
            free &= shared <= _SAME * (area[index] + area - shared)
    return rows[kept]


def _faces(rows: np.ndarray) -> Faces:
    return Faces(rows[:, :3], rows[:, 3], rows[:, 4:].reshape(-1, 5, 2))


def open_session(path: Path) -> Any:
    """An ONNX session of a detector, of one thread.

    Raises:
        MienError: The file is missing or damaged, or its network is refused; see `onnx_graph.check_graph`.
    """
    if not path.is_file():
        raise MienError(f"detector file {str(path)!r}: there is no such file")
    try:
        return limited_session(path, threads=1)  # photographs go side by side
    except GraphError as error:
        raise MienError(f"detector file {str(path)!r}: {error}") from None
    except Exception as error:  # the runtime's classes share no base
        raise MienError(f"detector file {str(path)!r} is damaged: {shortened(str(error))}") from error


def _metadata(session: Any, path: Path) -> dict[str, Any]:
    """The entry of a file that `training/detector/export.py` wrote."""
    text = session.get_modelmeta().custom_metadata_map.get(_KEY)
    if text is None:
        raise MienError(f"detector file {str(path)!r} is not mien's: its metadata has no entry {_KEY!r}")
    try:
        about = json.loads(text)
        if [(entry.name, entry.type) for entry in session.get_inputs()] != [("images", "tensor(uint8)")]:
            raise ValueError("the input is not images, uint8 (n, height, width, 3)")
        sides = len(about["strides"]) == len(about["sizes"]) == len(session.get_outputs())
        looks = about.get("looks", [])
        if not all(1 <= share <= 4 for share in looks) or not 0 < about.get("candidates", about["score"]) < 1:
            raise ValueError("looks or candidates out of range")
        if not (sides and 32 <= about["side"] <= 4096 and 0 < about["score"] < 1):
            raise ValueError("values out of range")
    except (ValueError, KeyError, TypeError) as error:
        raise MienError(f"detector file {str(path)!r}: its metadata entry {_KEY!r} is damaged: {error!r}") from None
    return dict(about)
