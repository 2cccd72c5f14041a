"""Evaluation: a run's predictions, scored with intervals on its own test part or on other data."""

from pathlib import Path

import numpy as np
import pandas as pd

from mien import metrics
from mien.base.console import progress
from mien.base.errors import MienError
from mien.base.messages import note
from mien.base.table import write_table
from mien.data import leaks
from mien.data.duplicates import group_files
from mien.data.face_pixels import Pixels, PixelSubset
from mien.data.images import check_there
from mien.data.roots import Root, Roots, folders_of, open_root, recipe_root
from mien.prediction.predict import Predictor
from mien.runs.run import Run

EVALUATED_SPLITS = ("test", "val", "train")
"""The parts that are predicted: test for the scores, val for calibration, and a sample of train, without augmentation,
to detect overfitting."""

TRAINING_SAMPLE = 2000
"""Maximum number of training faces that are predicted."""


def evaluate(run: Run, pixels: Pixels | None = None) -> pd.DataFrame:
    """Scores a run on its validation and test part and a sample of its training part, and writes the metrics.

    Existing predictions are scored again; images are read only if there are no predictions yet.

    Args:
        run: A run with weights.
        pixels: The pixels of the run's faces; None reads the images.

    Returns:
        The metrics table.
    """
    faces = run.faces
    if not run.predictions_file.exists():
        write_table(_predict(run, faces, pixels), run.predictions_file)
    predictions = run.predictions
    parts = []
    for split in EVALUATED_SPLITS:
        part = faces[faces["split"] == split]
        theirs = predictions[predictions["face"].isin(part["face"])]
        if split == "train":
            part = part[part["face"].isin(theirs["face"])]
        scores = metrics.score(metrics.join(part, theirs), train_faces=faces[faces["split"] == "train"])
        parts.append(scores.assign(run=run.name, split=split))
    table = pd.concat(parts, ignore_index=True)
    write_table(table, run.metrics_file)
    return table


def evaluate_on(
    run: Run, faces: pd.DataFrame, root: str | Path | Roots, name: str, allow_leaks: bool = False
) -> pd.DataFrame:
    """Scores a run on other data; the tables go to the folder `on-<name>` in the run.

    For a published model, which must not change, they go to `<its name>-on-<name>` in the current folder.

    Args:
        run: A finished run.
        faces: A checked faces table.
        root: What its paths are relative to, see `mien.data.roots.open_root`.
        name: Name of the data, used for the folder.
        allow_leaks: Continue even if some of the faces, or their near-duplicates, were trained on.

    Raises:
        LeakError: There are leaks, and they are not allowed.
        MienError: The training images for the leak check are missing, for example for a published model.
    """
    home = open_root(root)
    leaks = _leaks(run, faces, home, allow_leaks)
    for leak in leaks:
        note(f"leak allowed by the caller: {leak}", warning=True)
    with progress("predicting") as update:
        predictions = Predictor(run.model_file).predict_faces(faces, home, update)
    training = None if run.published else run.faces[run.faces["split"] == "train"]
    table = metrics.score(metrics.join(faces, predictions), train_faces=training)
    table = table.assign(run=run.name, split=name, leaks="; ".join(leaks))
    folder = Path(f"{run.name}-on-{name}") if run.published else run.folder / f"on-{name}"
    write_table(faces, folder / "faces.parquet")
    write_table(predictions, folder / "predictions.parquet")
    write_table(table, folder / "metrics.csv")
    note(f"tables: {folder}")
    return table


def _predict(run: Run, faces: pd.DataFrame, pixels: Pixels | None) -> pd.DataFrame:
    rows = np.flatnonzero(faces["split"].isin(EVALUATED_SPLITS) & ~_left_out(faces))
    evaluated = faces.iloc[rows].reset_index(drop=True)
    root = recipe_root(run.recipe.data)
    with progress("predicting") as update:
        found = Predictor(run.model_file).predict_faces(
            evaluated, root, update, None if pixels is None else PixelSubset(pixels, rows)
        )
    if (found["status"] == "missing").any():
        check_there(folders_of(root))
    return found


def _leaks(run: Run, faces: pd.DataFrame, root: Root, allow: bool) -> list[str]:
    """The allowed leaks from the training part into other data, in words."""
    if run.published:
        if allow:
            return [f"not checked: the published model {run.name!r} does not hold its training faces"]
        raise MienError(
            f"the leak check needs the images that {run.name!r} was trained on, and a published model does not hold "
            f"them; if you know that none of these {len(faces)} faces was among them, use "
            "--allow-leaks to skip the check"
        )
    found = leaks.leaks_between(*_compared(run, faces, root))
    if found and not allow:
        raise leaks.LeakError(found)
    return [str(leak) for leak in found]


def _left_out(faces: pd.DataFrame) -> np.ndarray:
    """Marks the training faces (n,) outside the sample, which depends only on their number."""
    training = np.flatnonzero(faces["split"] == "train")
    left_out = np.zeros(len(faces), dtype=bool)
    left_out[np.random.default_rng(0).permutation(training)[TRAINING_SAMPLE:]] = True
    return left_out


def _compared(run: Run, faces: pd.DataFrame, root: Root) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Returns the training faces, the other faces, and the near-duplicate groups of both."""
    training = run.faces[run.faces["split"] == "train"].reset_index(drop=True)
    home = recipe_root(run.recipe.data)
    if not (home / training["path"].iloc[0]).exists():
        raise MienError(
            f"the leak check needs the images that {run.name!r} was trained on, and {training['path'].iloc[0]!r} "
            f"is not in {str(home)!r}"
        )
    paths = [home / path for path in training["path"]] + [root / path for path in faces["path"]]
    with progress("searching near-duplicates") as update:
        return training, faces, group_files(paths, update)
