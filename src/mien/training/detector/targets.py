"""Which cells of the maps answer for which face, and the loss."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mien.training.detector.network import SIZES, STRIDES

RANGES = ((0.0, 48.0), (36.0, 144.0), (108.0, 1e9))
"""Sides in pixels of the faces that each level answers for; two levels share those between."""

_UNSURE = 0.25  # weight of the cells around those that answer
_LEAST = 0.6  # score of a face whose square is wrong: small and hidden faces have squares that fit less well


class Targets(NamedTuple):
    """For one level: the number of the face that a cell answers for (-1: none), and the weight of its score."""

    face: Tensor  # (n, h, w), long
    weight: Tensor  # (n, h, w), float


def assign(faces: np.ndarray, ignored: np.ndarray, level: int) -> Targets:
    """The four cells around a face's centre answer for it; where two faces meet, the smaller one has the cell.

    Args:
        faces: (m, 15): scene, centre x and y, side, kind, landmarks.
        ignored: bool (n, h / 8, w / 8).
        level: Of the network.
    """
    stride = STRIDES[level]
    steps = stride // STRIDES[0]
    n, rows, columns = ignored.shape[0], ignored.shape[1] // steps, ignored.shape[2] // steps
    hidden = ignored.reshape(n, rows, steps, columns, steps).any(axis=(2, 4))
    weight = np.where(hidden, np.float32(0), np.float32(1))
    face = np.full((n, rows, columns), -1)
    low, high = RANGES[level]
    here = np.flatnonzero((faces[:, 3] >= low) & (faces[:, 3] < high))
    here = here[np.argsort(-faces[here, 3])]
    corner = np.floor(faces[here, 1:3] / stride - 0.5).astype(int)
    scene = faces[here, 0].astype(int)
    for reach, inner in ((range(-1, 3), False), (range(2), True)):
        for down in reach:
            for right in reach:
                x, y = corner[:, 0] + right, corner[:, 1] + down
                inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
                at = scene[inside], y[inside], x[inside]
                if inner:
                    face[at] = np.maximum(here[inside], -1)
                else:
                    weight[at] = np.minimum(weight[at], _UNSURE)
    weight[face >= 0] = 1
    return Targets(torch.from_numpy(face), torch.from_numpy(weight))


def decode(maps: Tensor, level: int) -> tuple[Tensor, Tensor, Tensor]:
    """Centres (n, h, w, 2), sides (n, h, w) and landmarks (n, h, w, 5, 2) in pixels of the scene."""
    stride, size = STRIDES[level], SIZES[level]
    n, _, h, w = maps.shape
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    cells = stride * torch.stack([x, y], dim=-1)
    maps = maps.permute(0, 2, 3, 1)
    centres = cells + stride * maps[..., 1:3]
    sides = size * torch.exp(maps[..., 3].clamp(-4, 4))
    points = cells[:, :, None] + size / 2 * maps[..., 4:].reshape(n, h, w, 5, 2)
    return centres, sides, points


class Losses(NamedTuple):
    """Of a batch: the score's, the square's, the landmarks'."""

    score: Tensor
    square: Tensor
    points: Tensor

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        return self.score + 2 * self.square + 2 * self.points


def losses(maps: list[Tensor], faces: np.ndarray, ignored: np.ndarray) -> Losses:
    """The varifocal loss of the score (Zhang et al., 2021), 1 - IoU of the square, and L1 of the landmarks.

    The score learns the overlap of the cell's own square with the face; landmarks are measured in sides of the face.
    """
    truth = torch.from_numpy(faces)
    parts = []
    positives = 0
    for level, one in enumerate(maps):
        target = assign(faces, ignored, level)
        at = torch.nonzero(target.face >= 0, as_tuple=True)
        face = truth[target.face[at]]
        centres, sides, points = decode(one, level)
        overlap = _overlap(centres[at], sides[at], face)
        quality = torch.zeros_like(target.weight)
        quality[at] = _LEAST + (1 - _LEAST) * overlap.detach().clamp(min=0)
        score = _varifocal(one[:, 0], quality, target.weight)
        off = (points[at] - face[:, 5:].reshape(-1, 5, 2)).abs() / face[:, 3, None, None]
        marked = (face[:, 4] == 1).float()
        mark = (
            functional.smooth_l1_loss(off, torch.zeros_like(off), beta=0.02, reduction="none").mean((1, 2)) * marked
        ).sum()
        parts.append((score, (1 - overlap).sum(), mark))
        positives += len(face)
    return Losses(*(sum(values, torch.zeros(())) / max(positives, 1) for values in zip(*parts, strict=True)))


def _overlap(centres: Tensor, sides: Tensor, face: Tensor) -> Tensor:
    """Intersection over union of squares; the distance of the centres is subtracted (DIoU; Zheng et al., 2020)."""
    low = torch.maximum(centres - sides[:, None] / 2, face[:, 1:3] - face[:, 3:4] / 2)
    high = torch.minimum(centres + sides[:, None] / 2, face[:, 1:3] + face[:, 3:4] / 2)
    shared = (high - low).clamp(min=0).prod(dim=1)
    union = sides**2 + face[:, 3] ** 2 - shared
    away = ((centres - face[:, 1:3]) ** 2).sum(dim=1) / (sides**2 + face[:, 3] ** 2)
    return shared / union - 0.5 * away


def _varifocal(logits: Tensor, quality: Tensor, weight: Tensor) -> Tensor:
    chance = torch.sigmoid(logits.detach())
    focal = torch.where(quality > 0, quality, 0.75 * chance**2)
    loss = functional.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return (loss * focal * weight).sum()
