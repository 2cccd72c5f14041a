"""The page layout of all reports: sections of text, tables and charts in one self-contained HTML file."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mien.base.atomic import atomic_path
from mien.base.errors import MienError, MissingExtra
from mien.base.version import __version__
from mien.reports import figures

try:
    import jinja2
    from markupsafe import Markup
except ImportError:
    raise MissingExtra("writing a report", "report") from None

NOTICE = "Labels are perceived binary gender and age, as given by the data set. They do not describe anyone's identity."
"""The notice on every page."""

_NUMBER = re.compile(r"[-−+]?\d[\d.,]*( %)?( \[[^\]]*\])?( \(n [\d,]+\))?$")


@dataclass(frozen=True)
class Table:
    """A table with a caption; cells are text or numbers to format; a `folded` table is collapsed at first."""

    caption: str
    rows: pd.DataFrame
    folded: bool = False

    @cached_property
    def lines(self) -> list[list[str]]:
        """The cells as text."""
        return [[_cell(value) for value in row] for row in self.rows.itertuples(index=False, name=None)]

    @cached_property
    def columns(self) -> list[dict[str, Any]]:
        """Each column's `name`, and whether it holds numbers (`number`)."""
        lines = self.lines
        return [
            {
                "name": str(name),
                "number": all(line[at] in ("", "–") or _NUMBER.match(line[at]) for line in lines),
            }
            for at, name in enumerate(self.rows.columns)
        ]


@dataclass(frozen=True)
class Chart:
    """A chart, its caption, and its numbers as a table."""

    figure: figures.Figure
    caption: str
    numbers: pd.DataFrame | None = None


@dataclass(frozen=True)
class FaceImage:
    """A small image as a data URI, and its text alternative."""

    uri: str
    alt: str


@dataclass(frozen=True)
class ContactSheet:
    """Faces in the cells of a table: `rows` are (label, one list of faces per column); `side` is in CSS pixels."""

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Sequence[FaceImage]]]]
    side: int = 52


@dataclass(frozen=True)
class CaptionedFaces:
    """Faces side by side with a caption."""

    faces: Sequence[FaceImage]
    caption: str


@dataclass(frozen=True)
class Section:
    """A section of a report; its content appears in the order of the fields."""

    title: str
    warnings: Sequence[str] = ()
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Chart] = ()
    sheet: ContactSheet | None = None
    pairs: Sequence[CaptionedFaces] = ()


def write_report(title: str, lead: str, sections: Sequence[Section], path: str | Path) -> Path:
    """Writes a report as one self-contained HTML file without scripts.

    Equal input gives an identical file.

    Args:
        title: The title of the page.
        lead: The summary at the top.
        sections: The sections; all strings in them are escaped.
        path: The file to write.

    Raises:
        MienError: `path` is a folder, or its parent is a file.
    """
    path = Path(path)
    if path.is_dir():
        raise MienError(f"report {str(path)!r} is a folder; give the name of a file, for instance report.html")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise MienError(f"report {str(path)!r}: {str(path.parent)!r} is not a folder") from None
    count = itertools.count(1)
    pages = [
        vars(section) | {"figures": [_drawn(picture, f"f{next(count)}") for picture in section.figures]}
        for section in sections
    ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mien.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    text = environment.get_template("report.html").render(
        title=title, lead=lead, notice=NOTICE, sections=pages, version=__version__
    )
    with atomic_path(path) as part:
        # A file name that is not valid text (a lone surrogate) must not fail a report.
        part.write_text(text, "utf-8", errors="replace")
    return path


def _drawn(picture: Chart, name: str) -> dict[str, Any]:
    numbers = picture.numbers
    return {
        "caption": picture.caption,
        "svg": Markup(figures.svg(picture.figure, name, picture.caption)),  # noqa: S704 - it is escaped there
        "numbers": None if numbers is None else Table(picture.caption, numbers),
    }


def _cell(value: Any) -> str:
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float | np.floating) else str(value)
