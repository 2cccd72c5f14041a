"""The page of a preview: batches as the network gets them, before and after each augmentation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mien.recipe.settings import Recipe
from mien.reports.page import ContactSheet, FaceImage, Section, Table, write_report
from mien.reports.thumbnails import jpeg_uri

_SHOWN = 10  # faces of a batch
_SIDE = 104  # CSS pixels
_TITLES = {"train": "Training faces", "val": "Validation faces"}


@dataclass(frozen=True)
class BatchTrace:
    """One batch on its way to the network.

    Attributes:
        stages: Name of each stage and the images (n, size, size, 3) uint8 after it, from "original" to the input of
            the network.
        labels: (n,) text; of mixed images both labels with their shares.
        ranges: Lowest, mean and highest pixel value of each stage, and of each channel after normalization.
    """

    stages: Sequence[tuple[str, np.ndarray]]
    labels: Sequence[str]
    ranges: pd.DataFrame

    @property
    def images(self) -> np.ndarray:
        """The input of the network before normalization, uint8 (n, size, size, 3)."""
        return self.stages[-1][1]


def write_preview(
    recipe: Recipe, traces: Mapping[str, BatchTrace], warnings: Mapping[str, Sequence[str]], out: str | Path
) -> Path:
    """Writes the page of a preview.

    Args:
        recipe: The recipe that is previewed.
        traces: Part ("train" and "val") -> its first batch.
        warnings: Part -> warnings about it.
        out: The `.html` file to write.
    """
    size, train, val = recipe.model.image_size, len(traces["train"].labels), len(traces["val"].labels)
    lead = (
        f"One batch of {train} training faces and one of {val} validation faces at {size}x{size} pixels, as "
        f"{recipe.model.backbone} gets them."
    )
    if all(one.root is None for one in recipe.data.each().values()):
        lead += " The faces are drawn and show nobody: data.root is not set."
    sections = [_section(part, trace, warnings[part]) for part, trace in traces.items()]
    return write_report(f"Preview of {recipe.name}", lead, sections, out)


def _section(part: str, trace: BatchTrace, warnings: Sequence[str]) -> Section:
    text = ["Each row is a face, each column a stage; the last column is the input of the network."]
    if len(trace.stages) == 1:
        text = ["These faces are not augmented."]
    rows = [
        (label, [[FaceImage(jpeg_uri(images[at], 90), f"{name}: {label}")] for name, images in trace.stages])
        for at, label in enumerate(trace.labels[:_SHOWN])
    ]
    sheet = ContactSheet([name for name, _ in trace.stages], rows, _SIDE)
    tables = [Table(f"Pixel values of the {len(trace.labels)} faces of the batch", trace.ranges)]
    return Section(_TITLES[part], list(warnings), text, tables, sheet=sheet)
