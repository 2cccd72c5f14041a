"""What a user did wrong, said so that the user can mend it."""

import difflib
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

_MISTAKES = 20  # are listed, at most
_LONGEST = 200  # characters of a value that is repeated


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
    near = difflib.get_close_matches(str(given)[:_LONGEST], names, n=1, cutoff=0.6)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {thing} {shortened(repr(given))}{hint}; valid: {shortened(', '.join(names), 2000)}"


def printable(text: str, keep: str = "") -> str:
    """A text that a file brought, for a terminal: no line breaks (but those to keep), commands or stray bytes."""
    plain = "".join(letter if letter.isprintable() or letter in keep else ascii(letter)[1:-1] for letter in text)
    encoding = sys.stdout.encoding or "utf-8"
    return plain.encode(encoding, "backslashreplace").decode(encoding)


def shortened(text: str, longest: int = _LONGEST) -> str:
    """A text that a file brought, short enough for a message."""
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text):,} characters)"


def columns_of(table: Any) -> str:
    """The names of a table's columns, for a message."""
    return shortened(", ".join(map(str, table.columns)), 700)


def listed(explain: Callable[[Any], str], mistakes: Sequence[Any]) -> str:
    """The mistakes in words, one a line; of very many the first ones, and how many there are."""
    lines = [f"  {explain(mistake)}" for mistake in mistakes[:_MISTAKES]]
    rest = [f"  and {len(mistakes) - _MISTAKES:,} more"] if len(mistakes) > _MISTAKES else []
    return "\n".join(lines + rest)
