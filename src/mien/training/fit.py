"""One training run, from recipe to evaluated model."""

import logging
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from safetensors.torch import save_file

from mien import splits
from mien.console import console, progress
from mien.datasets import data_root, read_faces
from mien.duplicates import group_files
from mien.errors import MienError
from mien.evaluation import evaluate
from mien.pixels import Cache, Files, Pixels, check_readable
from mien.recipe import Recipe, load_recipe
from mien.run import Run
from mien.table import atomic_path, read_faces_table, write_table
from mien.training.callbacks import AtomicCheckpoints, Log, RandomState, Resume, UnreadableBound
from mien.training.data import FaceData
from mien.training.export import export
from mien.training.heads import HEADS
from mien.training.memory import keep_freed_memory
from mien.training.model import FaceNet, FaceTraining


def train(
    recipe: str | Path | Recipe | dict[str, Any], changes: Iterable[str] = (), out: str | Path | None = None
) -> Run:
    """Trains, exports and evaluates one model; an interrupted run of the same recipe is taken up where it was.

    Args:
        recipe: The name of one that ships, a file, a mapping, or a `Recipe`.
        changes: Like "optim.lr=0.01".
        out: The run's folder; None: `runs/<name of the recipe>`.

    Raises:
        MienError: Wrong settings, data that cannot be used, a leak between the parts, an `out` that is taken.
    """
    settings = load_recipe(recipe, changes)
    run = Run(out if out is not None else Path("runs") / settings.name)
    resumed = run.begin(settings)
    console.print(f"{'going on with' if resumed else 'run'} {run.folder}", highlight=False)
    if settings.data.root is None:
        raise MienError("data.root is not set: which folder holds the data? --set data.root=FOLDER")
    root = data_root(settings.data.root)
    faces = run.faces if resumed else prepare_faces(run, settings, root)
    pixels, unreadable = open_pixels(settings, faces, root)
    if not run.model_file.exists() and not _fit(run, settings, faces, pixels, unreadable):
        raise SystemExit(0)  # one of several processes; the first one does the rest
    evaluate(run, pixels=pixels)
    run.note(status="finished")
    run.resume_file.unlink(missing_ok=True)
    return run


def prepare_faces(run: Run, recipe: Recipe, root: Path) -> pd.DataFrame:
    """Reads the faces, splits them, and checks the split for leaks and missing classes.

    Writes them, and the leaks that the recipe allows, to the run.
    """
    if recipe.data.faces is not None:
        faces = read_faces_table(recipe.data.faces)
    else:
        assert recipe.data.root is not None
        faces = read_faces(recipe.data.source, recipe.data.root, recipe.data.labels, recipe.data.map or None)
    faces = _labelled(faces, recipe)
    alike = None
    if recipe.split.near_duplicates:
        with progress("looking for near-duplicates") as tell:
            alike = group_files([root / path for path in faces["path"]], tell)
    split = recipe.split
    faces = splits.assign(
        faces,
        split.method,
        test_fold=split.test_fold,
        val=split.val,
        test=split.test,
        seed=split.seed,
        groups=alike,
    )
    leaks = splits.check_leaks(faces, alike, allow=split.allow_leaks)
    for task in recipe.tasks.named():
        splits.check_classes(faces, HEADS[task].column)
    for leak in leaks:
        console.print(f"leak allowed by the recipe: {leak}", style="yellow", highlight=False)
    counts = {name: int(count) for name, count in faces["split"].value_counts().items()}
    run.note(leaks=[str(leak) for leak in leaks], ledger=faces.attrs.get("ledger"), faces=counts)
    console.print(f"faces: {', '.join(f'{name} {count}' for name, count in counts.items())}", highlight=False)
    write_table(faces, run.faces_file)
    return faces


def _labelled(faces: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """The faces that have a label of at least one task; the others can neither teach nor judge."""
    columns = [HEADS[task].column for task in recipe.tasks.named()]
    known = faces[columns].notna()
    for column in columns:
        if not known[column].any():
            raise MienError(f"task {column!r}: no face of the data set has this label")
    left_out = int((~known.any(axis=1)).sum())
    if left_out:
        console.print(f"{left_out} faces without any label of {', '.join(columns)} are left out", highlight=False)
    return faces[known.any(axis=1)].reset_index(drop=True)


def open_pixels(recipe: Recipe, faces: pd.DataFrame, root: Path) -> tuple[Pixels, dict[int, str]]:
    """The faces' pixels, and index -> reason of those that are known to be unreadable before training."""
    files = Files(faces, root, recipe.model.image_size, recipe.model.margin)
    if not recipe.data.cache:
        return files, {}
    cache = Cache(files)
    with progress("decoding") as tell:
        cache.fill(tell)
    unreadable = cache.unreadable()
    check_readable(faces, unreadable, recipe.data.max_unreadable)
    return cache, unreadable


def _fit(run: Run, recipe: Recipe, faces: pd.DataFrame, pixels: Pixels, unreadable: dict[int, str]) -> bool:
    """Trains, and writes weights, log and ONNX file; returns whether this is the process that does so."""
    keep_freed_memory()
    # Deterministic algorithms alone are wanted; filling each new tensor as well costs some percent on a CPU.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    pl.seed_everything(recipe.trainer.seed, verbose=False)
    net = FaceNet(recipe)
    usable = faces.copy()
    usable.loc[list(unreadable), "split"] = None
    learning = usable[usable["split"] == "train"]
    for head in net.heads.values():
        head.fit(learning)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    frozen = sum(parameter.numel() for parameter in net.parameters() if not parameter.requires_grad)
    run.note(parameters=parameters, parameters_frozen=frozen)
    targets = {task: head.target(faces) for task, head in net.heads.items()}
    module = FaceTraining(net, recipe)
    module.unreadable.update(unreadable)
    best = ModelCheckpoint(run.folder, "best", "val_loss", save_weights_only=True, enable_version_counter=False)
    trainer = _trainer(run, recipe, best, bound=int(recipe.data.max_unreadable * len(faces)))
    begin = time.monotonic()
    with warnings.catch_warnings():
        # Lightning's advice on workers and logging intervals is for its own users, not ours.
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
        resume = run.resume_file if run.resume_file.exists() else None
        data = FaceData(usable, pixels, targets, recipe)
        try:
            trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
        except SystemExit as stop:  # what Lightning makes of an interruption
            raise KeyboardInterrupt from stop
    if not trainer.is_global_zero:
        return False
    run.note(
        device=str(trainer.strategy.root_device),
        epochs=len(run.log),
        images_trained=int(run.log["images"].sum()),
        seconds_training=round(float(run.log["seconds"].sum()), 1),
        seconds_of_last_attempt=round(time.monotonic() - begin, 1),
    )
    if recipe.trainer.keep == "best" and best.best_model_path:
        module.load_state_dict(torch.load(best.best_model_path, weights_only=True)["state_dict"])
    _write_model(run, recipe, net.cpu().eval(), faces, pixels, module.unreadable)
    if best.best_model_path:
        Path(best.best_model_path).unlink(missing_ok=True)
    return True


def _trainer(run: Run, recipe: Recipe, best: ModelCheckpoint, bound: int) -> pl.Trainer:
    settings = recipe.trainer
    callbacks: list[pl.Callback] = [RandomState(), Log(run.log_file), UnreadableBound(bound), best]
    if settings.averaging:
        callbacks.append(EMAWeightAveraging(decay=settings.averaging))
    if settings.patience:
        callbacks.append(EarlyStopping("val_loss", patience=settings.patience))
    callbacks.append(Resume(run.resume_file, settings.checkpoint_every))
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    return pl.Trainer(
        max_epochs=settings.epochs,
        precision=settings.precision,  # type: ignore[arg-type]  # our words are among Lightning's
        devices=settings.devices,
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


def _write_model(
    run: Run, recipe: Recipe, net: FaceNet, faces: pd.DataFrame, pixels: Pixels, unreadable: dict[int, str]
) -> None:
    rows = sorted(unreadable)
    reasons = faces.loc[rows, ["face", "path"]].assign(reason=[unreadable[row] for row in rows])
    write_table(reasons, run.unreadable_file)
    with atomic_path(run.weights_file) as part:
        save_file({name: value.contiguous() for name, value in net.state_dict().items()}, part)
    usable = [index for index in np.flatnonzero(faces["split"] != "train") if index not in unreadable]
    export(
        net,
        run.model_file,
        model_metadata(run, recipe),
        np.stack([pixels[int(index)] for index in usable[:16]]),
    )


def model_metadata(run: Run, recipe: Recipe) -> dict[str, Any]:
    """What the ONNX file says about itself."""
    return {
        "format": 1,
        "image_size": recipe.model.image_size,
        "margin": recipe.model.margin,
        "tasks": list(recipe.tasks.named()),
        "labels": "perceived gender and age, as the data set has them",
        "recipe": recipe.model_dump(mode="json", exclude={"data": {"root", "faces"}}),
        "lineage": {
            "dataset": recipe.data.source,
            "labels": recipe.data.labels,
            "faces": run.info.get("faces"),
            "init": recipe.init.weights,
            "leaks": run.info.get("leaks"),
        },
        "versions": run.info.get("versions"),
    }
