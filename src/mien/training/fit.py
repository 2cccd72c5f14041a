"""One training run, from recipe to evaluated model."""

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from safetensors.torch import save as as_bytes
from torch import Tensor

from mien.base.atomic import atomic_path, naming_full_disk, new_folder
from mien.base.console import progress
from mien.base.errors import MienError
from mien.base.lock import Lock
from mien.base.messages import note
from mien.base.table import read_table, write_table
from mien.data import leaks
from mien.data.face_pixels import FilePixels, PixelCache, Pixels, check_readable
from mien.data.images import RESIZE
from mien.data.joined import read_data
from mien.data.roots import Root, folders_of, recipe_root
from mien.evaluation.evaluate import evaluate
from mien.prediction.onnx_session import FORMAT
from mien.recipe.automatic import choose_settings
from mien.recipe.load import load_recipe
from mien.recipe.settings import WITHOUT_HEADS, Init, Recipe, first_stage, without_paths
from mien.reports.run import run_report
from mien.runs.hub import local_folder
from mien.runs.run import Run
from mien.training.augment import make_augmentation
from mien.training.backbones import exported_lineage, input_range, is_export
from mien.training.calibrate import calibrate
from mien.training.callbacks import AtomicCheckpoints, EpochCallback, Log, Resume, StepSeeds, UnreadableLimit
from mien.training.data import Augmented, FaceData
from mien.training.distillation import open_teachers, teacher_probabilities
from mien.training.distributed import Processes
from mien.training.export import export
from mien.training.heads import column_classes
from mien.training.memory import keep_freed_memory
from mien.training.model import FaceNet, FaceTraining
from mien.training.onnx_weights import settle_batch_norm
from mien.training.prepare import prepare_faces
from mien.training.trained_network import load_network


def train(
    recipe: str | Path | Recipe | dict[str, Any],
    changes: Iterable[str] = (),
    out: str | Path | None = None,
    stages: str | Path | None = None,
    on_epoch: Callable[[dict[str, float]], object] | None = None,
    score: bool = True,
) -> Run:
    """Trains, exports and evaluates one model; an interrupted run of the same recipe is resumed.

    Args:
        recipe: The name of one that ships, a file, a mapping, or a `Recipe`.
        changes: Like "optim.lr=0.01".
        out: The run's folder; None: `runs/<name of the recipe>`.
        stages: Folder of first stages, shared by runs with the same first stage; None: `first` in the run's folder.
        on_epoch: Called after each epoch with its row of the log, once its checkpoint is saved. An exception stops the
            run, which can be resumed.
        score: Export the ONNX file, predict and compute metrics; if false, the test part is never used.

    Raises:
        MienError: Settings are not valid, data cannot be used, parts leak, or `out` holds something else.
    """
    settings = load_recipe(recipe, changes)
    run = Run(out if out is not None else Path("runs") / settings.name)
    _roots(settings)  # before the folder is made
    settings, chosen = settled(settings, run)
    # Searches and studies give a folder of stages; they start their own processes, each with other runs.
    processes = Processes(settings.trainer, alone=stages is None)
    with _alone(run, processes):
        _train(run, settings, processes, stages, on_epoch, score)
        if chosen:
            processes.once(lambda: run.note(chosen=chosen))
    return run


def settled(recipe: Recipe, run: Run | None = None) -> tuple[Recipe, str]:
    """Returns the recipe with the settings that follow from its data, and prints and returns them as a sentence.

    See `choose_settings`. A recipe without `auto` stays as it is, and the sentence is empty.

    Args:
        recipe: A recipe whose data can be read, if it has `auto`.
        run: A run of this recipe that may be there already: its faces count, and not what the data are now.

    Raises:
        MienError: The data cannot be read, or are too few.
    """
    if not recipe.auto:
        return recipe, ""
    faces = run.faces if run is not None and run.faces_file.exists() else read_data(recipe.data)[0]
    chosen, sentence = choose_settings(recipe, faces)
    note(sentence)
    return chosen, sentence


@contextmanager
def _alone(run: Run, processes: Processes, wait: bool = False) -> Iterator[None]:
    """Prevents a second command from training in the same folder; with `wait`, it waits until the first has ended."""
    lock = Lock(run.folder / ".lock", temporary=True)

    def take() -> bool:
        new_folder(run.folder)
        with naming_full_disk(run.recipe_file):
            return lock.take(wait)

    if not processes.once(take):
        raise MienError(
            f"run folder {str(run.folder)!r} is in use: another process trains there; wait, or give another --out"
        )
    try:
        yield
    finally:
        lock.release()


def _train(
    run: Run,
    settings: Recipe,
    processes: Processes,
    stages: str | Path | None = None,
    on_epoch: Callable[[dict[str, float]], object] | None = None,
    score: bool = True,
) -> None:
    """Does the work of `train` in a folder that no other process uses."""
    root = _roots(settings)
    resumed = processes.once(lambda: run.begin(settings))
    note(f"{'resuming run' if resumed else 'run'} {run.folder}")
    start = _first_stage(run, settings, stages, processes)
    processes.once(lambda: _prepare(run, settings, root, start))
    faces = run.faces
    with processes.in_turn():  # machines may have caches of their own
        pixels, unreadable = open_pixels(settings, faces, root)
    if not processes.once(run.weights_file.exists):
        with processes.in_turn():
            soft_targets = teacher_probabilities(run, settings, faces, root)
        _fit(run, _starting(settings, start), faces, pixels, unreadable, processes, soft_targets, on_epoch)
    processes.once(lambda: _finish(run, settings, faces, pixels, score))


def _prepare(run: Run, recipe: Recipe, root: Root, start: Run | None) -> None:
    """Writes the faces and the lineage of a run, if they are missing."""
    if not run.faces_file.exists():
        prepare_faces(run, recipe, root)
    # Also for a resumed run: its first attempt may have failed in this check.
    if "lineage" not in run.info:
        run.note(lineage=_lineage(recipe, start, run.faces))


def _finish(run: Run, recipe: Recipe, faces: pd.DataFrame, pixels: Pixels, score: bool) -> None:
    """Exports, evaluates and reports a trained run, and removes its temporary files."""
    if score:
        seen = _evaluation_pixels(pixels, recipe)
        _export(run, recipe, faces, seen)
        evaluate(run, pixels=seen)
        run_report(run)
    for leftover in (run.resume_file, run.best_file, run.teachers_file):
        leftover.unlink(missing_ok=True)
    run.note(status="finished")


def _roots(settings: Recipe) -> Root:
    """The root of the data of a recipe; raises for a folder that is missing, that of a first stage too."""
    if settings.init.data is not None:
        recipe_root(settings.init.data, "init.data")
    return recipe_root(settings.data)


def stage_folder(stage: Recipe, stages: str | Path) -> Path:
    """Returns the folder of a first stage among the shared ones."""
    what = stage.model_dump(mode="json", exclude={"name": True, "trainer": {"nodes"}})
    settings = json.dumps(what, sort_keys=True)
    key = hashlib.sha256(settings.encode()).hexdigest()[:10]
    return Path(stages) / f"{stage.data.title}-{stage.model.backbone}-{key}"


def _first_stage(run: Run, recipe: Recipe, stages: str | Path | None, processes: Processes) -> Run | None:
    """Returns the finished run of the first stage, trained now if it is missing."""
    stage = first_stage(recipe)
    if stage is None:
        return None
    folder = run.folder / "first" if stages is None else stage_folder(stage, stages)
    first = Run(folder)
    if not processes.once(lambda: first.finished):
        with _alone(first, processes, wait=True):  # runs of a search can share it
            if not processes.once(lambda: first.finished):
                _train(first, stage, Processes(stage.trainer))
    return first


def _starting(recipe: Recipe, start: Run | None) -> Recipe:
    """Returns the recipe with the run of the first stage as initial weights."""
    if start is None:
        return recipe
    return recipe.model_copy(update={"init": Init(weights=str(start.folder), heads=recipe.init.heads)})


def _lineage(recipe: Recipe, start: Run | None, faces: pd.DataFrame) -> dict[str, Any]:
    """Returns the lineage of the initial weights and the teachers: data, tasks and weights of each earlier run.

    Raises:
        LeakError: An earlier run was trained on faces of the test part, and the recipe does not allow it.
    """
    source = recipe.init.weights
    if start is None and source not in WITHOUT_HEADS and not is_export(source):
        start = Run(local_folder(source))
    if is_export(source):
        lineage: dict[str, Any] = exported_lineage(source)
    elif start is None or not start.info:
        lineage = {"weights": without_paths(recipe).init.weights}
    else:
        lineage = _earlier(start, recipe, faces)
    if recipe.distillation is not None:
        lineage["teachers"] = [_earlier(teacher, recipe, faces) for teacher in open_teachers(recipe)]
    return lineage


def _earlier(run: Run, recipe: Recipe, faces: pd.DataFrame) -> dict[str, Any]:
    """Describes an earlier run; its training faces must not be in the test part of this run."""
    before = run.recipe
    # A published model has no faces: its lineage states that nothing could be compared.
    seen = faces.head(0) if run.published else run.faces[run.faces["split"] == "train"]
    found = leaks.leaks_between(seen, faces[faces["split"] == "test"])
    if found and not recipe.split.allow_leaks:
        raise leaks.LeakError(found)
    return {
        "run": run.name,
        "dataset": before.data.title,
        "labels": before.data.labels,
        "tasks": list(before.tasks.named()),
        "faces": run.info.get("faces"),
        "leaks": None if run.published else [str(leak) for leak in found],
        "from": run.info.get("lineage"),
    }


def _evaluation_pixels(pixels: Pixels, recipe: Recipe) -> Pixels:
    if not recipe.augment.evaluation:
        return pixels
    return Augmented(pixels, make_augmentation(recipe.augment, recipe.model.image_size), recipe.trainer.seed)


def open_pixels(recipe: Recipe, faces: pd.DataFrame, root: Root) -> tuple[Pixels, dict[int, str]]:
    """Returns the pixels of the faces, and index -> reason of the faces known to be unreadable before training."""
    files = FilePixels(faces, root, recipe.model.image_size, recipe.model.margin)
    if not recipe.data.cache:
        return files, {}
    cache = PixelCache(files)
    with progress("decoding") as update:
        cache.fill(update)
    unreadable = cache.unreadable()
    check_readable(faces, unreadable, recipe.data.max_unreadable)
    return cache, unreadable


def _fit(
    run: Run,
    recipe: Recipe,
    faces: pd.DataFrame,
    pixels: Pixels,
    unreadable: dict[int, str],
    processes: Processes,
    soft_targets: dict[str, Tensor] | None = None,
    on_epoch: Callable[[dict[str, float]], object] | None = None,
) -> None:
    """Trains the network; the first process writes weights and log."""
    keep_freed_memory()
    # Deterministic algorithms are sufficient; filling each new tensor costs some percent of the time on a CPU.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    pl.seed_everything(recipe.trainer.seed, verbose=False)
    net = make_net(recipe, faces)
    usable = faces.copy()
    usable.loc[list(unreadable), "split"] = None
    learning = usable[usable["split"] == "train"]
    for head in net.heads.values():
        head.fit(learning)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    frozen = sum(parameter.numel() for parameter in net.parameters() if not parameter.requires_grad)
    if processes.rank == 0:
        run.note(parameters=parameters, parameters_frozen=frozen, input=input_range(recipe.model))
    resume = processes.once(run.resume_file.exists)
    if is_export(recipe.init.weights) and not resume:
        _settle(net, pixels, np.flatnonzero(usable["split"] == "train"))
    targets = {task: head.target(faces) for task, head in net.heads.items()}
    module = FaceTraining(net, recipe)
    module.unreadable.update(unreadable)
    best = _best(run)
    trainer = _trainer(run, recipe, best, int(recipe.data.max_unreadable * len(faces)), on_epoch)
    begin = time.monotonic()
    with warnings.catch_warnings():
        # Lightning's advice on workers and logging intervals does not apply to users of mien.
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
        data = FaceData(usable, pixels, targets, recipe, soft_targets)
        try:
            trainer.fit(module, datamodule=data, ckpt_path=run.resume_file if resume else None, weights_only=True)
        except SystemExit as stop:  # Lightning turns an interruption into SystemExit
            raise KeyboardInterrupt from stop
    if processes.rank > 0:
        return
    run.note(
        device=str(trainer.strategy.root_device),
        processes=processes.count,
        epochs=len(run.log),
        images_trained=int(run.log["images"].sum()),
        seconds_training=round(float(run.log["seconds"].sum()), 1),
        seconds_of_last_attempt=round(time.monotonic() - begin, 1),
    )
    if recipe.trainer.keep == "best" and best.best_model_path:
        module.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])
    _write_weights(run, net.cpu(), faces, module.unreadable)


def _settle(net: FaceNet, pixels: Pixels, training: np.ndarray) -> None:
    """Gives folded batch normalisations the statistics of training faces, the same at each call."""
    rows = np.random.default_rng(0).permutation(training)[:_SETTLING]
    images = torch.from_numpy(np.stack([pixels[int(row)] for row in rows])).permute(0, 3, 1, 2)
    settle_batch_norm(net, images)


def _best(run: Run) -> ModelCheckpoint:
    """Returns the callback that keeps the weights of the best epoch.

    Lightning calls it after all other callbacks. At the end of an epoch it would run after `Resume`, whose checkpoint
    would not contain the current choice, so it saves at the end of validation.
    """
    return ModelCheckpoint(
        run.folder,
        run.best_file.stem,
        "val_loss",
        save_weights_only=True,
        enable_version_counter=False,
        save_on_train_epoch_end=False,
    )


def make_net(recipe: Recipe, faces: pd.DataFrame) -> FaceNet:
    """Returns the network for a faces table, whose training part determines the classes of auxiliary columns."""
    return FaceNet(recipe, column_classes(recipe.tasks, faces[faces["split"] == "train"]))


def _trainer(
    run: Run,
    recipe: Recipe,
    best: ModelCheckpoint,
    bound: int,
    on_epoch: Callable[[dict[str, float]], object] | None = None,
) -> pl.Trainer:
    settings = recipe.trainer
    log = Log(run.log_file)
    unreadable = UnreadableLimit(bound, folders_of(recipe_root(recipe.data)))
    callbacks: list[pl.Callback] = [StepSeeds(settings.seed), log, unreadable, best]
    if settings.averaging:
        callbacks.append(EMAWeightAveraging(decay=settings.averaging))
    if settings.patience:
        callbacks.append(EarlyStopping("val_loss", patience=settings.patience))
    callbacks.append(Resume(run.resume_file, settings.checkpoint_every))
    if on_epoch is not None:
        callbacks.append(EpochCallback(log, on_epoch))
    return pl.Trainer(
        max_epochs=settings.epochs,
        precision=settings.precision,  # type: ignore[arg-type]  # the values of the setting are a subset of Lightning's
        devices=settings.devices,
        num_nodes=settings.nodes,
        gradient_clip_val=recipe.optim.clip or None,
        callbacks=callbacks,
        plugins=[AtomicCheckpoints()],
        logger=TensorBoardLogger(run.folder, name="", version="tensorboard"),
        log_every_n_steps=20,
        deterministic="warn",
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _write_weights(run: Run, net: FaceNet, faces: pd.DataFrame, unreadable: dict[int, str]) -> None:
    rows = sorted(unreadable)
    reasons = faces.loc[rows, ["face", "path"]].assign(reason=[unreadable[row] for row in rows])
    write_table(reasons, run.unreadable_file)
    with atomic_path(run.weights_file) as part:
        # `save_file` would leave another temporary file behind when it is killed.
        part.write_bytes(as_bytes({name: value.contiguous() for name, value in net.state_dict().items()}))


_EXPORT_BATCH = 64
_SETTLING = 256  # training faces whose statistics a normalisation takes over


def _export(run: Run, recipe: Recipe, faces: pd.DataFrame, pixels: Pixels) -> None:
    """Writes the ONNX file, calibrated on the validation faces and compared with torch on some of them."""
    if run.model_file.exists():
        return
    net = load_network(run)
    unreadable = set(read_table(run.unreadable_file)["face"].astype(str))
    usable = np.flatnonzero((faces["split"] == "val") & ~faces["face"].isin(unreadable))
    sample = np.stack([pixels[int(index)] for index in usable[:16]])
    logits = _logits(net, pixels, usable)
    run.note(calibration=calibrate(net, logits, faces.iloc[usable], recipe.tasks))
    export(net, run.model_file, model_metadata(run, recipe), sample)


def _logits(net: FaceNet, pixels: Pixels, rows: np.ndarray) -> dict[str, Tensor]:
    """Returns the logits (n, units) of each task for the given rows, on the CPU."""
    parts = []
    with progress("calibrating") as update, torch.inference_mode():
        for start in range(0, len(rows), _EXPORT_BATCH):
            images = np.stack([pixels[int(row)] for row in rows[start : start + _EXPORT_BATCH]])
            parts.append(net(torch.from_numpy(images).permute(0, 3, 1, 2)))
            update(min(start + _EXPORT_BATCH, len(rows)), len(rows))
    return {task: torch.cat([part[task] for part in parts]) for task in parts[0]}


def model_metadata(run: Run, recipe: Recipe) -> dict[str, Any]:
    """Returns the metadata of the ONNX file."""
    calibration = run.info["calibration"]
    unsure_below = calibration.get("gender", {}).get("unsure_below")
    return ({} if unsure_below is None else {"unsure_below": unsure_below}) | {
        "format": FORMAT,
        "resize": RESIZE,
        "image_size": recipe.model.image_size,
        "margin": recipe.model.margin,
        "tasks": list(recipe.tasks.predicted()),
        "labels": "perceived gender and age, as the data set has them",
        "calibration": {"part": "val", **calibration},
        "recipe": without_paths(recipe).model_dump(mode="json"),
        "lineage": {
            "dataset": recipe.data.title,
            "labels": recipe.data.labels,
            "faces": run.info.get("faces"),
            "init": run.info.get("lineage"),
            "leaks": run.info.get("leaks"),
        },
        "versions": run.info.get("versions"),
    }
