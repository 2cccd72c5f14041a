"""What hides a part of a face in a training scene: drawn masks, sunglasses, and things held before it."""

import cv2
import numpy as np

from mien.training.detector.settings import Scenes


def occlude_faces(rng: np.random.Generator, canvas: np.ndarray, faces: np.ndarray, settings: Scenes) -> None:
    """Draws onto some faces (n, 14; see `cache.Entry`) of a scene."""
    for face in faces:
        points, side = face[4:].reshape(5, 2), float(face[2])
        kind = rng.random()
        if side < 10 or abs(points - face[:2]).max() > side:
            continue
        if kind < settings.mask:
            _mask(rng, canvas, points, side)
        elif kind < settings.mask + settings.sunglasses:
            _sunglasses(rng, canvas, points, side)
        elif kind < settings.mask + settings.sunglasses + settings.hand:
            _object(rng, canvas, face[:2], side)


def _colour(rng: np.random.Generator) -> np.ndarray:
    """White, blue and black of common masks, or any colour."""
    usual = np.array([[235, 235, 235], [130, 180, 215], [30, 30, 35], [170, 205, 225], [225, 190, 200]])
    base = usual[rng.integers(len(usual))] if rng.random() < 0.75 else rng.integers(0, 256, 3)
    return np.clip(base + rng.normal(0, 15, 3), 0, 255)


def _fill(
    rng: np.random.Generator, canvas: np.ndarray, outline: np.ndarray, colour: np.ndarray, opacity: float
) -> None:
    """Fills a polygon (n, 2) with a colour, shaded from one side to the other."""
    corners = np.round(outline).astype(np.int32)
    low = np.maximum(corners.min(0), 0)
    high = np.minimum(corners.max(0) + 1, canvas.shape[1::-1])
    if (high <= low).any():
        return
    part = canvas[low[1] : high[1], low[0] : high[0]]
    inside = np.zeros(part.shape[:2], np.uint8)
    cv2.fillPoly(inside, [corners - low], 255, cv2.LINE_AA)
    along = np.linspace(-1, 1, part.shape[1]) * rng.normal(0, 25) + rng.normal(0, 4, part.shape[:2])
    alpha = inside[..., None] / 255.0 * opacity
    part[:] = np.clip((1 - alpha) * part + alpha * (colour + along[..., None]), 0, 255)


def _mask(rng: np.random.Generator, canvas: np.ndarray, points: np.ndarray, side: float) -> None:
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    down = (mouth - eyes) / max(float(np.linalg.norm(mouth - eyes)), 1e-6)
    right = np.array([-down[1], down[0]]) * -1
    if right @ (points[1] - points[0]) < 0:
        right = -right
    nose = points[2] + (mouth - points[2]) * rng.uniform(-0.35, 0.3)
    chin = mouth + down * side * rng.uniform(0.25, 0.38)
    wide = side * rng.uniform(0.36, 0.5)
    middle = (nose + chin) / 2
    outline = [
        nose - 0.35 * wide * right,
        nose + 0.35 * wide * right,
        middle + wide * right - 0.1 * side * down,
        middle + 0.95 * wide * right + 0.12 * side * down,
        chin + 0.4 * wide * right,
        chin - 0.4 * wide * right,
        middle - 0.95 * wide * right + 0.12 * side * down,
        middle - wide * right - 0.1 * side * down,
    ]
    _fill(rng, canvas, np.array(outline), _colour(rng), 1.0)


def _sunglasses(rng: np.random.Generator, canvas: np.ndarray, points: np.ndarray, side: float) -> None:
    line = points[1] - points[0]
    angle = np.degrees(np.arctan2(line[1], line[0]))
    axes = side * rng.uniform(0.14, 0.22), side * rng.uniform(0.1, 0.16)
    colour = np.clip(rng.normal(30, 25, 3), 0, 255)
    left, right = ([int(edge) for edge in eye] for eye in points[:2])
    cv2.line(canvas, left, right, colour.tolist(), max(1, int(0.04 * side)))
    for eye in points[:2]:
        outline = np.array(cv2.ellipse2Poly((0, 0), (100, int(100 * axes[1] / axes[0])), int(angle), 0, 360, 20))
        _fill(rng, canvas, eye + outline * axes[0] / 100, colour, rng.uniform(0.75, 1.0))


def _object(rng: np.random.Generator, canvas: np.ndarray, centre: np.ndarray, side: float) -> None:
    """A hand, a microphone, a cup: a blob of skin's or any colour over an edge of the face."""
    around = rng.uniform(0, 2 * np.pi)
    middle = centre + side * rng.uniform(0.3, 0.5) * np.array([np.cos(around), np.sin(around)])
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radius = side * rng.uniform(0.15, 0.32) * rng.uniform(0.6, 1.2, 9)
    outline = middle + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    skin = np.array([224, 172, 140]) * rng.uniform(0.35, 1.1)
    _fill(rng, canvas, outline, skin if rng.random() < 0.6 else rng.integers(0, 256, 3), 1.0)
