"""The second looks at a candidate: what the detector took for a face is cut out, turned upright, and seen again.

What looks like a face by chance rarely does so at other scales, and in a larger picture landmarks are more exact.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image

from mien.data.alignment import roll

SIDE = 96
"""Pixels of a side of the patch that the network sees of a candidate."""

_UPRIGHT = math.radians(10)  # a candidate that is tilted by less is not turned
_LIT = 150  # the value that the lightest pixels of a dark picture are brought to
_MOST_LIGHT = 10.0  # a picture is made lighter by this factor at most


@dataclass
class SecondLook:
    """A candidate, and what the looks at it have found so far.

    Attributes:
        square: Centre x and y and side, in pixels of the picture.
        angle: In radians clockwise, by which the candidate is tilted; 0 where that is little.
        total: Sum of the scores of the second looks.
        rows: What the second looks found, each (14,) in pixels of the picture.
    """

    square: tuple[float, float, float]
    angle: float
    total: float = 0.0
    rows: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def at(cls, row: np.ndarray) -> "SecondLook":
        """Of a candidate's row (14,)."""
        angle = roll(row[4:].reshape(5, 2))
        x, y, side = row[:3].tolist()
        return cls((x, y, side), angle if abs(angle) > _UPRIGHT else 0.0)

    def add(self, row: np.ndarray, share: float) -> None:
        """Adds what a look at a patch found: a row (14,) in pixels of the patch; a score of 0 stands for nothing."""
        if row[3] > 0:
            x, y, side = self.square
            turn = np.array(
                [[math.cos(self.angle), -math.sin(self.angle)], [math.sin(self.angle), math.cos(self.angle)]]
            )
            scale = side * share / SIDE
            places = np.concatenate([row[:2], row[4:]]).reshape(6, 2)
            places = scale * (places - SIDE / 2) @ turn.T + (x, y)
            self.rows.append(np.concatenate([places[0], [scale * row[2], row[3]], places[1:].reshape(-1)]))
            self.total += float(row[3])

    def face(self, looks: int) -> np.ndarray:
        """The row (14,) of the face: the place of the first, closest look, and the mean score of so many looks."""
        row = self.rows[0].copy()
        row[3] = self.total / looks
        return row


class PatchSource(NamedTuple):
    """A picture to cut patches from, the small copy that the network has seen, its scale, and a brightening table."""

    picture: Image.Image
    small: Image.Image
    scale: float
    table: np.ndarray | None

    def patches(self, candidates: Sequence[SecondLook], share: float) -> np.ndarray:
        """uint8 (n, SIDE, SIDE, 3): squares around the candidates, `share` times as wide as they are, upright."""
        patches = np.empty((len(candidates), SIDE, SIDE, 3), np.uint8)
        for patch, one in zip(patches, candidates, strict=True):
            x, y, side = one.square
            # The small copy, where it has the pixels that the patch needs: large areas take long to scale.
            small = side * self.scale * share >= SIDE
            scale = self.scale if small else 1.0
            where = x * scale, y * scale, side * scale * share
            patch[:] = np.asarray(upright_patch(self.small if small else self.picture, where, one.angle))
        return patches if self.table is None else self.table[patches]


def upright_patch(picture: Image.Image, square: tuple[float, float, float], angle: float) -> Image.Image:
    """SIDE pixels a side of a square (centre, side) that is turned by `angle`; black beyond the picture."""
    x, y, side = square
    left = top = 0
    times = max(1, int(side / SIDE))
    if times > 1:  # the filter of the turn sees four pixels only
        half = side * (abs(math.cos(angle)) + abs(math.sin(angle))) / 2 + times
        left, top = max(0, math.floor(x - half)), max(0, math.floor(y - half))
        right, bottom = min(picture.width, math.ceil(x + half)), min(picture.height, math.ceil(y + half))
        if right - left < 1 or bottom - top < 1:
            return Image.new("RGB", (SIDE, SIDE))
        picture = picture.reduce(times, (left, top, right, bottom))
    step = side / times / SIDE
    cos, sin, middle = step * math.cos(angle), step * math.sin(angle), SIDE / 2
    x, y = (x - left) / times, (y - top) / times
    turn = (cos, -sin, x - middle * (cos - sin), sin, cos, y - middle * (sin + cos))
    return picture.transform((SIDE, SIDE), Image.Transform.AFFINE, turn, Image.Resampling.BILINEAR)


def best_rows(number: np.ndarray, rows: np.ndarray, count: int, share: float) -> np.ndarray:
    """Of each of `count` patches the best row (14,) of the face in its middle; a score of 0: there is none.

    Args:
        number: The patch of each row, (m,).
        rows: In pixels of the patches, (m, 14).
        count: Patches.
        share: Width of the patches in sides of the candidates, from which the side of the face follows.
    """
    side = SIDE / share
    away = np.abs(rows[:, :2] - SIDE / 2).max(axis=1)
    middle = (away < 0.35 * side) & (rows[:, 2] > 0.6 * side) & (rows[:, 2] < side / 0.6)
    number, rows = number[middle], rows[middle]
    order = np.argsort(rows[:, 3], kind="stable")
    best = np.zeros((count, 14))
    best[number[order]] = rows[order]  # of several of one patch, the last one stays
    return best


def brightening_table(pixels: np.ndarray) -> np.ndarray | None:
    """Values (256,) for those of a dark picture, uint8 (h, w, 3), that make it light; None: it is light enough."""
    counts = np.bincount(pixels[::8, ::8].ravel(), minlength=256).cumsum()
    lightest = int(np.searchsorted(counts, 0.99 * counts[-1]))  # the 99th percentile
    gain = min(_LIT / max(lightest, 1), _MOST_LIGHT)
    return np.minimum(np.arange(256) * gain, 255).astype(np.uint8) if gain > 1 else None
