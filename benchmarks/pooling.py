"""Ways to pool the answers of a track, on faces whose labels are known: several made frames of one face each.

    python benchmarks/pooling.py UTKFACE [--faces 600] [--frames 8]

UTKFACE is a folder with the files of UTKFace. The faces are the first of the test part of the model that ships, whose
split is made again as its recipe says. UTKFace has single pictures, so the frames of a face are made from its own:
moved, turned, enlarged, darkened, compressed and blurred by chance. They repeat the one picture, so that they differ
less than frames of a real clip, and nothing here says how well real clips are judged: it compares ways to pool.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from mien import Predictor
from mien.base.console import console, progress, show
from mien.data import images, splits
from mien.data.duplicates import group_files
from mien.data.sources import read_faces
from mien.evaluation import conditions
from mien.prediction.quality import notes

Answers = dict[str, np.ndarray]
"""Columns (faces, frames)."""


def frame(face: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """One made frame; one in three is blurred so that accuracy suffers."""
    right, down = random.uniform(-0.08, 0.08, 2)
    face = conditions.window(face, random.uniform(0.85, 1.25), right, down)
    face = conditions.rotated(face, random.uniform(-15, 15))
    face = (face * random.uniform(0.4, 1.0)).astype(np.uint8)
    face = conditions.blurred(face, float(random.choice([0.0, 0.01, 0.03])))
    return conditions.jpeg(face, int(random.integers(30, 90)))


def test_part(root: Path, predictor: Predictor) -> pd.DataFrame:
    """The faces that the model that ships was not trained on, by its own recipe."""
    split = predictor.metadata["recipe"]["split"]
    faces = read_faces("utkface", root)
    with progress("looking for near-duplicates") as update:
        alike = group_files([root / path for path in faces["path"]], update)
    faces = splits.assign(
        faces, split["method"], val=split["val"], test=split["test"], seed=split["seed"], groups=alike
    )
    found, expected = faces["split"].value_counts().to_dict(), predictor.metadata["lineage"]["faces"]
    if found != expected:
        raise SystemExit(f"the split has {found}, that of the model {expected}")
    return faces[faces["split"] == "test"].reset_index(drop=True)


def answers_of(predictor: Predictor, faces: pd.DataFrame, root: Path, frames: int) -> Answers:
    """The model's answers to the made frames, and whether a note says that something is wrong with a frame."""
    random = np.random.default_rng(0)
    columns: dict[str, list[np.ndarray]] = {}
    with progress("predicting") as update:
        for done, path in enumerate(faces["path"], 1):
            face = conditions.face_pixels(root / path)
            made = [images.load_face(frame(face, random), predictor.size) for _ in range(frames)]
            answer = predictor.predict_pixels(np.stack(made))
            bad = np.array([bool(notes(one, None, *face.shape[:2], turned=False)) for one in made])
            for name, values in (answer | {"bad": bad}).items():
                columns.setdefault(name, []).append(values)
            update(done, len(faces))
    return {name: np.stack(parts) for name, parts in columns.items()}


def _mean(columns: Answers, weight: np.ndarray) -> Answers:
    share = weight / weight.sum(axis=1, keepdims=True)
    return {name: (columns[name] * share).sum(axis=1) for name in NUMBERS}


def _good_ones(columns: Answers) -> Answers:
    good = ~columns["bad"]
    return _mean(columns, np.where(good.any(axis=1, keepdims=True), good, True).astype(float))


def _log_odds(columns: Answers) -> Answers:
    p = columns["p_female"].clip(1e-4, 1 - 1e-4)
    return _mean(columns, np.ones(p.shape)) | {"p_female": 1 / (1 + np.exp(-np.log(p / (1 - p)).mean(axis=1)))}


def _surer_with_frames(columns: Answers) -> Answers:
    pooled = _mean(columns, np.ones(columns["age"].shape))
    root = np.sqrt(columns["age"].shape[1])
    return pooled | {end: pooled["age"] + (pooled[end] - pooled["age"]) / root for end in ("age_low", "age_high")}


NUMBERS = ("p_female", "age", "age_low", "age_high")
WAYS: dict[str, Callable[[Answers], Answers]] = {
    "mean of all frames": lambda columns: _mean(columns, np.ones(columns["age"].shape)),
    "one frame": lambda columns: {name: columns[name][:, 0] for name in NUMBERS},
    "mean of frames without notes": _good_ones,
    "median of all frames": lambda columns: {name: np.median(columns[name], axis=1) for name in NUMBERS},
    "mean, p_female by log odds": _log_odds,
    "mean, interval narrowed by the root of n": _surer_with_frames,
}


def judged(pooled: Answers, female: np.ndarray, age: np.ndarray) -> dict[str, np.ndarray]:
    """What each face adds to each score (faces,)."""
    p, inside = pooled["p_female"], (pooled["age_low"] <= age) & (age <= pooled["age_high"])
    return {
        "gender right, %": 100.0 * ((p >= 0.5) == female),
        "squared error of p_female": (p - female) ** 2,
        "age error, years": np.abs(pooled["age"] - age),
        "age in its 80% interval, %": 100.0 * inside,
        "width of the interval, years": pooled["age_high"] - pooled["age_low"],
    }


def main() -> None:
    """Prints one row a way, each score with the 95% interval of its paired difference from the first way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("utkface", type=Path)
    parser.add_argument("--faces", type=int, default=600)
    parser.add_argument("--frames", type=int, default=8)
    options = parser.parse_args()
    predictor = Predictor()
    faces = test_part(options.utkface, predictor)
    faces = faces.sample(min(options.faces, len(faces)), random_state=0).reset_index(drop=True)
    columns = answers_of(predictor, faces, options.utkface, options.frames)
    female, age = (faces["gender"] == "female").to_numpy(), faces["age"].to_numpy(dtype=float)
    random = np.random.default_rng(0)
    drawn = random.integers(0, len(faces), (2000, len(faces)))
    scores = {way: judged(pool(columns), female, age) for way, pool in WAYS.items()}
    first = scores["mean of all frames"]
    rows = []
    for way, parts in scores.items():
        row: dict[str, str] = {"way": way}
        for name, values in parts.items():
            low, high = np.quantile((values - first[name])[drawn].mean(axis=1), [0.025, 0.975])
            apart = "" if way == "mean of all frames" else f" [{low:+.3f}, {high:+.3f}]"
            row[name] = f"{values.mean():.3f}{apart}"
        rows.append(row)
    show(pd.DataFrame(rows).set_index("way").T.reset_index(names="score"))
    console.print(
        f"n {len(faces)} faces of UTKFace's test part, {options.frames} made frames each, "
        f"{columns['bad'].mean():.0%} of them with a note; brackets: 95% of the difference from the first way, "
        "bootstrap over faces",
        highlight=False,
    )


if __name__ == "__main__":
    main()
