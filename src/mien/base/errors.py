"""Errors of users, with messages that help to correct them."""

import difflib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_MISTAKES = 20  # are listed, at most
_LONGEST = 200  # characters of a value that is repeated


class MienError(ValueError):
    """Invalid input: the message names the thing, repeats the value and lists what is valid."""


class MissingExtra(MienError):
    """An optional dependency is not installed; the message names the extra that provides it first.

    Args:
        what: The feature: "mien[serve] is needed for WHAT".
        extra: The extra.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"mien[{extra}] is needed for {what}: pip install 'mien[{extra}]'")


class DiskFull(MienError):
    """No space is left on the disk of a file that is to be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(
            f"the disk of {str(path.parent)!r} is full: {path.name!r} was not written; free some space and rerun "
            "the same command"
        )


class ModelFailure(MienError):
    """A model fails on images, or gives numbers that are no predictions."""


def choices(thing: str, given: object, valid: Iterable[object]) -> str:
    """Returns a message that `given` is not a valid `thing`, with the closest match and the list of valid values."""
    names = [str(name) for name in valid]
    near = difflib.get_close_matches(str(given)[:_LONGEST], names, n=1, cutoff=0.6)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {thing} {shortened(repr(given))}{hint}; valid: {shortened(', '.join(names), 2000)}"


def printable(text: str, keep: str = "") -> str:
    """Returns text from a file in a form that is safe to print: no control characters except those in `keep`."""
    plain = "".join(letter if letter.isprintable() or letter in keep else ascii(letter)[1:-1] for letter in text)
    encoding = sys.stdout.encoding or "utf-8"
    return plain.encode(encoding, "backslashreplace").decode(encoding)


def shortened(text: str, longest: int = _LONGEST) -> str:
    """Returns text from a file, truncated for use in a message."""
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text):,} characters)"


def plain(value: Any) -> Any:
    """Returns a value of a table as Python's own, for a message: -0.8, not np.float64(-0.8)."""
    return value.item() if hasattr(value, "item") else value


def columns_of(table: Any) -> str:
    """Returns the names of a table's columns, for a message."""
    return shortened(", ".join(map(str, table.columns)), 700)


def plain_message(problem: Mapping[str, Any]) -> str:
    """Returns pydantic's message for one problem of a `ValidationError`, as it continues a sentence."""
    message = problem["msg"]
    if problem["type"] == "value_error":
        return message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def validation_message(problem: Mapping[str, Any], key: str, valid: Iterable[str] = (), thing: str = "key") -> str:
    """Describes one problem of a pydantic `ValidationError`.

    Args:
        problem: One entry of `ValidationError.errors()`.
        key: Dotted key of the wrong value; empty where values contradict each other.
        valid: The keys that are valid at this place, for a key that is unknown.
        thing: What a key is called, for instance "limit".
    """
    given = shortened(repr(problem["input"]))
    if problem["type"] == "extra_forbidden":
        return f"{key} = {given}: {choices(thing, problem['loc'][-1], valid)}"
    if problem["type"] == "value_error":
        return f"{key}: {plain_message(problem)}" if key else plain_message(problem)
    return f"{key} = {given}: {plain_message(problem)}"


def listed(explain: Callable[[Any], str], mistakes: Sequence[Any]) -> str:
    """Returns the explained mistakes, one per line; a long list is cut and the rest counted."""
    lines = [f"  {explain(mistake)}" for mistake in mistakes[:_MISTAKES]]
    rest = [f"  and {len(mistakes) - _MISTAKES:,} more"] if len(mistakes) > _MISTAKES else []
    return "\n".join(lines + rest)
