"""Kills mien's commands with SIGKILL, gives them again until they end, and compares with what uninterrupted ones give.

    python tests/torture.py --kills 100 --seed 0 [--only train,predict] [--record docs/reliability.md]

Each attempt is a process group of its own, forked from a server that has imported torch and done nothing else, so that
the kills fall into the command's own work and not into its imports. Half of the kills come from outside at a random
moment, half right before a random one of the command's own operations on files in its folder (opening one to write,
renaming, removing, making a folder), as counted by an audit hook: these are the moments at which a file is half written
or has just got its name.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "mien.cli",
        "mien.training.search.tune",
        "mien.training.search.trials",
        "mien.training.search.storage",
        "mien.training.search.tables",
        "mien.training.study_cells",
        "mien.training.publish",
        "mien.reports.run",
        "torture",
    ]
)

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")

TIMING = ("seconds", "images_per_second", "waiting_for_data")
"""Beginnings of the names of columns that no two runs share."""


# ---- one attempt -------------------------------------------------------------------------------------------------


def _attempt(call: Callable[..., object], arguments: tuple, log: Path, folder: Path, counts: Path, last: int) -> None:
    """The life of one process: a group of its own, which kills itself before operation `last` (0: never)."""
    os.setsid()
    _fork_workers()
    for number in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    _count_operations(folder, counts, last)
    call(*arguments)


def _fork_workers() -> None:
    """Lets the cells of a study be forked as this process was, which has nothing of torch's threads either."""
    from mien.experiments import workers

    def end(worker: Any) -> None:
        worker.process.kill()  # a forked one holds both ends of its pipe, and would not see it closed
        worker.pipe.close()
        worker.process.join()

    workers._SPAWN = multiprocessing.get_context("fork")  # type: ignore[assignment]
    workers._Worker.end = end  # type: ignore[method-assign]


def _count_operations(folder: Path, counts: Path, last: int) -> None:
    tally = os.open(counts, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    seen = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event == "open":
            if not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
                return
        elif event not in _CHANGES:
            return
        if str(folder) not in str(arguments[0]):
            return
        seen += 1
        os.write(tally, b".")
        if seen == last:
            os.killpg(0, signal.SIGKILL)

    sys.addaudithook(hook)


def command_line(*arguments: str) -> None:
    """`mien ARGUMENTS`, with its exit status."""
    from mien.cli import main

    main(list(arguments))


def fill_cache(root: str, folder: str, repeats: int, decoded: str) -> None:
    """Makes the decode cache of a folder's images, each many times, and writes a byte for each that is decoded."""
    from mien.data import face_pixels, images

    tally = os.open(decoded, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    real = images.load_face

    def counted(*arguments: Any) -> np.ndarray:
        os.write(tally, b".")
        return real(*arguments)

    images.load_face = counted
    paths = sorted(str(path.relative_to(root)) for path in Path(root).rglob("*.jpg")) * repeats
    faces = pd.DataFrame({"path": paths, "x": np.nan, "y": np.nan, "w": np.nan, "h": np.nan})
    face_pixels.PixelCache(face_pixels.FilePixels(faces, root, 48), Path(folder)).fill()


# ---- what is tormented -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A command, and what of its folder must be as an uninterrupted one leaves it."""

    name: str
    call: Callable[..., object]
    arguments: Callable[[Path], tuple]
    result: Callable[[Path], dict[str, Any]]
    prepare: Callable[[Path], object] = lambda folder: None
    processes: int = 1
    again: tuple[str, ...] = ("is finished; give another", "exists; use --overwrite to replace it")
    """What a command says that was killed after its work was done."""
    left: str = "still running in other processes"
    """What one of several processes says that ends before the last one, which finishes the work."""


@dataclass
class Outcome:
    """What came of a task: kills, ended rounds, how many of them were identical, and what was wrong."""

    task: str
    kills: int = 0
    rounds: int = 0
    identical: int = 0
    losses: list[str] = field(default_factory=list)
    seconds: float = 0.0


def torment(task: Task, home: Path, kills: int, seed: int = 0, tell: Callable[[str], object] = print) -> Outcome:
    """Kills a task so many times, over as many rounds as that takes, and compares the end of each round."""
    rng = random.Random(f"{task.name} {seed}")
    outcome = Outcome(task.name)
    whole, seconds, operations = _reference(task, home / task.name.replace(" ", "-"))
    tell(f"{task.name}: uninterrupted {seconds:.1f} s, {operations} operations on files")
    outcome.seconds = seconds
    while outcome.kills < kills:
        folder = home / task.name.replace(" ", "-") / f"round-{outcome.rounds}"
        _round(task, folder, outcome, kills, rng, seconds, operations)
        outcome.rounds += 1
        problems = _differences(whole, task.result(folder / "out")) + strays(folder / "out")
        outcome.identical += not problems
        outcome.losses += [f"round {outcome.rounds}: {problem}" for problem in problems]
        tell(f"{task.name}: {outcome.kills} kills, {outcome.identical} of {outcome.rounds} rounds identical {problems}")
        if not problems:
            shutil.rmtree(folder)
    return outcome


def _reference(task: Task, home: Path) -> tuple[dict[str, Any], float, int]:
    folder = home / "whole"
    _make(task, folder)
    process = _start(task, folder, 0, 0)
    begin = _begun([process], folder / "counts")
    process.join()
    if process.exitcode not in (0, 2):
        raise RuntimeError(f"{task.name} fails without being killed: {_last_words(folder, 0)}")
    return task.result(folder / "out"), time.monotonic() - begin, (folder / "counts").stat().st_size


def _make(task: Task, folder: Path) -> None:
    (folder / "out").mkdir(parents=True)
    task.prepare(folder / "out")


def _last_words(folder: Path, number: int) -> str:
    return (folder / f"log-{number}").read_text()[-600:]


def _start(task: Task, folder: Path, number: int, last: int) -> BaseProcess:
    log = folder / f"log-{number}"
    arguments = (task.call, task.arguments(folder / "out"), log, folder / "out", folder / "counts", last)
    process = _SERVER.Process(target=_attempt, args=arguments)
    process.start()
    return process


def _begun(processes: list[BaseProcess], counts: Path) -> float:
    """Waits until the imports are over and the commands themselves begin; returns the moment."""
    while not counts.exists() and any(process.is_alive() for process in processes):
        time.sleep(0.005)
    return time.monotonic()


def _round(
    task: Task, folder: Path, outcome: Outcome, kills: int, rng: random.Random, seconds: float, operations: int
) -> None:
    """Attempts until all processes have ended by themselves; the last ones are not killed."""
    _make(task, folder)
    numbers = list(range(task.processes))
    killed_here = 0
    while numbers:
        spare = outcome.kills >= kills or killed_here >= 6
        by_operation = not spare and rng.random() < 0.5
        lasts = [rng.randint(1, -(-operations // 2)) if by_operation else 0 for _ in numbers]
        processes = {number: _start(task, folder, number, last) for number, last in zip(numbers, lasts, strict=True)}
        _begun(list(processes.values()), folder / "counts")
        for process in () if spare or by_operation else processes.values():
            process.join(rng.uniform(0, 0.5 * seconds) / len(processes))
            with contextlib.suppress(ProcessLookupError):  # it has just ended, or has not made its group yet
                os.killpg(process.pid or 0, signal.SIGKILL)
        for number, process in processes.items():
            process.join()
            words = _last_words(folder, number)
            if process.exitcode == -signal.SIGKILL:
                outcome.kills += 1
                killed_here += 1
                continue
            numbers.remove(number)
            was_done = killed_here and any(said in words for said in task.again)
            one_of_several = task.processes > 1 and task.left in words
            if not (process.exitcode in (0, 2) or was_done or one_of_several):
                outcome.losses.append(f"ended with {process.exitcode}: {words}")
        outcome.losses += half_written(folder / "out")


# ---- what is looked at -------------------------------------------------------------------------------------------


def _differences(whole: dict[str, Any], result: dict[str, Any]) -> list[str]:
    absent = [f"{name} is missing" for name in whole.keys() - result.keys()]
    more = [f"{name} is there too" for name in result.keys() - whole.keys()]
    return absent + more + [f"{name} differs" for name in whole.keys() & result.keys() if whole[name] != result[name]]


def strays(folder: Path) -> list[str]:
    """Files that belong to an attempt and not to the result."""
    kinds = (".part", ".ckpt")
    return [
        f"{path.relative_to(folder)} was left"
        for path in folder.rglob("*")
        if (path.name.startswith(".") and path.name != ".lock") or path.suffix in kinds
    ]


def half_written(folder: Path) -> list[str]:
    """Files under a final name that cannot be read as what they are."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".") and path.suffix in _READERS:
            try:
                _READERS[path.suffix](path)
            except Exception as error:  # whatever a reader makes of half a file
                found.append(f"{path.relative_to(folder)} is half written: {type(error).__name__}: {error}"[:300])
    return found


def _read_safetensors(path: Path) -> None:
    from safetensors.numpy import load_file

    load_file(path)


def _read_onnx(path: Path) -> None:
    import onnx

    onnx.checker.check_model(onnx.load(path))


def _read_lines(path: Path) -> None:
    text = path.read_text("utf-8", "surrogateescape")
    assert text.endswith("\n"), "no end of the last line"
    if path.suffix == ".csv":
        pd.read_csv(path)
    if path.suffix == ".jsonl":
        [json.loads(line) for line in text.splitlines()]


def _read_page(path: Path) -> None:
    assert path.read_text("utf-8").rstrip().endswith("</html>"), "no end of the page"


def _read_zip(path: Path) -> None:
    assert zipfile.ZipFile(path).testzip() is None


_READERS: dict[str, Callable[[Path], object]] = {
    ".json": lambda path: json.loads(path.read_text("utf-8")),
    ".yaml": lambda path: yaml.safe_load(path.read_text("utf-8")),
    ".parquet": pd.read_parquet,
    ".csv": _read_lines,
    ".jsonl": _read_lines,
    ".md": _read_lines,
    ".html": _read_page,
    ".safetensors": _read_safetensors,
    ".onnx": _read_onnx,
    ".ckpt": _read_zip,
}


def _table(path: Path) -> str:
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    return table.drop(columns=[name for name in table.columns if name.startswith(TIMING)]).to_csv(index=False)


def run_result(folder: Path) -> dict[str, Any]:
    """Of a run: the weights bit for bit, the tables without timings, and the names of all files."""
    found: dict[str, Any] = {f"weights of {folder.name}": (folder / "model.safetensors").read_bytes()}
    for name in ("faces.parquet", "predictions.parquet", "metrics.csv", "log.csv", "unreadable.csv"):
        if (folder / name).exists():
            found[f"{folder.name}/{name}"] = _table(folder / name)
    names = (path.relative_to(folder) for path in folder.rglob("*") if "tensorboard" not in path.parts)
    found[f"files of {folder.name}"] = sorted(map(str, names))
    return found


def files_result(folder: Path) -> dict[str, Any]:
    """The bytes of all files."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cache_result(folder: Path) -> dict[str, Any]:
    """The bytes of a cache."""
    return {path.name: path.read_bytes() for path in folder.glob("*/*.[ui]*") if path.suffix in (".u8", ".i64")}


def search_result(folder: Path) -> dict[str, Any]:
    """Of a search: its trials and curves, the weights of each trial that trained to the end, and the chosen run."""
    search = folder / "search"
    found = run_result(search / "best")
    for name in ("trials.csv", "curves.csv", "ledger.csv"):
        found[name] = _table(search / name)
    for path in search.glob("trials/*/model.safetensors"):
        found[f"weights of trial {path.parent.name}"] = path.read_bytes()
    return found


def counted_search(folder: Path) -> dict[str, Any]:
    """Of a search by several processes: each trial once and ended, each epoch of a trial once, one chosen run."""
    search = folder / "search"
    trials, curves = pd.read_csv(search / "trials.csv"), pd.read_csv(search / "curves.csv")
    return {
        "trials": trials["trial"].tolist(),
        "ended": trials["state"].isin(["finished", "stopped early"]).all(),
        "epochs twice": int(curves.duplicated(["trial", "epoch"]).sum()),
        "epochs": (trials.set_index("trial")["epochs"] == curves.groupby("trial").size()).all(),
        "best finished": json.loads((search / "best" / "run.json").read_text())["status"],
    }


def study_result(folder: Path) -> dict[str, Any]:
    """Of a study: each cell's run, and the table of all cells."""
    cells = sorted(path for path in (folder / "study" / "cells").iterdir() if path.is_dir())
    found = {name: value for cell in cells for name, value in run_result(cell).items()}
    table = pd.read_parquet(folder / "study" / "runs.parquet")
    found["cells"] = sorted(table["cell"]) if "cell" in table else len(table)
    found["finished"] = int((table["status"] == "finished").sum())
    return found


# ---- the tasks ---------------------------------------------------------------------------------------------------

RECIPE = {
    "data": {"source": "adience", "labels": "masked"},
    "split": {"method": "folds"},
    "model": {"backbone": "test_byobnet", "image_size": 32, "dropout": 0.2},
    "init": {"weights": "none"},
    "tasks": ["gender"],
    "augment": {"rotate": 5},
    "optim": {"lr": 0.003},
    "trainer": {"epochs": 3, "batch_size": 16, "workers": 0, "checkpoint_every": 2},
}
SPACE = {"optim.lr": {"low": 1.0e-4, "high": 1.0e-2, "log": True}, "model.dropout": {"low": 0.0, "high": 0.5}}
STUDY = {
    "axes": {"dropout": {"none": {"set": ["model.dropout=0"]}, "some": {"set": ["model.dropout=0.3"]}}},
    "compare": ["dropout"],
    "set": ["trainer.epochs=2"],
}


def make_tasks(home: Path, faces: Path) -> dict[str, Task]:
    """The commands, on a folder of drawn faces in Adience's layout."""
    recipe, space, study = home / "recipe.yaml", home / "space.yaml", home / "study.yaml"
    root = f"data.root={faces}"
    recipe.write_text(yaml.safe_dump(RECIPE))
    space.write_text(yaml.safe_dump(SPACE))
    study.write_text(yaml.safe_dump(STUDY | {"base": "recipe.yaml"}))
    crops = _thousand_crops(home, faces)

    def tune(out: Path) -> tuple:
        given = ("--space", str(space), "--trials", "5", "--set", root, "--out", str(out / "search"))
        return ("tune", str(recipe), *given)

    def predict(ending: str) -> Callable[[Path], tuple]:
        return lambda out: ("predict", "--crops", str(crops), "--threads", "1", "--out", str(out / f"table{ending}"))

    def publish(out: Path) -> tuple:
        return ("publish", str(_published_run(home)), str(out / "shared"), "--license", "mit")

    def studied(jobs: int) -> Callable[[Path], tuple]:
        return lambda out: ("study", str(study), "--set", root, "--jobs", str(jobs), "--out", str(out / "study"))

    def fill(out: Path) -> tuple:
        return (str(faces), str(out), 10, str(out.parent / "decoded"))

    def trained(out: Path) -> tuple:
        return ("train", str(recipe), "--set", root, "--out", str(out / "run"))

    tasks = [
        Task("train", command_line, trained, lambda out: run_result(out / "run")),
        Task("study --jobs 1", command_line, studied(1), study_result),
        Task("study --jobs 2", command_line, studied(2), study_result),
        Task("tune", command_line, tune, search_result),
        Task("tune with two processes", command_line, tune, counted_search, processes=2),
        *(
            Task(f"predict to {ending}", command_line, predict(ending), files_result)
            for ending in (".csv", ".parquet", ".jsonl")
        ),
        Task("decode cache", fill_cache, fill, cache_result),
        Task("publish", command_line, publish, files_result, lambda out: need("train")),
        Task("publish over an earlier one", command_line, publish, files_result, lambda out: _earlier(need, out)),
    ]
    named = {task.name: task for task in tasks}

    def need(name: str) -> Path:
        """The folder of an uninterrupted run of another task."""
        if not (home / name / "whole").exists():
            _reference(named[name], home / name)
        return home / name / "whole" / "out"

    return named


def _thousand_crops(home: Path, faces: Path) -> Path:
    """A folder with links to the drawn faces, again and again, and a file among them that is not an image."""
    crops = home / "crops"
    if not crops.exists():
        crops.mkdir()
        images = sorted(faces.rglob("*.jpg"))
        for number in range(1000):
            (crops / f"{number:04d}.jpg").symlink_to(images[number % len(images)])
        (crops / "0500-bad.jpg").write_text("no image")
    return crops


def _published_run(home: Path) -> Path:
    """A finished run: that of the uninterrupted training."""
    return home / "train" / "whole" / "out" / "run"


def _earlier(need: Callable[[str], Path], out: Path) -> None:
    shutil.copytree(need("publish") / "shared", out / "shared")


SHARES = {
    "train": 20,
    "study --jobs 1": 8,
    "study --jobs 2": 8,
    "tune": 14,
    "tune with two processes": 10,
    "predict to .csv": 12,
    "predict to .parquet": 8,
    "predict to .jsonl": 8,
    "decode cache": 10,
    "publish": 8,
    "publish over an earlier one": 8,
}
"""Kills of each of about a hundred."""


def record(outcomes: list[Outcome]) -> str:
    """The table of docs/reliability.md."""
    lines = [
        "| command | uninterrupted | kills | times ended | identical | losses |",
        "|---|---|---|---|---|---|",
        *(
            f"| {found.task} | {found.seconds:.0f} s | {found.kills} | {found.rounds} | {found.identical} | "
            f"{len(found.losses)} |"
            for found in outcomes
        ),
    ]
    total = [
        sum(values) for values in zip(*((o.kills, o.rounds, o.identical, len(o.losses)) for o in outcomes), strict=True)
    ]
    return "\n".join([*lines, f"| all | | {' | '.join(map(str, total))} |"]) + "\n"


@contextlib.contextmanager
def _scratch(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        yield Path(folder)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="over all commands, at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="names of tasks, with commas")
    parser.add_argument("--scratch", type=Path, help="a folder that stays; default: one that does not")
    options = parser.parse_args()
    from mien.demo.dataset import draw_faces

    with _scratch(options.scratch) as home:
        os.environ["MIEN_CACHE"] = str(home / "cache")
        if not (home / "faces").exists():
            draw_faces(home / "faces", subjects=30)
        tasks = make_tasks(home, home / "faces")
        chosen = options.only.split(",") if options.only else list(tasks)
        outcomes = []
        for name in chosen:
            shutil.rmtree(home / name.replace(" ", "-"), ignore_errors=True)
            kills = -(-SHARES[name] * options.kills // 100)
            outcomes.append(torment(tasks[name], home, kills, options.seed, lambda line: print(line, flush=True)))
            for loss in outcomes[-1].losses:
                print(f"LOSS {name}: {loss}", flush=True)
            print(record(outcomes), flush=True)
    sys.exit(any(found.losses for found in outcomes))


if __name__ == "__main__":
    main()
