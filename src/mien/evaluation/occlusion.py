"""Occlusion maps: the regions of a face that a prediction depends on.

Occlusion after Zeiler and Fergus ("Visualizing and Understanding Convolutional Networks", 2014), for any
model file of mien, without torch. Regions are replaced by a strongly blurred copy of the face, since flat grey would
add edges that photographs do not have. Maps are evaluated by the deletion and insertion curves of Petsiuk, Das and
Saenko ("RISE", 2018), compared with random maps.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from mien.base.errors import MienError

if TYPE_CHECKING:
    from mien.prediction.predict import Predictor

MAP_SIZE = 16
"""Number of cells along each side of a map."""

_WINDOW = 0.25  # side of the occluding window, as a share of the face's side
_PLACES = 13  # positions of the window along a side
_BLUR = 0.12  # standard deviation of the blur, as a share of the side
_STEPS = 16  # steps of the curves
_RANDOM_MAPS = 8  # random maps that a map is compared with
_EDGE = 1e-4  # probabilities are clipped to this distance from 0 and 1


class PerturbationCurves(NamedTuple):
    """The change of a prediction while the cells of a map are occluded, or revealed, the most important first.

    `deletion` and `insertion` (17,) are the changes relative to the whole face at 0, 1/16, ... 1 of the cells. With a
    good map the change grows quickly during deletion and shrinks quickly during insertion. `gain` is the area between
    the two curves minus that of random maps; it is 0 on average for a random map.
    """

    deletion: np.ndarray
    insertion: np.ndarray
    gain: float


def occlusion(predictor: "Predictor", face: np.ndarray) -> dict[str, np.ndarray]:
    """Computes the occlusion maps (16, 16) of a face for gender and age, as far as the model predicts them.

    Args:
        predictor: The model.
        face: The input of the network, uint8 (size, size, 3).

    Returns:
        `gender`: the contribution of each region to the more probable gender, in log odds. `age`: the contribution to
        the age, in years.

    Raises:
        MienError: The model predicts neither gender nor age.
    """
    predictions = _predict(predictor, face[None])
    size = len(face)
    side = round(_WINDOW * size)
    starts = np.linspace(0, size - side, _PLACES).round().astype(int)
    cover = blur_details(face)
    windows, spots = [], []
    for top in starts:
        for left in starts:
            image = face.copy()
            image[top : top + side, left : left + side] = cover[top : top + side, left : left + side]
            windows.append(image)
            spots.append((top, left))
    changed = _predict(predictor, np.stack(windows))
    maps = {}
    for task, whole in predictions.items():
        change = whole[0] - changed[task]
        if task == "gender" and whole[0] < 0:
            change = -change
        total, times = np.zeros((size, size)), np.zeros((size, size))
        for (top, left), value in zip(spots, change, strict=True):
            total[top : top + side, left : left + side] += value
            times[top : top + side, left : left + side] += 1
        maps[task] = pool_map(total / times)
    return maps


def check_maps(
    predictor: "Predictor", face: np.ndarray, maps: dict[str, np.ndarray], seed: int = 0
) -> dict[str, PerturbationCurves]:
    """Evaluates maps by deletion and insertion curves, in the units of `occlusion`, and their gain over random maps.

    Args:
        predictor: The model.
        face: The input of the network, uint8 (size, size, 3).
        maps: The maps (16, 16) of this face, by task: gender, age or both.
        seed: Seed of the random maps.
    """
    random_maps = np.random.default_rng(seed).random((_RANDOM_MAPS, MAP_SIZE, MAP_SIZE))
    found = {}
    for task, grid in maps.items():
        if grid.shape != (MAP_SIZE, MAP_SIZE):
            raise MienError(f"map of {task}: shape {grid.shape}; valid: {(MAP_SIZE, MAP_SIZE)}")
        importance = grid if task == "gender" else np.abs(grid)
        deletion, insertion = _curves(predictor, face, task, importance)
        random_areas = [_area(*_curves(predictor, face, task, one)) for one in random_maps]
        found[task] = PerturbationCurves(deletion, insertion, _area(deletion, insertion) - float(np.mean(random_areas)))
    return found


def overlay(face: np.ndarray, grid: np.ndarray, scale: float | None = None) -> Image.Image:
    """Draws a map over the grey face: orange for positive values, blue for negative ones.

    `scale` is the value with full colour; None: the largest absolute value of the map.
    """
    size = face.shape[1], face.shape[0]
    strength = np.clip(grid / (scale or np.abs(grid).max() or 1.0), -1, 1)
    smooth = np.asarray(Image.fromarray(strength.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
    grey = np.asarray(Image.fromarray(face).convert("L").convert("RGB"), dtype=float)
    colour = np.where(smooth[..., None] > 0, np.array(_ORANGE, float), np.array(_BLUE, float))
    opacity = 0.75 * np.abs(smooth).clip(0, 1)[..., None]
    return Image.fromarray((grey * (1 - opacity) + colour * opacity).round().astype(np.uint8))


_ORANGE, _BLUE = (230, 120, 0), (0, 110, 200)


def blur_details(face: np.ndarray) -> np.ndarray:
    """Returns a strongly blurred copy of the face, uint8 of the same shape."""
    return np.asarray(Image.fromarray(face).filter(ImageFilter.GaussianBlur(_BLUR * len(face))))


def _predict(predictor: "Predictor", faces: np.ndarray) -> dict[str, np.ndarray]:
    """Log odds of female, and years, of faces (n, size, size, 3)."""
    parts = [predictor.predict_pixels(faces[start : start + 64]) for start in range(0, len(faces), 64)]
    found = {}
    if "p_female" in parts[0]:
        p = np.concatenate([part["p_female"] for part in parts]).astype(float).clip(_EDGE, 1 - _EDGE)
        found["gender"] = np.log(p / (1 - p))
    if "age" in parts[0]:
        found["age"] = np.concatenate([part["age"] for part in parts]).astype(float)
    if not found:
        raise MienError(
            f"model {predictor.name!r} predicts neither gender nor age, so that there is nothing to explain"
        )
    return found


def pool_map(values: np.ndarray) -> np.ndarray:
    """Averages values (size, size) over the (16, 16) cells of a map."""
    return np.asarray(
        Image.fromarray(values.astype(np.float32)).resize((MAP_SIZE, MAP_SIZE), Image.Resampling.BOX), dtype=float
    )


def _curves(
    predictor: "Predictor", face: np.ndarray, task: str, importance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The changes of the prediction while cells are occluded, and revealed."""
    order = np.argsort(-importance, axis=None, kind="stable")
    cover = blur_details(face)
    edges = np.linspace(0, len(face), MAP_SIZE + 1).round().astype(int)
    rank = np.empty(MAP_SIZE * MAP_SIZE, int)
    rank[order] = np.arange(MAP_SIZE * MAP_SIZE)
    cell = np.searchsorted(edges, np.arange(len(face)), side="right") - 1
    ranks = rank.reshape(MAP_SIZE, MAP_SIZE)[cell[:, None], cell[None, :]]
    steps = np.linspace(0, MAP_SIZE * MAP_SIZE, _STEPS + 1).round()
    first = [ranks[..., None] < step for step in steps]
    images = [np.where(gone, cover, face) for gone in first] + [np.where(kept, face, cover) for kept in first]
    values = _predict(predictor, np.stack(images))[task]
    change = np.abs(values - values[0])
    return change[: _STEPS + 1], change[_STEPS + 1 :]


def _area(deletion: np.ndarray, insertion: np.ndarray) -> float:
    return float(np.trapezoid(deletion - insertion, dx=1 / _STEPS))
