"""`review.html`: a contact sheet for the manual review of likely label errors, with a corrections file."""

import base64
import hashlib
from collections.abc import Hashable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from mien.base.atomic import atomic_path
from mien.base.labels import AGE_GROUPS, GENDERS
from mien.data import images
from mien.data.face_pixels import boxes
from mien.data.roots import Root
from mien.reports.page import NOTICE
from mien.reports.thumbnails import jpeg_uri

SHEET = 1000
"""Default maximum number of suggestions per column; about 5 MB."""

_SIDE = 112  # pixels
_MARGIN = 0.3
_WORDS = {"gender": GENDERS, "age_group": AGE_GROUPS}


def write_review(faces: pd.DataFrame, suggestions: pd.DataFrame, root: Root, path: Path, sheet: int = SHEET) -> int:
    """Writes the review page as one self-contained file without external requests.

    Args:
        faces: The faces with suggestions.
        suggestions: The result of `label_errors.suggest`.
        root: The folder of the images.
        path: The file to write.
        sheet: Maximum number per column, the most likely errors first.

    Returns:
        The number of suggestions on the page.
    """
    shown = suggestions[suggestions["rank"] <= sheet]
    rows = faces.set_index("face", drop=False).loc[shown["face"]]
    cards = [
        {
            **{name: suggestion[name] for name in ("face", "column", "rank", "given", "suggested")},
            "why": _why(suggestion),
            "picture": _picture(root / suggestion["path"], box),
        }
        for suggestion, box in zip(shown.to_dict("records"), boxes(rows), strict=True)
    ]
    counts = {str(column): len(some) for column, some in suggestions.groupby("column", sort=False)}
    data = {"cards": cards, "counts": counts, "words": {column: list(words) for column, words in _WORDS.items()}}
    script = (resources.files("mien") / "reports" / "templates" / "review.js").read_text("utf-8")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mien.reports"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    text = environment.get_template("review.html").render(
        notice=NOTICE,
        # Only this script may run: all names remain text.
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        script=Markup(script),  # noqa: S704 - our own file
        data=data,
    )
    with atomic_path(path) as part:
        part.write_text(text, "utf-8", errors="replace")
    return len(cards)


def _why(suggestion: Mapping[Hashable, Any]) -> str:
    """The reason for a suggestion."""
    text = f"out-of-fold prediction {suggestion['suggested']}"
    return f"{text} years" if suggestion["column"] == "age" else f"{text} ({100 * suggestion['p_suggested']:.1f}%)"


def _picture(path: Path, box: images.Box | None) -> str:
    """The face as a data URI; empty if it cannot be read."""
    try:
        pixels = images.load_face(path, _SIDE, box, _MARGIN)
    except images.ImageError:
        return ""
    return jpeg_uri(pixels)
