"""Strict YAML: a mapping in which each key occurs once, bounded in length and depth."""

import re
import stat
from pathlib import Path
from typing import Any

import yaml

from mien.base.errors import MienError


class RecipeError(MienError):
    """A recipe that cannot be read, or settings that are unknown, of a wrong type or impossible together."""


MAX_YAML = 100_000
"""Characters of a YAML text, at most; the longest recipe that ships has 3,000."""


_DEEPEST = 20  # levels of a YAML text


class _Loader(yaml.SafeLoader):
    """Loads YAML with unique keys and 1e-3 as a number, and without aliases, so that a short text stays small."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            # A few lines of nested aliases can expand to billions of values.
            raise yaml.composer.ComposerError(
                None, None, f"alias *{event.anchor}: aliases are not read; write the value again", mark
            )
        self._depth += 1
        if self._depth > _DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"more than {_DEEPEST} levels", mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for name, _ in node.value:
            key = self.construct_object(name, deep=True)
            if not isinstance(key, str | int | float | None):
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is not a valid key", name.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} occurs twice", node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(text: str, what: str) -> dict[str, Any]:
    """Returns a mapping from YAML with unique keys, in which 1e-3 is a number.

    Raises:
        RecipeError: It is not YAML or not a mapping, is too long or too deep, or has aliases; the message names `what`.
    """
    tree = _parse(text, f"{what} is")
    if not isinstance(tree, dict):
        raise RecipeError(f"{what} must be a mapping of sections; it is {type(tree).__name__}")
    return tree


def read_yaml_file(path: Path, what: str) -> dict[str, Any]:
    """As `read_yaml`, from a file.

    Raises:
        RecipeError: As `read_yaml`, or the file cannot be read or is not text.
    """
    try:
        about = path.stat()
        if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):  # a pipe would be waited for
            raise RecipeError(f"{what} cannot be read: it is not a regular file")
        if about.st_size > 4 * MAX_YAML:  # bytes of one character, at most
            raise RecipeError(f"{what} is not valid YAML: more than {MAX_YAML:,} characters")
        return read_yaml(path.read_text("utf-8"), what)
    except UnicodeDecodeError as error:
        raise RecipeError(f"{what} is not valid YAML: it is not UTF-8 text: {error}") from None
    except OSError as error:
        raise RecipeError(f"{what} cannot be read: {error.strerror}") from None


def _parse(text: str, subject: str) -> Any:
    """Returns the value of a YAML text."""
    if len(text) > MAX_YAML:
        raise RecipeError(f"{subject} not valid YAML: more than {MAX_YAML:,} characters")
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        # The loader raises the last ones for malformed dates, numbers and tagged values.
        raise RecipeError(f"{subject} not valid YAML: {error}") from None
