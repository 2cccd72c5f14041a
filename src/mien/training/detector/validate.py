"""Recall and false faces on the validation parts: for monitoring, and for the choice of the threshold."""

from typing import NamedTuple

import cv2
import numpy as np
import torch

from mien.training.detector.cache import IGNORED, Cache, Entry
from mien.training.detector.network import FaceNet
from mien.training.detector.settings import Settings
from mien.training.detector.targets import decode
from mien.training.detector.teach import overlaps

SIDE = 512
"""Longer side in pixels of the network's input."""

SMALLEST = 12
"""Side in pixels of the smallest face that counts, in a picture as it is cached."""

FALSE = 0.01
"""False faces a picture, for which the score is chosen."""


class Seen(NamedTuple):
    """Faces of a picture, best first: squares (n, 3) as centre and side, scores (n,), landmarks (n, 5, 2)."""

    squares: np.ndarray
    scores: np.ndarray
    points: np.ndarray


def validate(network: FaceNet, settings: Settings) -> dict[str, float]:
    """The score for `FALSE` and the recall at it, in %, by source."""
    outcomes = detect_all(network, settings)
    least = choose_score(outcomes)
    recall = {
        source: round(100 * float((np.concatenate([one.hits for one in found]) >= least).mean()), 1)
        for source, found in outcomes.items()
        if source != "none"
    }
    return {"score": round(least, 3)} | recall


class Outcome(NamedTuple):
    """Detections in a picture: the score of each labelled face (0: missed), and the scores of false faces."""

    hits: np.ndarray
    false: np.ndarray


def detect_all(network: FaceNet, settings: Settings) -> dict[str, list[Outcome]]:
    """The outcomes of the validation pictures, by source."""
    cache = Cache(settings.out / "cache", "val")
    return {
        source: [_outcome(entry, look(network, cache.pixels(entry))) for entry in entries]
        for source, entries in cache.entries.items()
    }


def choose_score(outcomes: dict[str, list[Outcome]]) -> float:
    """The lowest score, at least 0.2, that finds no more than `FALSE` false faces a picture."""
    pictures = [outcome for found in outcomes.values() for outcome in found]
    false = np.sort(np.concatenate([outcome.false for outcome in pictures]))[::-1]
    allowed = int(FALSE * len(pictures))
    return max(0.2, float(false[allowed]) + 1e-6) if len(false) > allowed else 0.2


@torch.no_grad()
def look(network: FaceNet, pixels: np.ndarray, side: int = SIDE, least: float = 0.1) -> Seen:
    """What a network finds in uint8 pixels (h, w, 3), scaled so that the longer side has `side` pixels."""
    network.eval()
    scale = side / max(pixels.shape[:2])
    height, width = (max(1, round(edge * scale)) for edge in pixels.shape[:2])
    canvas = np.zeros((-(-height // 32) * 32, -(-width // 32) * 32, 3), np.uint8)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas[:height, :width] = cv2.resize(pixels, (width, height), interpolation=method)
    maps = network(torch.from_numpy(canvas).permute(2, 0, 1)[None].float())
    parts = []
    for level, one in enumerate(maps):
        scores = torch.sigmoid(one[0, 0])
        at = scores >= least
        centres, sides, points = (value[0][at] for value in decode(one, level))
        parts.append(torch.cat([centres, sides[:, None], scores[at][:, None], points.flatten(1)], dim=1))
    rows = torch.cat(parts).numpy()
    rows[:, [0, 1, 2, *range(4, 14)]] /= scale
    rows = _distinct(rows[np.argsort(-rows[:, 3])])
    return Seen(rows[:, :3], rows[:, 3], rows[:, 4:].reshape(-1, 5, 2))


def _distinct(rows: np.ndarray) -> np.ndarray:
    kept: list[np.ndarray] = []
    for row in rows[:400]:
        if not kept or overlaps(_box(row), np.array([_box(other) for other in kept])).max() <= 0.4:
            kept.append(row)
    return np.array(kept, dtype=np.float32).reshape(-1, 14)


def _box(square: np.ndarray) -> np.ndarray:
    return np.array([square[0] - square[2] / 2, square[1] - square[2] / 2, square[2], square[2]])


def _outcome(entry: Entry, seen: Seen) -> Outcome:
    """Hits overlap a label by at least 0.4; false are those that neither hit nor touch what is to be ignored."""
    boxes = np.array([_box(square) for square in seen.squares]).reshape(-1, 4)
    truth = entry.faces[(entry.faces[:, 3] != IGNORED) & (entry.faces[:, 2] >= SMALLEST)]
    hits = [max(seen.scores[overlaps(_box(face), boxes) >= 0.4], default=0.0) for face in truth]
    known = np.zeros(len(boxes), bool)
    for face in entry.faces:
        known |= overlaps(_box(face), boxes) >= 0.2
    return Outcome(np.array(hits, dtype=float), seen.scores[~known])
