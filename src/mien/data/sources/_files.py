"""What the adapters share: finding files under a data root, and reading their lists line by line."""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from mien.base.errors import MienError
from mien.base.ledger import Ledger
from mien.data.images import SUFFIXES


@dataclass(frozen=True)
class Lines:
    """The rows of a list file: those with the right number of fields, and the lines without."""

    rows: pd.DataFrame
    malformed: pd.DataFrame
    reason: str

    def drop_malformed(self, ledger: Ledger) -> pd.DataFrame:
        """Returns the well-formed rows; notes all lines of the file as read, and the others as dropped."""
        ledger.read += len(self.rows) + len(self.malformed)
        ledger.drop(self.malformed, np.ones(len(self.malformed), dtype=bool), self.reason)
        return self.rows


def need_folder(root: Path) -> Path:
    """Returns `root`; raises a `MienError` unless it is a folder."""
    if not root.is_dir():
        raise MienError(f"data root {str(root)!r} {'is not a folder' if root.exists() else 'does not exist'}")
    return root


def find_file(root: Path, names: Sequence[str]) -> Path | None:
    """The first of the files `names` (relative to `root`) that exists, or None."""
    return next((root / name for name in names if (root / name).is_file()), None)


def not_found(source: str, root: Path, wanted: str, home: str) -> MienError:
    """The error for a root that lacks `wanted`: what was looked for, what is there, and where to get it."""
    there = sorted(entry.name for entry in root.iterdir())
    found = ", ".join(there[:5]) + (f" and {len(there) - 5} more" if len(there) > 5 else "")
    return MienError(
        f"{source}: {wanted} not found under {str(root)!r}, which holds: {found or 'nothing'}. "
        f"The data set can be had from {home}"
    )


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise MienError(f"{str(path)!r} is not a text file: {error}") from error
    return [line for line in text.split("\n") if line.strip()]


def parse_lines(
    lines: Sequence[str],
    columns: Sequence[str],
    separator: str | None,
    path: Path,
    dtype: "str | dict[str, str]" = "str",
) -> Lines:
    """Splits the `lines` of the file `path` at `separator` (None: white space) into `columns` of `dtype`."""
    # pandas silently fills or cuts lines with too few or too many fields, so they are told apart here.
    fits = np.array([len(line.split(separator)) == len(columns) for line in lines], dtype=bool)
    text = "\n".join(line for line, good in zip(lines, fits, strict=True) if good)
    rows = pd.read_csv(
        io.StringIO(text),
        sep=separator or r"\s+",
        names=list(columns),
        dtype=dtype,
        keep_default_na=False,
        quoting=csv.QUOTE_NONE,
        index_col=False,
        low_memory=False,
    )
    malformed = [f"{path.name}: {line[:60]!r}" for line, good in zip(lines, fits, strict=True) if not good]
    return Lines(rows, pd.DataFrame({"line": malformed}), f"a line of other than {len(columns)} fields")


def list_images(root: Path, ledger: Ledger) -> list[str]:
    """The images below `root`, by ending, as sorted paths relative to it.

    Hidden files and folders are no part of a data set; files with another ending make one warning, and so do those
    whose names are no text, which no table can hold. Links to folders are followed, each folder once.
    """
    images: list[str] = []
    others: list[str] = []
    strange: list[str] = []
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_stop):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = Path(folder).relative_to(root).as_posix()
        # Paths are joined by hand: for 20,000 files pathlib takes longer than all the rest.
        start = "" if inside == "." else f"{inside}/"
        for name in files:
            if name.startswith("."):
                continue
            if not _is_text(start + name):
                strange.append(start + name)
            else:
                (images if name.lower().endswith(SUFFIXES) else others).append(start + name)
    if strange:
        ledger.warn(f"files whose names are not valid UTF-8, for instance {ascii(min(strange))}", len(strange))
    if others:
        ledger.warn(f"files without an image suffix, for example {min(others)!r}", len(others))
    return sorted(images)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _stop(error: OSError) -> None:
    raise MienError(f"folder {str(error.filename)!r} cannot be read: {error.strerror}")


def present(root: Path, paths: Iterable[str]) -> np.ndarray:
    """Which of the `paths` (relative to `root`) exist: bool of shape (n,). Each folder is listed once."""
    listed: dict[str, set[str]] = {}
    exists = []
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder not in listed:
            listed[folder] = names_in(root / PurePosixPath(folder))
        exists.append(name in listed[folder])
    return np.array(exists, dtype=bool)


def names_in(folder: Path) -> set[str]:
    """The names in a folder; none if it does not exist."""
    if not os.path.isdir(folder):  # noqa: PTH112 - unlike Path's, it takes any text for a name
        return set()
    try:
        return set(os.listdir(folder))  # noqa: PTH208
    except OSError as error:
        raise MienError(f"folder {str(folder)!r} cannot be read: {error.strerror}") from None
