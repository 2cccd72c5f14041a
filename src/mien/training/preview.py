"""Traces one batch of a recipe through augmentation to the input of the network, and checks it."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchvision.transforms import v2

from mien.base.errors import MienError
from mien.data import splits
from mien.data.face_pixels import FilePixels, Pixels
from mien.data.roots import Root, recipe_root
from mien.data.sources import read_faces
from mien.demo.dataset import draw_faces
from mien.recipe.load import load_recipe
from mien.recipe.settings import Recipe
from mien.reports.preview import BatchTrace, write_preview
from mien.reports.thumbnails import labels_text
from mien.runs.run import Run
from mien.training.augment import augmentation_steps
from mien.training.backbones import input_range, normalization
from mien.training.data import Batch, FaceData, seeded
from mien.training.fit import settled
from mien.training.prepare import prepare_faces

_SUBJECTS = 30  # of the drawn faces: about 190 images
_TOLERANCE = 0.05  # two input ranges whose ends differ by less are equal for a network


def preview(recipe: str | Path | Recipe | dict[str, Any], out: str | Path, changes: Iterable[str] = ()) -> list[str]:
    """Writes an HTML page with a batch of training faces and one of validation faces, as a run would see them.

    The batches come from the loaders that training uses, and the parts are those of a run. Without `data.root` the
    faces are drawn.

    Args:
        recipe: As for `train`.
        out: The `.html` file to write.
        changes: Like "augment.mixup=0.2".

    Returns:
        Warnings, one sentence each.

    Raises:
        MienError: Settings are not valid, data cannot be used, or `out` has another suffix.
    """
    if Path(out).suffix != ".html":
        raise MienError(f"--out {str(out)!r}: must end in .html")
    settings = load_recipe(recipe, changes)
    has_data = any(one.root is not None for one in settings.data.each().values())
    if has_data:
        settings, _ = settled(settings)
    with tempfile.TemporaryDirectory() as folder:
        prepare = _own_faces if has_data else _drawn_faces
        faces, root = prepare(settings, Path(folder))
        pixels = FilePixels(faces, root, settings.model.image_size, settings.model.margin)
        traces = {part: trace_batch(settings, faces, pixels, part) for part in ("train", "val")}
    warnings = find_warnings(settings, traces)
    write_preview(settings, traces, warnings, out)
    return [*warnings["train"], *warnings["val"]]


def _drawn_faces(recipe: Recipe, folder: Path) -> tuple[pd.DataFrame, Root]:
    root = folder / "drawn"
    draw_faces(root, subjects=_SUBJECTS)
    return splits.assign(read_faces("adience", root, "masked"), "subjects", val=0.2), root


def _own_faces(recipe: Recipe, folder: Path) -> tuple[pd.DataFrame, Root]:
    root = recipe_root(recipe.data)
    run = Run(folder / "run")
    run.begin(recipe)
    return prepare_faces(run, recipe, root), root


def trace_batch(recipe: Recipe, faces: pd.DataFrame, pixels: Pixels, part: str) -> BatchTrace:
    """Returns the first batch of a part, after each stage of augmentation.

    Args:
        recipe: The recipe.
        faces: A faces table with its split.
        pixels: The pixels of these faces.
        part: "train" or "val".

    Raises:
        MienError: No image of the batch can be read.
    """
    no_workers = recipe.trainer.model_copy(update={"workers": 0})
    data = FaceData(faces, pixels, {}, recipe.model_copy(update={"trainer": no_workers}))
    batch: Batch = next(iter(data.train_dataloader() if part == "train" else data.val_dataloader()))
    if not len(batch["images"]):
        _, reason = batch["unreadable"][0]
        raise MienError(f"no image of the first {part} batch can be read; the first: {reason}")
    index = [int(row) for row in batch["index"]]
    augmented = part == "train" or recipe.augment.evaluation
    steps = augmentation_steps(recipe.augment, recipe.model.image_size) if augmented else []
    stages = [("original", np.stack([pixels[row] for row in index]))]
    for count, (name, _) in enumerate(steps, 1):
        # Each stage repeats the earlier steps, so that their random numbers are those of training.
        transform = v2.Compose([step for _, step in steps[:count]])
        stages.append((name, np.stack([_augmented(pixels[row], transform, recipe.trainer.seed, row) for row in index])))
    labels = [labels_text(face) for _, face in faces.iloc[index].iterrows()]
    if "share" in batch:
        share = float(batch["share"])
        pairs = zip(labels, (labels[other] for other in batch["partner"]), strict=True)
        labels = [f"{share:.2f} {own} + {1 - share:.2f} {other}" for own, other in pairs]
        stages.append(("mixed", _as_array(batch["images"])))
    return BatchTrace(stages, labels, pixel_ranges(recipe, stages))


def _as_array(images: Tensor) -> np.ndarray:
    """Channels last: (..., 3, size, size) to (..., size, size, 3)."""
    return images.movedim(-3, -1).numpy()


def _augmented(image: np.ndarray, transform: v2.Transform, seed: int, index: int) -> np.ndarray:
    with seeded(seed, 0, index):
        return _as_array(transform(torch.from_numpy(np.array(image)).permute(2, 0, 1)))


def find_warnings(recipe: Recipe, traces: Mapping[str, BatchTrace]) -> dict[str, list[str]]:
    """Returns warnings about the batches of each part: the input range, augmented evaluation, images of one colour."""
    warnings: dict[str, list[str]] = {part: [] for part in traces}
    span = input_range(recipe.model)
    if not all(np.allclose(span[end], span[f"expected_{end}"], atol=_TOLERANCE) for end in ("low", "high")):
        warnings["train"].append(
            f"model.normalize is {recipe.model.normalize!r}: pixels range from {_channels(span['low'])} to "
            f"{_channels(span['high'])}, but {recipe.model.backbone} was pretrained with "
            f"{_channels(span['expected_low'])} to {_channels(span['expected_high'])}."
        )
    if recipe.augment.evaluation:
        warnings["val"].append(
            "augment.evaluation: validation and test images are augmented too, so scores do not apply to real images."
        )
    for part, trace in traces.items():
        flat = sum(int(image.min() == image.max()) for image in trace.images)
        if flat:
            warnings[part].append(f"{flat} of {len(trace.labels)} images of the batch are of one colour.")
    return warnings


def _channels(values: Sequence[float]) -> str:
    return " / ".join(f"{value:.2f}" for value in values) if len(set(values)) > 1 else f"{values[0]:.2f}"


def pixel_ranges(recipe: Recipe, stages: Sequence[tuple[str, np.ndarray]]) -> pd.DataFrame:
    """Returns the lowest, mean and highest value of each stage, and of each channel after normalization.

    Args:
        recipe: The recipe.
        stages: As in `BatchTrace`.

    Returns:
        One row per stage and channel; `possible` is the range from black to white, `expected` the range that the
        network was pretrained with.
    """
    rows = [
        {"stage": f"{name}, 0 to 255", "lowest": int(images.min()), "mean": _mean(images), "highest": int(images.max())}
        for name, images in stages
    ]
    mean, std = normalization(recipe.model)
    span = input_range(recipe.model)
    for channel, name in enumerate(("red", "green", "blue")):
        values = (stages[-1][1][..., channel] / 255 - mean[channel]) / std[channel]
        rows.append(
            {
                "stage": f"normalized, {name}",
                "lowest": round(float(values.min()), 2),
                "mean": _mean(values),
                "highest": round(float(values.max()), 2),
                "possible": f"{span['low'][channel]:.2f} to {span['high'][channel]:.2f}",
                "expected": f"{span['expected_low'][channel]:.2f} to {span['expected_high'][channel]:.2f}",
            }
        )
    return pd.DataFrame(rows).fillna({"possible": "", "expected": ""})


def _mean(values: np.ndarray) -> float:
    return round(float(values.mean()), 2)
