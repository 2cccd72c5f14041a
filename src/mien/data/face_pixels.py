"""The pixels of a faces table: decoded on access, or once into a memory-mapped cache on disk."""

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from mien.base.atomic import atomic_path, naming_full_disk
from mien.base.errors import MienError
from mien.base.lock import Lock
from mien.base.messages import note
from mien.base.progress import ProgressCallback
from mien.data import images
from mien.data.alignment import load_upright
from mien.data.roots import Root, folders_of, open_root

_VERSION = 2  # of the output of load_upright; a new one invalidates old caches
_CHUNK = 64
_TODO, _GOOD, _BAD = 0, 1, 2


class Pixels(Protocol):
    """A sequence of face images, the input of training and prediction."""

    size: int

    def __len__(self) -> int:
        """The number of faces."""
        ...

    def __getitem__(self, index: int) -> np.ndarray:
        """Face `index` as uint8 (size, size, 3); raises `images.ImageError` where it cannot be read."""
        ...


def cache_folder() -> Path:
    """Returns the folder of caches: MIEN_CACHE, or `mien` in the user's cache folder.

    Without either, for instance in a container without a home, it is a private folder for temporary files.

    Raises:
        MienError: MIEN_CACHE cannot be written, or it is not set and no other folder can.
    """
    if given := os.environ.get("MIEN_CACHE"):
        if not _is_writable(Path(given)):
            raise MienError(f"MIEN_CACHE={given!r} cannot be written; valid: a folder that this user can write")
        return Path(given)
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mien"
    except RuntimeError:  # no HOME, and a user without an entry
        folder = None
    if folder is not None and _is_writable(folder):
        return folder
    user = os.geteuid()
    fallback = Path(tempfile.gettempdir()) / f"mien-{user}"
    # Another user could have made the folder of that name.
    if not _is_writable(fallback, mode=0o700) or fallback.is_symlink() or fallback.stat().st_uid != user:
        raise MienError(
            f"no folder for caches: neither the home folder nor {str(fallback)!r} can be used; set MIEN_CACHE"
        )
    _note_fallback(str(fallback))
    return fallback


def _is_writable(folder: Path, mode: int = 0o777) -> bool:
    try:
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode, exist_ok=True)
    except (OSError, ValueError):
        return False
    return os.access(folder, os.W_OK | os.X_OK)


@cache
def _note_fallback(folder: str) -> None:
    note(f"no home folder that can be written: caches are in {folder!r}; MIEN_CACHE names another folder")


def boxes(faces: pd.DataFrame) -> list[images.Box | None]:
    """Returns the box of each face; None if it is unknown."""
    return [
        None if np.isnan(box).any() else (box[0], box[1], box[2], box[3])
        for box in faces[["x", "y", "w", "h"]].to_numpy(dtype=float)
    ]


def rolls(faces: pd.DataFrame) -> list[float]:
    """Returns the angle of each face in radians clockwise, from the column `roll`; 0 where it is not known.

    Raises:
        MienError: The column holds other values than angles in radians.
    """
    if "roll" not in faces.columns:
        return [0.0] * len(faces)
    angles = pd.to_numeric(faces["roll"], errors="coerce")
    wrong = faces["roll"].notna() & ~(angles.abs() <= np.pi)
    if wrong.any():
        raise MienError(
            f"column 'roll': {faces.loc[wrong, 'roll'].iloc[0]!r} is no angle in radians ({int(wrong.sum())} rows); "
            "valid: -3.15 to 3.15, clockwise, or empty"
        )
    return [float(angle) for angle in angles.fillna(0.0)]


class FilePixels:
    """Faces that are decoded from their files on each access, and turned upright where the table has their `roll`."""

    def __init__(self, faces: pd.DataFrame, root: str | Path | Root, size: int, margin: float = 0.0) -> None:
        self.size = size
        self._margin = margin
        opened = open_root(root)
        self.folders = folders_of(opened)
        self._paths = [opened / path for path in faces["path"]]
        self._boxes = boxes(faces)
        self._rolls = rolls(faces)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> np.ndarray:
        return load_upright(self._paths[index], self.size, self._boxes[index], self._margin, self._rolls[index])

    def stamps(self) -> np.ndarray:
        """Returns int64 (n, 2): size in bytes and modification time (ns) of each file; -1 if it is missing."""
        return np.array([_stamp(path) for path in self._paths], dtype=np.int64).reshape(-1, 2)

    def key(self) -> str:
        """Returns a key of these faces at this size: equal for equal paths, boxes, angles and margins."""
        parts: list[Any] = [
            _VERSION,
            self.size,
            self._margin,
            [str(path.absolute()) for path in self._paths],
            self._boxes,
            *([self._rolls] if any(self._rolls) else []),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


class PixelSubset:
    """A subset of the faces of other pixels."""

    def __init__(self, pixels: Pixels, indices: np.ndarray) -> None:
        self.size = pixels.size
        self._pixels = pixels
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._pixels[int(self._indices[index])]


class PixelCache:
    """Decoded faces in a memory-mapped file; faces whose file has changed are decoded again.

    An interrupted `fill` can be resumed: a face is marked as done after its pixels are written. If several processes
    fill the same cache, one of them does it and the others wait.

    A cache with a file of the wrong size is built anew. Each face has a checksum, which is verified when the face is
    first used; a face that does not match is decoded from its file.
    """

    def __init__(self, files: FilePixels, folder: Path | None = None) -> None:
        self.size = files.size
        self._files = files
        self._folder = (folder or cache_folder()) / f"pixels-{files.size}-{files.key()}"
        self._map()

    def _map(self) -> None:
        count, size = len(self._files), self.size
        self._folder.mkdir(parents=True, exist_ok=True)
        with Lock(self._folder / "lock"):
            self._open(count, size)

    def _open(self, count: int, size: int) -> None:
        parts: dict[str, tuple[type, tuple[int, ...]]] = {
            "pixels.u8": (np.uint8, (count, size, size, 3)),
            "state.u8": (np.uint8, (count,)),
            "sums.u32": (np.uint32, (count,)),
            "stamps.i64": (np.int64, (count, 2)),
        }
        if not all(_is_whole(self._folder / name, *part) for name, part in parts.items()):
            for name in [*parts, "unreadable.json"]:
                (self._folder / name).unlink(missing_ok=True)  # who has mapped the old file keeps it
        maps = [_mapped(self._folder / name, *part) for name, part in parts.items()]
        self._pixels, self._state, self._sums, self._stamps = maps
        self._verified = np.zeros(count, dtype=bool)
        self._reasons = _read_reasons(self._folder / "unreadable.json")

    def __getstate__(self) -> dict[str, object]:  # a worker process maps the files itself
        return {name: self.__dict__[name] for name in ("size", "_files", "_folder")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._map()

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> np.ndarray:
        if self._state[index] == _BAD and str(index) in self._reasons:
            reason, _, detail = self._reasons[str(index)].partition(": ")
            raise images.ImageError(reason, detail)
        if not self._verified[index]:
            if self._state[index] != _GOOD or zlib.crc32(self._pixels[index]) != self._sums[index]:
                return self._files[index]
            self._verified[index] = True
        return self._pixels[index]

    def fill(self, progress: ProgressCallback | None = None) -> None:
        """Decodes the faces that are missing or have changed.

        Raises:
            MienError: The folder of the images is gone; decoded faces are kept.
        """
        with Lock(self._folder / "lock"):
            self._open(len(self._files), self.size)  # another process may have filled it meanwhile
            self._fill(progress)

    def _fill(self, progress: ProgressCallback | None) -> None:
        stamps = self._files.stamps()
        if (stamps < 0).any():
            images.check_there(self._files.folders)
        unreadable = np.zeros(len(stamps), dtype=bool)
        unreadable[[int(index) for index in self._reasons if int(index) < len(stamps)]] = True
        known = self._state == np.where(unreadable, _BAD, _GOOD)
        self._state[~known | (self._stamps != stamps).any(axis=1)] = _TODO
        todo = np.flatnonzero(self._state == _TODO)
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside of the interpreter's lock
            for start in range(0, len(todo), _CHUNK):
                chunk = todo[start : start + _CHUNK]
                self._finish(chunk, list(pool.map(self._decode, chunk)), stamps)
                if progress:
                    progress(start + len(chunk), len(todo))

    def _decode(self, index: int) -> str | None:
        try:
            self._pixels[index] = self._files[index]
        except images.ImageError as error:
            return str(error)
        self._sums[index] = zlib.crc32(self._pixels[index])
        return None

    def _finish(self, chunk: np.ndarray, reasons: Sequence[str | None], stamps: np.ndarray) -> None:
        bad = {str(index): reason for index, reason in zip(chunk, reasons, strict=True) if reason is not None}
        if bad:
            images.check_there(self._files.folders)
        known = {index: reason for index, reason in self._reasons.items() if int(index) not in chunk} | bad
        if known != self._reasons:
            self._reasons = known
            with atomic_path(self._folder / "unreadable.json") as part:
                part.write_text(json.dumps(self._reasons))
        self._stamps[chunk] = stamps[chunk]
        self._state[chunk] = [_GOOD if reason is None else _BAD for reason in reasons]

    def unreadable(self) -> dict[int, str]:
        """Returns index -> reason of the faces that cannot be read."""
        return {int(index): self._reasons[str(index)] for index in np.flatnonzero(self._state == _BAD)}


def check_readable(faces: pd.DataFrame, unreadable: dict[int, str], bound: float) -> None:
    """Raises if a larger share of the faces than `bound` cannot be read.

    Raises:
        MienError: With the counts of each reason and an example.
    """
    if len(unreadable) > bound * len(faces):
        counts = pd.Series([reason.partition(":")[0] for reason in unreadable.values()]).value_counts()
        kinds = ", ".join(f"{reason} {count}" for reason, count in counts.items())
        first = next(iter(unreadable))
        raise MienError(
            f"{len(unreadable)} of {len(faces)} images cannot be read ({kinds}), more than data.max_unreadable = "
            f"{bound:g}; for example {faces['path'].iloc[first]!r}: {unreadable[first]}"
        )


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _bytes(dtype: type, shape: tuple[int, ...]) -> int:
    return int(np.prod(shape)) * np.dtype(dtype).itemsize


def _is_whole(path: Path, dtype: type, shape: tuple[int, ...]) -> bool:
    try:
        return path.stat().st_size == _bytes(dtype, shape)
    except FileNotFoundError:
        return False


def _read_reasons(path: Path) -> dict[str, str]:
    """Why faces cannot be read; empty where the file is absent or damaged, and such faces are decoded again."""
    try:
        reasons = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    if not isinstance(reasons, dict) or not all(key.isdecimal() and isinstance(reasons[key], str) for key in reasons):
        return {}
    return reasons


def _mapped(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a memory-mapped array of zeros, or with the existing content of the file, which has the right size."""
    size = _bytes(dtype, shape)
    with path.open("ab") as file:
        if file.tell() != size:
            # A full disk must raise an error here, not a fatal signal at a later write to the map.
            with naming_full_disk(path):
                os.posix_fallocate(file.fileno(), 0, size)
    return np.memmap(path, dtype, "r+", shape=shape) if size else np.zeros(shape, dtype)
