"""Photographs with boxes and labels drawn on them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

COLOURS = {"female": (204, 121, 167), "male": (0, 114, 178), "unsure": (230, 159, 0)}
"""Of Okabe and Ito's palette, which people with colour blindness can tell apart; the label says it in words too."""

_OTHER = (90, 90, 90)


def label(row: dict[str, Any]) -> str:
    """A face's answer in a few words: `female 97%, 34 (28-41)`."""
    parts = []
    if row.get("gender"):
        certainty = max(row["p_female"], 1 - row["p_female"])
        parts.append(f"{row['gender']} {certainty:.0%}")
    if row.get("age") is not None:
        parts.append(f"{row['age']:.0f} ({row['age_low']:.0f}-{row['age_high']:.0f})")
    elif row.get("age_group"):
        parts.append(row["age_group"])
    return ", ".join(parts)


def draw_boxes(
    image: np.ndarray, rows: Sequence[dict[str, Any]], words_of: Callable[[dict[str, Any]], str] = label
) -> Image.Image:
    """The image, uint8 (h, w, 3), with the box and the label of each row; a row without a box labels the whole."""
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    unit = max(picture.size) / 400
    font = ImageFont.load_default(max(11.0, 5 * unit))
    for row in rows:
        whole = {"x": 0.0, "y": 0.0, "w": picture.width - 1.0, "h": picture.height - 1.0}
        x, y, w, h = (float(row.get(edge, whole[edge])) for edge in "xywh")
        colour = COLOURS.get(row.get("gender", ""), _OTHER)
        pen.rectangle((x, y, x + w, y + h), outline=colour, width=max(2, round(unit)))
        words = words_of(row)
        left, top, right, bottom = pen.textbbox((0, 0), words, font)
        height, width = bottom - top + 4, right - left + 6
        above = y - height if y >= height else min(y + h, picture.height - height)
        start = max(0, min(x, picture.width - width))
        pen.rectangle((start, above, start + width, above + height), fill=colour)
        pen.text((start + 3 - left, above + 2 - top), words, "white", font)
    return picture


def annotated_path(folder: Path, file: str, taken: set[str], ending: str = ".png") -> Path:
    """Where the drawing of `file` goes: its own name with another ending, and a number where that name is taken."""
    stem = Path(file).stem[:200] or "image"
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    return folder / f"{name}{ending}"
