"""Plants label errors in UTKFace, lets `mien audit data` look for them, and asks what corrected labels bring.

    python benchmarks/label_errors.py plant --root UTKFACE --out FOLDER
    python benchmarks/label_errors.py train --root UTKFACE --out FOLDER
    mien audit data FOLDER/corrupted.parquet --root UTKFACE --out FOLDER/audit \\
        --run FOLDER/runs/corrupted-0 --run FOLDER/runs/corrupted-1
    python benchmarks/label_errors.py curve --root UTKFACE --out FOLDER
    python benchmarks/label_errors.py train --labels clean --folds 0 --root UTKFACE --out FOLDER      # and corrected
    python benchmarks/label_errors.py compare --root UTKFACE --out FOLDER

- `plant` flips the gender of 200 faces of 13 years and more, moves the ages of 200 other faces by 25 years, and deals
  all faces into folds that keep near-duplicates together: `planted.csv`, `corrupted.parquet`.
- `train` trains a run for each fold on the corrupted labels (`label_errors.yaml`); the same command goes on. `--labels`
  takes the clean ones, or the corrected ones: a person who restores what was planted among the first 1,000 suggestions.
- `curve` says how many of the planted errors are among the first suggestions, and draws docs/images/label_errors.svg.
- `compare` compares runs on other labels with those on corrupted ones, on the same test faces with clean labels.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from mien.base.table import read_faces_table, write_table
from mien.data import splits
from mien.data.duplicates import group_files
from mien.data.sources import read_faces

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
    from mien.runs.run import Run
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


LOOKED_AT = (100, 200, 300, 400, 500, 750, 1000, 1500, 2000)


def curve(out: Path) -> None:
    import matplotlib

    from mien.reports import figures

    planted = pd.read_csv(out / "planted.csv")
    suggestions = pd.read_csv(out / "audit" / "suggestions.csv")
    lines = {}
    for column in ("gender", "age"):
        wanted = set(planted.loc[planted["column"] == column, "face"])
        ranked = suggestions[suggestions["column"] == column].sort_values("rank")
        found = ranked["face"].isin(wanted).cumsum().to_numpy()
        looked = [number for number in LOOKED_AT if number <= len(ranked)]
        shares = [100 * found[number - 1] / len(wanted) for number in looked]
        flagged = int(ranked["flagged"].sum())
        hit = int(ranked.loc[ranked["flagged"], "face"].isin(wanted).sum())
        print(f"{column}: {len(ranked)} suggestions; flagged {flagged}, of them planted {hit} of {len(wanted)}")
        print("  " + ", ".join(f"{number}: {share:.1f}%" for number, share in zip(looked, shares, strict=True)))
        lines[f"{column}, {len(wanted)} planted"] = pd.Series([0.0, *shares], index=[0, *looked])
    figure = figures.curves(lines, "planted errors found, %", "suggestions looked at, likeliest first")
    picture = Path(__file__).parents[1] / "docs" / "images" / "label_errors.svg"
    with matplotlib.rc_context({"svg.hashsalt": "mien", "svg.fonttype": "none", "font.size": 9}):
        figure.savefig(picture, metadata={"Date": None}, facecolor=figures.PAPER)


def correct(out: Path) -> None:
    """Writes the labels after a person restored what was planted among the first 1,000 suggestions of each column."""
    planted = pd.read_csv(out / "planted.csv").set_index("face")
    suggestions = pd.read_csv(out / "audit" / "suggestions.csv")
    seen = set(suggestions.loc[suggestions["rank"] <= 1000, "face"]) & set(planted.index)
    clean, corrupted = (read_faces_table(out / f"{name}.parquet") for name in ("clean", "corrupted"))
    write_table(corrupted.where(~corrupted["face"].isin(seen), clean), out / "corrected.parquet")
    print(f"{len(seen)} of {len(planted)} planted errors restored")


def compare(out: Path) -> None:
    from mien import metrics
    from mien.runs.run import Run

    clean = read_faces_table(out / "clean.parquet")
    for labels in ("clean", "corrected"):
        sides: dict[str, list[pd.DataFrame]] = {"corrupted": [], labels: []}
        for number in range(FOLDS):
            runs = {name: Run(out / "runs" / f"{name}-{number}") for name in sides}
            if all(run.finished for run in runs.values()):
                for name, run in runs.items():
                    predictions = run.predictions
                    test = clean[clean["fold"] == number]
                    theirs = predictions[predictions["face"].isin(test["face"])]
                    sides[name].append(metrics.join(test, theirs))
        if not sides[labels]:
            continue
        after, before = (pd.concat(sides[name], ignore_index=True) for name in (labels, "corrupted"))
        for metric in ("gender_accuracy", "age_mae"):
            found = metrics.paired_difference(after, before, metric)
            print(
                f"{labels} - corrupted, {metric}: {found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}], n {found.n}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["plant", "train", "curve", "compare"])
    parser.add_argument("--root", type=Path, required=True, help="folder of the images of UTKFace")
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and runs")
    parser.add_argument("--labels", choices=["corrupted", "corrected", "clean"], default="corrupted")
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    given = parser.parse_args()
    if given.step == "plant":
        plant(given.root, given.out)
    elif given.step == "curve":
        curve(given.out)
    elif given.step == "compare":
        compare(given.out)
    else:
        if given.labels == "corrected":
            correct(given.out)
        run_folds(given.labels, given.folds, given.root, given.out)


if __name__ == "__main__":
    main()
