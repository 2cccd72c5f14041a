"""The faces of a run: read, split, cut as the recipe says, and checked before anything is trained."""

import numpy as np
import pandas as pd

from mien.base.console import progress
from mien.base.errors import MienError
from mien.base.ledger import Ledger
from mien.base.messages import note
from mien.base.table import known_labels, write_table
from mien.data import leaks, splits
from mien.data.duplicates import fingerprints, groups, near_duplicates
from mien.data.face_pixels import cache_folder
from mien.data.images import check_there
from mien.data.joined import assign_parts, read_data, without_shared, without_untrained
from mien.data.roots import Root, folders_of
from mien.prediction.recrop import recrop
from mien.recipe.settings import Recipe
from mien.runs.run import Run
from mien.training.heads import column_classes, label_column

_ANY_LABEL = ("gender", "age", "age_from", "age_group")


def prepare_faces(run: Run, recipe: Recipe, root: Root) -> pd.DataFrame:
    """Reads the faces, splits them, checks the split for leaks and missing classes, and writes them to the run.

    Args:
        run: The run; it records the leaks that the recipe allows.
        recipe: Its recipe.
        root: The root of the data.

    Returns:
        The faces table with its split.

    Raises:
        MienError: The data cannot be read or split, parts leak, or the training part lacks a class.
    """
    faces, ledger = read_data(recipe.data)
    faces = _sampled(faces, recipe)
    prints = _fingerprints(faces, root) if recipe.split.near_duplicates else None
    faces = assign_parts(faces, recipe, None if prints is None else _groups_by_set(faces, recipe, prints))
    if recipe.data.sets:
        faces = _without_unlabelled(faces, recipe, ledger)
        faces = without_untrained(faces, recipe.data.sets, ledger)
    alike = None
    if prints is not None:
        alike = _groups(prints.loc[faces.index])
        if recipe.data.sets and not recipe.split.allow_leaks:
            kept = without_shared(faces, alike, ledger)
            faces, alike = kept, alike[faces.index.isin(kept.index)]
    faces = faces.reset_index(drop=True)
    found = [str(leak) for leak in leaks.check_leaks(faces, alike, allow=recipe.split.allow_leaks)]
    column_classes(recipe.tasks, faces[faces["split"] == "train"])
    untrained = [name for name, one in recipe.data.sets.items() if not one.weight]
    for task in recipe.tasks.predicted():
        splits.check_classes(faces[~faces["dataset"].isin(untrained)], label_column(task))
    for leak in found:
        note(f"leak allowed by the recipe: {leak}", warning=True)
    faces = _cropped(faces, recipe, root, ledger)
    check_there(folders_of(root))  # otherwise images would seem to be missing
    counts = {str(name): int(count) for name, count in faces["split"].value_counts().items()}
    # A table of one's own comes without a ledger.
    about = None if recipe.data.faces is not None and not ledger.entries else ledger.to_dict()
    run.note(leaks=found, ledger=about, faces=counts)
    note(f"faces: {', '.join(f'{name} {count}' for name, count in counts.items())}")
    write_table(faces, run.faces_file)
    return faces


def _sampled(faces: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """Returns the faces that are split: those with a label that can be used, or a sample of them.

    Of one data set, these are the faces with a label of a task. Of several, those with any label, so that the parts of
    each do not depend on the tasks: runs with other tasks are then tested on the same faces.
    """
    columns = _columns(recipe)
    for column in columns:
        if not known_labels(faces, column).any():
            raise MienError(f"task {column!r}: no face of the data set has this label")
    known = faces[list(_ANY_LABEL)].notna().any(axis=1) if recipe.data.sets else _labelled(faces, recipe)
    if not known.all():
        note(f"{int((~known).sum())} faces without a label of {', '.join(columns)} are left out")
    faces = faces[known]
    if recipe.data.sample is not None:
        if recipe.data.sample > len(faces):
            raise MienError(
                f"data.sample is {recipe.data.sample}; valid: up to {len(faces)}, the number of labelled faces; "
                "--set data.sample=null takes all of them"
            )
        faces = faces.sample(recipe.data.sample, random_state=0).sort_index()
    return faces.reset_index(drop=True)


def _without_unlabelled(faces: pd.DataFrame, recipe: Recipe, ledger: Ledger) -> pd.DataFrame:
    """Returns the faces of several data sets with a label of a task."""
    columns = _columns(recipe)
    known = _labelled(faces, recipe)
    for name in recipe.data.sets:
        mine = faces["dataset"] == name
        if not known[mine].any():
            raise MienError(f"data.sets.{name}: no face has a label of {' or '.join(columns)}")
        faces = ledger.drop(faces, mine & ~known, f"{name}: no label of {' or '.join(columns)}")
        known = known.loc[faces.index]
    return faces


def _labelled(faces: pd.DataFrame, recipe: Recipe) -> "pd.Series[bool]":
    """Which faces have a label of a task."""
    return pd.concat([known_labels(faces, column) for column in _columns(recipe)], axis=1).any(axis=1)


def _columns(recipe: Recipe) -> list[str]:
    return [label_column(task) for task in recipe.tasks.predicted()]


def _fingerprints(faces: pd.DataFrame, root: Root) -> pd.DataFrame:
    """The fingerprints of the images, with the index of the faces."""
    with progress("searching near-duplicates") as update:
        return fingerprints([root / path for path in faces["path"]], progress=update, cache=cache_folder())


def _groups(prints: pd.DataFrame) -> np.ndarray:
    return groups(near_duplicates(prints), len(prints))


def _groups_by_set(faces: pd.DataFrame, recipe: Recipe, prints: pd.DataFrame) -> dict[str, np.ndarray]:
    """The near-duplicate groups within each data set, so that its split does not depend on the others."""
    if not recipe.data.sets:
        return {recipe.data.source: _groups(prints)}
    return {name: _groups(prints[faces["dataset"] == name]) for name in recipe.data.sets}


def _cropped(faces: pd.DataFrame, recipe: Recipe, root: Root, ledger: Ledger) -> pd.DataFrame:
    """Returns the faces with the boxes and angles of the detector, in the data sets that ask for them."""
    asking = [name for name, one in recipe.data.each().items() if one.crop == "detector"]
    mine = faces["dataset"].isin(asking) if recipe.data.sets else pd.Series(bool(asking), index=faces.index)
    if not mine.any():
        return faces
    with progress("detecting faces") as update:
        found = recrop(faces[mine], [root / path for path in faces.loc[mine, "path"]], ledger, update)
    out = faces.assign(roll=0.0)
    out.loc[mine, ["x", "y", "w", "h", "roll"]] = found[["x", "y", "w", "h", "roll"]]
    return out
