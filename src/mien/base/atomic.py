"""Atomic writes: a file is written completely or not at all."""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from mien.base.errors import DiskFull, MienError
from mien.base.lock import lock_open_file


class atomic_path:
    """Context manager that yields a temporary file, which replaces `path` when the block ends without an error.

    The temporary name is always the same, so the next process overwrites what a killed process left behind. While
    another process or thread writes the same file, a unique name is used.

    Raises:
        DiskFull: The block failed because no space is left.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __enter__(self) -> Path:
        with naming_full_disk(self.path):
            self.part = self._named("part")
            self._handle = _locked(self.part)
            if self._handle is None:
                self.part = self._named(uuid.uuid4().hex[:8])
                self._handle = os.open(self.part, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        return self.part

    def _named(self, word: str) -> Path:
        return self.path.with_name(f".{self.path.stem[:40]}.{word}{self.path.suffix}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._handle is not None
        try:
            if kind is None:
                self.part.replace(self.path)
            else:
                with naming_full_disk(self.path):
                    raise error or kind()
        except BaseException as problem:
            self.part.unlink(missing_ok=True)
            if problem is not error:
                raise
        finally:
            os.close(self._handle)


def check_folder(out: str | Path) -> Path:
    """Returns the path of an output folder, checked before any work is done.

    Raises:
        MienError: It is a file, or is inside of one.
    """
    out = Path(out)
    for place in (out, *out.parents):
        if place.exists():
            if not place.is_dir():
                raise MienError(f"--out {str(out)!r}: {str(place)!r} is a file; give a folder")
            break
    return out


def new_folder(out: str | Path) -> Path:
    """Returns the folder, created if it does not exist; raises as `check_folder`."""
    folder = check_folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _locked(part: Path) -> int | None:
    """Opens and locks the empty file; None if it is in use, or the file system does not support locks."""
    try:
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno in _FULL:
            raise
        return None
    try:
        # Between the two calls the previous holder may have moved the file to its final name.
        if lock_open_file(handle) and os.path.samestat(part.stat(), os.fstat(handle)):
            os.truncate(handle, 0)
            return handle
    except OSError:
        pass
    os.close(handle)
    return None


_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Reports that the disk is full if the block failed for this reason.

    Raises:
        DiskFull: In place of what the block raised.
    """
    try:
        yield
    except Exception as error:
        if _is_full(error, path.parent):
            raise DiskFull(path) from error
        raise


def _is_full(error: Exception, folder: Path) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    # torch's error states that the file is shorter than what was written, not the reason.
    return isinstance(error, RuntimeError) and "inline_container" in str(error)
