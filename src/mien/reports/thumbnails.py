"""Small images of faces, embedded in a page as data URIs."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from mien.base.table import age_range_text
from mien.data import images
from mien.data.face_pixels import boxes
from mien.data.roots import Root
from mien.reports.page import FaceImage

_THUMBNAIL = 96  # pixels


def jpeg_uri(image: Image.Image | np.ndarray, quality: int = 80) -> str:
    """Returns an image as a JPEG data URI.

    Args:
        image: A Pillow image, or uint8 RGB pixels (h, w, 3).
        quality: JPEG quality, 1 to 95.
    """
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def thumbnails(faces: pd.DataFrame, root: Root) -> list[FaceImage]:
    """Returns small images of faces, without the unreadable ones."""
    shown = []
    for (_, face), box in zip(faces.iterrows(), boxes(faces), strict=True):
        try:
            pixels = images.load_face(root / face["path"], _THUMBNAIL, box, 0.3)
        except images.ImageError:
            continue
        shown.append(FaceImage(jpeg_uri(pixels), f"{face['face']}: {labels_text(face)}"))
    return shown


def labels_text(face: "Mapping[str, Any] | pd.Series[Any]") -> str:
    """Returns the labels of a face, the most exact of its age, as text."""
    gender = face["gender"] if pd.notna(face["gender"]) else "no gender"
    if pd.notna(face["age"]):
        return f"{gender}, {face['age']:g}"
    if pd.notna(face.get("age_from")):
        return f"{gender}, {age_range_text(face['age_from'], face['age_to'])}"
    return f"{gender}, {face['age_group'] if pd.notna(face['age_group']) else 'no age'}"
