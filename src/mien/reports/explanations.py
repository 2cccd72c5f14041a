"""The report of `mien explain`: maps of faces in images, or mean maps over the groups of a faces table."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from mien.base.console import progress
from mien.base.errors import MienError
from mien.base.table import write_table
from mien.data import images
from mien.data.face_pixels import FilePixels
from mien.data.roots import Root
from mien.evaluation.occlusion import check_maps, occlusion, overlay
from mien.prediction.annotate import label
from mien.prediction.input_files import image_files
from mien.prediction.outputs import as_utf8
from mien.prediction.predict import FaceCrop, Predictor
from mien.reports.page import ContactSheet, FaceImage, Section, Table, write_report
from mien.reports.thumbnails import jpeg_uri

HOW = (
    "Orange regions support the more probable gender, or increase the predicted age; blue regions do the opposite. A "
    "map describes the model, not the person."
)
GAIN = (
    "Gain: the area between the deletion and insertion curves of the prediction minus that of random maps, in log odds "
    "(gender) or years (age). A map with a gain of 0 or less is no better than a random map and should be ignored."
)
_SIDE = 200

Maps = Callable[[np.ndarray], dict[str, np.ndarray]]
"""A function from a face, uint8 (size, size, 3), to its maps (16, 16) by task: `gender` and `age`."""


def explain_files(
    predictor: Predictor, paths: Sequence[str], out: Path, crops: bool = False, maps_of: Maps | None = None
) -> pd.DataFrame:
    """Explains each face of images, and writes `explain.html`, `explanations.csv` and `maps.npz`.

    The arrays in `maps.npz` are `0_gender`, `0_age`, `1_gender`, ... in the order of the faces.

    Args:
        predictor: The model.
        paths: FilePixels, folders, patterns, tables, as for predictions.
        out: The folder to write to.
        crops: Whether each image is a face crop; otherwise faces are detected.
        maps_of: Computes the maps with the same model; default: occlusion.

    Returns:
        One row per face and task: `file`, `face_index`, `task`, `gain` (see `occlusion.PerturbationCurves`); one row
        per image without a face, or that cannot be read, with its `status`.
    """
    maps_of = maps_of or partial(occlusion, predictor)
    files = image_files(paths)
    lines: list[dict[str, Any]] = []
    shown: list[tuple[str, list[list[FaceImage]]]] = []
    kept: dict[str, np.ndarray] = {}
    with progress("explaining") as update:
        for done, file in enumerate(files, 1):
            for row, face in _faces(predictor, file, crops):
                about = {"file": as_utf8(file), "face_index": row.get("face_index"), "status": row["status"]}
                if face is None:
                    lines.append(about)
                    continue
                maps = maps_of(face)
                curves = check_maps(predictor, face, maps)
                cells = [[_picture(Image.fromarray(face), "input of the network")]]
                for task, grid in maps.items():
                    lines.append(about | {"task": task, "gain": round(curves[task].gain, 3)})
                    kept[f"{len(shown)}_{task}"] = grid
                    cells.append([_picture(overlay(face, grid), f"map of {task}")])
                gains = ", ".join(f"{task} {curve.gain:+.2f}" for task, curve in curves.items())
                shown.append((f"{Path(file).name}, face {row['face_index']}: {label(row)}; gain: {gains}", cells))
            update(done, len(files))
    table = pd.DataFrame(lines, columns=["file", "face_index", "status", "task", "gain"]).astype(
        {"face_index": "Int64"}
    )
    out.mkdir(parents=True, exist_ok=True)
    write_table(table, out / "explanations.csv")
    np.savez_compressed(out / "maps.npz", **kept)  # type: ignore[arg-type]
    sections = []
    if shown:
        sections.append(Section("Faces", text=[HOW, GAIN], sheet=ContactSheet(["face", *_tasks(table)], shown, _SIDE)))
    left = table[table["status"] != "ok"]
    if len(left):
        sections.append(Section("Not explained", tables=[Table("Images", left[["file", "status"]])]))
    lead = f"{len(shown)} faces in {len(files)} images, explained with {predictor.name}."
    write_report("Explanations", lead, sections, out / "explain.html")
    return table


def explain_groups(
    predictor: Predictor,
    faces: pd.DataFrame,
    root: Root,
    by: Sequence[str],
    out: Path,
    limit: int = 50,
    maps_of: Maps | None = None,
) -> pd.DataFrame:
    """Computes the mean maps over groups of a faces table, and writes `explain.html` and `explanations.csv`.

    Args:
        predictor: The model.
        faces: A checked faces table.
        root: What its paths are relative to.
        by: Columns that define the groups.
        out: The folder to write to.
        limit: Maximum number of faces per group, drawn at random with a fixed seed.
        maps_of: Computes the maps with the same model; default: occlusion.

    Returns:
        One row per group and task: `group`, `task`, `n`, and `strength`, the mean absolute value of the cells (for
        occlusion in log odds and years).

    Raises:
        MienError: A column does not exist, or no face can be read.
    """
    maps_of = maps_of or partial(occlusion, predictor)
    wrong = [column for column in by if column not in faces.columns]
    if wrong:
        raise MienError(f"--by {wrong[0]!r}: the faces table has no such column; it has {', '.join(faces.columns)}")
    groups = [("all", faces)]
    for column in by:
        groups += [(f"{column} {value}", part) for value, part in faces.groupby(column, observed=True)]
    groups = [(name, part.sample(min(limit, len(part)), random_state=0)) for name, part in groups if len(part)]
    wanted = pd.concat([part for _, part in groups]).drop_duplicates("face")
    seen: dict[str, tuple[np.ndarray, dict[str, np.ndarray]]] = {}
    unread: list[dict[str, str]] = []
    with progress("explaining") as update:
        files = FilePixels(wanted, root, predictor.size, predictor.margin)
        for done, (face, path) in enumerate(zip(wanted["face"], wanted["path"], strict=True), 1):
            try:
                pixels = files[done - 1]
                seen[face] = pixels, maps_of(pixels)
            except images.ImageError as error:
                unread.append({"file": path, "status": error.reason})
            update(done, len(wanted))
    if not seen:
        raise MienError(f"none of {len(wanted)} faces in {str(root)!r} can be read; {unread[0]}")
    lines, shown = [], []
    for name, part in groups:
        there = [seen[face] for face in part["face"] if face in seen]
        if not there:
            continue
        mean = np.mean([pixels for pixels, _ in there], axis=0).round().astype(np.uint8)
        cells = [[_picture(Image.fromarray(mean), f"mean of {len(there)} faces")]]
        for task in there[0][1]:
            grid = np.mean([maps[task] for _, maps in there], axis=0)
            lines.append(
                {"group": name, "task": task, "n": len(there), "strength": round(float(np.abs(grid).mean()), 4)}
            )
            cells.append([_picture(overlay(mean, grid), f"mean map of {task}")])
        shown.append((f"{name} (n {len(there)})", cells))
    table = pd.DataFrame(lines)
    out.mkdir(parents=True, exist_ok=True)
    write_table(table, out / "explanations.csv")
    sections = [Section("Mean maps", text=[HOW], sheet=ContactSheet(["mean face", *_tasks(table)], shown, _SIDE))]
    sections.append(Section("Numbers", tables=[Table("Mean absolute value of the cells", table)]))
    if unread:
        sections.append(Section("Not explained", tables=[Table("Images", pd.DataFrame(unread))]))
    lead = f"{len(seen)} faces, at most {limit} per group, explained with {predictor.name}; {len(unread)} unreadable."
    write_report("Explanations by group", lead, sections, out / "explain.html")
    return table


def _faces(predictor: Predictor, file: str, crops: bool) -> Iterator[tuple[dict[str, Any], np.ndarray | None]]:
    face_crops = predictor.crop_faces(file, crops=crops) or [FaceCrop({"file": file, "status": "no face"}, None)]
    yield from zip(predictor.predict_crops(face_crops), (crop.pixels for crop in face_crops), strict=True)


def _tasks(table: pd.DataFrame) -> list[str]:
    return list(table["task"].dropna().unique())


def _picture(image: Image.Image, alt: str) -> FaceImage:
    return FaceImage(jpeg_uri(image, quality=90), alt)
