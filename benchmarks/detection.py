"""Measures how many faces each detector finds, where it errs, what it costs, and what comes of it end to end.

    MIEN_SHARED_DATA=DATA python benchmarks/detection.py [--detectors mien,dlib,centerface,yunet.onnx]
        [--none FOLDER] [--limit N] [--out benchmarks/detection.md]

DATA holds `photographs`, `aaf`, `lfw` and `celeba`. Only pictures of the test parts of `training/detector/sources.py`
are used: nothing was learnt from them, and no threshold was chosen on them. A detector whose package is missing is left
out. Times are taken in one thread, all detectors in turn on the same pictures, and are to be compared with each other.
"""

import argparse
import hashlib
import io
import json
import math
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import skimage.data
from PIL import Image

from detection_pose import yaw_degrees
from mien import Predictor
from mien.base.atomic import atomic_path
from mien.base.console import progress
from mien.base.errors import MissingExtra
from mien.data import images
from mien.data.alignment import cut_upright, roll
from mien.metrics.intervals import wilson
from mien.prediction.detect import DEFAULT, make_detector
from mien.prediction.face_network import FILE
from mien.prediction.faces import DetectedFace
from mien.training.detector import sources
from model_card import markdown

SIZES = (0, 24, 32, 64, 128, 10_000)
"""Bounds in pixels of the longer side of a labelled box."""

POSES = (0, 15, 30, 90)
"""Bounds in degrees of the head's turn to a side."""

DARK = 80
"""Photographs that are darkened."""

ROLLS = (0, 15, 30, 45, 60, 90)

HIT = 0.35
"""Intersection over union of a found square (brows to chin) with a labelled box (forehead to chin) that is a hit."""

Finder = Callable[[np.ndarray], list[DetectedFace]]
Finders = Mapping[str, Finder]


class Portrait(NamedTuple):
    """A picture of one person: its landmarks (5, 2) where the data set has them, turn in degrees, and gender."""

    path: Path
    points: np.ndarray | None
    turn: float
    female: bool


def main() -> None:
    """Writes the tables as Markdown, and prints where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", default="mien,dlib,centerface")
    parser.add_argument("--none", type=Path, help="a folder of further photographs without people")
    parser.add_argument("--limit", type=int, default=10_000, help="pictures of each kind")
    parser.add_argument("--memory", type=Path, default=Path("build/detections"), help="folder that keeps detections")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/detection.md"))
    options = parser.parse_args()
    if "MIEN_SHARED_DATA" not in os.environ:
        raise SystemExit("MIEN_SHARED_DATA is not set; it names the folder that holds photographs, aaf, lfw and celeba")
    data = Path(os.environ["MIEN_SHARED_DATA"])
    options.memory.mkdir(parents=True, exist_ok=True)
    names = options.detectors.split(",")
    finders = {name: one for name in names if (one := _detector(name, options.memory)) is not None}
    predictor = Predictor(threads=1)
    people = _aaf(data, options.limit)
    parts = [
        "# Detection, measured",
        f"`python benchmarks/detection.py --detectors {options.detectors} --limit {options.limit}`",
        "Pictures of the test parts alone, from which nothing was learnt and on which nothing was chosen. Brackets "
        "hold 95% intervals (Wilson). A face is found where a box has an intersection over union of at least "
        f"{HIT} with the label.",
        *_photographs(finders, data, options.limit),
        *_false_faces(finders, data, options.none),
        *_portraits(finders, data, people, options.limit),
        *_turned(finders, people),
        *_rolled(finders, predictor, people[:60]),
        *_end_to_end(finders, predictor, data, people, options.limit),
        *_costs(finders, data, people[0].path),
    ]
    for finder in finders.values():
        finder.save()
    with atomic_path(options.out) as file:
        file.write_text("\n\n".join(parts) + "\n", "utf-8")
    print(options.out)


class Remembered:
    """A detector that sees each picture once: its detections are kept in a file, which a later call reads."""

    def __init__(self, name: str, folder: Path) -> None:
        self._finder = make_detector(name)
        kept = shipped_digest() if name == DEFAULT else Path(name).stem  # another file of mien's finds other faces
        self._file = folder / f"{kept}.json"
        stored = json.loads(self._file.read_text()) if self._file.exists() else {}
        self._found = {key: [_stored(*face) for face in faces] for key, faces in stored.items()}

    def __call__(self, pixels: np.ndarray) -> list[DetectedFace]:
        """See `Detector`."""
        key = hashlib.sha256(pixels.tobytes() + bytes(str(pixels.shape), "ascii")).hexdigest()
        if key not in self._found:
            self._found[key] = self._finder(pixels)
        return self._found[key]

    def save(self) -> None:
        """Writes the file."""
        with atomic_path(self._file) as part:
            part.write_text(json.dumps({key: [_plain(face) for face in faces] for key, faces in self._found.items()}))


def shipped_digest() -> str:
    """A name for the detector file that ships."""
    content = (resources.files("mien") / "weights" / FILE).read_bytes()
    return f"{DEFAULT}-{hashlib.sha256(content).hexdigest()[:12]}"


def _plain(face: DetectedFace) -> list[Any]:
    return [list(face.box), float(face.score), face.turned, None if face.points is None else face.points.tolist()]


def _stored(box: images.Box, score: float, turned: bool, points: list[list[float]] | None) -> DetectedFace:
    return DetectedFace(box, score, turned, None if points is None else np.array(points))


def _detector(name: str, folder: Path) -> Remembered | None:
    try:
        return Remembered(name, folder)
    except MissingExtra as error:
        print(f"left out: {error}")
        return None


def share(hits: Sequence[bool]) -> str:
    """A share in % with its interval and n."""
    n = len(hits)
    if n == 0:
        return "n 0"
    low, high = wilson(sum(hits) / n, n)
    return f"{100 * sum(hits) / n:.1f} [{100 * float(low):.1f}, {100 * float(high):.1f}], n {n:,}"


def _test(data: Path, source: str, limit: int) -> list[sources.Picture]:
    return [picture for picture in sources.pictures(data, source) if picture.part == "test"][:limit]


def _iou(a: images.Box, b: images.Box) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def _best(found: Sequence[DetectedFace], box: images.Box, least: float = HIT) -> DetectedFace | None:
    best = max(found, key=lambda one: _iou(one.box, box), default=None)
    return best if best is not None and _iou(best.box, box) >= least else None


def _photographs(finders: Finders, data: Path, limit: int) -> Iterator[str]:
    """Recall on web photographs with labelled boxes: by size, mask and light."""
    labels = sources.labelled_boxes(data)
    pictures = _test(data, "photographs", limit)
    lights: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "as they are": lambda pixels: pixels,
        "a quarter of the light": lambda pixels: (pixels * 0.25).astype(np.uint8),
        "a tenth of the light, with noise": _night,
    }
    rows = []
    with progress("photographs") as tell:
        for done, picture in enumerate(pictures, 1):
            pixels = images.load(picture.path)
            for light, change in lights.items():
                if light != "as they are" and done > DARK:
                    continue
                changed = change(pixels)
                for name, finder in finders.items():
                    found = finder(changed)
                    for box in labels.get(picture.name, []):
                        hit = _best(found, box[:4]) is not None
                        rows.append((done, name, light, box.mask == "without_mask", max(box.w, box.h), hit))
            tell(done, len(pictures))
    table = pd.DataFrame(rows, columns=["number", "detector", "light", "bare", "size", "hit"])
    yield "## Web photographs"
    yield (
        f"{len(pictures)} photographs with boxes from forehead to chin. Share found, %, by the longer side of the box "
        "in pixels and by the mask."
    )
    plain = table[table["light"] == "as they are"]
    lines = []
    for low, high in zip(SIZES, SIZES[1:], strict=False):
        for bare in (True, False):
            here = plain[(plain["size"] >= low) & (plain["size"] < high) & (plain["bare"] == bare)]
            words = f"{low} to {high}" if high < SIZES[-1] else f"{low} and more"
            lines.append(_line({"side": words, "face": "uncovered" if bare else "with a mask"}, here, finders))
    for bare in (True, False):
        here = plain[plain["bare"] == bare]
        lines.append(_line({"side": "all", "face": "uncovered" if bare else "with a mask"}, here, finders))
    yield markdown(pd.DataFrame(lines))
    dark = table[table["number"] <= DARK]
    yield f"The first {DARK} of them, darkened:"
    yield markdown(pd.DataFrame([_line({"light": light}, dark[dark["light"] == light], finders) for light in lights]))


def _line(head: dict[str, Any], rows: pd.DataFrame, finders: Finders) -> dict[str, Any]:
    return head | {name: share(rows.loc[rows["detector"] == name, "hit"].tolist()) for name in finders}


def _night(pixels: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 4, pixels.shape)
    return np.clip(pixels * 0.1 + noise, 0, 255).astype(np.uint8)


def _false_faces(finders: Finders, data: Path, further: Path | None) -> Iterator[str]:
    """Faces found where nobody is."""
    folders = {"COCO without people": [picture.path for picture in _test(data, "none", 10_000)]}
    if further is not None:
        folders[further.name] = sorted(path for path in further.rglob("*") if path.suffix.lower() in (".jpg", ".png"))
    lines = []
    for words, paths in folders.items():
        pictures = [images.load(path) for path in paths]
        counts = {name: [len(finder(pixels)) for pixels in pictures] for name, finder in finders.items()}
        line: dict[str, Any] = {"photographs": words, "n": len(pictures)}
        for name, found in counts.items():
            line[name] = f"{sum(found)} false faces; in {share([count > 0 for count in found])}"
        lines.append(line)
    yield "## False faces"
    yield "Boxes where no person is, and the share of photographs with one, %."
    yield markdown(pd.DataFrame(lines))


def _aaf(data: Path, limit: int) -> list[Portrait]:
    portraits = []
    for picture in _test(data, "aaf", limit):
        points = np.array(sources.aaf_points(data, picture.name))
        if len(points) == 49:
            five = np.stack([points[19:25].mean(0), points[25:31].mean(0), points[13], points[31], points[37]])
            female = int(picture.name[:5]) <= 7380
            portraits.append(Portrait(picture.path, five, abs(yaw_degrees(points)), female))
    return portraits


def _middle_face(found: Sequence[DetectedFace], points: np.ndarray) -> DetectedFace | None:
    """What was found of the face with these landmarks: its box is around their middle and of their size."""
    middle = points.mean(axis=0)
    height = float(np.linalg.norm(points[3:].mean(0) - points[:2].mean(0)))
    near = [
        one
        for one in found
        if max(abs(one.box[0] + one.box[2] / 2 - middle[0]), abs(one.box[1] + one.box[3] / 2 - middle[1])) < height
        and 1.0 < one.box[2] / height < 4.5
    ]
    return max(near, key=lambda one: one.score, default=None)


def _portraits(finders: Finders, data: Path, people: list[Portrait], limit: int) -> Iterator[str]:
    """Recall on pictures of one person, by pose, and the error of the landmarks."""
    rows, errors = [], []
    with progress("portraits") as tell:
        for done, person in enumerate(people, 1):
            pixels = images.load(person.path)
            assert person.points is not None
            for name, finder in finders.items():
                face = _middle_face(finder(pixels), person.points)
                rows.append((name, person.turn, face is not None))
                if face is not None and face.points is not None:
                    between = float(np.linalg.norm(person.points[1] - person.points[0]))
                    errors.append((name, person.turn, *np.linalg.norm(face.points - person.points, axis=1) / between))
            tell(done, len(people))
    table = pd.DataFrame(rows, columns=["detector", "turn", "hit"])
    lines = []
    for low, high in zip(POSES, POSES[1:], strict=False):
        here = table[(table["turn"] >= low) & (table["turn"] < high)]
        lines.append(_line({"pictures": f"All-Age-Faces, turned by {low} to {high} degrees"}, here, finders))
    for source in ("lfw", "celeba"):
        lines.append({"pictures": source} | _any_face(finders, data, source, limit))
    yield "## Pictures of one person"
    yield "Share found, %. The turn of All-Age-Faces' heads follows from the data set's own 49 landmarks."
    yield markdown(pd.DataFrame(lines))
    yield "Error of each landmark in % of the distance between the eyes: mean, and the share of faces beyond 10%."
    names = ["left eye", "right eye", "nose", "left corner", "right corner"]
    marks = pd.DataFrame(errors, columns=["detector", "turn", *names])
    lines = []
    for name, mine in marks.groupby("detector", sort=False):
        mean = mine[names].mean(axis=1)
        worst = share((mean > 0.1).tolist())
        lines.append(
            {"detector": name}
            | {one: f"{100 * mine[one].mean():.1f}" for one in names}
            | {"all": f"{100 * mean.mean():.2f} ± {196 * mean.std() / math.sqrt(len(mean)):.2f}", "beyond 10%": worst}
        )
    yield markdown(pd.DataFrame(lines))


def _any_face(finders: Finders, data: Path, source: str, limit: int) -> dict[str, str]:
    """Share of the pictures of an aligned data set whose middle lies in a found face."""
    pictures = [images.load(picture.path) for picture in _test(data, source, limit)]
    result = {}
    for name, finder in finders.items():
        hits = []
        for pixels in pictures:
            height, width = pixels.shape[:2]
            middle = width / 2, height / 2
            boxes = [one.box for one in finder(pixels)]
            hits.append(any(x < middle[0] < x + w and y < middle[1] < y + h for x, y, w, h in boxes))
        result[name] = share(hits)
    return result


def _turned(finders: Finders, people: list[Portrait]) -> Iterator[str]:
    """How often `turned away` is said, by the turn of the head."""
    lines = []
    for low, high in zip((0, 10, 20, 30, 40), (10, 20, 30, 40, 90), strict=True):
        here = [person for person in people if low <= person.turn < high]
        line: dict[str, Any] = {"turned by": f"{low} to {high} degrees"}
        for name, finder in finders.items():
            said = []
            for person in here:
                assert person.points is not None
                face = _middle_face(finder(images.load(person.path)), person.points)
                if face is not None:
                    said.append(face.turned)
            line[name] = share(said)
        lines.append(line)
    yield "## Turned away"
    yield "Share of found faces of All-Age-Faces that are said to be turned away, %."
    yield markdown(pd.DataFrame(lines))


def _rolled(finders: Finders, predictor: Predictor, people: list[Portrait]) -> Iterator[str]:
    """Recall, the error of the angle, and gender, where the picture is turned in its plane."""
    lines = []
    for degrees in ROLLS:
        line: dict[str, Any] = {"picture turned by": f"{degrees} degrees"}
        for name, finder in finders.items():
            hits, off, right = [], [], []
            for person in people:
                picture = Image.fromarray(images.load(person.path))
                pixels = np.asarray(picture.rotate(-degrees, Image.Resampling.BICUBIC, expand=True))
                assert person.points is not None
                points = _rotated(person.points, picture.size, pixels.shape[1::-1], degrees)
                face = _middle_face(finder(pixels), points)
                hits.append(face is not None)
                right.append(face is not None and _says_female(predictor, [(pixels, face)])[0] == person.female)
                if face is not None and face.points is not None:
                    away = math.degrees(face.roll - roll(points))
                    off.append(abs((away + 180) % 360 - 180))
            line[f"{name}: found"] = share(hits)
            line[f"{name}: angle off by"] = f"{np.median(off):.1f}" if off else "–"
            line[f"{name}: gender right"] = share(right)
        lines.append(line)
    yield "## Turned in the plane"
    yield (
        f"{len(people)} pictures of All-Age-Faces, turned. Share found, %; the median error of the angle in degrees; "
        "the share of all faces with the right gender, %, misses counted as wrong."
    )
    yield markdown(pd.DataFrame(lines))


def _rotated(points: np.ndarray, size: tuple[int, int], grown: tuple[int, int], degrees: float) -> np.ndarray:
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return (points - np.array(size) / 2) @ turn.T + np.array(grown) / 2


def _says_female(predictor: Predictor, faces: Sequence[tuple[np.ndarray, DetectedFace]]) -> list[bool]:
    """What the model that ships says of each face in its picture."""
    crops = []
    for pixels, face in faces:
        where = images.square(pixels.shape[1], pixels.shape[0], face.box, predictor.margin)
        crops.append(cut_upright(pixels, where, predictor.size, face.roll))
    answers: list[bool] = []
    for start in range(0, len(crops), 64):
        answers += (predictor.predict_pixels(np.stack(crops[start : start + 64]))["p_female"] >= 0.5).tolist()
    return answers


def _end_to_end(
    finders: Finders, predictor: Predictor, data: Path, people: list[Portrait], limit: int
) -> Iterator[str]:
    """The headline: the share of all faces with the right gender, misses counted as wrong."""
    celeba = pd.read_csv(data / "celeba" / "list_attr_celeba.txt", sep=r"\s+", skiprows=1)["Male"]
    lfw = pd.read_csv(data / "lfw" / "gender.csv").set_index("path")["gender"]
    names = {path.rsplit("/", 1)[-1]: gender for path, gender in lfw.items()}
    groups = {
        "All-Age-Faces": [(person.path, person.female) for person in people],
        "CelebA": [(one.path, celeba[one.name] < 0) for one in _test(data, "celeba", limit)],
        "LFW": [(one.path, names[one.name] == "female") for one in _test(data, "lfw", limit) if one.name in names],
    }
    lines = []
    for words, pictures in groups.items():
        line: dict[str, Any] = {"pictures": words}
        loaded = [images.load(path) for path, _ in pictures]
        truth = [female for _, female in pictures]
        for name, finder in finders.items():
            found = [max(finder(pixels), key=lambda one: one.box[2], default=None) for pixels in loaded]
            there = [(pixels, face) for pixels, face in zip(loaded, found, strict=True) if face is not None]
            said = iter(_says_female(predictor, there))
            right = [face is not None and next(said) == female for face, female in zip(found, truth, strict=True)]
            line[name] = share(right)
        if words == "LFW":
            crops = np.stack([images.load_face(pixels, predictor.size) for pixels in loaded])
            own = predictor.predict_pixels(crops)["p_female"] >= 0.5
            line["the data set's own crop"] = share((own == np.array(truth)).tolist())
        lines.append(line)
    yield "## End to end"
    yield (
        "Share of all faces with the right gender, %, misses counted as wrong: the largest face that was found, the "
        "model that ships, no answer left out as unsure."
    )
    yield markdown(pd.DataFrame(lines).fillna("–"))


def _costs(finders: Finders, data: Path, person: Path) -> Iterator[str]:
    """Time of one thread, and memory."""
    photographs = _test(data, "photographs", 30)
    web = [np.asarray(Image.open(one.path).convert("RGB").resize((640, 480))) for one in photographs]
    large = np.asarray(Image.fromarray(web[0]).resize((4000, 3000)))
    astronaut = skimage.data.astronaut()
    lines = []
    for name in finders:
        finder = make_detector(name)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        finder(astronaut)
        times = [_seconds(partial(finder, pixels)) for pixels in web]
        line: dict[str, Any] = {"detector": name}
        line["640x480, milliseconds of processor"] = f"{1000 * float(np.median(times)):.1f}"
        line["4000x3000, decoded"] = f"{1000 * _seconds(partial(finder, large)):.0f}"
        line["peak memory gained, MB"] = f"{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000:.0f}"
        lines.append(line)
    predictor = Predictor(threads=1)
    crop = images.load_face(astronaut, predictor.size)[None]
    predictor.predict_pixels(crop)
    once = float(np.median([_seconds(lambda: predictor.predict_pixels(crop)) for _ in range(50)]))
    yield "## Cost"
    yield (
        "Medians over 30 pictures; the classifier takes "
        f"{1000 * once:.1f} ms a face on the same thread. Peak memory is what the first pictures added."
    )
    yield markdown(pd.DataFrame(lines))
    yield from _whole_photographs(images.load(person))


def _whole_photographs(pixels: np.ndarray) -> Iterator[str]:
    """Decoding, detection, classification and the row, by the size of the JPEG."""
    predictor = Predictor(threads=1)
    lines = []
    for width in (448, 640, 1350, 4000, 8064):
        file = io.BytesIO()
        Image.fromarray(pixels).resize((width, width * 3 // 4)).save(file, "JPEG", quality=90)
        predictor.predict(file.getvalue())
        times = [_seconds(partial(predictor.predict, file.getvalue())) for _ in range(5)]
        milliseconds = 1000 * float(np.median(times))
        lines.append({"JPEG": f"{width}x{width * 3 // 4}", "milliseconds of processor": f"{milliseconds:.1f}"})
    yield "Whole photographs (`Predictor.predict`, one thread, one face):"
    yield markdown(pd.DataFrame(lines))


def _seconds(work: Callable[[], Any]) -> float:
    """Processor time of all threads."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
