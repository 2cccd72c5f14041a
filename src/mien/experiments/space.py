"""Search spaces: the settings that a search varies and their values; strict YAML with the keys of `--set`."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from mien.base.errors import MienError, listed, validation_message
from mien.base.strict_yaml import RecipeError, read_yaml_file
from mien.recipe.load import load_recipe
from mien.recipe.settings import Recipe

Scalar = bool | int | float | str | None

FIXED = ("name", "data", "split", "augment.evaluation", "trainer.epochs", "trainer.devices", "trainer.nodes")
"""Settings that a search cannot vary: all trials have the same data and evaluation; epochs are the budget."""


class SpaceError(MienError):
    """A search space cannot be read, or does not fit the recipe."""


class Parameter(BaseModel):
    """The values of one setting: a range (`low`, `high`) or `choices`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: tuple[Any, ...] | None = None
    when: dict[str, tuple[Any, ...]] = {}

    @model_validator(mode="after")
    def _range_or_choices(self) -> "Parameter":
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ValueError("choices beside low, high, log or step; valid: either a range or choices")
            names = self.labels
            if len(names) < 2 or len(set(names)) < len(names):
                raise ValueError(f"choices {list(self.choices)}; valid: two or more different values")
            return self
        if self.low is None or self.high is None:
            raise ValueError("neither low and high nor choices; valid: {low, high, log, step} or {choices}")
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} and high {self.high:g} are an empty range; valid: low < high")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low:g} with log; valid: above 0")
        if self.step is not None and (self.log or not 0 < self.step <= self.high - self.low):
            raise ValueError(f"step {self.step:g}; valid: above 0, not above high - low, and not with log")
        return self

    @property
    def labels(self) -> list[Scalar]:
        """The choices as scalars: lists and mappings as JSON text."""
        return [label(value) for value in self.choices or ()]

    def active(self, chosen: Mapping[str, Scalar]) -> bool:
        """Returns whether the setting is varied, given the labels chosen for the keys above it."""
        return all(key in chosen and chosen[key] in map(label, values) for key, values in self.when.items())

    def value(self, chosen: Scalar) -> Any:
        """Returns the value of a label in a recipe."""
        return chosen if self.choices is None else self.choices[self.labels.index(chosen)]


Space = dict[str, Parameter]
"""Dotted key -> its values, in the order of the file."""


def label(value: Any) -> Scalar:
    """Returns a value of a recipe as a scalar."""
    return value if isinstance(value, Scalar) else json.dumps(value)


def is_whole(key: str) -> bool:
    """Returns whether a setting takes whole numbers only."""
    annotation: Any = Recipe
    for part in key.split("."):
        models = [kind for kind in (annotation, *get_args(annotation)) if hasattr(kind, "model_fields")]
        if not models or part not in models[0].model_fields:
            return False
        annotation = models[0].model_fields[part].annotation
    kinds = {annotation, *get_args(annotation)}
    return int in kinds and float not in kinds


def changes(space: Space, chosen: Mapping[str, Scalar]) -> list[str]:
    """Returns labels by key as changes of a recipe, like "optim.lr=0.01"."""
    return [f"{key}={json.dumps(space[key].value(value))}" for key, value in chosen.items()]


def read_space(source: str | Path | Mapping[str, Any], recipe: Recipe) -> Space:
    """Reads a search space and checks it against the recipe whose settings it varies.

    Args:
        source: A YAML file, or a mapping: dotted key -> {low, high, log, step} or {choices}, and `when`.
        recipe: Each end of a range, and each choice, must make a valid recipe of it.

    Raises:
        SpaceError: All mistakes, by dotted key.
    """
    name, tree = ("space", dict(source)) if isinstance(source, Mapping) else _read(Path(source))
    if not tree:
        raise SpaceError(f"search space {name!r} is empty; valid: at least one dotted key, for instance optim.lr")
    space: Space = {}
    mistakes: list[str] = []
    for key, given in tree.items():
        try:
            # JSON has no tuples, so lists are accepted for them although types are strict.
            space[key] = Parameter.model_validate_json(json.dumps(given, default=str))
        except ValidationError as error:
            mistakes += [_explain(str(key), problem) for problem in error.errors()]
    for key in space:
        mistakes += _mistakes(key, space, tree, recipe)
    if mistakes:
        raise SpaceError(f"search space {name!r}:\n{listed(str, mistakes)}")
    return space


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    if not path.is_file():
        raise SpaceError(f"search space {str(path)!r} does not exist or is not a file; valid: a YAML file")
    try:
        return str(path), read_yaml_file(path, f"search space {str(path)!r}")
    except RecipeError as error:
        raise SpaceError(str(error)) from None


def _explain(key: str, problem: Any) -> str:
    part = ".".join(str(part) for part in problem["loc"] if part not in ("int", "float"))
    return validation_message(problem, f"{key}.{part}" if part else key, Parameter.model_fields)


def _mistakes(key: str, space: Space, tree: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """Returns what is wrong with one well-formed parameter in its context."""
    fixed = [name for name in FIXED if key == name or key.startswith(f"{name}.")]
    if fixed:
        return [f"{key}: a search cannot vary {fixed[0]}; valid: other settings of a recipe"]
    parameter = space[key]
    above = dict.fromkeys(list(tree)[: list(tree).index(key)])
    parents = [name for name in above if name in space and space[name].choices is not None]
    mistakes = []
    for name, values in parameter.when.items():
        if name not in parents:
            listed = ", ".join(parents) or "there is none"
            mistakes.append(
                f"{key}: when {name!r}; valid: a key of this space with choices that stands above: {listed}"
            )
            continue
        strange = [value for value in values if label(value) not in space[name].labels]
        if strange or not values:
            mistakes.append(f"{key}: when {name} is {list(values)}; valid: some of {list(space[name].choices or ())}")
    return mistakes or list(dict.fromkeys(_refused(key, parameter, space, recipe)))


def _refused(key: str, parameter: Parameter, space: Space, recipe: Recipe) -> Iterator[str]:
    """Yields the errors of the recipe for the ends of the range, or for the choices, where the parameter is active."""
    if parameter.choices is None and is_whole(key):
        for name in ("low", "high", "step"):
            if isinstance(getattr(parameter, name), float):
                yield f"{key}: {name} is {getattr(parameter, name)}; valid: a whole number"
                return
    tried: Iterable[Any] = parameter.choices if parameter.choices is not None else (parameter.low, parameter.high)
    for value in tried:
        try:
            load_recipe(recipe, [*_conditions(parameter, space), f"{key}={json.dumps(value)}"])
        except RecipeError as error:
            first, *lines = str(error).split("\n")
            yield from (f"{key}: {line.strip().removeprefix(f'{key} ')}" for line in lines or [first])


def _conditions(parameter: Parameter, space: Space) -> list[str]:
    """Returns changes that make a parameter active, those of its parents first."""
    found: list[str] = []
    for key, values in parameter.when.items():
        found += [*_conditions(space[key], space), f"{key}={json.dumps(values[0])}"]
    return found
