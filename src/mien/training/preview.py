"""A preview: what a network is really fed, before and after each augmentation, with labels and pixel ranges."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchvision.transforms import v2

from mien.base.errors import MienError
from mien.data import splits
from mien.data.pixels import FilePixels, Pixels
from mien.data.sources import data_root, read_faces
from mien.demo.draw import draw_faces
from mien.recipe.load import load_recipe
from mien.recipe.settings import Recipe
from mien.reports.page import ContactSheet, FaceImage, Section, Table, write_report
from mien.reports.thumbnails import jpeg_uri
from mien.runs.run import Run
from mien.training.augment import augmentation_steps
from mien.training.backbones import input_range, normalization
from mien.training.data import Batch, FaceData, seeded
from mien.training.fit import prepare_faces

_SHOWN = 10  # faces of a batch
_SIDE = 104  # CSS pixels
_SUBJECTS = 30  # drawn ones: some 190 pictures
_NEARLY = 0.05  # ends of two ranges that differ by less are the same for a network


@dataclass(frozen=True)
class Fed:
    """One batch on its way to the network.

    Attributes:
        stages: Name of each stage and the images (n, 3, size, size) uint8 after it, from "original" to what is fed.
        labels: (n,) in words; of mixed images both, with their shares.
    """

    stages: list[tuple[str, Tensor]]
    labels: list[str]

    @property
    def images(self) -> Tensor:
        """What the network gets, before it is normalised."""
        return self.stages[-1][1]


def preview(recipe: str | Path | Recipe | dict[str, Any], out: str | Path, changes: Iterable[str] = ()) -> list[str]:
    """Writes an HTML page with a batch of training faces and one of validation faces, as a run would see them.

    The batches come from the loaders that training uses. Without `data.root` they are of drawn faces. Near-duplicates
    are not looked for, so the parts may differ in single faces from those of a run.

    Args:
        recipe: As for `train`.
        out: The `.html` file to write.
        changes: Like "augment.mixup=0.2".

    Returns:
        What is suspicious, in words.

    Raises:
        MienError: Wrong settings, data that cannot be used, or another ending of `out`.
    """
    if Path(out).suffix != ".html":
        raise MienError(f"--out {str(out)!r}: must end in .html")
    settings = load_recipe(recipe, [*changes, "split.near_duplicates=false"])
    with tempfile.TemporaryDirectory() as place:
        faces, root = _drawn(Path(place)) if settings.data.root is None else _own(settings, Path(place))
        pixels = FilePixels(faces, root, settings.model.image_size, settings.model.margin)
        found = {part: feed(settings, faces, pixels, part) for part in ("train", "val")}
    warnings = suspicions(settings, found)
    train, val = (_section(settings, part, found[part], warnings[part]) for part in ("train", "val"))
    size = settings.model.image_size
    lead = f"One batch of {len(found['train'].labels)} training faces and one of {len(found['val'].labels)} validation "
    lead += f"faces at {size}x{size} pixels, as {settings.model.backbone} is fed them."
    if settings.data.root is None:
        lead += " The faces are drawn, of nobody: data.root is not set."
    write_report(f"Preview of {settings.name}", lead, [train, val], out)
    return [*warnings["train"], *warnings["val"]]


def _drawn(place: Path) -> tuple[pd.DataFrame, Path]:
    root = place / "drawn"
    draw_faces(root, subjects=_SUBJECTS)
    return splits.assign(read_faces("adience", root, "masked"), "subjects", val=0.2), root


def _own(recipe: Recipe, place: Path) -> tuple[pd.DataFrame, Path]:
    assert recipe.data.root is not None
    root = data_root(recipe.data.root)
    run = Run(place / "run")
    run.begin(recipe)
    return prepare_faces(run, recipe, root), root


def feed(recipe: Recipe, faces: pd.DataFrame, pixels: Pixels, part: str) -> Fed:
    """The first batch of a part, with what became of it on the way.

    Args:
        recipe: Says how.
        faces: A split faces table.
        pixels: Theirs.
        part: "train" or "val".

    Raises:
        MienError: No image of the batch can be read.
    """
    alone = recipe.trainer.model_copy(update={"workers": 0})
    data = FaceData(faces, pixels, {}, recipe.model_copy(update={"trainer": alone}))
    batch: Batch = next(iter(data.train_dataloader() if part == "train" else data.val_dataloader()))
    if not len(batch["images"]):
        _, reason = batch["unreadable"][0]
        raise MienError(f"no image of the first {part} batch can be read; the first: {reason}")
    index = [int(at) for at in batch["index"]]
    augmented = part == "train" or recipe.augment.evaluation
    steps = augmentation_steps(recipe.augment, recipe.model.image_size) if augmented else []
    stages = [("original", torch.stack([_tensor(pixels[at]) for at in index]))]
    for count, (name, _) in enumerate(steps, 1):
        # Each from the start: the random numbers of the earlier steps are then those of training too.
        until = v2.Compose([step for _, step in steps[:count]])
        stages.append((name, torch.stack([_augmented(pixels[at], until, recipe.trainer.seed, at) for at in index])))
    own = [_said(row) for _, row in faces.iloc[index].iterrows()]
    if "share" not in batch:
        return Fed(stages, own)
    share = float(batch["share"])
    both = zip(own, (own[at] for at in batch["partner"]), strict=True)
    labels = [f"{share:.2f} {mine} + {1 - share:.2f} {theirs}" for mine, theirs in both]
    return Fed([*stages, ("mixed", batch["images"])], labels)


def _tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _augmented(image: np.ndarray, transform: v2.Transform, seed: int, index: int) -> Tensor:
    with seeded(seed, 0, index):
        return transform(_tensor(image))


def _said(face: pd.Series) -> str:
    """The labels of a face in words."""
    gender = face["gender"] if pd.notna(face["gender"]) else "no gender"
    if pd.notna(face["age"]):
        return f"{gender} {face['age']:g}"
    return f"{gender} {face['age_group']}" if pd.notna(face["age_group"]) else f"{gender}, no age"


def suspicions(recipe: Recipe, found: dict[str, Fed]) -> dict[str, list[str]]:
    """What in the two parts cannot be meant, or should not be."""
    warnings: dict[str, list[str]] = {part: [] for part in found}
    span = input_range(recipe.model)
    if not all(np.allclose(span[end], span[f"expected_{end}"], atol=_NEARLY) for end in ("low", "high")):
        warnings["train"].append(
            f"model.normalize is {recipe.model.normalize!r}: pixels reach from {_ends(span['low'])} to "
            f"{_ends(span['high'])}, and the makers of {recipe.model.backbone} fed it {_ends(span['expected_low'])} to "
            f"{_ends(span['expected_high'])}."
        )
    if recipe.augment.evaluation:
        warnings["val"].append(
            "augment.evaluation: validation and test images are augmented too, so scores do not apply to real images."
        )
    for part, fed in found.items():
        flat = sum(int(image.min() == image.max()) for image in fed.images)
        if flat:
            warnings[part].append(f"{flat} of {len(fed.labels)} images of the batch are of one colour.")
    return warnings


def _ends(values: Sequence[float]) -> str:
    return " / ".join(f"{value:.2f}" for value in values) if len(set(values)) > 1 else f"{values[0]:.2f}"


def _section(recipe: Recipe, part: str, fed: Fed, warnings: list[str]) -> Section:
    title = {"train": "Training faces", "val": "Validation faces"}[part]
    text = ["Each row is a face, each column what became of it; the last is what the network gets."]
    if len(fed.stages) == 1:
        text = ["Nothing is done to these faces: the network gets them as they are cut."]
    rows = [
        (label, [[_face(images[at], f"{name}: {label}")] for name, images in fed.stages])
        for at, label in enumerate(fed.labels[:_SHOWN])
    ]
    sheet = ContactSheet([name for name, _ in fed.stages], rows, _SIDE)
    tables = [Table(f"Pixels of the {len(fed.labels)} faces of the batch", ranges(recipe, fed))]
    return Section(title, warnings, text, tables, sheet=sheet)


def ranges(recipe: Recipe, fed: Fed) -> pd.DataFrame:
    """The lowest, mean and highest value of each stage, and of each channel as the network gets it.

    `possible` is what black and white become, `expected` what they were for the makers of the network.
    """
    lines = [
        {"stage": f"{name}, 0 to 255", "lowest": int(images.min()), "mean": _mean(images), "highest": int(images.max())}
        for name, images in fed.stages
    ]
    mean, std = normalization(recipe.model)
    span = input_range(recipe.model)
    for channel, name in enumerate(("red", "green", "blue")):
        values = (fed.images[:, channel].float() / 255 - mean[channel]) / std[channel]
        lines.append(
            {
                "stage": f"normalised, {name}",
                "lowest": round(float(values.min()), 2),
                "mean": _mean(values),
                "highest": round(float(values.max()), 2),
                "possible": f"{span['low'][channel]:.2f} to {span['high'][channel]:.2f}",
                "expected": f"{span['expected_low'][channel]:.2f} to {span['expected_high'][channel]:.2f}",
            }
        )
    return pd.DataFrame(lines).fillna({"possible": "", "expected": ""})


def _mean(values: Tensor) -> float:
    return round(float(values.float().mean()), 2)


def _face(image: Tensor, alt: str) -> FaceImage:
    return FaceImage(jpeg_uri(image.permute(1, 2, 0).numpy(), quality=90), alt)
