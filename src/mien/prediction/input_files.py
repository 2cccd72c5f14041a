"""From the paths, folders, patterns and tables of a command to the list of image files."""

import glob
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from mien.base.errors import MienError, columns_of, printable
from mien.base.messages import progress_line
from mien.data.images import SUFFIXES

TABLES = (".csv", ".parquet")

_COLUMNS = ("path", "file")


def image_files(paths: Iterable[str], suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
    """The image files that paths refer to, in their order, without repetitions.

    Args:
        paths: Files, folders (taken recursively, sorted, links to folders not followed), patterns with `*`, tables
            (`.csv`, `.parquet`) with a column `path` or `file` relative to their own folder, and `-` for a list on
            standard input, one path a line.
        suffixes: Of the files that are taken from folders.

    Raises:
        MienError: A folder or pattern holds no image, a folder cannot be read, a table has no such column or names a
            file outside of its folder (a list on standard input may name any). A file that does not exist is no error
            here: it becomes a row of the table that says so.
    """
    return list(dict.fromkeys(file for path in paths for file in _one(path, suffixes)))


def source_folders(paths: Iterable[str]) -> list[Path]:
    """The existing folders that paths refer to: where one disappears, its images are not reported as missing."""
    found = []
    for path in paths:
        place = Path(os.path.expanduser(path))  # noqa: PTH111 - "~x.jpg" may be a file, and nobody's home
        if not os.path.isdir(place):  # noqa: PTH112 - unlike Path.is_dir, it takes any text for a name
            place = place.parent
        while glob.has_magic(str(place)) and not place.exists():
            place = place.parent
        found.append(place)
    return [place for place in dict.fromkeys(found) if place.is_dir()]


def _one(path: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    if path == "-":
        if isinstance(sys.stdin, io.TextIOWrapper):  # a name may be no text
            sys.stdin.reconfigure(errors="surrogateescape")
        yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
    elif os.path.isdir(path):  # noqa: PTH112 - as above
        yield from _folder(path, suffixes)
    elif Path(path).suffix.lower() in TABLES and os.path.isfile(path):  # noqa: PTH113
        yield from _table(Path(path))
    elif glob.has_magic(path) and not os.path.exists(path):  # noqa: PTH110
        found = sorted(glob.glob(os.path.expanduser(path), recursive=True))  # noqa: PTH207, PTH111 - may be absolute
        if not found:
            raise MienError(f"pattern {path!r} matches no file")
        for file in found:
            yield from _folder(file, suffixes) if Path(file).is_dir() else [file]
    else:
        _refuse_address(path)
        yield path


def _refuse_address(path: str) -> None:
    """Raises where a path that is no file is the address of something else."""
    if os.path.exists(path):  # noqa: PTH110
        return
    if re.match(r"[a-z][a-z0-9+]+://", path, re.I):
        raise MienError(
            f"{path!r} is an address; mien opens no connections: download the file first, for instance with curl -O, "
            "and give its path"
        )
    if path.isdigit() or re.fullmatch(r"/dev/video\d*", path):
        raise MienError(
            f"{path!r} is not a file; mien does not open cameras: record a clip first, for instance with "
            "ffmpeg -f v4l2 -i /dev/video0 -t 10 clip.mp4, and give its path (clips need mien[video])"
        )


def _folder(folder: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    def stop(error: OSError) -> None:
        raise MienError(f"folder {str(error.filename)!r} cannot be read: {error.strerror}")

    found = False
    others: list[str] = []
    for here, folders, files in os.walk(folder, onerror=stop):
        folders.sort()
        for name in sorted(files):
            if name.startswith("."):
                continue
            if name.lower().endswith(suffixes):
                found = True
                yield str(Path(here) / name)
            else:
                others.append(name)
    if not found:
        raise MienError(f"folder {folder!r} holds no images; taken are files with the suffixes {', '.join(suffixes)}")
    if others:
        progress_line(
            f"{printable(folder)}: {len(others):,} files are not images by their suffix, {printable(others[0])!r} first"
        )


def _table(path: Path) -> Iterator[str]:
    from mien.base.table import check_paths, read_table

    table = read_table(path)
    named = [column for column in _COLUMNS if column in table.columns]
    if not named:
        raise MienError(
            f"table {str(path)!r} has no column {' or '.join(map(repr, _COLUMNS))}; it has: {columns_of(table)}"
        )
    files = table[named[0]].dropna().map(str).astype("str")
    check_paths(files, f"table {str(path)!r}")
    yield from (str(path.parent / file) for file in files)
