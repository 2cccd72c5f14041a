"""The paths of a table of one's own: found on the disk although they are written in another way."""

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from mien.base.errors import MienError
from mien.base.ledger import Ledger
from mien.data.images import SUFFIXES
from mien.data.sources import _files


def find_paths(table: pd.DataFrame, root: Path, ledger: Ledger) -> pd.Series:
    """Returns the paths of a table of n rows as the disk has them, relative to `root`, (n,); the ledger counts changes.

    Absolute paths become relative: to `root`, or without the folders above a part that is there below `root`. A path
    that is not there is looked for with `/` for `\\`, in another case, and with the ending of an image. One that is
    still not there stays as it is.

    Raises:
        MienError: A path is an address, or is outside of `root`. The message names the row and the value.
    """
    paths = table["path"].map(str).str.strip()
    for row, path in enumerate(paths):
        if path.lower().startswith(("http://", "https://", "s3://", "gs://")):
            raise MienError(
                f"csv: row {row + 1}: {path!r} is an address; mien reads files: download them and give their paths"
            )
    listings = _Listings(root)
    paths = _relative(table, paths, root, listings, ledger)
    inside = ~paths.str.contains(r"(?:^|/)\.\.(?:/|$)|^/|\x00", regex=True).to_numpy()
    for reason, written in (
        ("the path is read with / for \\", _slashes),
        ("the path is found in another case", listings.any_case),
        ("the path is found with the ending of its image", listings.any_ending),
    ):
        absent = np.flatnonzero(inside)[~_files.present(root, paths[inside])]
        found = paths.iloc[absent].map(written)
        found = found[found != paths.iloc[absent]]
        rows = paths.index.isin(found.index)
        ledger.change(table, rows, reason)
        paths = paths.where(~rows, found.reindex(paths.index))
    return paths.astype("str")


def _slashes(path: str) -> str:
    return path.replace("\\", "/")


def _relative(table: pd.DataFrame, paths: pd.Series, root: Path, listings: "_Listings", ledger: Ledger) -> pd.Series:
    """The paths (n,), absolute ones relative to the root, or to a part of themselves that is there below the root."""
    absolute = paths.str.contains(r"^/|^[A-Za-z]:[\\/]", regex=True).to_numpy(dtype=bool)
    if not absolute.any():
        return paths
    places = [Path(os.path.abspath(root)), root.resolve()]  # noqa: PTH100 - a link of the root may be in the paths
    relative = paths.copy()
    for row in np.flatnonzero(absolute).tolist():
        path = PurePosixPath(_slashes(paths.iloc[row]))
        ends = (listings.any_case("/".join(path.parts[start:])) for start in range(1, len(path.parts)))
        inside = next((str(path.relative_to(place)) for place in places if path.is_relative_to(place)), None)
        found = inside or next((end for end in ends if ".." not in end and _files.present(root, [end]).all()), None)
        if found is None:
            raise MienError(
                f"csv: row {row + 1}: the path {str(path)!r} is outside of {str(root)!r}, and no part of it is there; "
                f"paths must be relative to the data root or below it: --root {path.parent}, or another folder that "
                "holds all images"
            )
        relative.iloc[row] = found
    ledger.change(table, absolute, "the absolute path is read as relative to the folder of the images")
    return relative


class _Listings:
    """The names in the folders of a data root, each listed once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[str, dict[str, list[str]]] = {}

    def any_case(self, path: str) -> str:
        """The path of the one file whose name differs in case alone, or the path as it is."""
        return self._replaced(path, lambda name: [name.lower()])

    def any_ending(self, path: str) -> str:
        """The path of the one image whose name is that of the path and an ending, or the path as it is."""
        return self._replaced(path, lambda name: [f"{name.lower()}{suffix}" for suffix in SUFFIXES])

    def _replaced(self, path: str, names: Callable[[str], list[str]]) -> str:
        folder, slash, name = path.rpartition("/")
        if folder not in self._names:
            self._names[folder] = {}
            for there in _files.names_in(self._root / folder):
                self._names[folder].setdefault(there.lower(), []).append(there)
        found = [there for wanted in names(name) for there in self._names[folder].get(wanted, [])]
        return f"{folder}{slash}{found[0]}" if len(found) == 1 else path
