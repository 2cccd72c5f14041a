"""Measures how many faces are found, what a detector's crop costs, and what the quality notes mean.

    MIEN_SHARED_DATA=DATA python benchmarks/detection.py RUN [--model FILE] [--limit N] [--out benchmarks/detection.md]

DATA holds `utkface` and `celeba`; RUN was trained on the former, and only faces of its test part are used. Everything
is seeded. Collages are made here: crops of faces with a known place on photographs without any, their edges visible.
The place of the face within UTKFace's crops and CelebA's aligned pictures is the same in all of them: the median of
what dlib finds.
"""

import argparse
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skimage.data
from PIL import Image

from mien import Predictor, metrics
from mien.base.atomic import atomic_path
from mien.base.console import progress
from mien.base.errors import MissingExtra
from mien.data import images
from mien.data.sources import read_faces
from mien.evaluation.conditions import (
    ORIGINAL,
    Condition,
    blurred,
    face_pixels,
    force_decision,
    predict_conditions,
    reduced,
    window,
)
from mien.metrics.wording import named, with_interval
from mien.prediction.detect import Detector, Found, make_detector, overlap
from mien.prediction.quality import BEYOND, SHARPNESS, SMALL, notes
from mien.reports.run_results import protocol
from mien.runs.run import Run, open_run
from model_card import INTERVALS, markdown, signed, some

DETECTORS = ("dlib", "centerface")
SIZES = (40, 56, 80, 112, 160, 224, 300)
"""Sides of the faces' boxes in collages, pixels."""
CANVAS, GRID = (1280, 960), (3, 2)
BACKGROUNDS = ("brick", "grass", "gravel", "coffee", "hubble_deep_field", "chelsea", "rocket", "retina")
SAME = 0.4
"""A box is that of a known face from this intersection over union on."""

UTKFACE = (0.495, 0.493, 0.923)
"""The box in UTKFace's crops: centre (right, down) and side in shares of the crop's side; medians, n 398."""


def main() -> None:
    """Writes the tables as Markdown, and prints where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a finished run on UTKFace")
    parser.add_argument("--model", type=Path, help="default: the run's own file")
    parser.add_argument("--limit", type=int, help="faces of the test part, and pictures of CelebA; default: all")
    parser.add_argument("--collages", type=int, default=140, help=f"of {GRID[0] * GRID[1]} faces each")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/detection.md"))
    options = parser.parse_args()
    if "MIEN_SHARED_DATA" not in os.environ:
        raise SystemExit("MIEN_SHARED_DATA is not set; it names the folder that holds utkface and celeba")
    data = Path(os.environ["MIEN_SHARED_DATA"])
    run = open_run(options.run)
    predictor = Predictor(options.model or run.model_file)
    faces = some(run.faces[run.faces["split"] == "test"], options.limit)
    celeba = read_faces("celeba", data / "celeba")
    celeba = some(celeba, options.limit)
    parts = [
        "# Detection, measured",
        "`python benchmarks/detection.py " + " ".join(_arguments(options)) + "`",
        f"UTKFace: test part of {run.name}, n {len(faces):,}; {protocol(run)}. CelebA: the {len(celeba):,} pictures at "
        f"hand, one face each, from which nothing was learnt. {INTERVALS}",
    ]
    finders = {name: finder for name in DETECTORS if (finder := _detector(name)) is not None}
    parts += _pictures(finders, predictor, celeba, data / "celeba")
    parts += _collages(finders, faces, data / "utkface", celeba, data / "celeba", options.collages)
    parts += _crops(finders, predictor, faces, data / "utkface")
    parts += _notes(run, predictor, faces, data / "utkface")
    with atomic_path(options.out) as file:
        file.write_text("\n\n".join(parts) + "\n", "utf-8")
    print(options.out)


def _arguments(options: argparse.Namespace) -> Iterator[str]:
    yield options.run
    for name in ("model", "limit"):
        if getattr(options, name) is not None:
            yield f"--{name} {getattr(options, name)}"


def _detector(name: str) -> Detector | None:
    try:
        return make_detector(name)
    except MissingExtra as error:
        print(f"left out: {error}")
        return None


def _best(found: list[Found], box: images.Box) -> Found | None:
    """What was found of the face with this box."""
    near = [one for one in found if overlap(one.box, box) >= SAME]
    return max(near, key=lambda one: overlap(one.box, box), default=None)


def _share(hits: int, n: int) -> str:
    low, high = metrics.wilson(hits / n, n)
    return f"{hits / n:.1%} [{float(low):.1%}, {float(high):.1%}]".replace("%", "")


def _box(place: tuple[float, float, float], side: float) -> images.Box:
    right, down, size = place
    return (right - size / 2) * side, (down - size / 2) * side, size * side, size * side


def _pictures(finders: dict[str, Detector], predictor: Predictor, faces: pd.DataFrame, root: Path) -> Iterator[str]:
    """CelebA's pictures, each with one face: how many are found, and gender from the crop against a fixed crop."""
    pictures = [images.load(root / path) for path in faces["path"]]
    place = _celeba_place(pictures)
    fixed = _answers(predictor, [_cut(picture, _celeba_box(picture, place), predictor) for picture in pictures])
    lines = []
    for name, finder in finders.items():
        first, further, crops = [], 0, []
        with progress(f"{name} on CelebA") as update:
            for done, picture in enumerate(pictures, 1):
                found = finder(picture)
                best = _best(found, _celeba_box(picture, place))
                first.append(best)
                further += len(found) - (best is not None)
                crops.append(_cut(picture, best.box, predictor) if best is not None else None)
                update(done, len(pictures))
        line: dict[str, Any] = {"detector": name, "pictures": len(pictures)}
        line["face found, %"] = _share(sum(one is not None for one in first), len(first))
        line["further boxes"] = further
        there = [index for index, one in enumerate(first) if one is not None]
        line |= _costs(faces.iloc[there], _answers(predictor, [crops[i] for i in there]), fixed.iloc[there])
        lines.append(line)
    yield "## Pictures of one face"
    yield (
        "CelebA's aligned pictures, 178x218 pixels. Gender where the face was found: the detector's crop, a fixed crop "
        "of the same pictures (the median of dlib's boxes, the same margin), and the paired difference. A further box "
        "may be a second face in the picture."
    )
    yield markdown(pd.DataFrame(lines))


def _celeba_place(pictures: list[np.ndarray]) -> tuple[float, float, float]:
    """The box in CelebA's aligned pictures, in shares of their width, from the top."""
    dlib = make_detector("dlib")
    boxes = [found[0].box for picture in pictures[:200] if (found := dlib(picture))]
    width = pictures[0].shape[1]
    x, y, w, h = np.median(np.array(boxes), axis=0) / width
    return float(x + w / 2), float(y + h / 2), float(w)


def _celeba_box(picture: np.ndarray, place: tuple[float, float, float]) -> images.Box:
    return _box(place, picture.shape[1])


def _cut(picture: np.ndarray, box: images.Box, predictor: Predictor) -> np.ndarray:
    height, width = picture.shape[:2]
    return images.cut(picture, images.square(width, height, box, predictor.margin), predictor.size)


def _answers(predictor: Predictor, crops: list[np.ndarray]) -> pd.DataFrame:
    batches = [predictor.predict_pixels(np.stack(crops[start : start + 64])) for start in range(0, len(crops), 64)]
    return pd.concat([pd.DataFrame(dict(batch)) for batch in batches], ignore_index=True)


def _costs(faces: pd.DataFrame, other: pd.DataFrame, own: pd.DataFrame) -> dict[str, str]:
    """The scores of a detector's crop, those of the crop it is compared with, and the paired difference."""
    tables = []
    for rows in (other, own):
        rows = rows.reset_index(drop=True).assign(face=list(faces["face"]), status="ok")
        tables.append(metrics.join(faces, force_decision(rows)))
    cells = {}
    for metric in ("gender_accuracy", "age_mae"):
        if tables[0][metrics.METRICS[metric].truth].isna().all():
            continue
        for words, table in (("detector's crop", tables[0]), ("fixed crop", tables[1])):
            mean = metrics.mean_over_runs([table], metric)
            cells[f"{named(metric)}: {words}"] = with_interval(metric, mean.value, mean.low, mean.high)
        cells[f"{named(metric, unit=False)}: difference"] = signed(
            metric, *metrics.paired_difference(*tables, metric)[:3]
        )
    return cells


def _collages(
    finders: dict[str, Detector],
    utkface: pd.DataFrame,
    utkface_root: Path,
    celeba: pd.DataFrame,
    celeba_root: Path,
    count: int,
) -> Iterator[str]:
    """Faces of known size and place on large canvases: recall by size, false boxes, time."""
    rng = np.random.default_rng(0)
    place = _celeba_place([images.load(celeba_root / path) for path in celeba["path"].iloc[:200]])
    files = [("UTKFace", utkface_root / path) for path in utkface["path"]]
    pictures = [("CelebA", celeba_root / path) for path in celeba["path"]]
    hits = {name: {(source, size): [0, 0] for source in ("UTKFace", "CelebA") for size in SIZES} for name in finders}
    false, seconds = dict.fromkeys(finders, 0), dict.fromkeys(finders, 0.0)
    with progress("collages") as update:
        for done in range(1, count + 1):
            canvas = _background(rng)
            known = []
            for cell in range(GRID[0] * GRID[1]):
                choice = files if rng.random() < 0.5 else pictures
                source, file = choice[rng.integers(len(choice))]
                size = int(SIZES[(done * GRID[0] * GRID[1] + cell) % len(SIZES)])
                known.append((source, size, _paste(canvas, cell, source, file, size, place, rng)))
            for name, finder in finders.items():
                begin = time.perf_counter()
                found = finder(canvas)
                seconds[name] += time.perf_counter() - begin
                best = [_best(found, box) for _, _, box in known]
                for (source, size, _), one in zip(known, best, strict=True):
                    hits[name][source, size][0] += one is not None
                    hits[name][source, size][1] += 1
                false[name] += len(found) - sum(one is not None for one in best)
            update(done, count)
    lines = [
        {"side of the box, pixels": size}
        | {
            f"{name}, {source}": f"{_share(*hits[name][source, size])}, n {hits[name][source, size][1]}"
            for name in finders
            for source in ("UTKFace", "CelebA")
        }
        for size in SIZES
    ]
    yield "## Collages"
    yield (
        f"{count} canvases of {CANVAS[0]}x{CANVAS[1]} pixels, {GRID[0] * GRID[1]} faces each. Share found, %, with "
        "95% intervals (Wilson), by the side of the face's box."
    )
    yield markdown(pd.DataFrame(lines))
    yield markdown(
        pd.DataFrame(
            {
                "detector": name,
                "canvases": count,
                "boxes where no face is": false[name],
                "milliseconds a canvas, busy machine": f"{1000 * seconds[name] / count:.0f}",
            }
            for name in finders
        )
    )


def _background(rng: np.random.Generator) -> np.ndarray:
    """A photograph without faces, or a part of one."""
    picture = np.asarray(
        Image.fromarray(getattr(skimage.data, BACKGROUNDS[rng.integers(len(BACKGROUNDS))])()).convert("RGB")
    )
    share = rng.uniform(0.5, 1.0)
    height, width = (round(share * side) for side in picture.shape[:2])
    top, left = rng.integers(picture.shape[0] - height + 1), rng.integers(picture.shape[1] - width + 1)
    return np.array(Image.fromarray(picture[top : top + height, left : left + width]).resize(CANVAS))


def _paste(
    canvas: np.ndarray,
    cell: int,
    source: str,
    file: Path,
    size: int,
    celeba: tuple[float, float, float],
    rng: np.random.Generator,
) -> images.Box:
    """Puts a face with a box of `size` pixels somewhere into a cell of the canvas; returns its box."""
    picture = images.load(file)
    if source == "CelebA":
        box = _celeba_box(picture, celeba)
        where = images.square(picture.shape[1], picture.shape[0], box, 0.35)
        place = (0.5, 0.5, 1 / 1.35)
    else:
        where, place = images.square(picture.shape[1], picture.shape[0]), UTKFACE
    side = round(size / place[2])
    width, height = CANVAS[0] // GRID[0], CANVAS[1] // GRID[1]
    left = cell % GRID[0] * width + int(rng.integers(width - side + 1))
    top = cell // GRID[0] * height + int(rng.integers(height - side + 1))
    canvas[top : top + side, left : left + side] = images.cut(picture, where, side)
    x, y, w, h = _box(place, side)
    return left + x, top + y, w, h


def _crops(finders: dict[str, Detector], predictor: Predictor, faces: pd.DataFrame, root: Path) -> Iterator[str]:
    """The data set's own crop against that of a detector that finds the same face on a canvas."""
    rng = np.random.default_rng(0)
    own, canvases, boxes = [], [], []
    for path in faces["path"]:
        face = face_pixels(root / path)
        side = len(face)
        canvas = np.array(Image.fromarray(_background(rng)).resize((2 * side, 2 * side)))
        left, top = (int(corner) for corner in rng.integers(side // 4, 3 * side // 4, 2))
        canvas[top : top + side, left : left + side] = face
        x, y, w, h = _box(UTKFACE, side)
        own.append(images.load_face(face, predictor.size))
        canvases.append(canvas)
        boxes.append((left + x, top + y, w, h))
    fixed = _answers(predictor, own)
    lines = []
    for name, finder in finders.items():
        with progress(f"{name} on UTKFace") as update:
            best = []
            for done, (canvas, box) in enumerate(zip(canvases, boxes, strict=True), 1):
                best.append(_best(finder(canvas), box))
                update(done, len(canvases))
        there = [index for index, one in enumerate(best) if one is not None]
        cut = [_cut(canvases[index], best[index].box, predictor) for index in there]
        line = {"detector": name, "face found, %": _share(len(there), len(best)), "faces compared": len(there)}
        lines.append(line | _costs(faces.iloc[there], _answers(predictor, cut), fixed.iloc[there]))
    yield "## What a detector's crop costs"
    yield (
        "Each face of UTKFace's test part in its own size on a canvas of twice its side; of the faces that were found, "
        "the detector's crop against the data set's own, paired."
    )
    yield markdown(pd.DataFrame(lines))


def _notes(run: Run, predictor: Predictor, faces: pd.DataFrame, root: Path) -> Iterator[str]:
    """What the thresholds of the quality notes mean: how often each is said, and the scores where it is."""
    yield "## Quality notes"
    yield (
        f"`small`: a box of less than {SMALL:.0f} pixels; `blurred`: a Laplacian with a variance below "
        f"{SHARPNESS:.0f} at 128 pixels; `cut off`: more than {BEYOND:.0%} of the box beyond the image. The same faces "
        "made worse; differences are to the faces as they are."
    )
    changes: dict[str, Condition] = {
        **{f"{side} pixels": partial(reduced, side=side) for side in (64, 48, 40, 32, 24, 16)},
        **{
            f"blur, sigma {100 * share:.1f}% of the side": partial(blurred, share=share)
            for share in (0.005, 0.01, 0.02, 0.03)
        },
        **{f"{100 * share:.0f}% cut off at the left": partial(_cut_off, share=share) for share in (0.1, 0.2, 0.3)},
    }
    with progress("quality") as update:
        answers = predict_conditions(predictor, faces, root, changes, update)
    said = dict.fromkeys(answers, 0)
    for path in faces["path"]:
        face = face_pixels(root / path)
        for name, change in {ORIGINAL: window, **changes}.items():
            said[name] += "blurred" in notes(images.load_face(change(face), predictor.size), None, 200, 200, False)
    joined = {name: metrics.join(faces, force_decision(rows)) for name, rows in answers.items()}
    lines = []
    for name, table in joined.items():
        line = {"faces": name, "said to be blurred, %": _share(said[name], len(faces))}
        for metric in ("gender_accuracy", "age_mae"):
            mean = metrics.mean_over_runs([table], metric)
            line[named(metric)] = with_interval(metric, mean.value, mean.low, mean.high)
            cost = signed(metric, *metrics.paired_difference(table, joined[ORIGINAL], metric)[:3])
            line[f"{named(metric, unit=False)}, difference"] = "–" if name == ORIGINAL else cost
        lines.append(line)
    yield markdown(pd.DataFrame(lines))


def _cut_off(face: np.ndarray, share: float) -> np.ndarray:
    """The face as prediction sees it where a share of its box lies beyond the image: its edge is repeated."""
    kept = face[:, round(share * face.shape[1]) :]
    return images.cut(kept, (kept.shape[1] - face.shape[1], 0, face.shape[1]), face.shape[1])


if __name__ == "__main__":
    main()
