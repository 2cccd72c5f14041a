"""Measures how time and memory grow with the number of rows, station by station, and draws it.

    python benchmarks/scaling.py measure [--stations read split ...] [--sizes 1000 10000 100000 1000000]
    python benchmarks/scaling.py draw

Each measurement is a process of its own, so that the largest memory is that of one station at one size: what it holds,
sampled twenty times a second; pages of files that it maps (the cache of decoded images) are the system's to drop and do
not count. Faces, labels and predictions are made up; images are a thousand drawn ones, repeated. `measure` adds to
`benchmarks/scaling.csv` and replaces what is there for the same station and size; `draw` makes
`docs/images/scaling.svg` and prints the slopes: the exponent b of seconds = a n^b between the last two sizes that took
a tenth of a second or more, which is 1 for linear work and about 1.08 for n log n from 100,000 to 1,000,000.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd

from mien.data import leaks

HERE = Path(__file__).parent
RECORD = HERE / "scaling.csv"
PICTURE = HERE.parent / "docs" / "images" / "scaling.svg"
SIZES = (1_000, 10_000, 100_000, 1_000_000)
IMAGES = 1_000
LIMITS = {"train": 100_000, "predict": 100_000, "cache": 100_000}
"""Stations whose cost per image is some milliseconds stop earlier: more of the same images would tell nothing new."""


def made_faces(n: int, repeated: bool = False, seed: int = 0) -> pd.DataFrame:
    """A checked faces table of n made-up faces, ten a subject; each of an image of its own, or of those of `images`."""
    from mien.base.labels import GENDERS
    from mien.base.table import check_faces

    rng = np.random.default_rng(seed)
    number = np.arange(n)
    faces = pd.DataFrame(
        {
            "face": [f"f{one:08d}" for one in number],
            "path": [f"{one % IMAGES if repeated else one:04d}.jpg" for one in number],
            "subject": [f"s{one:07d}" for one in rng.integers(0, max(n // 10, 10), n)],
            "gender": rng.choice(GENDERS, n),
            "age": rng.integers(0, 90, n).astype(float),
            "race": rng.choice(["asian", "black", "indian", "white", "other"], n),
        }
    )
    return check_faces(faces)


def made_predictions(faces: pd.DataFrame, seed: int = 1) -> pd.DataFrame:
    """Predictions for them, as a fair model gives them: right nine times in ten, some years off."""
    from mien.base.labels import AGE_GROUPS
    from mien.base.table import age_to_group

    rng = np.random.default_rng(seed)
    n = len(faces)
    right = rng.random(n) < 0.9
    certain = rng.uniform(0.5, 1, n)
    female = np.where((faces["gender"] == "female") == right, certain, 1 - certain)
    age = np.clip(faces["age"] + rng.normal(0, 6, n), 0, 100)
    shares = rng.dirichlet(np.full(len(AGE_GROUPS), 0.3), n)
    answers = {"face": faces["face"], "status": "ok", "p_female": female, "age": age}
    answers |= {"age_low": np.clip(age - 8, 0, None), "age_high": age + 8, "age_group": age_to_group(age)}
    return pd.DataFrame(answers | {f"p_{group}": shares[:, place] for place, group in enumerate(AGE_GROUPS)})


def made_prints(n: int, seed: int = 0) -> pd.DataFrame:
    """Fingerprints of n made-up images, a twentieth of them near-duplicates (up to 6 bits apart) of others."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, n, dtype=np.uint64)
    copies = rng.choice(n, n // 20, replace=False)
    origins = rng.integers(0, n, len(copies))
    bits = np.zeros(len(copies), np.uint64)
    for _ in range(6):
        bits |= np.uint64(1) << rng.integers(0, 64, len(copies)).astype(np.uint64)
    hashes[copies] = hashes[origins] ^ bits
    kinds = [part.tobytes() for part in rng.integers(0, 256, (IMAGES, 32 * 32), dtype=np.uint8)]
    thumbnails = [kinds[one] for one in np.arange(n) % IMAGES]
    return pd.DataFrame({"path": "-", "status": "ok", "hash": hashes, "thumbnail": thumbnails})


def images(folder: Path) -> Path:
    """A folder with a thousand drawn faces of 128 pixels, made once."""
    from PIL import Image

    from mien.demo.dataset import draw_faces

    home = folder / "images"
    if not home.exists():
        part = folder / "images.part"
        part.mkdir(parents=True, exist_ok=True)
        draw_faces(folder / "drawn")
        drawn = sorted((folder / "drawn").rglob("*.jpg"))
        for number in range(IMAGES):
            Image.open(drawn[number % len(drawn)]).resize((128, 128)).save(part / f"{number:04d}.jpg")
        part.rename(home)
    return home


def read(n: int, folder: Path) -> Callable[[], object]:
    """A CSV to a checked faces table."""
    from mien.data.sources import read_faces

    path = images(folder) / f"faces-{n}.csv"
    made_faces(n, repeated=True)[["face", "path", "subject", "gender", "age", "race"]].to_csv(path, index=False)
    return lambda: read_faces("csv", path)


def table(n: int, folder: Path) -> Callable[[], object]:
    """A faces table written as Parquet, and read."""
    from mien.base.table import read_faces_table, write_table

    faces, path = made_faces(n), folder / f"faces-{n}.parquet"

    def work() -> object:
        write_table(faces, path)
        return read_faces_table(path)

    return work


def split(n: int, folder: Path) -> Callable[[], object]:
    """Whole subjects, stratified; then the leak check."""
    from mien.data import splits

    faces = made_faces(n)
    return lambda: leaks.find_leaks(splits.assign(faces, "subjects"))


def duplicates(n: int, folder: Path) -> Callable[[], object]:
    """Near-duplicates among fingerprints, and their groups."""
    from mien.data.duplicates import groups, near_duplicates

    prints = made_prints(n)
    return lambda: groups(near_duplicates(prints), n)


def metrics(n: int, folder: Path) -> Callable[[], object]:
    """Every metric with its interval, overall and by gender, age group and race."""
    from mien.metrics.joining import join
    from mien.metrics.scoring import score

    faces = made_faces(n)
    predictions = made_predictions(faces)
    return lambda: score(join(faces, predictions), train_faces=faces)


def audit(n: int, folder: Path) -> Callable[[], object]:
    """The audit of a model: each group and crossing, gaps, age limits, the report."""
    from mien import audit_model

    faces = made_faces(n)
    predictions = made_predictions(faces)
    return lambda: audit_model(predictions, faces, by=["gender", "age_group", "race"], out=folder / f"audit-{n}")


def report(n: int, folder: Path) -> Callable[[], object]:
    """The exploratory report of a faces table."""
    from mien.reports.eda import explore

    faces = made_faces(n)
    return lambda: explore(faces, None, folder / f"eda-{n}")


def cache(n: int, folder: Path) -> Callable[[], object]:
    """Images decoded into the cache, from where an interruption at half of them left it."""
    from mien.data.face_pixels import FilePixels, PixelCache

    class Stop(Exception):
        pass

    files = FilePixels(made_faces(n, repeated=True), images(folder), 64)
    with tempfile.TemporaryDirectory(dir=folder) as home:
        place = Path(home)

    def stop(done: int, of: int) -> None:
        if done >= of / 2:
            raise Stop

    def work() -> object:
        with suppress(Stop):
            PixelCache(files, place).fill(stop)
        begun: list[int] = []
        PixelCache(files, place).fill(lambda done, of: begun.append(of))
        assert n < 1000 or begun[-1] <= n * 0.6, "the second attempt began anew"
        return begun

    return work


def train(n: int, folder: Path) -> Callable[[], object]:
    """One pass of a small network at 32 pixels, from the cache of decoded images, to the scored run."""
    from mien import train as train_run
    from mien.base.table import write_table

    path = folder / f"train-{n}.parquet"
    write_table(made_faces(n, repeated=True), path)
    sets = [f"data.root={images(folder)}", f"data.faces={path}", "data.source=csv", "split.near_duplicates=false"]
    sets += ["split.method=random", "split.allow_leaks=true"]  # the same images over and over
    sets += ["model.backbone=test_resnet", "model.image_size=32", "init.weights=none", "trainer.epochs=1"]
    sets += ["trainer.workers=0", "optim.warmup=0", "split.val=0.02", "split.test=0.02"]
    return lambda: train_run({"tasks": ["gender"]}, sets, folder / f"run-{n}-{os.getpid()}")


def predict(n: int, folder: Path) -> Callable[[], object]:
    """Crops from files to a CSV, one after the other in constant memory."""
    from mien.prediction.predict import Predictor

    home, predictor, out = images(folder), Predictor(), folder / f"predictions-{n}.csv"

    def work() -> object:
        from mien.prediction.outputs import RowsFile

        sources = (home / f"{one % IMAGES:04d}.jpg" for one in range(n))
        count = 0
        with RowsFile(out, predictor.columns) as write:
            for row in predictor.stream(sources, crops=True):
                write(row)
                count += 1
        assert count == n
        return count

    return work


STATIONS: dict[str, Callable[[int, Path], Callable[[], object]]] = {
    station.__name__: station
    for station in (read, table, split, duplicates, metrics, audit, report, cache, train, predict)
}
"""Each prepares its input and returns the work that is measured."""


@contextmanager
def _quiet() -> Iterator[None]:
    with Path(os.devnull).open("w") as nothing:
        kept, sys.stdout = sys.stdout, nothing
        try:
            yield
        finally:
            sys.stdout = kept


def _held() -> float:
    """Megabytes that this process holds, without pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


@contextmanager
def _largest_memory() -> Iterator[list[float]]:
    """The largest of `_held` inside, as the only entry of a list."""
    largest, stop = [_held()], threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            largest[0] = max(largest[0], _held())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield largest
    finally:
        stop.set()
        watcher.join()


def one(name: str, n: int, folder: Path) -> dict[str, object]:
    """Runs one station once, in this process."""
    with _quiet():
        work = STATIONS[name](n, folder)
        before = _held()
        with _largest_memory() as largest:
            begin = time.perf_counter()
            work()
            seconds = time.perf_counter() - begin
    return {"station": name, "n": n, "seconds": round(seconds, 3), "mb": round(largest[0]), "mb_input": round(before)}


def measure(names: list[str], sizes: list[int], folder: Path, record: Path) -> None:
    """Runs each station at each size in a process of its own, and records what it took."""
    for name in names:
        for n in sizes:
            if n > LIMITS.get(name, n):
                continue
            command = [sys.executable, __file__, "one", "--stations", name, "--sizes", str(n), "--folder", str(folder)]
            answer = subprocess.run(command, capture_output=True, text=True)
            if answer.returncode:
                raise SystemExit(f"{name} at {n}: {answer.stderr}")
            line = json.loads(answer.stdout.splitlines()[-1])
            print(line, flush=True)
            rows = pd.read_csv(record) if record.exists() else pd.DataFrame()
            if len(rows):
                rows = rows[~((rows["station"] == name) & (rows["n"] == n))]
            rows = pd.concat([rows, pd.DataFrame([line])], ignore_index=True)
            rows["order"] = rows["station"].map(list(STATIONS).index)
            rows.sort_values(["order", "n"]).drop(columns="order").to_csv(record, index=False)


def slopes(rows: pd.DataFrame) -> pd.DataFrame:
    """For each station, the exponent of time between its last two sizes that took 0.1 seconds or more, and memory."""
    lines = []
    for name, part in rows.groupby("station", sort=False):
        long = part[part["seconds"] >= 0.1]
        exponent = np.nan
        if len(long) >= 2:
            (n0, t0), (n1, t1) = long[["n", "seconds"]].to_numpy()[-2:]
            exponent = np.log(t1 / t0) / np.log(n1 / n0)
        last = part.iloc[-1]
        lines.append((name, last["n"], last["seconds"], exponent, last["mb"], part["mb"].iloc[0]))
    columns = ["station", "n", "seconds", "exponent", "MB", "MB at the smallest"]
    return pd.DataFrame(lines, columns=columns)


def draw(record: Path, picture: Path) -> None:
    """Draws seconds and memory over n, and prints the slopes."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    rows = pd.read_csv(record)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for place, (name, part) in enumerate(rows.groupby("station", sort=False)):
        style = {"marker": "osD^v<>Pp*"[place], "markersize": 4, "linewidth": 1, "label": name}
        left.loglog(part["n"], part["seconds"], **style)
        right.loglog(part["n"], part["mb"], **style)
    n = np.array([1e3, 1e6])
    left.loglog(n, 2e-6 * n * np.log(n), color="black", linestyle=":", linewidth=1, label="n log n")
    left.set(xlabel="rows", ylabel="seconds")
    right.set(xlabel="rows", ylabel="largest memory, MB")
    left.legend(fontsize=7)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, metadata={"Date": None})
    print(slopes(rows).to_string(index=False, float_format="%.2f"))


def main(arguments: list[str] | None = None) -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "draw", "one"])
    parser.add_argument("--stations", nargs="+", choices=list(STATIONS), default=list(STATIONS))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "mien-scaling")
    parser.add_argument("--record", type=Path, default=RECORD)
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("MIEN_CACHE", str(options.folder / "cache"))
    if options.what == "measure":
        measure(options.stations, options.sizes, options.folder, options.record)
    elif options.what == "one":
        print(json.dumps(one(options.stations[0], options.sizes[0], options.folder)))
    else:
        draw(options.record, PICTURE)


if __name__ == "__main__":
    main()
