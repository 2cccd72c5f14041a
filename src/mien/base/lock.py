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
    """

    def __init__(self, file: Path) -> None:
        self._file = file
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
                f"file {str(self._file)!r} cannot be locked ({error.strerror}): its file system does not support locks "
                "between processes; valid: a local one, NFS, or Lustre mounted with the option flock"
            ) from error
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        return True

    def release(self) -> None:
        """Releases the lock."""
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
