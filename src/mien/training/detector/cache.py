"""Decoded pictures with their labels, in one file of pixels and one index a source."""

import json
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from mien.base.atomic import atomic_path
from mien.training.detector import sources
from mien.training.detector.teacher import labels_of, overlaps

LONGEST = 512
"""Pixels of the longer side of a cached picture, at most."""

HALVINGS = 4
"""So often the sides of each cached picture are halved, for faces that are drawn small."""

FACE, UNMARKED, IGNORED, LOOKALIKE = 1, 0, -1, -2
"""Kinds of labels: a face with landmarks, a face without, what is neither surely a face nor surely none, and what is no
face but was taken for one."""

# The convention of prediction/detect.py against CenterFace's box: down and size in shares of its longer side.
_DOWN, _SIZE = 0.076, 0.752

_SURE, _SURE_ALONE, _UNSURE = 0.45, 0.35, 0.16
"""The teacher's scores from which on it is believed: anywhere; for the one face of a portrait; to look away."""


class Entry(NamedTuple):
    """A cached picture: where its pixels begin, its size, and its faces.

    `faces` has rows (n, 14): centre x and y and side of the square, kind, five landmarks (x, y), in its pixels.
    """

    source: str
    name: str
    part: str
    offset: int
    height: int
    width: int
    faces: np.ndarray


def _entries(index: Path) -> list[Entry]:
    return [
        Entry(source, name, part, offset, height, width, np.array(faces, np.float32).reshape(-1, 14))
        for source, name, part, offset, height, width, faces in json.loads(index.read_text())
    ]


def lookalikes_file(folder: Path, source: str) -> Path:
    """Where `lookalikes.find_lookalikes` writes further labels of a source."""
    return folder / f"{source}-lookalikes.json"


def _with_lookalikes(entries: list[Entry], file: Path) -> list[Entry]:
    further = json.loads(file.read_text()) if file.exists() else {}
    return [
        entry._replace(faces=np.concatenate([entry.faces, np.array(further[entry.name], np.float32).reshape(-1, 14)]))
        if entry.name in further
        else entry
        for entry in entries
    ]


class Cache:
    """The cached pictures of one folder."""

    def __init__(self, folder: Path, part: str) -> None:
        self.entries: dict[str, list[Entry]] = {}
        self._pixels = {}
        for source in sources.SOURCES:
            index = folder / f"{source}.json"
            if not index.exists():
                continue
            entries = [entry for entry in _entries(index) if entry.part == part]
            if part == "train":
                entries = _with_lookalikes(entries, lookalikes_file(folder, source))
            if entries:
                self.entries[source] = entries
                self._pixels[source] = np.memmap(folder / f"{source}.pixels", np.uint8, "r")

    def pixels(self, entry: Entry, halvings: int = 0) -> np.ndarray:
        """uint8 (height, width, 3), both sides halved so often (at most `HALVINGS` times) and rounded down."""
        offset, height, width = entry.offset, entry.height, entry.width
        for _ in range(halvings):
            offset += height * width * 3
            height, width = height // 2, width // 2
        flat = self._pixels[entry.source][offset : offset + height * width * 3]
        return np.asarray(flat).reshape(height, width, 3)


def squares(rows: np.ndarray, kind: int) -> np.ndarray:
    """Label rows (n, 14) of the teacher's rows (n, 15)."""
    longer = rows[:, 2:4].max(axis=1)
    centre = rows[:, :2] + rows[:, 2:4] / 2
    centre[:, 1] += _DOWN * longer
    kinds = np.full((len(rows), 1), kind)
    return np.concatenate([centre, _SIZE * longer[:, None], kinds, rows[:, 5:]], axis=1)


def build(root: Path, teacher: Path, folder: Path) -> None:
    """Caches the training and validation pictures of every source that the teacher has labelled."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources.SOURCES:
        labels = labels_of(teacher, source)
        if labels and not (folder / f"{source}.json").exists():
            _build_source(root, labels, folder, source)


def _build_source(root: Path, labels: dict[str, np.ndarray], folder: Path, source: str) -> None:
    label = _Labeller(root, source, labels)
    entries = []
    part = folder / f"{source}.part"
    with part.open("wb") as file:
        for picture in sources.pictures(root, source):
            if picture.name not in labels or picture.part == "test":
                continue
            with Image.open(picture.path) as image:
                rgb = image.convert("RGB")
            faces = label(picture.name, labels[picture.name], rgb.size)
            scale = min(1.0, LONGEST / max(rgb.size))
            if scale < 1:
                rgb = rgb.resize((round(rgb.width * scale), round(rgb.height * scale)), Image.Resampling.BOX)
                faces[:, [0, 1, 2, *range(4, 14)]] *= scale
            offset = file.tell()
            _write_halved(file, rgb)
            entries.append(
                Entry(source, picture.name, picture.part, offset, rgb.height, rgb.width, faces.astype(np.float32))
            )
    part.replace(folder / f"{source}.pixels")
    with atomic_path(folder / f"{source}.json") as index:
        index.write_text(json.dumps([[*entry[:-1], entry.faces.tolist()] for entry in entries]))
    print(f"{source}: {len(entries):,} pictures, {sum(len(entry.faces) for entry in entries):,} labels", flush=True)


def _write_halved(file: BinaryIO, picture: Image.Image) -> None:
    """Writes a picture, and the same with its sides halved once, twice and so on."""
    for _ in range(HALVINGS + 1):
        file.write(picture.tobytes())
        half = picture.width // 2, picture.height // 2
        picture = picture.resize(half, Image.Resampling.BOX, (0, 0, 2 * half[0], 2 * half[1]))


def _apart(labels: np.ndarray) -> np.ndarray:
    """Without the faces that lie on an earlier one: two people's labels of one face."""
    kept: list[np.ndarray] = []
    for label in labels:
        near = [one for one in kept if np.abs(one[:2] - label[:2]).max() < 0.4 * max(one[2], label[2])]
        if label[3] == IGNORED or not any(label[2] > 0.5 * one[2] for one in near):
            kept.append(label)
    return np.array(kept).reshape(-1, 14)


class _Labeller:
    """Labels of the pictures of one source, from the teacher's rows and what the source itself says."""

    def __init__(self, root: Path, source: str, labels: dict[str, np.ndarray]) -> None:
        self._root, self._source = root, source
        self._boxes = sources.labelled_boxes(root) if source == "photographs" else {}
        if source == "photographs":
            self._fit = self._median_fit(labels)
        elif source in ("celeba", "lfw", "utkface"):
            first = [squares(rows[:1], FACE)[0, :3] for rows in labels.values() if len(rows) and rows[0, 4] > 0.6]
            self._usual = np.median(first, axis=0)

    def __call__(self, name: str, rows: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        rows = rows[np.argsort(-rows[:, 4])] if len(rows) else np.zeros((0, 15))
        if self._source == "photographs":
            return self._photograph(rows, self._boxes.get(name, []))
        if self._source in ("none", "skimage"):
            return squares(rows[rows[:, 4] > 0.6], IGNORED)
        return self._portrait(name, rows)

    def _photograph(self, rows: np.ndarray, boxes: list[sources.Labelled]) -> np.ndarray:
        known = rows[:, 4] >= _SURE if len(rows) else np.zeros(0, bool)
        further = []
        for box in boxes:
            shared = overlaps(np.array(box[:4]), rows[:, :4]) if len(rows) else np.zeros(0)
            if len(shared) and shared.max() > 0.25:
                known[shared.argmax()] = True
            else:
                further.append(self._fitted(box))
        unsure = rows[~known & (rows[:, 4] >= _UNSURE)]
        found = [squares(rows[known], FACE), np.array(further).reshape(-1, 14), squares(unsure, IGNORED)]
        return _apart(np.concatenate(found))

    def _portrait(self, name: str, rows: np.ndarray) -> np.ndarray:
        kinds = np.where(rows[:, 4] >= _SURE, FACE, IGNORED)
        if len(rows) and rows[0, 4] >= _SURE_ALONE:
            kinds[0] = FACE
            labels = squares(rows, FACE)
            labels[:, 3] = kinds
        elif self._source == "aaf":
            labels = np.zeros((0, 14))
        else:  # the picture is aligned: the face is where it always is
            labels = np.zeros((1, 14))
            labels[0, :4] = *self._usual, UNMARKED
        if self._source == "aaf" and len(labels):
            self._place_landmarks(name, labels)
        return labels

    def _place_landmarks(self, name: str, labels: np.ndarray) -> None:
        """Replaces the teacher's landmarks by those of the data set, where they belong to the same face."""
        points = np.array(sources.aaf_points(self._root, name))
        if len(points) != 49:
            return
        five = np.stack([points[19:25].mean(0), points[25:31].mean(0), points[13], points[31], points[37]])
        if np.abs(five.mean(0) - labels[0, :2]).max() < 0.4 * labels[0, 2]:
            labels[0, 4:] = five.reshape(-1)

    def _median_fit(self, labels: dict[str, np.ndarray]) -> tuple[float, float, float]:
        """(right, down, size) from a labelled box to the square, in shares of its longer side."""
        ratios = []
        for name, boxes in self._boxes.items():
            rows = labels.get(name, np.zeros((0, 15)))
            if not len(rows) or sources.part_of("photographs", name) == "test":
                continue
            for box in boxes:
                shared = overlaps(np.array(box[:4]), rows[:, :4])
                if shared.max() > 0.5:
                    x, y, side = squares(rows[[shared.argmax()]], FACE)[0, :3]
                    longer = max(box.w, box.h)
                    ratios.append(((x - box.x - box.w / 2) / longer, (y - box.y - box.h / 2) / longer, side / longer))
        right, down, size = np.median(ratios, axis=0)
        return float(right), float(down), float(size)

    def _fitted(self, box: sources.Labelled) -> np.ndarray:
        longer = max(box.w, box.h)
        label = np.zeros(14)
        right, down, size = self._fit
        label[:4] = box.x + box.w / 2 + right * longer, box.y + box.h / 2 + down * longer, size * longer, UNMARKED
        return label
