"""The pose of a face from landmarks: an independent measure, which no detector here uses."""

import numpy as np

_MODEL = np.array([[-43.3, -32.7, -26.0], [43.3, -32.7, -26.0], [-28.9, 28.9, -24.1], [28.9, 28.9, -24.1]], dtype=float)
"""Outer corners of the eyes and corners of the mouth in a mean head, millimetres from the tip of the nose: right, down
and towards the camera (the usual generic head of pose estimation in OpenCV's examples)."""


def yaw_degrees(points: np.ndarray) -> float:
    """The angle by which a head is turned to a side, in degrees, of 49 landmarks (brows, nose, eyes, mouth).

    POS (DeMenthon and Davis, 1995): scaled orthographic projection, solved by least squares.
    """
    seen = points[[19, 28, 31, 37]] - points[13]
    rows, *_ = np.linalg.lstsq(_MODEL, seen, rcond=None)
    right, down = rows.T
    right, down = right / np.linalg.norm(right), down / np.linalg.norm(down)
    forward = np.cross(right, down)
    return float(np.degrees(np.arctan2(right[2], forward[2])))
