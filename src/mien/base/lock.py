"""File locks; all of them end with the process that holds them."""

import fcntl
import os
from pathlib import Path
from types import TracebackType

from mien.base.errors import MienError


def lock_open_file(handle: int) -> bool:
    """Takes an exclusive lock on an open file without waiting, against other processes and threads (flock).

    Args:
        handle: File descriptor; the lock ends when it is closed.

    Returns:
        Whether it is locked now; False if another holder has it.

    Raises:
        OSError: The file system does not support locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Lock:
    """A lock file that one process at a time can hold (a POSIX lock); as a context manager it waits for the lock.

    The lock is released when the process ends for any reason; child processes do not inherit it. It works across
    machines if the file system supports POSIX locks, as NFS does. Threads of one process share it: use
    `lock_open_file` between threads.

    Args:
        file: The lock file; its folder must exist.
        temporary: Remove the file on release; a killed process leaves it, which does no harm.
    """

    def __init__(self, file: Path, temporary: bool = False) -> None:
        self._file = file
        self._temporary = temporary
        self._handle: int | None = None

    def take(self, wait: bool = False) -> bool:
        """Takes the lock.

        Args:
            wait: Wait until it is free.

        Returns:
            Whether this process holds the lock now.

        Raises:
            MienError: The file system does not support locks.
        """
        while self._handle is None:
            handle = self._locked(wait)
            if handle is None:
                return False
            # The previous holder may have removed the file between the two calls.
            if self._temporary and not self._is_file_of(handle):
                os.close(handle)
                continue
            self._handle = handle
        return True

    def _is_file_of(self, handle: int) -> bool:
        try:
            return os.path.samestat(self._file.stat(), os.fstat(handle))
        except FileNotFoundError:
            return False

    def _locked(self, wait: bool) -> int | None:
        """Opens and locks the file; None if another process has it."""
        handle = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError as error:
            os.close(handle)
            raise MienError(
                f"file {str(self._file)!r} cannot be locked ({error.strerror}): its file system does not support locks "
                "between processes; valid: a local one, NFS, or Lustre mounted with the option flock"
            ) from error
        except BaseException:
            os.close(handle)
            raise
        return handle

    def release(self) -> None:
        """Releases the lock."""
        if self._handle is not None:
            if self._temporary:
                self._file.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> "Lock":
        self.take(wait=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
