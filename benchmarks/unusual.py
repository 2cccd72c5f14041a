"""Measures the quality note `unusual`: how often it is given, and what share of the errors has it, by data set.

    MIEN_SHARED_DATA=DATA python benchmarks/unusual.py [--model FILE] [--run RUN] [--limit N] [--skip N]
        [--out benchmarks/unusual.md]

DATA holds `aaf`, `lfw` and `celeba`, which the model must not have seen, and `utkface`, whose faces are measured if RUN
was trained on it: those of its test part. The faces are in a random order (seed 0); `--skip` leaves out the first ones,
which a threshold was chosen on.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd

from mien import Predictor, metrics
from mien.base.atomic import atomic_path
from mien.base.console import progress
from mien.data.sources import read_faces
from mien.metrics.intervals import wilson
from mien.prediction.quality import SECOND_PEAK, unusual
from mien.runs.run import open_run
from model_card import markdown

FAR = 15.0
"""Years of a large error."""

SETS = ("aaf", "lfw", "celeba")


def main() -> None:
    """Writes the table as Markdown, and prints where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="default: the model that ships")
    parser.add_argument("--run", help="a finished run on UTKFace; its test part is measured too")
    parser.add_argument("--limit", type=int, help="faces of each data set; default: all")
    parser.add_argument("--skip", type=int, default=0, help="faces to leave out of each data set, or all that it has")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/unusual.md"))
    options = parser.parse_args()
    if "MIEN_SHARED_DATA" not in os.environ:
        raise SystemExit(f"MIEN_SHARED_DATA is not set; it names the folder that holds {', '.join(SETS)}")
    data = Path(os.environ["MIEN_SHARED_DATA"])
    predictor = Predictor(options.model)
    tables = {name: read_faces(name, data / name) for name in SETS}
    if options.run:
        faces = open_run(options.run).faces
        tables["utkface"] = faces[faces["split"] == "test"]
    lines = []
    for name, faces in tables.items():
        chosen = faces.sample(frac=1, random_state=0)[options.skip :][: options.limit].reset_index(drop=True)
        if chosen.empty:
            continue
        with progress(name) as update:
            predictions = predictor.predict_faces(chosen, data / name, update)
        lines.append({"data set": name} | _line(metrics.join(chosen, predictions)))
    text = (
        f"# The note `unusual`, measured\n\nModel {predictor.name}. An answer is unusual if its second peak over the "
        f"age groups has at least {SECOND_PEAK:.0%} and half of it or less lies between the peaks. 95% intervals "
        "(Wilson). CelebA's images are given as they are, without a box: its faces are smaller in the picture than "
        f"those that the model knows. A large error of age is one of more than {FAR:g} years.\n\n"
        f"{markdown(pd.DataFrame(lines))}\n"
    )
    with atomic_path(options.out) as file:
        file.write_text(text, "utf-8")
    print(options.out)


def _line(joined: pd.DataFrame) -> dict[str, str]:
    """What the note is worth on one data set."""
    rows = joined[joined["status"] == "ok"].reset_index(drop=True)
    odd = unusual({column: rows[column].to_numpy() for column in rows.columns if column.startswith("p_")})
    line = {"faces": f"{len(rows):,}", "unusual, %": _share(odd)}
    for name, known, wrong in (
        ("gender errors", rows["true_gender"], rows["true_gender"].astype(object) != rows["gender"].astype(object)),
        ("large errors of age", rows["true_age"], (rows["true_age"] - rows["age"]).abs() > FAR),
    ):
        there = known.notna().to_numpy()
        bad = wrong.to_numpy(dtype=bool) & there
        line[f"{name}, %"] = _share(bad[there])
        line[f"{name} among the unusual, %"] = _share(bad[there & odd])
        line[f"{name} that are unusual, %"] = _share(odd[bad])
    return line


def _share(hits: np.ndarray) -> str:
    if not len(hits):
        return "–"
    low, high = wilson(hits.mean(), len(hits))
    return f"{100 * hits.mean():.1f} [{100 * float(low):.1f}, {100 * float(high):.1f}]"


if __name__ == "__main__":
    main()
