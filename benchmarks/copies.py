"""How many copies of a face the search for duplicates finds, by kind of change, and which other pairs it finds.

    python benchmarks/copies.py --data FOLDER [--each 100]

FOLDER has `utkface` and `aaf`. Each kind of change is made to other faces, so that each face has one copy; these are
added to all faces of the data set, and the search is run once. A copy is found if it is in the group of its original.
Intervals: 95%, Wilson.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from mien.data.duplicates import copies, fingerprints, groups, near_duplicates
from mien.data.face_pixels import cache_folder
from mien.metrics.intervals import wilson

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def crop(share: float) -> Change:
    """So much is cut off each side."""

    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        w, h = image.size
        return image.crop((round(w * share), round(h * share), round(w * (1 - share)), round(h * (1 - share))))

    return change


def uneven(most: float) -> Change:
    """Up to so much is cut off each side, of each another share."""

    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        w, h = image.size
        left, top, right, bottom = rng.uniform(0, most, 4)
        return image.crop((round(w * left), round(h * top), round(w * (1 - right)), round(h * (1 - bottom))))

    return change


def shift(share: float) -> Change:
    """Moved in any direction; what comes in is black."""

    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        angle = rng.uniform(0, 2 * np.pi)
        across, down = round(image.width * share * np.cos(angle)), round(image.height * share * np.sin(angle))
        return image.transform(image.size, Image.Transform.AFFINE, (1, 0, across, 0, 1, down))

    return change


def frame(share: float, colour: str) -> Change:
    """A border on each side."""
    return lambda image, rng: ImageOps.expand(image, round(max(image.size) * share), colour)


def logo(share: float) -> Change:
    """A filled rectangle in a corner, so wide and half as high, with letters."""

    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        image = image.copy()
        w, h = round(image.width * share), round(image.height * share / 2)
        x, y = (2, image.width - w - 2)[rng.integers(2)], (2, image.height - h - 2)[rng.integers(2)]
        draw = ImageDraw.Draw(image)
        draw.rectangle((x, y, x + w, y + h), fill=tuple(map(int, rng.integers(0, 256, 3))))
        draw.text((x + 2, y + 2), "LOGO", fill="white")
        return image

    return change


def jpeg(quality: int) -> Change:
    """Encoded again."""

    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return change


def all_of(*changes: Change) -> Change:
    """One after another."""

    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        for one in changes:
            image = one(image, rng)
        return image

    return change


def mirror(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Left is right."""
    return ImageOps.mirror(image)


KINDS: dict[str, Change] = {
    "mirrored": mirror,
    **{f"cropped by {percent}% a side": crop(percent / 100) for percent in (2, 3, 4, 5, 8)},
    "cropped by 0 to 8% a side": uneven(0.08),
    "shifted by 3%": shift(0.03),
    "shifted by 6%": shift(0.06),
    "white border of 3%": frame(0.03, "white"),
    "black border of 6%": frame(0.06, "black"),
    "logo, 20% of the width": logo(0.2),
    "logo, 35% of the width": logo(0.35),
    "JPEG of quality 30": jpeg(30),
    "half the size": lambda image, rng: image.resize((image.width // 2, image.height // 2)),
    "brightness 0.6": lambda image, rng: ImageEnhance.Brightness(image).enhance(0.6),
    "brightness 1.4": lambda image, rng: ImageEnhance.Brightness(image).enhance(1.4),
    "turned by 3 degrees": lambda image, rng: image.rotate(3, Image.Resampling.BICUBIC),
    "mirrored, cropped by 4%, JPEG of quality 50": all_of(mirror, crop(0.04), jpeg(50)),
}


def measure(paths: list[Path], each: int, folder: Path, name: str) -> tuple[pd.DataFrame, str]:
    """Recall by kind, and the pairs of other faces with the processor time, of one data set."""
    rng = np.random.default_rng(0)
    prints = fingerprints(paths, cache=cache_folder())
    chosen = rng.permutation(np.flatnonzero(prints["status"] == "ok"))[: each * len(KINDS)].reshape(len(KINDS), -1)
    made = []
    for (kind, change), rows in zip(KINDS.items(), chosen, strict=True):
        for row in rows:
            with Image.open(paths[row]) as image:
                copy = change(image.convert("RGB"), rng)
            made.append((kind, row, folder / f"{len(made)}.jpg"))
            copy.save(made[-1][2], quality=90)
    both = pd.concat([prints, fingerprints([path for _, _, path in made], jobs=1)], ignore_index=True)
    begin = time.process_time()
    before = near_duplicates(both)
    middle = time.process_time()
    found = copies(both)
    end = time.process_time()
    found.to_csv(folder.parent / f"pairs-{name}.csv", index=False)
    both_groups = [groups(pairs, len(both)) for pairs in (before, found)]
    rows = [
        (name, kind, *(label[row] == label[len(prints) + number] for label in both_groups))
        for number, (kind, row, _) in enumerate(made)
    ]
    table = pd.DataFrame(rows, columns=["faces", "kind", "near_duplicates", "copies"])
    others = found[found["j"] < len(prints)]
    words = (
        f"{name}: {len(paths):,} faces and {len(made):,} copies; pairs among the faces: "
        f"{int((~others['altered']).sum()):,} near-duplicates, {int((others['altered'] & others['mirrored']).sum())} "
        f"mirrored, {int((others['altered'] & ~others['mirrored']).sum())} otherwise altered; processor time "
        f"{middle - begin:.1f} s without and {end - middle:.1f} s with altered copies"
    )
    return table, words


def report(table: pd.DataFrame) -> str:
    """A line a kind: the share found without and with the search for altered copies."""
    lines = ["| copy | near-duplicates alone | with altered copies | n |", "|---|---|---|---|"]
    for kind, part in table.groupby("kind", sort=False):
        cells = []
        for column in ("near_duplicates", "copies"):
            share = float(part[column].mean())
            low, high = wilson(share, len(part))
            cells.append(f"{share:.1%} [{low:.1%}, {high:.1%}]")
        lines.append(f"| {kind} | {' | '.join(cells)} | {len(part)} |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--each", type=int, default=100, help="copies of each kind and data set")
    parser.add_argument("--scratch", type=Path, help="a folder for the found pairs")
    options = parser.parse_args()
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = options.scratch or Path(folder)
        for name, pattern in (("utkface", "*.jpg"), ("aaf", "original images/*.jpg")):
            made = scratch / f"copies-{name}"
            made.mkdir(parents=True, exist_ok=True)
            table, words = measure(sorted((options.data / name).glob(pattern)), options.each, made, name)
            tables.append(table)
            print(words, flush=True)
            print(report(table), flush=True)
    print(report(pd.concat(tables)))


if __name__ == "__main__":
    main()
