"""Locks between processes, which end with the process that holds them."""

import fcntl
import os
from pathlib import Path
from types import TracebackType

from mien.base.errors import MienError


class Lock:
    """A file that one process at a time holds; as a context manager it waits until it is free.

    A process that dies, however it dies, lets go of it at once; its child processes do not hold it. On several
    machines it holds where the file system shares POSIX locks, as NFS does.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._handle: int | None = None

    def take(self, wait: bool = False) -> bool:
        """Takes the lock; returns whether this process holds it now."""
        if self._handle is not None:
            return True
        handle = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(handle)
            return False
        except OSError as error:
            os.close(handle)
            raise MienError(
                f"file {str(self._file)!r} cannot be locked ({error.strerror}): its file system keeps no locks between "
                "processes; valid: a local one, NFS, or Lustre mounted with the option flock"
            ) from error
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        return True

    def release(self) -> None:
        """Lets go of it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> "Lock":
        self.take(wait=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
