"""How photographs go wrong: darkness, colour casts, blur, few pixels, noise, JPEG."""

from typing import Any

import cv2
import numpy as np

from mien.prediction.second_look import brightening_table


def degrade(rng: np.random.Generator, pixels: Any) -> Any:
    """A scene, uint8 (side, side, 3), as a worse camera would have seen it."""
    pixels = relight(rng, pixels)
    if rng.random() < 0.1:
        pixels = np.repeat(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    if rng.random() < 0.15:
        pixels = _blur(rng, pixels)
    if rng.random() < 0.12:
        pixels = _fewer_pixels(rng, pixels)
    if rng.random() < 0.15:
        noise = rng.standard_normal(pixels.shape, np.float32) * np.float32(np.exp(rng.uniform(np.log(2), np.log(22))))
        pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        quality = int(rng.integers(15, 80))
        pixels = cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    table = brightening_table(pixels)
    return np.ascontiguousarray(pixels if table is None else table[pixels])


def relight(rng: np.random.Generator, pixels: np.ndarray) -> Any:
    """Gain, offset and gamma of each channel, by a table; one picture in five is dark."""
    value = np.arange(256) / 255
    dark = rng.random() < 0.2
    gamma = np.exp(rng.normal(0, 0.25)) * (rng.uniform(0.8, 2.2) if dark else 1)
    gain = np.exp(rng.normal(0, 0.2)) * (np.exp(rng.uniform(np.log(0.08), np.log(0.7))) if dark else 1)
    cast = np.exp(rng.normal(0, 0.08, 3))
    tables = [np.clip(255 * (gain * c * value**gamma + rng.normal(0, 0.04)), 0, 255) for c in cast]
    return cv2.LUT(pixels, np.stack(tables, axis=1).astype(np.uint8)[None])


def _blur(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    if rng.random() < 0.6:
        return cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.5, 2.2)))
    length = int(rng.integers(3, 10))
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    middle, reach = (length - 1) / 2, (length - 1) / 2 * np.array([np.cos(angle), np.sin(angle)])
    ends = [tuple(int(round(middle + sign * part)) for part in reach) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    return cv2.filter2D(pixels, -1, kernel / max(kernel.sum(), 1))


def _fewer_pixels(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    side = len(pixels)
    small = int(side * rng.uniform(0.4, 0.8))
    reduced = cv2.resize(pixels, (small, small), interpolation=cv2.INTER_AREA)
    return cv2.resize(reduced, (side, side), interpolation=cv2.INTER_LINEAR)
