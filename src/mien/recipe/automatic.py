"""Settings that follow from the data, for recipes with `auto: true`: tasks, length, batches, and what is frozen.

What a recipe or `--set` states is kept; only the rest is chosen.
"""

import json
from typing import TYPE_CHECKING, Any

from mien.base.errors import MienError
from mien.base.labels import GENDERS, PREDICTED
from mien.recipe.load import load_recipe
from mien.recipe.settings import WITHOUT_HEADS, Recipe

if TYPE_CHECKING:
    import pandas as pd

MIN_FACES = 40
"""Labelled faces that a task needs: with fewer, the test part has less than 8 faces."""

MIN_CLASS = 10
"""Labelled faces that each gender needs."""

_FEW = 200
"""Below this number of faces the backbone is frozen."""

_BATCHES = ((200, 8), (1_000, 16), (10_000, 32))
"""Batch size below a number of faces; 64 above."""

_IMAGES = 15_000
"""Training images over all epochs, within 8 and 30 epochs."""


def choose_settings(recipe: Recipe, faces: "pd.DataFrame") -> tuple[Recipe, str]:
    """Chooses what a recipe with `auto: true` does not state.

    Args:
        recipe: The recipe.
        faces: A checked faces table, all of its rows.

    Returns:
        The recipe with every choice as a setting, without `auto`, and the choices as a sentence.

    Raises:
        MienError: No task has enough labels, or a task that the recipe states has not.
    """
    problems = {task: _problem(task, faces) for task in PREDICTED}
    if _known("age_group", faces).sum() <= _known("age", faces).sum():  # the groups are those of the ages
        del problems["age_group"]
    stated = "tasks" in recipe.model_fields_set
    tasks = list(recipe.tasks.predicted()) if stated else _able(problems)
    lacking = [problem for task in (tasks if stated else problems) if (problem := _problem(task, faces))]
    if lacking and (stated or not tasks):
        raise MienError(
            f"{len(faces)} faces are too few to train on: {'; '.join(lacking)}. Label more faces, or use the built-in "
            "model: mien predict FOLDER --crops"
        )
    count = sum(map(any, zip(*(_known(task, faces) for task in tasks), strict=True)))
    count = min(count, recipe.data.sample or count)
    chosen = {} if stated else {"tasks": {task: {} if task == "gender" else {"weight": 0.5} for task in tasks}}
    chosen |= _chosen(recipe, tasks, count)
    left_out = [] if stated else [problem for task, problem in problems.items() if task not in tasks and problem]
    settings = {**chosen, "auto": False}
    settled = load_recipe(recipe, [f"{key}={json.dumps(value)}" for key, value in settings.items()])
    return settled, _sentence(count, chosen, left_out)


def _known(task: str, faces: "pd.DataFrame") -> "pd.Series[bool]":
    """Which faces (n,) have a label of a task; a range of years is one too."""
    return faces["age"].notna() | faces["age_from"].notna() if task == "age" else faces[task].notna()


def _problem(task: str, faces: "pd.DataFrame") -> str:
    """What a task lacks, with the number that it needs; empty if it can be learnt."""
    count = int(_known(task, faces).sum())
    counts = {name: int((faces["gender"] == name).sum()) for name in GENDERS} if task == "gender" else {}
    if count >= MIN_FACES and all(number >= MIN_CLASS for number in counts.values()):
        return ""
    listed = f" ({', '.join(f'{name} {number}' for name, number in counts.items())})" if counts else ""
    each = f", at least {MIN_CLASS} of each gender" if counts else ""
    return f"{task.replace('_', ' ')} has {count} labelled faces{listed} and needs {MIN_FACES}{each}"


def _able(problems: dict[str, str]) -> list[str]:
    """The tasks that can be learnt; of age and age group, where both are listed, the group, which more faces have."""
    able = [task for task, problem in problems.items() if not problem]
    return [task for task in able if task != "age" or "age_group" not in able]


def _chosen(recipe: Recipe, tasks: list[str], count: int) -> dict[str, Any]:
    """The settings for so many faces, without those that the recipe states."""
    model, optim, trainer = recipe.model, recipe.optim, recipe.trainer
    chosen: dict[str, Any] = {}
    epochs, batch = trainer.epochs, trainer.batch_size
    if "epochs" not in trainer.model_fields_set:
        chosen["trainer.epochs"] = epochs = min(max(round(_IMAGES / count), 8), 30)
    if "batch_size" not in trainer.model_fields_set:
        chosen["trainer.batch_size"] = batch = next((size for limit, size in _BATCHES if count < limit), 64)
    if "warmup" not in optim.model_fields_set:
        chosen["optim.warmup"] = round(epochs / 10, 1)
    if "averaging" not in trainer.model_fields_set:
        # The average covers the last tenth of the steps.
        chosen["trainer.averaging"] = round(max(1 - 10 / (epochs * max(count / batch, 1)), 0.5), 4)
    if "freeze" not in model.model_fields_set and recipe.init.weights != "none":
        chosen["model.freeze"] = "backbone" if count < _FEW else "none"
    if "heads" not in recipe.init.model_fields_set and recipe.init.weights not in WITHOUT_HEADS:
        chosen["init.heads"] = not {"gender", "age"}.isdisjoint(tasks)
    return chosen


def _sentence(count: int, chosen: dict[str, Any], left_out: list[str]) -> str:
    words = {
        "trainer.epochs": "{} epochs",
        "trainer.batch_size": "batches of {}",
        "optim.warmup": "warm-up over {} epochs",
        "model.freeze": "frozen: {}",
    }
    parts = [f"tasks {', '.join(chosen['tasks'])}"] if "tasks" in chosen else []
    parts += [text.format(chosen[key]) for key, text in words.items() if key in chosen]
    lacking = "".join(f"; not learnt: {problem}" for problem in left_out)
    return f"chosen for {count:,} labelled faces: {', '.join(parts)}{lacking}"
