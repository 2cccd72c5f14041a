"""Measures what the quality notes mean: how often each is given, and the scores of the faces that get it.

    MIEN_SHARED_DATA=DATA python benchmarks/quality_notes.py RUN [--model FILE] [--limit N]
        [--out benchmarks/quality_notes.md]

DATA holds `utkface`; RUN was trained on it, and only faces of its test part are used.
"""

import argparse
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from mien import Predictor, metrics
from mien.base.atomic import atomic_path
from mien.base.console import progress
from mien.data import images
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
from mien.metrics.intervals import wilson
from mien.metrics.wording import named, with_interval
from mien.prediction.quality import BEYOND, SHARPNESS, SMALL, notes
from mien.reports.run_results import protocol
from mien.runs.run import Run, open_run
from model_card import INTERVALS, markdown, signed, some


def main() -> None:
    """Writes the table as Markdown, and prints where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a finished run on UTKFace")
    parser.add_argument("--model", type=Path, help="default: the run's own file")
    parser.add_argument("--limit", type=int, help="faces of the test part; default: all")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/quality_notes.md"))
    options = parser.parse_args()
    if "MIEN_SHARED_DATA" not in os.environ:
        raise SystemExit("MIEN_SHARED_DATA is not set; it names the folder that holds utkface")
    run = open_run(options.run)
    predictor = Predictor(options.model or run.model_file)
    faces = some(run.faces[run.faces["split"] == "test"], options.limit)
    parts = [
        f"UTKFace: test part of {run.name}, n {len(faces):,}; {protocol(run)}. {INTERVALS}",
        *_notes(run, predictor, faces, Path(os.environ["MIEN_SHARED_DATA"]) / "utkface"),
    ]
    with atomic_path(options.out) as file:
        file.write_text("\n\n".join(parts) + "\n", "utf-8")
    print(options.out)


def _share(hits: int, n: int) -> str:
    low, high = wilson(hits / n, n)
    return f"{hits / n:.1%} [{float(low):.1%}, {float(high):.1%}]".replace("%", "")


def _notes(run: Run, predictor: Predictor, faces: pd.DataFrame, root: Path) -> Iterator[str]:
    """What the thresholds of the quality notes mean: how often each is said, and the scores where it is."""
    yield "# Quality notes, measured"
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
    given = dict.fromkeys(answers, 0)
    for path in faces["path"]:
        face = face_pixels(root / path)
        for name, change in {ORIGINAL: window, **changes}.items():
            given[name] += "blurred" in notes(images.load_face(change(face), predictor.size), None, 200, 200, False)
    joined = {name: metrics.join(faces, force_decision(rows)) for name, rows in answers.items()}
    lines = []
    for name, table in joined.items():
        line = {"faces": name, "called blurred, %": _share(given[name], len(faces))}
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
