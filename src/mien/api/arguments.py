"""What several verbs take: a table or its file, one path or several, settings as a mapping or as text."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

Settings = Mapping[str, Any] | Iterable[str]
"""Changed settings: `{"optim.lr": 0.01}` or `["optim.lr=0.01"]`."""

PathLike = str | Path


def as_changes(given: Settings | None) -> list[str]:
    """Changed settings as text, "optim.lr=0.01"."""
    if given is None:
        return []
    if isinstance(given, str):
        return [given]
    if isinstance(given, Mapping):
        # JSON is YAML, which is how the text is read again.
        return [f"{key}={json.dumps(value, default=os.fspath)}" for key, value in given.items()]
    return list(given)


def as_list(given: Any) -> list[Any]:
    """One thing, or several."""
    return [given] if isinstance(given, str | Path | bytes) or not isinstance(given, Iterable) else list(given)


def as_faces(given: "pd.DataFrame | PathLike") -> "pd.DataFrame":
    """A checked faces table, given as a table or as its file."""
    from mien.base.table import check_faces, read_faces_table

    return read_faces_table(given) if isinstance(given, str | Path) else check_faces(given)


def as_columns(given: str | Iterable[str] | None) -> list[str] | None:
    """Names of columns, given as a list or with commas between them."""
    if given is None:
        return None
    names = given.split(",") if isinstance(given, str) else given
    return [name.strip() for name in names if name.strip()]
