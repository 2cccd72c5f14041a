"""Plants label errors in UTKFace, lets `mien audit data` look for them, and asks what corrected labels bring.

    python benchmarks/label_errors.py plant --root UTKFACE --out FOLDER
    python benchmarks/label_errors.py train --root UTKFACE --out FOLDER

- `plant` flips the gender of 200 faces of 13 years and more, moves the ages of 200 other faces by 25 years, and deals
  all faces into folds that keep near-duplicates together: `planted.csv`, `corrupted.parquet`.
- `train` trains a run for each fold on the corrupted labels (`label_errors.yaml`); the same command goes on.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from mien import splits
from mien.datasets import read_faces
from mien.duplicates import group_files
from mien.table import read_faces_table, write_table

PLANTED = 200
"""Errors of each kind."""

YOUNGEST = 13
"""Genders of younger faces are not flipped: there people cannot tell either."""

YEARS = 25
"""How far an age is moved."""

FOLDS = 2

RECIPE = Path(__file__).with_suffix(".yaml")


def plant(root: Path, out: Path, seed: int = 0) -> None:
    faces = read_faces("utkface", root)
    faces["fold"] = fold_of(faces, root)
    write_table(faces, out / "clean.parquet")
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(np.flatnonzero(faces["age"] >= YOUNGEST))[:PLANTED]
    moved = rng.permutation(np.setdiff1d(np.arange(len(faces)), chosen))[:PLANTED]
    corrupted = faces.assign(gender=faces["gender"].astype("object"), age_group=None)
    corrupted.loc[chosen, "gender"] = corrupted.loc[chosen, "gender"].map({"female": "male", "male": "female"})
    years = faces.loc[moved, "age"].to_numpy()
    up = np.where(years < YEARS, True, np.where(years + YEARS > 100, False, rng.random(PLANTED) < 0.5))
    corrupted.loc[moved, "age"] = years + np.where(up, YEARS, -YEARS)
    planted = [
        pd.DataFrame(
            {
                "face": faces["face"].iloc[rows].to_numpy(),
                "column": column,
                "true": faces[column].iloc[rows].astype("object").to_numpy(),
                "planted": corrupted[column].iloc[rows].to_numpy(),
            }
        )
        for column, rows in (("gender", chosen), ("age", moved))
    ]
    write_table(pd.concat(planted), out / "planted.csv")
    write_table(corrupted, out / "corrupted.parquet")
    print(
        f"{len(faces)} faces, folds {np.bincount(faces['fold']).tolist()}, planted: {PLANTED} genders, {PLANTED} ages"
    )


def fold_of(faces: pd.DataFrame, root: Path) -> np.ndarray:
    alike = group_files([root / path for path in faces["path"]])
    fold = np.full(len(faces), -1)
    for number in range(FOLDS):
        parts = splits.assign(faces, "subject_folds", test_fold=number, folds=FOLDS, groups=alike)
        fold[(parts["split"] == "test").to_numpy()] = number
    return fold


def run_folds(labels: str, folds: list[int], root: Path, out: Path) -> None:
    """Trains a run for each of the folds on a table of labels; the parts depend on the clean table alone."""
    from mien.run import Run
    from mien.training.fit import train

    clean = read_faces_table(out / "clean.parquet")
    alike = group_files([root / path for path in clean["path"]])
    for number in folds:
        folder = out / "runs" / f"{labels}-{number}"
        if Run(folder).finished:
            continue
        parts = splits.assign(clean, "folds", test_fold=number, val=0.05, groups=alike)["split"]
        table = out / f"{labels}-{number}.parquet"
        write_table(read_faces_table(out / f"{labels}.parquet").assign(split=parts), table)
        train(RECIPE, [f"data.root={root}", f"data.faces={table}"], folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["plant", "train"])
    parser.add_argument("--root", type=Path, required=True, help="folder of the images of UTKFace")
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and runs")
    parser.add_argument("--labels", choices=["corrupted", "corrected", "clean"], default="corrupted")
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    given = parser.parse_args()
    if given.step == "plant":
        plant(given.root, given.out)
    else:
        run_folds(given.labels, given.folds, given.root, given.out)


if __name__ == "__main__":
    main()
