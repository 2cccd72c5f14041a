"""Studies: a base recipe and axes, crossed with folds and seeds, into the cells of one comparison.

A study file states only what varies. Each combination of levels, fold and seed is a cell: one resolved recipe, one run.
"""

import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mien.base.errors import MienError, choices, listed, validation_message
from mien.base.labels import PREDICTED
from mien.base.strict_yaml import read_yaml, read_yaml_file
from mien.data.splits import METHODS
from mien.metrics.definitions import METRICS
from mien.recipe.load import load_recipe
from mien.recipe.settings import STAGE, FolderName, Recipe, first_stage, flat_settings
from mien.runs.run import Run

# Settings that say where and how a run is computed, and not what.
_PLACE = ("name", "data.root", "data.cache", "init.data.root", "init.data.cache", "trainer.workers", "trainer.nodes")


class StudyError(MienError):
    """A study cannot be read, contradicts itself, or its folder holds another study."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Level(_Strict):
    """One level of an axis: changes to the recipe, or a recipe of its own."""

    base: str | None = Field(None, description="a recipe to use instead of the study's")
    set: tuple[str, ...] = Field((), description="changes, as for --set")


class Study(_Strict):
    """The levels to compare, the folds and seeds, and the metrics."""

    name: FolderName
    base: str | None = Field(None, description="the base recipe of all cells: a name or a file")
    set: tuple[str, ...] = Field(
        (), description="changes in every cell, as for --set; changes of levels are applied after them"
    )
    axes: dict[str, dict[str, Level]] = Field(description="axis -> level -> its changes")
    folds: tuple[int, ...] = Field((), description="values of split.test_fold; none: the split of the recipe")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="values of trainer.seed")
    compare: tuple[str, ...] = Field((), description="axes whose levels are compared in pairs, all else equal")
    reference: dict[str, str] = Field({}, description="axis to compare -> reference level for the comparisons")
    metrics: tuple[str, ...] = Field(("gender_accuracy",), min_length=1)
    alpha: float = Field(0.05, gt=0, lt=0.5, description="significance level, after Holm's correction")
    demonstration: bool = Field(False, description="run on drawn faces: tests the software, not applicable to people")

    @field_validator("axes")
    @classmethod
    def _some_levels(cls, axes: dict[str, dict[str, Level]]) -> dict[str, dict[str, Level]]:
        if not axes:
            raise ValueError("no axis; valid: at least one, with its levels")
        for axis, levels in axes.items():
            if axis in _TAKEN:
                raise ValueError(f"axis {axis!r}: the name is taken by a column of the results; give another")
            if not levels:
                raise ValueError(f"axis {axis!r} has no level; valid: at least one, for instance 'as it is: {{}}'")
            slugs = [_slug(level) for level in levels]
            if len(set(slugs)) < len(slugs):
                raise ValueError(f"axis {axis!r}: levels {', '.join(levels)} would share a folder; give other names")
        return axes

    @model_validator(mode="after")
    def _agrees(self) -> "Study":
        for axis in self.compare:
            if axis not in self.axes:
                raise ValueError(f"compare: {choices('axis', axis, self.axes)}")
            if len(self.axes[axis]) < 2:
                raise ValueError(f"compare: axis {axis!r} has one level; valid: axes with two and more")
        for axis, level in self.reference.items():
            if axis not in self.compare:
                raise ValueError(f"reference: {choices('axis to compare', axis, self.compare)}")
            if level not in self.axes[axis]:
                raise ValueError(f"reference: {choices(f'level of {axis!r}', level, self.axes[axis])}")
        for metric in self.metrics:
            if metric not in METRICS:
                raise ValueError(f"metrics: {choices('metric', metric, METRICS)}")
        return self

    @model_validator(mode="after")
    def _nothing_twice(self) -> "Study":
        for key in ("folds", "seeds", "compare", "metrics"):
            given = getattr(self, key)
            if len(set(given)) < len(given):
                raise ValueError(f"{key}: {list(given)} names something twice")
        return self


_STAGE = tuple(f"init.{section}." for section in STAGE)

_TAKEN = ("cell", "fold", "seed", "status", "reason", "n", "subjects")


@dataclass(frozen=True)
class Cell:
    """One run of a study: a level of each axis, a fold (None: the recipe's own split) and a seed."""

    levels: Mapping[str, str]
    fold: int | None
    seed: int
    recipe: Recipe

    @cached_property
    def slug(self) -> str:
        """The name of its folder."""
        fold = [] if self.fold is None else [f"fold-{self.fold}"]
        return "_".join([*map(_slug, self.levels.values()), *fold, f"seed-{self.seed}"])

    @property
    def combination(self) -> tuple[str, ...]:
        """Its levels, in the order of the axes."""
        return tuple(self.levels.values())


@dataclass(frozen=True)
class StudyFolder:
    """The files of a study.

    | file | what |
    |---|---|
    | table.md, table.csv | a row for each combination of levels |
    | report.html | the report |
    | runs.parquet | a row for each cell |
    | comparisons.csv | a row for each pair of levels and metric |
    | cells/ | the run of each cell, its output (.log) and, where it failed, the reason (.failed) |
    | stages/ | first stages, each shared by all cells that start from it |
    | faces/ | the faces that a demonstration draws |
    """

    folder: Path

    def run(self, cell: Cell) -> Run:
        """Returns the run of a cell, whether or not it has started."""
        return Run(self.folder / "cells" / cell.slug)

    def log_file(self, cell: Cell) -> Path:
        """Returns the file with the output of a cell."""
        return self.folder / "cells" / f"{cell.slug}.log"

    def failure_file(self, cell: Cell) -> Path:
        """Returns the file with the reason of a failed cell."""
        return self.folder / "cells" / f"{cell.slug}.failed"

    def status(self, cell: Cell) -> tuple[str, str]:
        """Returns finished, failed, started or open, and the reason of a failure."""
        run = self.run(cell)
        if run.finished:
            return "finished", ""
        if self.failure_file(cell).exists():
            return "failed", self.failure_file(cell).read_text("utf-8").strip()
        return ("started" if run.faces_file.exists() else "open"), ""

    @property
    def stages(self) -> Path:
        """The runs of first stages."""
        return self.folder / "stages"

    @property
    def faces(self) -> Path:
        """The faces that a demonstration draws."""
        return self.folder / "faces"


def study_names() -> dict[str, str]:
    """The studies that ship with mien: name -> the first line of its header."""
    folder = resources.files("mien") / "experiments" / "studies"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    return {file.name.removesuffix(".yaml"): file.read_text("utf-8").split("\n")[0].strip("# ") for file in files}


def load_study(study: "str | Path | Study | Mapping[str, Any]", quick: bool = False) -> Study:
    """Reads a study.

    Args:
        study: The name of one that ships, a YAML file, a mapping or a study.
        quick: Use the variant on drawn faces: the keys below `quick` replace those of the study.

    Raises:
        StudyError: It does not exist or is not a YAML mapping; a key is unknown, a value has a wrong type, an axis or
            its levels are empty, an axis to compare or a metric is unknown. All mistakes are listed.
    """
    if isinstance(study, Study):
        return study
    name, tree, folder = _read(study)
    variant = tree.pop("quick", None)
    if quick:
        if not isinstance(variant, dict):
            raise StudyError(f"study {name!r} has no quick variant: its key 'quick' is {variant!r}")
        tree |= variant | {"name": f"{name}-quick", "demonstration": True}
    try:
        found = Study.model_validate_json(json.dumps({"name": name, **tree}, default=str))
    except ValidationError as error:
        raise StudyError(f"study {name!r}:\n{listed(_explain, error.errors())}") from None
    return _with_bases_beside(found, folder)


def _read(study: "str | Path | Mapping[str, Any]") -> tuple[str, dict[str, Any], Path]:
    """The name, the keys, and the folder of a study."""
    if isinstance(study, Mapping):
        return "study", json.loads(json.dumps(dict(study), default=str)), Path()
    path = Path(study)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise StudyError(f"study file {str(path)!r} does not exist")
        return path.stem, read_yaml_file(path, f"study {str(path)!r}"), path.parent
    if str(study) not in study_names():
        raise StudyError(choices("study", str(study), study_names()) + "; or a .yaml file")
    text = (resources.files("mien") / "experiments" / "studies" / f"{study}.yaml").read_text("utf-8")
    return str(study), read_yaml(text, f"study {str(study)!r}"), Path()


def _with_bases_beside(study: Study, folder: Path) -> Study:
    """The study with the recipe files that lie beside it found from here."""

    def found(base: str | None) -> str | None:
        return str(folder / base) if base and (folder / base).is_file() else base

    axes = {
        axis: {name: level.model_copy(update={"base": found(level.base)}) for name, level in levels.items()}
        for axis, levels in study.axes.items()
    }
    return study.model_copy(update={"base": found(study.base), "axes": axes})


def _explain(problem: Any) -> str:
    """Describes one problem by the dotted key, the given value and what is valid."""
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return validation_message(problem, key, (Level if problem["loc"][0] == "axes" else Study).model_fields)
    return validation_message(problem, "" if key == "axes" and problem["type"] == "value_error" else key)


def make_cells(study: Study, changes: Iterable[str] = (), faces: Path | None = None) -> list[Cell]:
    """The cells of a study, in the order in which they are run: all combinations before the next fold, then seed.

    Args:
        study: The study.
        changes: Like "data.root=FOLDER"; they come after those of the study.
        faces: The folder of drawn faces, for a demonstration: each data set's root becomes a folder in it.

    Raises:
        MienError: A recipe or change is wrong, folds are given for a split without folds, combinations resolve
            to equal recipes, or no cell has the task of a metric.
    """
    cells = []
    combinations = list(itertools.product(*study.axes.values()))
    for seed, fold in itertools.product(study.seeds, study.folds or (None,)):
        for names in combinations:
            levels = dict(zip(study.axes, names, strict=True))
            cells.append(Cell(levels, fold, seed, _resolve(study, levels, fold, seed, tuple(changes), faces)))
    _check_cells(study, cells)
    return cells


def _resolve(
    study: Study, levels: dict[str, str], fold: int | None, seed: int, changes: tuple[str, ...], faces: Path | None
) -> Recipe:
    """The recipe of one cell."""
    chosen = {axis: study.axes[axis][level] for axis, level in levels.items()}
    bases = {axis: level.base for axis, level in chosen.items() if level.base}
    if len(bases) > 1:
        listed = " and ".join(f"{axis!r} ({base})" for axis, base in bases.items())
        raise StudyError(f"study {study.name!r}: axes {listed} both give a recipe; valid: one of them, and changes")
    base = next(iter(bases.values()), study.base)
    where = ", ".join(f"{axis} {level!r}" for axis, level in levels.items())
    if base is None:
        raise StudyError(f"study {study.name!r}: no recipe for {where}; give 'base', in the study or in a level")
    own = [*study.set, *(change for level in chosen.values() for change in level.set)]
    own += [f"trainer.seed={seed}"] + ([] if fold is None else [f"split.test_fold={fold}"])
    try:
        recipe = load_recipe(base, own)
        # Changes of a first stage apply to the cells that have one.
        theirs = [change for change in changes if recipe.init.data is not None or not change.startswith(_STAGE)]
        if recipe.init.trainer is not None:
            theirs.append(f"init.trainer.seed={seed}")
        recipe = load_recipe(recipe, [*theirs, f"name={study.name}"])
        if faces is not None:
            recipe = load_recipe(recipe, _drawn_roots(recipe, faces))
    except MienError as error:
        raise StudyError(f"study {study.name!r}, {where}: {error}") from None
    if recipe.auto:
        raise StudyError(
            f"study {study.name!r}, {where}: auto is true, and a study compares stated settings; valid: auto: false, "
            "with the settings that mien train prints"
        )
    for key in ("devices", "nodes"):
        if getattr(recipe.trainer, key) != 1:
            raise StudyError(
                f"study {study.name!r}, {where}: trainer.{key} is {getattr(recipe.trainer, key)!r}; valid in a study: "
                "1, and several runs at the same time by --jobs"
            )
    if fold is not None and not METHODS[recipe.split.method].has_folds:
        raise StudyError(
            f"study {study.name!r}, {where}: folds are given and split.method is {recipe.split.method!r}; "
            f"valid with folds: {', '.join(name for name, method in METHODS.items() if method.has_folds)}"
        )
    return recipe


def _drawn_roots(recipe: Recipe, faces: Path) -> list[str]:
    roots = [f"data.root={faces / recipe.data.source}"]
    return roots + ([f"init.data.root={faces / recipe.init.data.source}"] if recipe.init.data else [])


def _check_cells(study: Study, cells: list[Cell]) -> None:
    """Checks that combinations differ, and that each metric has a task."""
    seen: dict[str, Cell] = {}
    for cell in cells:
        same = seen.setdefault(json.dumps(settings(cell.recipe), sort_keys=True, default=str), cell)
        if same is not cell:
            raise StudyError(
                f"study {study.name!r} contradicts itself: {describe(same)} and {describe(cell)} resolve to the same "
                "recipe; valid: levels that differ"
            )
    for metric in study.metrics:
        if not any(metric in metrics_of(cell.recipe) for cell in cells):
            tasks = sorted({task for cell in cells for task in cell.recipe.tasks.predicted()})
            listed = ", ".join(tasks)
            raise StudyError(f"study {study.name!r}: no cell has a task for metric {metric!r}; tasks: {listed}")
        if METRICS[metric].scale == "distance" and len(study.seeds) > 1:
            raise StudyError(f"study {study.name!r}: metric {metric!r} is not averaged over seeds; valid: one seed")


def describe(cell: Cell) -> str:
    """A cell in words."""
    fold = "" if cell.fold is None else f", fold {cell.fold}"
    return f"{', '.join(cell.combination)}{fold}, seed {cell.seed}"


def metrics_of(recipe: Recipe) -> list[str]:
    """The metrics that the tasks of a recipe allow; an age gives the age group too."""
    columns = {"status"}.union(*(PREDICTED[task] for task in recipe.tasks.predicted()))
    return [name for name, metric in METRICS.items() if set(metric.predictions) <= columns]


def settings(recipe: Recipe) -> dict[str, Any]:
    """Returns the settings by dotted key that determine the result of a run, without paths and hardware."""
    return {key: value for key, value in flat_settings(recipe).items() if key not in _PLACE}


def check_folder(folder: StudyFolder, cells: Iterable[Cell]) -> None:
    """Checks that the runs in a study's folder are of these cells.

    Raises:
        StudyError: One is of another recipe; the message names the difference.
    """
    for cell in cells:
        run = folder.run(cell)
        if not run.faces_file.exists():
            continue
        before, now = settings(run.recipe), settings(cell.recipe)
        changed = [key for key in now | before if now.get(key) != before.get(key)]
        if changed:
            key = changed[0]
            raise StudyError(
                f"study folder {str(folder.folder)!r}: cell {cell.slug!r} was run with another recipe: {key} was "
                f"{before.get(key)!r} and is {now.get(key)!r} ({len(changed)} settings differ); give another --out"
            )


def check_roots(cells: Iterable[Cell]) -> None:
    """Checks that every data set has a folder that is there.

    Raises:
        StudyError: A root is not set, or does not exist.
    """
    missing = missing_roots(cells)
    if missing:
        raise StudyError("; ".join(missing))


def missing_roots(cells: Iterable[Cell]) -> list[str]:
    """A sentence for each data folder that is not set or not there."""
    found: dict[str, None] = {}
    for cell in cells:
        for key, data in (("data.root", cell.recipe.data), ("init.data.root", cell.recipe.init.data)):
            if data is None:
                continue
            if data.root is None:
                found[f"{key} is not set: which folder holds {data.source}? --set {key}=FOLDER"] = None
            elif not Path(data.root).exists():
                found[f"{key} {data.root!r} ({data.source}) does not exist"] = None
    return list(found)


def sources(cells: Iterable[Cell]) -> list[str]:
    """The data sets that the cells and their first stages learn from."""
    recipes = [stage for cell in cells for stage in (cell.recipe, first_stage(cell.recipe)) if stage]
    return sorted({recipe.data.source for recipe in recipes})


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "level"
