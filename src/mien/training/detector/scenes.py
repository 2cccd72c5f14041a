"""Training scenes: views of pictures, side by side at many scales, turned, covered, darkened and spoiled.

A scene is a function of the seed, the batch and its place in it: an interrupted run sees the scenes that it would
have seen.
"""

from typing import NamedTuple

import cv2
import numpy as np

from mien.training.detector import degrade, occlusion
from mien.training.detector.cache import FACE, HALVINGS, IGNORED, LOOKALIKE, UNMARKED, Cache, Entry
from mien.training.detector.settings import Scenes

CELL = 8
"""Pixels of a cell of the map of ignored places: the finest level of the network."""

_MIRROR = [2, 3, 0, 1, 4, 5, 8, 9, 6, 7]


class Scene(NamedTuple):
    """Pixels uint8 (side, side, 3); faces (n, 14) as in `cache.Entry`, none of them IGNORED; ignored bool (h, w)."""

    pixels: np.ndarray
    faces: np.ndarray
    ignored: np.ndarray


class Batch(NamedTuple):
    """Scenes of one size: uint8 (n, side, side, 3), faces (m, 15) with the scene's number first, ignored."""

    pixels: np.ndarray
    faces: np.ndarray
    ignored: np.ndarray


class SceneMaker:
    """Makes the batches of a training run."""

    def __init__(self, cache: Cache, settings: Scenes, seed: int) -> None:
        self._cache, self._settings, self._seed = cache, settings, seed
        self._sources = [source for source in settings.shares if source in cache.entries]
        shares = np.array([settings.shares[source] for source in self._sources])
        self._shares = shares / shares.sum()
        self._empty = [entry for source in ("none", "skimage") for entry in cache.entries.get(source, [])]
        self._weights = {source: _picture_weights(cache.entries[source]) for source in self._sources}

    def batch(self, number: int) -> Batch:
        """The batch of that number."""
        rng = np.random.default_rng([self._seed, number])
        side = int(rng.choice(self._settings.sides))
        scenes = [self.scene(rng, side) for _ in range(self._settings.pixels // side**2)]
        faces = [np.insert(scene.faces, 0, index, axis=1) for index, scene in enumerate(scenes)]
        return Batch(
            np.stack([scene.pixels for scene in scenes]),
            np.concatenate(faces).astype(np.float32),
            np.stack([scene.ignored for scene in scenes]),
        )

    def scene(self, rng: np.random.Generator, side: int) -> Scene:
        """One scene of side x side pixels."""
        grid = int(rng.choice(self._settings.grids))
        edges = _edges(rng, side, grid), _edges(rng, side, grid)
        canvas = np.empty((side, side, 3), np.uint8)
        labels = []
        for top, bottom in zip(edges[0], edges[0][1:], strict=False):
            for left, right in zip(edges[1], edges[1][1:], strict=False):
                pixels, faces = self._view(rng, right - left, bottom - top)
                canvas[top:bottom, left:right] = pixels
                faces[:, [0, *range(4, 14, 2)]] += left
                faces[:, [1, *range(5, 14, 2)]] += top
                labels.append(faces)
        faces = np.concatenate(labels)
        occlusion.occlude_faces(rng, canvas, faces[faces[:, 3] == FACE], self._settings)
        pixels = degrade.degrade(rng, canvas)
        faces = faces[faces[:, 3] != LOOKALIKE]
        unsure = (faces[:, 3] == IGNORED) | (faces[:, 2] < self._settings.smallest)
        return Scene(pixels, faces[~unsure], _ignored(faces[unsure], side))

    def _view(self, rng: np.random.Generator, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """A picture's pixels (height, width, 3), one of its faces at a chosen size and place, and all its labels."""
        source = self._sources[rng.choice(len(self._sources), p=self._shares)]
        entries = self._cache.entries[source]
        entry = entries[rng.choice(len(entries), p=self._weights[source])]
        pixels = self._ground(rng, width, height)
        matrix = self._placed(rng, entry, width, height)
        self._draw(entry, matrix, pixels)
        if rng.random() < self._settings.shade:
            pixels = degrade.relight(rng, pixels)
        return pixels, _visible(_transformed(entry.faces, matrix), width, height)

    def _ground(self, rng: np.random.Generator, width: int, height: int) -> np.ndarray:
        """What lies behind a picture that does not fill its place: a colour, or a picture without faces."""
        plain = np.empty((height, width, 3), np.uint8)
        plain[:] = rng.integers(0, 256, 3) if rng.random() < 0.5 else rng.integers(0, 256)
        empty = self._empty
        if not empty or rng.random() < 0.25:
            return plain
        entry = empty[rng.integers(len(empty))]
        self._draw(entry, self._placed(rng, entry, width, height), plain)
        return plain

    def _draw(self, entry: Entry, matrix: np.ndarray, onto: np.ndarray) -> None:
        """Draws a picture, from the halved copy whose pixels come nearest to those of the scene."""
        scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
        halvings = int(np.clip(np.floor(0.3 - np.log2(scale)), 0, HALVINGS))
        # The corner of the first pixel is the origin of labels, and its middle that of OpenCV.
        bigger = np.diag([2.0**halvings] * 2 + [1.0])
        middle = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        matrix = matrix @ bigger @ middle
        matrix[:, 2] -= 0.5
        size = onto.shape[1], onto.shape[0]
        pixels = self._cache.pixels(entry, halvings)
        cv2.warpAffine(pixels, matrix, size, onto, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_TRANSPARENT)

    def _placed(self, rng: np.random.Generator, entry: Entry, width: int, height: int) -> np.ndarray:
        """The affine matrix (2, 3) from the picture to its place."""
        faces = entry.faces[entry.faces[:, 3] >= UNMARKED]
        wrong = entry.faces[entry.faces[:, 3] == LOOKALIKE]
        if len(wrong) and (not len(faces) or rng.random() < self._settings.lookalikes):
            faces = wrong
        angle = _angle(rng)
        if len(faces) and not (entry.source == "photographs" and rng.random() < 0.15):
            weights = np.array([1 + 3 * _aside(face) for face in faces])
            x, y, side = faces[rng.choice(len(faces), p=weights / weights.sum()), :3]
            fills = 1.1 * min(width, height)
            largest = min(fills, self._settings.enlarge * side)
            size = np.exp(rng.uniform(np.log(self._settings.smallest + 1), np.log(max(largest, 12.0))))
            if rng.random() < self._settings.close:
                size = rng.uniform(0.4, 1.0) * fills
            room = np.maximum(np.array([width, height]) - 0.8 * size, 0)
            to = np.array([width, height]) / 2 + (rng.random(2) - 0.5) * room
            scale = size / side
        else:  # any part of it
            x, y = rng.random(2) * (entry.width, entry.height)
            fills = max(width / entry.width, height / entry.height)
            scale = fills * np.exp(rng.uniform(np.log(0.8), np.log(2.5)))
            to = np.array([width, height]) / 2
            x, y = (entry.width / 2 + x) / 2, (entry.height / 2 + y) / 2
        flip = -1 if rng.random() < 0.5 else 1
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        turn = np.array([[cos * flip, -sin], [sin * flip, cos]])
        return np.concatenate([turn, (to - turn @ (x, y))[:, None]], axis=1)


def _picture_weights(entries: list[Entry]) -> np.ndarray:
    """Probabilities of the pictures of a source: those with a face that looks aside are drawn more often."""
    weights = np.array([1 + 3 * max((_aside(row) for row in entry.faces), default=0.0) for entry in entries])
    return weights / weights.sum()


def _aside(row: np.ndarray) -> float:
    """0 for a frontal face to 1 for a profile: how near the nose is to an eye along the line of the eyes."""
    if row[3] != FACE:
        return 0.0
    eyes, nose = row[4:8].reshape(2, 2), row[8:10]
    line = eyes[1] - eyes[0]
    width = np.linalg.norm(line)
    if width < 0.15 * row[2]:
        return 1.0
    return float(np.clip((abs((nose - eyes.mean(0)) @ line) / width**2 - 0.2) / 0.4, 0, 1))


def _edges(rng: np.random.Generator, side: int, grid: int) -> list[int]:
    steps = (np.arange(1, grid) + rng.uniform(-0.3, 0.3, grid - 1)) * side / grid
    return [0, *(int(step) for step in steps), side]


def _angle(rng: np.random.Generator) -> float:
    """Radians: most pictures are nearly upright, some turned to 50 degrees, few lie on their side."""
    kind = rng.random()
    if kind < 0.55:
        return float(rng.normal(0, np.radians(8)))
    return float(np.radians(rng.uniform(-50, 50) if kind < 0.88 else rng.uniform(-110, 110)))


def _transformed(faces: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    result = faces.copy()
    turn, shift = matrix[:, :2], matrix[:, 2]
    result[:, :2] = faces[:, :2] @ turn.T + shift
    result[:, 2] *= np.hypot(matrix[0, 0], matrix[1, 0])
    points = (faces[:, 4:].reshape(-1, 5, 2) @ turn.T + shift).reshape(-1, 10)
    result[:, 4:] = points[:, _MIRROR] if np.linalg.det(turn) < 0 else points
    return result


def _visible(faces: np.ndarray, width: int, height: int) -> np.ndarray:
    """The faces in a place of that size; what is mostly cut off is to be ignored."""
    half = faces[:, 2:3] / 2
    low, high = np.maximum(faces[:, :2] - half, 0), np.minimum(faces[:, :2] + half, (width, height))
    share = np.prod(np.clip(high - low, 0, None), axis=1) / np.maximum(faces[:, 2] ** 2, 1e-9)
    inside = ((faces[:, :2] >= 0) & (faces[:, :2] < (width, height))).all(axis=1)
    faces = faces.copy()
    faces[(share < 0.5) | ~inside, 3] = IGNORED
    return faces[share > 0.05]


def _ignored(faces: np.ndarray, side: int) -> np.ndarray:
    cells = np.zeros((side // CELL, side // CELL), bool)
    for x, y, size in faces[:, :3]:
        low_x, low_y = (max(0, int((edge - 0.6 * size) / CELL)) for edge in (x, y))
        high_x, high_y = (max(0, int((edge + 0.6 * size) / CELL) + 1) for edge in (x, y))
        cells[low_y:high_y, low_x:high_x] = True
    return cells
