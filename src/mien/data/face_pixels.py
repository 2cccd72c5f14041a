"""The pixels of a faces table: decoded on access, or once into a memory-mapped cache on disk."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from mien.base.atomic import atomic_path, naming_full_disk
from mien.base.errors import MienError
from mien.base.lock import Lock
from mien.base.progress import ProgressCallback
from mien.data import images

_VERSION = 1  # of the output of images.load_face; a new one invalidates old caches
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
    """Returns the folder of caches: MIEN_CACHE, or `mien` in the user's cache folder."""
    if "MIEN_CACHE" in os.environ:
        return Path(os.environ["MIEN_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "mien"


def boxes(faces: pd.DataFrame) -> list[images.Box | None]:
    """Returns the box of each face; None if it is unknown."""
    return [
        None if np.isnan(box).any() else (box[0], box[1], box[2], box[3])
        for box in faces[["x", "y", "w", "h"]].to_numpy(dtype=float)
    ]


class FilePixels:
    """Faces that are decoded from their files on each access."""

    def __init__(self, faces: pd.DataFrame, root: str | Path, size: int, margin: float = 0.0) -> None:
        self.size = size
        self._margin = margin
        self.root = Path(root)
        self._paths = [Path(root) / path for path in faces["path"]]
        self._boxes = boxes(faces)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> np.ndarray:
        return images.load_face(self._paths[index], self.size, self._boxes[index], self._margin)

    def stamps(self) -> np.ndarray:
        """Returns int64 (n, 2): size in bytes and modification time (ns) of each file; -1 if it is missing."""
        return np.array([_stamp(path) for path in self._paths], dtype=np.int64).reshape(-1, 2)

    def key(self) -> str:
        """Returns a key of these faces at this size: equal for equal paths, boxes and margins."""
        parts = [
            _VERSION,
            self.size,
            self._margin,
            [str(path.absolute()) for path in self._paths],
            self._boxes,
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
        self._pixels = _mapped(self._folder / "pixels.u8", np.uint8, (count, size, size, 3))
        self._state = _mapped(self._folder / "state.u8", np.uint8, (count,))
        self._stamps = _mapped(self._folder / "stamps.i64", np.int64, (count, 2))
        reasons = self._folder / "unreadable.json"
        self._reasons: dict[str, str] = json.loads(reasons.read_text()) if reasons.exists() else {}

    def __getstate__(self) -> dict[str, object]:  # a worker process maps the files itself
        return {name: self.__dict__[name] for name in ("size", "_files", "_folder")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._map()

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> np.ndarray:
        if self._state[index] == _BAD:
            reason, _, detail = self._reasons[str(index)].partition(": ")
            raise images.ImageError(reason, detail)
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
            images.check_there([self._files.root])
        self._state[(self._stamps != stamps).any(axis=1)] = _TODO
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
        return None

    def _finish(self, chunk: np.ndarray, reasons: Sequence[str | None], stamps: np.ndarray) -> None:
        bad = {str(index): reason for index, reason in zip(chunk, reasons, strict=True) if reason is not None}
        if bad:
            images.check_there([self._files.root])
            self._reasons.update(bad)
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


def _mapped(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a memory-mapped array of zeros, or with the existing content of the file."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with path.open("ab") as file:
        if file.tell() != size and size:
            file.truncate(0)
            # A full disk must raise an error here, not a fatal signal at a later write to the map.
            with naming_full_disk(path):
                os.posix_fallocate(file.fileno(), 0, size)
    return np.memmap(path, dtype, "r+", shape=shape) if size else np.zeros(shape, dtype)
