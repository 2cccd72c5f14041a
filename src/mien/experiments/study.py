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
from mien.data.sources import tasks_of
from mien.data.splits import METHODS
from mien.metrics.definitions import METRICS
from mien.recipe.load import load_recipe
from mien.recipe.settings import STAGE, FolderName, Recipe, Source, flat_settings, root_keys, split_of
from mien.runs.run import Run

# Settings that say where and how a run is computed, and not what.
_PLACE = re.compile(r"name|(init\.)?data\.(sets\.\w+\.)?root|(init\.)?data\.cache|trainer\.(workers|nodes)")


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
    axes: dict[str, dict[str, Level]] = Field({}, description="axis -> level -> its changes")
    data_sets: str | None = Field(
        None,
        description="name of a further axis: trained on all data sets of the recipe, on each alone, on all but one",
    )
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
    def _some_axis(self) -> "Study":
        if not self.axes and self.data_sets is None:
            raise ValueError("no axis; valid: at least one in axes, with its levels, or the name of one in data_sets")
        if self.data_sets in _TAKEN:
            raise ValueError(
                f"data_sets: the name {self.data_sets!r} is taken by a column of the results; give another"
            )
        if self.data_sets in self.axes:
            raise ValueError(f"data_sets: {self.data_sets!r} is in axes too; give another name")
        return self

    @model_validator(mode="after")
    def _agrees(self) -> "Study":
        for axis in self.compare:
            if axis == self.data_sets:
                continue  # its levels are known once `_with_data_sets` has read the recipe
            if axis not in self.axes:
                raise ValueError(f"compare: {choices('axis', axis, self.axes)}")
            if len(self.axes[axis]) < 2:
                raise ValueError(f"compare: axis {axis!r} has one level; valid: axes with two and more")
        for axis, level in self.reference.items():
            if axis not in self.compare:
                raise ValueError(f"reference: {choices('axis to compare', axis, self.compare)}")
            if axis != self.data_sets and level not in self.axes[axis]:
                raise ValueError(f"reference: {choices(f'level of {axis!r}', level, self.axes[axis])}")
        return self

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        for metric in metrics:
            if metric not in METRICS:
                raise ValueError(choices("metric", metric, METRICS))
        return metrics

    @model_validator(mode="after")
    def _nothing_twice(self) -> "Study":
        for key in ("folds", "seeds", "compare", "metrics"):
            given = getattr(self, key)
            if len(set(given)) < len(given):
                raise ValueError(f"{key}: {list(given)} names something twice")
        return self


_STAGE = tuple(f"init.{section}." for section in STAGE)

_TAKEN = ("cell", "fold", "seed", "status", "reason", "n", "subjects", "tested on")


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


def _with_data_sets(study: Study, changes: tuple[str, ...]) -> Study:
    """Returns the study with the levels of its axis of data sets, if it has one.

    A level trains on some of the data sets, by the weights of the others, which are 0: these are only tested. A task
    that cannot be learnt from those that are left is not learnt.

    Raises:
        StudyError: The recipe names fewer than two data sets, or compared levels do not exist.
    """
    if study.data_sets is None:
        return study
    if study.base is None:
        raise StudyError(f"study {study.name!r}: data_sets is given without a base, whose data sets it would use")
    try:
        recipe = load_recipe(study.base, [*study.set, *changes])
    except MienError as error:
        raise StudyError(f"study {study.name!r}: {error}") from None
    names = list(recipe.data.sets)
    if len(names) < 2:
        raise StudyError(
            f"study {study.name!r}: its recipe names {len(names) or 1} data set; valid: two or more in data.sets"
        )
    chosen = {"all": names} | {f"only {name}": [name] for name in names}
    if len(names) > 2:
        chosen |= {f"all but {name}": [other for other in names if other != name] for name in names}
    levels = {level: _trained_on(recipe, some) for level, some in chosen.items()}
    levels = {level: changed for level, changed in levels.items() if changed is not None}
    axes = {study.data_sets: levels} | study.axes
    try:
        return Study.model_validate(study.model_dump() | {"axes": axes, "data_sets": None})
    except ValidationError as error:
        raise StudyError(f"study {study.name!r}:\n{listed(_explain, error.errors())}") from None


def _trained_on(recipe: Recipe, names: Iterable[str]) -> Level | None:
    """The level that trains on these data sets alone; None where they have no label of any task."""
    sets = recipe.data.sets
    learnt = {task for name in names for task in tasks_of(sets[name].source)}
    tasks = recipe.tasks.predicted()
    if not learnt & set(tasks):
        return None
    changes = [f"data.sets.{name}.weight=0" for name in sets if name not in names]
    return Level(set=(*changes, *(f"tasks.{task}=null" for task in tasks if task not in learnt)))


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
    changes = tuple(changes)
    study = _with_data_sets(study, changes)
    cells = []
    combinations = list(itertools.product(*study.axes.values()))
    for seed, fold in itertools.product(study.seeds, study.folds or (None,)):
        for names in combinations:
            levels = dict(zip(study.axes, names, strict=True))
            cells.append(Cell(levels, fold, seed, _resolve(study, levels, fold, seed, changes, faces)))
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
    _check_recipe(f"study {study.name!r}, {where}", recipe, fold)
    return recipe


def _check_recipe(where: str, recipe: Recipe, fold: int | None) -> None:
    """Checks what a recipe in a study cannot have; `where` names the study and the levels."""
    if recipe.auto:
        raise StudyError(
            f"{where}: auto is true, and a study compares stated settings; valid: auto: false, "
            "with the settings that mien train prints"
        )
    for key in ("devices", "nodes"):
        if getattr(recipe.trainer, key) != 1:
            raise StudyError(
                f"{where}: trainer.{key} is {getattr(recipe.trainer, key)!r}; valid in a study: "
                "1, and several runs at the same time by --jobs"
            )
    methods = [split_of(recipe, name).method for name in recipe.data.each()] if fold is not None else []
    for method in methods:
        if not METHODS[method].has_folds:
            raise StudyError(
                f"{where}: folds are given and split.method is {method!r}; "
                f"valid with folds: {', '.join(name for name, known in METHODS.items() if known.has_folds)}"
            )


def _drawn_roots(recipe: Recipe, faces: Path) -> list[str]:
    return [f"{key}={faces / _drawn_name(key, one)}" for key, one in root_keys(recipe).items()]


def _drawn_name(key: str, one: Source) -> str:
    """The folder of a drawn data set: its name among several, or its source."""
    found = re.search(r"sets\.(\w+)\.root$", key)
    return found[1] if found else one.source


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
    return {key: value for key, value in flat_settings(recipe).items() if not _PLACE.fullmatch(key)}


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
        for key, data in root_keys(cell.recipe).items():
            if data.root is None:
                found[f"{key} is not set: which folder holds {data.source}? --set {key}=FOLDER"] = None
            elif not Path(data.root).exists():
                found[f"{key} {data.root!r} ({data.source}) does not exist"] = None
    return list(found)


def drawn_sets(cells: Iterable[Cell]) -> dict[str, tuple[str, int]]:
    """The folder of each data set that a demonstration draws: its layout and the seed, which differs among several."""
    found = {}
    for cell in cells:
        for number, (key, one) in enumerate(root_keys(cell.recipe).items()):
            name = _drawn_name(key, one)
            found[name] = one.source, number if "sets." in key else 0
    return found


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "level"
