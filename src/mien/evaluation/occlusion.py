"""Which regions of a face speak for an answer: parts are covered, and the answer is asked again.

Occlusion after Zeiler and Fergus ("Visualizing and Understanding Convolutional Networks", 2014), on any model file of
mien's, without torch. What covers is the face itself, blurred until nothing can be told from it: flat grey would be an
edge that no photograph has. A map is judged by the deletion and insertion curves of Petsiuk, Das and Saenko ("RISE",
2018), against maps by chance.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from mien.base.errors import MienError

if TYPE_CHECKING:
    from mien.prediction.predict import Predictor

CELLS = 16
"""A map has so many cells a side."""

_WINDOW = 0.25  # side of what is covered at once, in shares of the face's
_PLACES = 13  # of the window along a side
_BLUR = 0.12  # standard deviation of what covers, in shares of the side
_STEPS = 16  # of the curves
_CHANCE = 8  # maps by chance that a map is judged against
_EDGE = 1e-4  # certainties are taken as if within this of 0 and 1


class Curves(NamedTuple):
    """How a task's answer changes while the cells of a map are covered, or uncovered, the most important first.

    `deletion` and `insertion` (17,): the change of the answer from that for the whole face, at 0, 1/16, ... 1 of the
    cells. A good map makes it large soon when covering, and small soon when uncovering, so `gain` is positive: the area
    between the curves, over that between the curves of maps by chance, which is 0 on average.
    """

    deletion: np.ndarray
    insertion: np.ndarray
    gain: float


def occlusion(predictor: "Predictor", face: np.ndarray) -> dict[str, np.ndarray]:
    """The maps (16, 16) of a face, from its upper left, for each of gender and age that the model predicts.

    Args:
        predictor: The model.
        face: As the network sees it, uint8 (size, size, 3).

    Returns:
        `gender`: by how much (log odds) a region speaks for the likelier gender. `age`: by how many years it makes the
        face look older.
    """
    answers = _answers(predictor, face[None])
    size = len(face)
    side = round(_WINDOW * size)
    starts = np.linspace(0, size - side, _PLACES).round().astype(int)
    cover = covered(face)
    windows, spots = [], []
    for top in starts:
        for left in starts:
            image = face.copy()
            image[top : top + side, left : left + side] = cover[top : top + side, left : left + side]
            windows.append(image)
            spots.append((top, left))
    changed = _answers(predictor, np.stack(windows))
    maps = {}
    for task, whole in answers.items():
        change = whole[0] - changed[task]
        if task == "gender" and whole[0] < 0:
            change = -change
        total, times = np.zeros((size, size)), np.zeros((size, size))
        for (top, left), value in zip(spots, change, strict=True):
            total[top : top + side, left : left + side] += value
            times[top : top + side, left : left + side] += 1
        maps[task] = pooled(total / times)
    return maps


def check(predictor: "Predictor", face: np.ndarray, maps: dict[str, np.ndarray], seed: int = 0) -> dict[str, Curves]:
    """The deletion and insertion curves of maps, in the units of `occlusion`, with what they gain over chance.

    Args:
        predictor: The model.
        face: As the network sees it, uint8 (size, size, 3).
        maps: (16, 16) for gender, age or both, of that face.
        seed: Of the maps by chance.
    """
    chance = np.random.default_rng(seed).random((_CHANCE, CELLS, CELLS))
    found = {}
    for task, grid in maps.items():
        if grid.shape != (CELLS, CELLS):
            raise MienError(f"map of {task}: shape {grid.shape}; valid: {(CELLS, CELLS)}")
        importance = grid if task == "gender" else np.abs(grid)
        deletion, insertion = _curves(predictor, face, task, importance)
        by_chance = [_area(*_curves(predictor, face, task, one)) for one in chance]
        found[task] = Curves(deletion, insertion, _area(deletion, insertion) - float(np.mean(by_chance)))
    return found


def overlay(face: np.ndarray, grid: np.ndarray, scale: float | None = None) -> Image.Image:
    """The face in grey with a map over it: orange for positive values, blue for negative ones.

    `scale` is the value that is fully coloured; None: the largest of this map.
    """
    size = face.shape[1], face.shape[0]
    strength = np.clip(grid / (scale or np.abs(grid).max() or 1.0), -1, 1)
    smooth = np.asarray(Image.fromarray(strength.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
    grey = np.asarray(Image.fromarray(face).convert("L").convert("RGB"), dtype=float)
    colour = np.where(smooth[..., None] > 0, np.array(_ORANGE, float), np.array(_BLUE, float))
    opacity = 0.75 * np.abs(smooth).clip(0, 1)[..., None]
    return Image.fromarray((grey * (1 - opacity) + colour * opacity).round().astype(np.uint8))


_ORANGE, _BLUE = (230, 120, 0), (0, 110, 200)


def covered(face: np.ndarray) -> np.ndarray:
    """The face without its details, uint8 like it."""
    return np.asarray(Image.fromarray(face).filter(ImageFilter.GaussianBlur(_BLUR * len(face))))


def _answers(predictor: "Predictor", faces: np.ndarray) -> dict[str, np.ndarray]:
    """Log odds of female, and years, of faces (n, size, size, 3)."""
    parts = [predictor.predict_pixels(faces[start : start + 64]) for start in range(0, len(faces), 64)]
    found = {}
    if "p_female" in parts[0]:
        p = np.concatenate([part["p_female"] for part in parts]).astype(float).clip(_EDGE, 1 - _EDGE)
        found["gender"] = np.log(p / (1 - p))
    if "age" in parts[0]:
        found["age"] = np.concatenate([part["age"] for part in parts]).astype(float)
    if not found:
        raise MienError(f"model {predictor.name!r} predicts neither gender nor age; these are explained")
    return found


def pooled(values: np.ndarray) -> np.ndarray:
    """Values (size, size) as the mean in each of the (16, 16) cells."""
    return np.asarray(
        Image.fromarray(values.astype(np.float32)).resize((CELLS, CELLS), Image.Resampling.BOX), dtype=float
    )


def _curves(
    predictor: "Predictor", face: np.ndarray, task: str, importance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The change of the answer while cells are covered, and uncovered."""
    order = np.argsort(-importance, axis=None, kind="stable")
    cover = covered(face)
    edges = np.linspace(0, len(face), CELLS + 1).round().astype(int)
    rank = np.empty(CELLS * CELLS, int)
    rank[order] = np.arange(CELLS * CELLS)
    cell = np.searchsorted(edges, np.arange(len(face)), side="right") - 1
    ranks = rank.reshape(CELLS, CELLS)[cell[:, None], cell[None, :]]
    steps = np.linspace(0, CELLS * CELLS, _STEPS + 1).round()
    first = [ranks[..., None] < step for step in steps]
    images = [np.where(gone, cover, face) for gone in first] + [np.where(kept, face, cover) for kept in first]
    values = _answers(predictor, np.stack(images))[task]
    change = np.abs(values - values[0])
    return change[: _STEPS + 1], change[_STEPS + 1 :]


def _area(deletion: np.ndarray, insertion: np.ndarray) -> float:
    return float(np.trapezoid(deletion - insertion, dx=1 / _STEPS))
