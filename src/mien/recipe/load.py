"""Loads recipes from names, YAML files and mappings, and applies changes."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mien.base.errors import choices, listed, shortened, validation_message
from mien.base.strict_yaml import RecipeError, _parse, read_yaml, read_yaml_file
from mien.recipe.settings import ONE_SET, Recipe, _Settings


def recipe_names() -> dict[str, str]:
    """Returns the recipes that ship with mien: name -> first line of the header."""
    folder = resources.files("mien") / "recipe" / "recipes"
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: Path(file.name).stem
    )
    return {file.name.removesuffix(".yaml"): file.read_text("utf-8").split("\n")[0].strip("# ") for file in files}


def load_recipe(recipe: "str | Path | Recipe | Mapping[str, Any]", changes: Iterable[str] = ()) -> Recipe:
    """Reads a recipe and applies changes to it.

    Args:
        recipe: The name of one that ships, a YAML file, a mapping, or a recipe.
        changes: Like "optim.lr=0.01"; values are YAML; later ones win.

    Raises:
        RecipeError: The recipe does not exist or is not a YAML mapping; a key is unknown, a value has the wrong type
            or is out of range, or values contradict each other. All mistakes are listed by dotted key.
    """
    name, tree = _read(recipe)
    for change in changes:
        _apply(tree, change)
    for section in (tree, tree.get("init")):
        if isinstance(section, dict) and isinstance(section.get("tasks"), list):
            section["tasks"] = {str(task): {} for task in section["tasks"]}
    try:
        # JSON has no tuples, so lists from YAML are accepted for them although types are strict.
        return Recipe.model_validate_json(json.dumps({"name": name, **tree}, default=str))
    except ValidationError as error:
        raise RecipeError(f"recipe {name!r}:\n{listed(_explain, error.errors())}") from None


def _read(recipe: "str | Path | Recipe | Mapping[str, Any]", above: tuple[str, ...] = ()) -> tuple[str, dict[str, Any]]:
    if isinstance(recipe, Recipe):
        # What is not set stays so: a recipe with `auto` chooses it later.
        return recipe.name, recipe.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    if isinstance(recipe, Mapping):
        return "recipe", _on_base(json.loads(json.dumps(dict(recipe), default=str)), Path(), above)
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml"):
        if not os.path.isfile(path):  # noqa: PTH113 - as below
            raise RecipeError(f"recipe file {shortened(str(path))!r} does not exist")
        tree = read_yaml_file(path, f"recipe {str(recipe)!r}")
    elif str(recipe) in recipe_names():
        text = (resources.files("mien") / "recipe" / "recipes" / f"{recipe}.yaml").read_text("utf-8")
        tree = read_yaml(text, f"recipe {str(recipe)!r}")
    else:
        raise RecipeError(choices("recipe", str(recipe), recipe_names()) + "; or a .yaml file")
    if str(recipe) in above:
        raise RecipeError(f"recipe {str(recipe)!r} is its own base: {' -> '.join([*above, str(recipe)])}")
    name = path.stem if path.suffix in (".yaml", ".yml") else str(recipe)
    return name, _on_base(tree, path.parent, (*above, str(recipe)))


def _on_base(tree: dict[str, Any], folder: Path, above: tuple[str, ...]) -> dict[str, Any]:
    """Returns a recipe merged over its `base`: a recipe that ships with mien, or a file in the same folder."""
    base = tree.pop("base", None)
    if base is None:
        return tree
    beside = folder / str(base)
    there = os.path.isfile(beside)  # noqa: PTH113 - unlike Path.is_file, it accepts any text
    lower = _read(beside if there else str(base), above)[1]
    return _merged(lower | {"data": _replaced(lower.get("data"), tree.get("data"))}, tree)


def _replaced(lower: Any, upper: Any) -> Any:
    """Returns the section `data` of a base without its data when the recipe names other data: one set, or several."""
    if not (isinstance(lower, dict) and isinstance(upper, dict)):
        return lower or {}
    if upper.get("sets"):
        return {key: value for key, value in lower.items() if key not in ONE_SET}
    return {key: value for key, value in lower.items() if key != "sets" or "source" not in upper}


def _merged(lower: Any, upper: Any) -> Any:
    """Merges `upper` over `lower`: mappings are merged, all other values replaced."""
    if isinstance(lower, list) and isinstance(upper, dict):  # tasks: [gender] is short for tasks: {gender: {}}
        lower = {str(name): {} for name in lower}
    if not (isinstance(lower, dict) and isinstance(upper, dict)):
        return upper
    return lower | {
        key: value if key in _FREE and not value else _merged(lower.get(key), value) for key, value in upper.items()
    }


_FREE = ("columns", "map")
"""Mappings with keys of the user's own: an empty one removes those of the base."""


def _apply(tree: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not re.fullmatch(r"\w+(\.\w+)*", key):
        raise RecipeError(f"--set {change!r}: must be key=value with a dotted key, for instance optim.lr=0.01")
    value = _parse(text, f"--set {change!r}: the value is")
    *sections, last = key.split(".")
    node = tree
    for depth, section in enumerate(sections):
        below = node.setdefault(section, {})
        if isinstance(below, list):  # tasks: [gender] is short for tasks: {gender: {}}
            below = node[section] = {str(name): {} for name in below}
        if below is None:
            below = node[section] = {}
        if not isinstance(below, dict):
            inner = ".".join(sections[: depth + 1])
            raise RecipeError(f"--set {change!r}: {inner!r} is {below!r}, which is not a section")
        node = below
    node[last] = value


def _explain(problem: Any) -> str:
    """Describes one problem by the dotted key, the given value and what is valid."""
    *above, last = problem["loc"] or ("",)
    # A union adds the name of the tried branch, which is not a key of the recipe.
    parts = [str(part) for part in above if not _is_branch(part)]
    if problem["type"] == "extra_forbidden":
        return validation_message(problem, ".".join([*parts, shortened(str(last))]), _fields(parts))
    key = ".".join(parts if _is_branch(last) else [*parts, str(last)])
    return validation_message(problem, key)


def _is_branch(part: str | int) -> bool:
    return isinstance(part, str) and ("[" in part or part == "int")


def _fields(parts: list[str]) -> list[str]:
    """Returns the valid keys of a section of a recipe."""
    settings: Any = Recipe
    for part in parts:
        if part not in settings.model_fields:  # a name in a mapping, such as that of a data set
            continue
        annotation = settings.model_fields[part].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        settings = next(option for option in options if isinstance(option, type) and issubclass(option, _Settings))
    return list(settings.model_fields)
