"""The plan of a study before training: its runs, missing data and weights, and the estimated time."""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import timm
import torch
from huggingface_hub import try_to_load_from_cache
from torch.utils.flop_counter import FlopCounterMode

from mien.base.errors import MienError
from mien.data.sources import published_faces, read_faces
from mien.data.splits import METHODS
from mien.experiments.progress import duration
from mien.experiments.study import (
    Study,
    StudyFolder,
    check_folder,
    load_study,
    make_cells,
    missing_roots,
)
from mien.recipe.settings import Init, Recipe, Source, Split, split_of
from mien.training.model import FaceNet
from mien.training.study_cells import TrainingJob, make_jobs, threads_for

_SECONDS = 20.0
"""Time limit of all measurements."""


@dataclass(frozen=True)
class Plan:
    """The plan of a study.

    Attributes:
        runs: One row per combination of levels and per first stage, as text.
        missing: Missing data and weights, one sentence each.
        time: The estimated time, as text.
    """

    runs: pd.DataFrame
    missing: Sequence[str]
    time: str


class Speed(NamedTuple):
    """Training speed in images per second; measured, or estimated from the network's operations."""

    images: float
    measured: bool


def make_plan(
    study: str | Path | Study | Mapping[str, Any],
    changes: Iterable[str] = (),
    out: str | Path | None = None,
    jobs: int = 1,
    quick: bool = False,
) -> Plan:
    """Plans a study, without data and weights, in less than a minute.

    The training speed is measured on random pixels with random weights.

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
    if "OMP_NUM_THREADS" not in os.environ:  # as the workers of a study do
        torch.set_num_threads(threads_for(jobs))
    speeds, faces = _speeds([job.recipe for job in todo]), _Faces(asked.demonstration)
    groups: dict[tuple[str, str], list[TrainingJob]] = {}
    for job in todo:
        name = names.get(job.name, f"first stage on {job.recipe.data.title}")
        groups.setdefault((name, _kind(job.recipe)), []).append(job)
    rows = [_row(name, own, speeds, faces) for (name, _), own in groups.items()]
    missing = [] if asked.demonstration else missing_roots(left)
    missing += missing_weights([job.recipe for job in todo])
    done = len(cells) - len(left)
    shown = pd.DataFrame([{key: value for key, value in row.items() if key != "seconds"} for row in rows])
    return Plan(shown, missing, _time(rows, jobs, len(cells), done))


def _time(rows: Sequence[dict[str, Any]], jobs: int, cells: int, done: int) -> str:
    start = f"{cells} runs, {done} of them finished."
    known = [row["seconds"] for row in rows if row["seconds"] is not None]
    if not known:
        return start
    seconds = sum(known) / jobs
    part = "" if len(known) == len(rows) else f", without {len(rows) - len(known)} rows of unknown time"
    gpu = (
        f" One GPU may be 20 to 100 times as fast (assumed, not measured): "
        f"{duration(sum(known) / 100)} to {duration(sum(known) / 20)}."
    )
    return (
        f"{start} About {duration(seconds)} of training on this machine ({os.cpu_count()} cores, {jobs} at a "
        f"time){part}; decoding, validation and evaluation take additional time. A speed marked “not measured” is "
        f"estimated from the network's operations and the measured speeds.{gpu}"
    )


def _row(name: str, jobs: Sequence[TrainingJob], speeds: Mapping[str, Speed], faces: "_Faces") -> dict[str, Any]:
    recipes = [job.recipe for job in jobs]
    speed, count = speeds[_kind(recipes[0])], faces.training(recipes[0])
    images = None if count is None else sum(count * recipe.trainer.epochs for recipe in recipes)
    seconds = None if images is None else images / speed.images
    model = recipes[0].model
    return {
        "runs": f"{len(jobs)} x {name}",
        "network": f"{model.backbone}, {model.image_size} px",
        "epochs": recipes[0].trainer.epochs,
        "training faces": "unknown without the data" if count is None else f"about {count:,}",
        "images/s here": f"{speed.images:.2g}" + ("" if speed.measured else ", not measured"),
        "in all": "not known" if seconds is None else duration(seconds),
        "seconds": seconds,
    }


class _Faces:
    """Counts the training faces of a recipe: from the data if available, otherwise from the published numbers."""

    def __init__(self, demonstration: bool) -> None:
        self._demonstration = demonstration
        self._counts: dict[str, tuple[int, int] | None] = {}

    def training(self, recipe: Recipe) -> int | None:
        trained = [name for name, one in recipe.data.each().items() if getattr(one, "weight", 1)]
        if self._demonstration:
            return 600 * len(trained)
        counts = [self._of_set(recipe.data.each()[name], split_of(recipe, name)) for name in trained]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def _of_set(self, data: Source, split: Split) -> int | None:
        key = repr((data.source, data.root, data.labels))
        if key not in self._counts:
            self._counts[key] = self._count(data)
        found = self._counts[key]
        if found is None or split.method == "partition":
            return None if found is None else found[1]
        folds = 5 if split.method == "folds" else split.folds
        test = 1 / folds if METHODS[split.method].has_folds else split.test
        return round(found[0] * (1 - test) * (1 - split.val))

    @staticmethod
    def _count(data: Source) -> tuple[int, int] | None:
        """Returns the number of all faces, and of the training part of an official partition."""
        if data.root is not None and Path(data.root).exists():
            try:
                faces = read_faces(data.source, data.root, data.labels, data.map or None)
            except MienError:
                return None
            return len(faces), int((faces["split"] == "train").sum())
        return published_faces(data.source)


def _kind(recipe: Recipe) -> str:
    """Returns what determines the training speed."""
    model, settings = recipe.model, recipe.trainer
    return repr((model.backbone, model.image_size, model.freeze, model.hidden, settings.batch_size, settings.precision))


def _speeds(recipes: Iterable[Recipe]) -> dict[str, Speed]:
    """Returns the speed of each kind of training, measured from the fastest network on until the time limit."""
    end = time.monotonic() + _SECONDS
    kinds = {_kind(recipe): recipe for recipe in recipes}
    work = {kind: operations(recipe) for kind, recipe in kinds.items()}
    speeds: dict[str, Speed] = {}
    rate = np.nan
    for number, kind in enumerate(sorted(kinds, key=lambda kind: work[kind])):
        left = end - time.monotonic()
        # Warm-up and measurement take six images, and building the network takes as long again.
        if number and 12 * work[kind] / rate > left:
            speeds[kind] = Speed(rate / work[kind], measured=False)
        else:
            speeds[kind] = Speed(measure(kinds[kind], left / (len(kinds) - number)), measured=True)
            rate = speeds[kind].images * work[kind]
    return speeds


def operations(recipe: Recipe) -> float:
    """Returns the floating-point operations of a forward pass of one image, computed without making the network."""
    side = recipe.model.image_size
    with torch.device("meta"), torch.no_grad():
        net = _network(recipe)
        with FlopCounterMode(display=False) as counter:
            net(torch.zeros(2, 3, side, side, dtype=torch.uint8))  # batch normalisation needs more than one image
    return max(counter.get_total_flops() / 2, 1.0)


def _network(recipe: Recipe) -> FaceNet:
    """Returns the recipe's network with random weights."""
    alone = recipe.model_copy(update={"init": Init(weights="none")})
    return FaceNet(alone, {name: ["a", "b"] for name in recipe.tasks.columns})


def measure(recipe: Recipe, seconds: float) -> float:
    """Returns the images a second of forward and backward passes on random pixels with random weights.

    Args:
        recipe: Determines the network, the frozen layers and the batch size.
        seconds: Approximate time limit; the batch grows to the recipe's size within this time.
    """
    net = _network(recipe)
    size, begin, speed, took = 2, time.monotonic(), 0.0, 0.0
    _pass(net, recipe, size)  # warm-up: the first pass allocates memory and selects kernels
    while not speed or (size < recipe.trainer.batch_size and 3 * took < begin + seconds - time.monotonic()):
        size = min(2 * size, recipe.trainer.batch_size)
        took = _pass(net, recipe, size)
        speed = max(speed, size / took)
    return speed


def _pass(net: FaceNet, recipe: Recipe, size: int) -> float:
    """Seconds of a forward and a backward pass of so many images."""
    side = recipe.model.image_size
    images = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8)
    begin = time.monotonic()
    torch.stack([logits.sum() for logits in net(images).values()]).sum().backward()
    return time.monotonic() - begin


def missing_weights(recipes: Iterable[Recipe]) -> list[str]:
    """Returns a sentence for each pretrained network whose weights are not in the local cache."""
    names = {recipe.model.backbone for recipe in recipes if recipe.init.weights == "imagenet"}
    missing = []
    for name in sorted(names):
        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        if config is None or not config.has_weights:
            missing.append(f"weights of {name}: timm has none")
            continue
        hub = str(config.hf_hub_id or "timm/")
        source = hub + name if hub.endswith("/") else hub
        if not any(isinstance(try_to_load_from_cache(source, file), str) for file in _WEIGHT_FILES):
            missing.append(f"weights of {name} (ImageNet) will be downloaded")
    return missing


_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
