"""Robustness of a model to other crops, shifts, rotation, blur, compression and bad light on the same faces.

A condition changes the original pixels of a face, before they are resized to the network's input; all conditions are
deterministic.
"""

import io
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from mien import metrics
from mien.base.errors import MienError
from mien.base.progress import ProgressCallback
from mien.data import images
from mien.data.alignment import cut_upright
from mien.data.face_pixels import boxes, rolls
from mien.data.roots import Roots, open_root
from mien.metrics.wording import HEADLINES

if TYPE_CHECKING:
    from mien.prediction.predict import Predictor

Condition = Callable[[np.ndarray], np.ndarray]
"""A function from a face, uint8 (h, w, 3), to the changed face, uint8; the size may change."""

SCORED_METRICS = (*HEADLINES, "gender_unsure")
"""The metrics of `score_conditions`, as far as the model predicts them."""

ORIGINAL = "original"

_BATCH = 64


def window(face: np.ndarray, share: float = 1.0, right: float = 0.0, down: float = 0.0) -> np.ndarray:
    """Crops the centre square with `share` of the face's side, shifted by shares of that side; edges are repeated.

    Pixels are copied, never interpolated: size (at least `images.MIN_SIDE`) and place are rounded to whole ones.
    """
    height, width = face.shape[:2]
    full = min(height, width)
    side = max(images.MIN_SIDE, round(share * full))
    left, top = (width - side) // 2 + round(right * full), (height - side) // 2 + round(down * full)
    return images.cut(face, (left, top, side), side)


def rotated(face: np.ndarray, degrees: float) -> np.ndarray:
    """Rotates the face counterclockwise about its centre, by at most 45 degrees; edges are repeated."""
    height, width = face.shape[:2]
    pad = max(height, width) // 2 + 1
    wide = Image.fromarray(np.pad(face, ((pad, pad), (pad, pad), (0, 0)), mode="edge"))
    turned = np.asarray(wide.rotate(degrees, Image.Resampling.BILINEAR))
    return turned[pad : pad + height, pad : pad + width]


def blurred(face: np.ndarray, share: float) -> np.ndarray:
    """Applies a Gaussian blur with a standard deviation of `share` of the face's side."""
    blur = ImageFilter.GaussianBlur(share * min(face.shape[:2]))
    return np.asarray(Image.fromarray(face).filter(blur))


def sharpened(face: np.ndarray, share: float, amount: float) -> np.ndarray:
    """Adds `amount` times the difference from a copy blurred with a standard deviation of `share` of the face's side.

    This is the unsharp masking of cameras and image editors.
    """
    mask = ImageFilter.UnsharpMask(share * min(face.shape[:2]), round(100 * amount), 0)
    return np.asarray(Image.fromarray(face).filter(mask))


def jpeg(face: np.ndarray, quality: int) -> np.ndarray:
    """Compresses the face as JPEG."""
    packed = io.BytesIO()
    Image.fromarray(face).save(packed, "JPEG", quality=quality)
    return np.asarray(Image.open(packed))


def reduced(face: np.ndarray, side: int) -> np.ndarray:
    """Reduces the centre square of the face to `side` x `side` pixels."""
    height, width = face.shape[:2]
    return images.cut(face, images.square(width, height), side)


def grey(face: np.ndarray) -> np.ndarray:
    """Converts the face to grey (ITU-R 601 luma)."""
    return np.asarray(Image.fromarray(face).convert("L").convert("RGB"))


def dark(face: np.ndarray, parts: int = 3) -> np.ndarray:
    """Divides each pixel value by `parts`."""
    return face // parts


def covered(face: np.ndarray, top: float, bottom: float) -> np.ndarray:
    """Covers the face with a horizontal bar in its mean colour, between two shares of its height."""
    hidden = face.copy()
    height = len(face)
    hidden[round(top * height) : round(bottom * height)] = face.mean(axis=(0, 1)).astype(np.uint8)
    return hidden


CONDITIONS: dict[str, Condition] = {
    ORIGINAL: window,
    **{f"crop {percent}%": partial(window, share=percent / 100) for percent in (70, 80, 90, 110, 120, 130)},
    "shift left 10%": partial(window, right=0.1),
    "shift right 10%": partial(window, right=-0.1),
    "shift up 10%": partial(window, down=0.1),
    "shift down 10%": partial(window, down=-0.1),
    "rotation 20 degrees left": partial(rotated, degrees=20),
    "rotation 20 degrees right": partial(rotated, degrees=-20),
    # The middle of the five strengths of ImageNet-C's blur (Hendrycks and Dietterich 2019), 3 of 224 pixels.
    "blur, sigma 1.3% of the side": partial(blurred, share=3 / 224),
    "sharpened, sigma 1% of the side": partial(sharpened, share=0.01, amount=1.5),
    "JPEG quality 20": partial(jpeg, quality=20),
    "48 pixels": partial(reduced, side=48),
    "grey": grey,
    "dark, a third of each pixel": dark,
}
"""The conditions by name; new entries are applied, scored and tested like the others.

A crop of 80% shows the central 80% of the face's side, one of 120% the whole face with repeated edges; the face moves
in the direction of a shift.
"""


DEGRADATIONS: dict[str, dict[str, Condition]] = {
    "face size": {f"{side} pixels": partial(reduced, side=side) for side in (64, 48, 32, 24)},
    # The first four of ImageNet-C's five strengths, of 224 pixels.
    "blur": {
        f"sigma {share:.1%} of the side": partial(blurred, share=share)
        for share in (1 / 224, 2 / 224, 3 / 224, 4 / 224)
    },
    "sharpening": {
        f"{amount:g} times, sigma 1% of the side": partial(sharpened, share=0.01, amount=amount) for amount in (1, 2, 3)
    },
    "JPEG": {f"quality {quality}": partial(jpeg, quality=quality) for quality in (50, 20, 10, 5)},
    "darkness": {f"1/{parts} of each pixel": partial(dark, parts=parts) for parts in (2, 3, 6, 10)},
    "eyes covered": {
        "8% of the height": partial(covered, top=0.24, bottom=0.32),
        "20% of the height": partial(covered, top=0.18, bottom=0.38),
    },
    "mouth covered": {
        "10% of the height": partial(covered, top=0.64, bottom=0.74),
        "24% of the height": partial(covered, top=0.58, bottom=0.82),
    },
    "crop shift": {f"{percent}% to the side": partial(window, right=percent / 100) for percent in (5, 10, 20)},
    "rotation": {f"{degrees} degrees": partial(rotated, degrees=degrees) for degrees in (10, 20, 30, 45)},
}
"""The degradations by name, with their levels from mild to strong.

The bars over eyes and mouth are placed as in the mean face of UTKFace; in crops with another margin they cover other
regions.
"""


def score_conditions(
    predictor: "Predictor",
    faces: pd.DataFrame,
    root: str | Path | Roots,
    conditions: Mapping[str, Condition] = CONDITIONS,
    progress: ProgressCallback | None = None,
) -> pd.DataFrame:
    """Scores a model on faces under each condition, and compares with the original images.

    Args:
        predictor: The model.
        faces: A checked faces table with labels.
        root: What its paths are relative to, see `mien.data.roots.open_root`.
        conditions: The conditions by name; the original images are always scored first.
        progress: Called with the number of faces done and the total.

    Returns:
        One row per number: `condition`, `metric` (of `SCORED_METRICS`), `value`, its 95% interval `low` and `high`, `n`
        faces, and the paired `difference` to the original images with its interval `difference_low` and
        `difference_high`. Gender accuracy uses the more probable gender for unsure predictions too; `gender_unsure`
        is present if the model has a threshold.

    Raises:
        MienError: There are no faces, none can be read, or none has a label that the model predicts.
    """
    predictions_by_condition = predict_conditions(predictor, faces, root, conditions, progress)
    joined = {name: metrics.join(faces, rows) for name, rows in predictions_by_condition.items()}
    decided = {name: metrics.join(faces, force_decision(rows)) for name, rows in predictions_by_condition.items()}
    lines = []
    for metric in _scored(predictor, joined[ORIGINAL]):
        tables = joined if metric == "gender_unsure" else decided
        for name, table in tables.items():
            own = metrics.mean_over_runs([table], metric)
            difference = [np.nan] * 3
            if name != ORIGINAL:
                difference = list(metrics.paired_difference(table, tables[ORIGINAL], metric)[:3])
            lines.append((name, metric, own.value, own.low, own.high, own.n, *difference))
    columns = ["condition", "metric", "value", "low", "high", "n"]
    return pd.DataFrame(lines, columns=[*columns, "difference", "difference_low", "difference_high"])


def predict_conditions(
    predictor: "Predictor",
    faces: pd.DataFrame,
    root: str | Path | Roots,
    conditions: Mapping[str, Condition] = CONDITIONS,
    progress: ProgressCallback | None = None,
) -> dict[str, pd.DataFrame]:
    """The predictions table (`face`, `status` and predictions) of the faces by condition.

    Raises:
        MienError: There are no faces, or none can be read.
    """
    if not len(faces):
        raise MienError("conditions: the faces table has no rows")
    applied = {ORIGINAL: CONDITIONS[ORIGINAL], **conditions}
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in applied}
    home = open_root(root)
    sources = list(zip([home / path for path in faces["path"]], boxes(faces), rolls(faces), strict=True))

    def changed(source: tuple[Path, images.Box | None, float]) -> list[np.ndarray] | str:
        path, box, angle = source
        try:
            face = face_pixels(path, box, predictor.margin, angle)
            return [images.load_face(change(face), predictor.size) for change in applied.values()]
        except images.ImageError as error:
            return error.reason

    with ThreadPoolExecutor(predictor.threads) as pool:
        for start in range(0, len(sources), _BATCH):
            made = list(pool.map(changed, sources[start : start + _BATCH]))
            for index, name in enumerate(applied):
                pixels = [face if isinstance(face, str) else face[index] for face in made]
                parts[name].append(_predict(predictor, pixels).assign(face=list(faces["face"][start : start + _BATCH])))
            if progress:
                progress(start + len(made), len(sources))
    predictions_by_condition = {name: pd.concat(part, ignore_index=True) for name, part in parts.items()}
    if (predictions_by_condition[ORIGINAL]["status"] != "ok").all():
        path, status = faces["path"].iloc[0], predictions_by_condition[ORIGINAL]["status"].iloc[0]
        raise MienError(f"conditions: none of {len(faces)} faces in {str(root)!r} can be read; {path!r}: {status}")
    return predictions_by_condition


def face_pixels(
    source: images.Source, box: images.Box | None = None, margin: float = 0.0, angle: float = 0.0
) -> np.ndarray:
    """Returns the face square of `images.square` in the image's own resolution, uint8 (side, side, 3).

    A face that is turned by `angle` (radians, clockwise) is turned upright.

    Raises:
        ImageError: As `images.load`.
    """
    image = images.load(source)
    height, width = image.shape[:2]
    where = images.square(width, height, box, margin)
    return cut_upright(image, where, max(images.MIN_SIDE, round(where[2])), angle)


def force_decision(predict_conditions: pd.DataFrame) -> pd.DataFrame:
    """Returns the predictions with the more probable gender instead of "unsure"."""
    if "p_female" not in predict_conditions.columns:
        return predict_conditions
    return predict_conditions.drop(columns="gender", errors="ignore")  # metrics.join makes it from p_female


def _predict(predictor: "Predictor", pixels: list[np.ndarray | str]) -> pd.DataFrame:
    """The predictions for faces, with the status of unreadable ones."""
    read = [face for face in pixels if not isinstance(face, str)]
    predicted = pd.DataFrame(dict(predictor.predict_pixels(np.stack(read))) if read else {})
    predicted.index = pd.Index([place for place, face in enumerate(pixels) if not isinstance(face, str)])
    return predicted.reindex(range(len(pixels))).assign(
        status=[face if isinstance(face, str) else "ok" for face in pixels]
    )


def _scored(predictor: "Predictor", joined: pd.DataFrame) -> list[str]:
    """The metrics for which the model has predictions and the faces have labels."""
    found = []
    for name in SCORED_METRICS:
        needed = metrics.METRICS[name]
        if {*needed.predictions} <= {*joined.columns} and joined[needed.truth].notna().any():
            found.append(name)
    if "gender_unsure" in found and "unsure_below" not in predictor.metadata:
        found.remove("gender_unsure")
    if not found:
        raise MienError("conditions: no face has a label for the model's predictions; valid: gender, age or age_group")
    return found
