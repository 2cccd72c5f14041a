"""What a user did wrong, said so that the user can mend it."""

import difflib
from collections.abc import Iterable
from pathlib import Path


class MienError(ValueError):
    """A mistake in what the user gave: the message names the thing, repeats the value and lists what is valid."""


class MissingExtra(MienError):
    """A part of mien that is not installed was asked for; the message says which `pip install` brings it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs packages that are not installed: pip install 'mien[{extra}]'")


class DiskFull(MienError):
    """There is no space left to write a file to."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"the disk of {str(path.parent)!r} is full: {path.name!r} was not written; free some space and give the "
            "same command again"
        )


def choices(thing: str, given: object, valid: Iterable[object]) -> str:
    """Says that `given` is no valid `thing`, lists what is valid, and names the nearest match if there is one."""
    names = [str(name) for name in valid]
    near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.6)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {thing} {given!r}{hint}; valid: {', '.join(names)}"
