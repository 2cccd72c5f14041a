"""What a study will take, before anything is trained: its runs, what is missing, and about how long."""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mien.datasets import read_faces
from mien.errors import MienError
from mien.recipe import Init, Recipe
from mien.study import Study, StudyFolder, check_folder, load_study, make_cells, missing_roots
from mien.study_progress import duration
from mien.training.backbones import missing_weights
from mien.training.cells import Job, make_jobs
from mien.training.heads import Head
from mien.training.model import FaceNet, make_optimizer

PUBLISHED = {"adience": 17_492, "celeba": 202_599, "utkface": 23_705, "fairface": 97_698}
"""Faces of each data set as published (Adience: with a gender), where the data are not at hand."""

_CELEBA_TRAIN = 162_770
_SECONDS = 25.0
"""Spent on measuring, in all."""


@dataclass(frozen=True)
class Plan:
    """What a study will take.

    Attributes:
        runs: One row for each combination of levels, and for first stages: as text.
        missing: What has to be had first, a sentence each.
        time: In words, about how long it takes.
    """

    runs: pd.DataFrame
    missing: Sequence[str]
    time: str


def make_plan(
    study: str | Path | Study | Mapping[str, Any],
    changes: Iterable[str] = (),
    out: str | Path | None = None,
    jobs: int = 1,
    quick: bool = False,
) -> Plan:
    """Plans a study; needs neither data nor weights and takes less than a minute.

    The speed of training is measured on made-up pixels with random weights.

    Args:
        study: As for `run_study`, and so are the others.
        changes: Like "data.root=FOLDER", for every cell.
        out: The study's folder; what is finished there is not counted.
        jobs: How many cells to run at the same time.
        quick: The study's variant on drawn faces.

    Raises:
        MienError: The study or a recipe is wrong, or `out` holds another study.
    """
    asked = load_study(study, quick)
    folder = StudyFolder(Path(out) if out is not None else Path("studies") / asked.name)
    cells = make_cells(asked, changes, folder.faces if asked.demonstration else None)
    check_folder(folder, cells)
    left = [cell for cell in cells if not folder.run(cell).finished]
    todo = make_jobs(folder, left)
    names = {cell.slug: ", ".join(cell.combination) for cell in left}
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    speeds, faces = _speeds([job.recipe for job in todo]), _Faces(asked.demonstration)
    groups: dict[str, list[Job]] = {}
    for job in todo:
        groups.setdefault(names.get(job.name, f"first stage on {job.recipe.data.source}"), []).append(job)
    rows = [_row(name, own, speeds, faces) for name, own in groups.items()]
    missing = [] if asked.demonstration else missing_roots(left)
    missing += missing_weights([job.recipe for job in todo])
    done = len(cells) - len(left)
    return Plan(pd.DataFrame(rows).drop(columns="seconds"), missing, _time(rows, jobs, len(cells), done))


def _time(rows: Sequence[dict[str, Any]], jobs: int, cells: int, done: int) -> str:
    start = f"{cells} runs, {done} of them finished."
    known = [row["seconds"] for row in rows if row["seconds"] is not None]
    if not known:
        return start
    seconds = sum(known) / jobs
    part = "" if len(known) == len(rows) else f", without the {len(rows) - len(known)} lines that are not known"
    gpu = (
        f" One GPU may be 20 to 100 times as fast (an order of magnitude that is assumed, nothing that was measured): "
        f"{duration(sum(known) / 100)} to {duration(sum(known) / 20)}."
    )
    return (
        f"{start} About {duration(seconds)} of training on this machine ({os.cpu_count()} cores, {jobs} at a "
        f"time){part}; decoding, validation and evaluation come on top.{gpu}"
    )


def _row(name: str, jobs: Sequence[Job], speeds: Mapping[str, float], faces: "_Faces") -> dict[str, Any]:
    recipes = [job.recipe for job in jobs]
    speed, count = speeds.get(_kind(recipes[0])), faces.training(recipes[0])
    images = None if count is None else sum(count * recipe.trainer.epochs for recipe in recipes)
    seconds = None if images is None or speed is None else images / speed
    model = recipes[0].model
    return {
        "runs": f"{len(jobs)} x {name}",
        "network": f"{model.backbone}, {model.image_size} px",
        "epochs": recipes[0].trainer.epochs,
        "training faces": "not known without its data" if count is None else f"about {count:,}",
        "images/s here": "not measured: out of time" if speed is None else f"{speed:.1f}",
        "in all": "not known" if seconds is None else duration(seconds),
        "seconds": seconds,
    }


class _Faces:
    """How many faces a recipe trains on: as the data say where they are at hand, otherwise as published."""

    def __init__(self, demonstration: bool) -> None:
        self._demonstration = demonstration
        self._counts: dict[str, tuple[int, int] | None] = {}

    def training(self, recipe: Recipe) -> int | None:
        if self._demonstration:
            return 600
        data, split = recipe.data, recipe.split
        key = repr((data.source, data.root, data.labels))
        if key not in self._counts:
            self._counts[key] = self._count(recipe)
        found = self._counts[key]
        if found is None or split.method == "partition":
            return None if found is None else found[1]
        folds = 5 if split.method == "folds" else split.folds
        test = split.test if split.method in ("subjects", "random") else 1 / folds
        return round(found[0] * (1 - test) * (1 - split.val))

    @staticmethod
    def _count(recipe: Recipe) -> tuple[int, int] | None:
        """All faces, and those in the training part of an official partition."""
        data = recipe.data
        if data.root is not None and Path(data.root).exists():
            try:
                faces = read_faces(data.source, data.root, data.labels, data.map or None)
            except MienError:
                return None
            return len(faces), int((faces["split"] == "train").sum())
        count = PUBLISHED.get(data.source)
        return None if count is None else (count, _CELEBA_TRAIN if data.source == "celeba" else count)


def _kind(recipe: Recipe) -> str:
    """What the speed of training depends on."""
    model, settings = recipe.model, recipe.trainer
    return repr((model.backbone, model.image_size, model.freeze, model.hidden, settings.batch_size, settings.precision))


def _speeds(recipes: Iterable[Recipe]) -> dict[str, float]:
    """Images a second of each kind of training; those for which the time does not last are left out."""
    end = time.monotonic() + _SECONDS
    kinds = {_kind(recipe): recipe for recipe in recipes}
    speeds = {}
    # Small networks first: a large one must not take the time of all the others.
    for number, (kind, recipe) in enumerate(sorted(kinds.items(), key=lambda item: item[1].model.image_size)):
        if number and time.monotonic() > end:
            break
        speeds[kind] = measure(recipe, max(end - time.monotonic(), 1.0) / (len(kinds) - number))
    return speeds


def measure(recipe: Recipe, seconds: float) -> float:
    """Returns the images a second that training takes in, from a few steps on made-up pixels with random weights.

    Args:
        recipe: Says the network, what is frozen and the size of a batch.
        seconds: About how long to measure.
    """
    alone = recipe.model_copy(update={"init": Init(weights="none")})
    net = FaceNet(alone, {name: ["a", "b"] for name in recipe.tasks.columns})
    optimizer = make_optimizer(net, recipe.optim)
    begin = time.monotonic()
    few = _step(net, 2)
    updating = _timed(optimizer.step)
    size = 2
    # A larger batch is quicker for each image; as large as the time allows.
    while size < recipe.trainer.batch_size and time.monotonic() - begin + 3 * few < seconds:
        size = min(2 * size, recipe.trainer.batch_size)
        few = _step(net, size)
    return recipe.trainer.batch_size / (few / size * recipe.trainer.batch_size + updating)


def _step(net: FaceNet, size: int) -> float:
    """Seconds of a forward and a backward pass."""
    side = net.recipe_size if hasattr(net, "recipe_size") else 0
    raise NotImplementedError(side)


def _timed(what: Any) -> float:
    begin = time.monotonic()
    what()
    return time.monotonic() - begin
