"""Recall and false faces on the validation parts: for monitoring, and for the choice of the threshold."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from mien.prediction.face_network import FaceNetwork, Faces
from mien.training.detector.cache import LOOKALIKE, UNMARKED, Cache, Entry
from mien.training.detector.export import export
from mien.training.detector.network import FaceNet
from mien.training.detector.settings import Settings
from mien.training.detector.teacher import overlaps

SMALLEST = 12
"""Side in pixels of the smallest face that counts, in a picture as it is cached."""

LOW = 0.1
"""Score from which on detections are counted."""


class Outcome(NamedTuple):
    """Detections in a picture: the score of each labelled face (0: missed), and the scores of false faces."""

    hits: np.ndarray
    false: np.ndarray


def validate(network: FaceNet, settings: Settings) -> dict[str, float]:
    """The score for `settings.false` and the recall at it, in %, by source."""
    outcomes = detect_all(network, settings)
    least = choose_score(outcomes, settings.false)
    recall = {
        source: round(100 * float((np.concatenate([one.hits for one in found]) >= least).mean()), 1)
        for source, found in outcomes.items()
        if source != "none"
    }
    return {"score": round(least, 3)} | recall


def release(settings: Settings) -> Path:
    """Writes `mien-face.onnx`: the average of the last checkpoint, with a score chosen on the validation part."""
    state = torch.load(settings.out / "checkpoint.pt", weights_only=True)
    network = FaceNet()
    network.load_state_dict(state["average"])
    score = choose_score(detect_all(network, settings), settings.false)
    file = settings.out / "mien-face.onnx"
    about = _about(settings, round(score, 3)) | {"name": "mien-face-1", "step": state["step"], "seed": settings.seed}
    export(network, file, about)
    return file


def _about(settings: Settings, score: float) -> dict[str, Any]:
    """How the runtime is to use the network."""
    return {"side": settings.side, "score": score, "candidates": settings.candidates, "looks": settings.looks}


def detect_all(network: FaceNet, settings: Settings) -> dict[str, list[Outcome]]:
    """The outcomes of the validation pictures, by source, as the runtime detects."""
    file = settings.out / "validation.onnx"
    export(network, file, _about(settings, LOW))
    detector = FaceNetwork(file)
    cache = Cache(settings.out / "cache", "val")
    return {
        source: [outcome(entry, detector.find(Image.fromarray(cache.pixels(entry)))) for entry in entries]
        for source, entries in cache.entries.items()
    }


def choose_score(outcomes: dict[str, list[Outcome]], most: float) -> float:
    """The lowest score, at least 0.2, that finds no more than `most` false faces a picture."""
    pictures = [outcome for found in outcomes.values() for outcome in found]
    false = np.sort(np.concatenate([outcome.false for outcome in pictures]))[::-1]
    allowed = int(most * len(pictures))
    return max(0.2, float(false[allowed]) + 1e-6) if len(false) > allowed else 0.2


def outcome(entry: Entry, seen: Faces) -> Outcome:
    """Hits overlap a label by at least 0.4; false are those that neither hit nor touch what is to be ignored."""
    boxes = np.array([_box(square) for square in seen.squares]).reshape(-1, 4)
    truth = entry.faces[(entry.faces[:, 3] >= UNMARKED) & (entry.faces[:, 2] >= SMALLEST)]
    hits = [max(seen.scores[overlaps(_box(face), boxes) >= 0.4], default=0.0) for face in truth]
    known = np.zeros(len(boxes), bool)
    for face in entry.faces[entry.faces[:, 3] != LOOKALIKE]:
        known |= overlaps(_box(face), boxes) >= 0.2
    return Outcome(np.array(hits, dtype=float), seen.scores[~known])


def _box(square: np.ndarray) -> np.ndarray:
    return np.array([square[0] - square[2] / 2, square[1] - square[2] / 2, square[2], square[2]])
