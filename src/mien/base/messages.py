"""Notes: single lines of text for the user, and the quiet switch of all output. Light: it imports no other package.

Notes and tables (`mien.base.console`) go to standard output. Progress goes to standard error, so that redirected output
contains no progress. The environment variable MIEN_QUIET=1, or the context manager `quiet`, switches all of it off.
Errors are exceptions and are not affected.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_quiet = os.environ.get("MIEN_QUIET", "") not in ("", "0")


def is_quiet() -> bool:
    """Returns whether output is switched off."""
    return _quiet


def set_quiet(value: bool) -> None:
    """Switches all output off or on."""
    global _quiet
    _quiet = value


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Prints nothing while the block runs.

    Examples:
        >>> from mien.base.messages import note, quiet
        >>> with quiet():
        ...     note("not printed")
    """
    before = is_quiet()
    set_quiet(True)
    try:
        yield
    finally:
        set_quiet(before)


@contextlib.contextmanager
def to_file(path: Path) -> Iterator[None]:
    """Appends all output of the block to a file, that of libraries included."""
    with (
        path.open("a", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        yield


def note(text: str, warning: bool = False) -> None:
    """Prints a line to standard output; a warning is yellow in a terminal."""
    if is_quiet():
        return
    yellow = warning and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print(f"\x1b[33m{text}\x1b[0m" if yellow else text, flush=True)


def progress_line(text: str) -> None:
    """Prints a line to standard error, for progress where there is no bar."""
    if not is_quiet():
        print(text, file=sys.stderr, flush=True)
