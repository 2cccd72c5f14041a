"""Detectors from ONNX files that users bring: YuNet and SCRFD, told apart by their outputs. Runs without OpenCV.

YuNet: Wu, Peng and Yu, "YuNet: A Tiny Millisecond-level Face Detector", 2023, the file of March 2023 (OpenCV's model
zoo, MIT). SCRFD: Guo et al., "Sample and Computation Redistribution for Efficient Face Detection", 2021, a file with
landmarks (of InsightFace, whose files are for non-commercial research).
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mien.base.errors import MienError
from mien.prediction.face_network import open_session

STRIDES = (8, 16, 32)

LARGEST = 4096
"""Pixels of a side of what such a network sees, at most: a file from elsewhere does not decide over memory."""


class Raw(NamedTuple):
    """Faces as a network gives them, in pixels: boxes (n, 4) as x, y, w, h, scores (n,), points (n, 5, 2)."""

    boxes: np.ndarray
    scores: np.ndarray
    points: np.ndarray


class DetectorFile:
    """A YuNet or SCRFD network; safe to use from several threads.

    Pictures are scaled so that the longer side has 640 pixels, or to the size that the file states.

    Args:
        path: The ONNX file.

    Raises:
        MienError: It is missing, damaged, or of no known kind.
    """

    SIDE = 640
    SCORE = 0.5

    def __init__(self, path: Path) -> None:
        self._session = open_session(path)
        self._input = self._session.get_inputs()[0]
        self._decode = _kind(self._session, path)
        sides = [side for side in self._input.shape[2:4] if isinstance(side, int)]
        if any(not 32 <= side <= LARGEST for side in sides):
            raise MienError(
                f"detector file {str(path)!r}: its input is {self._input.shape}; valid: 32 to {LARGEST} a side"
            )

    def find(self, picture: Image.Image) -> Raw:
        """The faces of an upright RGB picture, in its pixels, with duplicates."""
        height, width = (edge if isinstance(edge, int) else 0 for edge in self._input.shape[2:4])
        scale = min((width or self.SIDE) / picture.width, (height or self.SIDE) / picture.height)
        size = max(1, int(picture.width * scale)), max(1, int(picture.height * scale))
        canvas = np.zeros((height or -(-size[1] // 32) * 32, width or -(-size[0] // 32) * 32, 3), np.uint8)
        canvas[: size[1], : size[0]] = np.asarray(picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
        raw = self._decode(self._session, canvas, self.SCORE)
        return Raw(raw.boxes / scale, raw.scores, raw.points / scale)


def _kind(session: Any, path: Path) -> Callable[[Any, np.ndarray, float], Raw]:
    names = [output.name for output in session.get_outputs()]
    if {f"{part}_{stride}" for part in ("cls", "obj", "bbox", "kps") for stride in STRIDES} <= set(names):
        return yunet
    widths = [output.shape[-1] for output in session.get_outputs()]
    if widths == [1, 1, 1, 4, 4, 4, 10, 10, 10]:
        return scrfd
    raise MienError(
        f"detector file {str(path)!r} is of no known kind: its outputs are {', '.join(names[:12])}; valid: a "
        "detector of mien's, YuNet (2023), or SCRFD with landmarks"
    )


def yunet(session: Any, canvas: np.ndarray, least: float) -> Raw:
    """Faces that YuNet finds in uint8 RGB pixels (h, w, 3), as OpenCV's FaceDetectorYN decodes them."""
    pixels = canvas[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32)
    names = [f"{part}_{stride}" for stride in STRIDES for part in ("cls", "obj", "bbox", "kps")]
    values = session.run(names, {session.get_inputs()[0].name: pixels})
    parts = []
    for index, stride in enumerate(STRIDES):
        classes, objects, boxes, marks = (value.reshape(-1, value.shape[-1]) for value in values[4 * index :][:4])
        score = np.sqrt(np.clip(classes[:, 0], 0, 1) * np.clip(objects[:, 0], 0, 1))
        at = np.flatnonzero(score >= least)
        cells = _cells(canvas, stride, 1)[at]
        centre = (cells + boxes[at, :2]) * stride
        size = np.exp(boxes[at, 2:4]) * stride
        points = (cells[:, None] + marks[at].reshape(-1, 5, 2)) * stride
        parts.append((np.concatenate([centre - size / 2, size], axis=1), score[at], points))
    return Raw(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def scrfd(session: Any, canvas: np.ndarray, least: float) -> Raw:
    """Faces that SCRFD finds in uint8 RGB pixels (h, w, 3), as InsightFace decodes them: two anchors a cell."""
    pixels = ((canvas.astype(np.float32) - 127.5) / 128).transpose(2, 0, 1)[None]
    values = session.run(None, {session.get_inputs()[0].name: pixels})
    parts = []
    for index, stride in enumerate(STRIDES):
        scores, boxes, marks = (value.reshape(-1, value.shape[-1]) for value in values[index::3])
        at = np.flatnonzero(scores[:, 0] >= least)
        cells = _cells(canvas, stride, 2)[at]
        low, high = (cells - boxes[at, :2]) * stride, (cells + boxes[at, 2:4]) * stride
        points = (cells[:, None] + marks[at].reshape(-1, 5, 2)) * stride
        parts.append((np.concatenate([low, high - low], axis=1), scores[at, 0], points))
    return Raw(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _cells(canvas: np.ndarray, stride: int, anchors: int) -> np.ndarray:
    """(column, row) of each output, row by row, each cell repeated for its anchors."""
    rows, columns = (math.ceil(side / stride) for side in canvas.shape[:2])
    y, x = np.divmod(np.repeat(np.arange(rows * columns), anchors), columns)
    return np.stack([x, y], axis=1).astype(float)
