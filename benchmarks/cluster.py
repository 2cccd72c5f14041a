"""What a million images cost: processor seconds of each step of a prediction, one thread, crops and photographs apart.

    python benchmarks/cluster.py                 # the tables of docs/scale.md
    python benchmarks/cluster.py --ray 4000      # and what Ray adds to it, by two runs of --engine ray

Processor time, not time on a clock, is measured: a step's own work, also on a machine that does other things. Crops are
drawn faces of 200x200 pixels; the photograph is skimage's astronaut on 1280x960 pixels. What workers wait for (network,
disks) is not in it, and is computed from the bytes of an image.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from mien.data import images
from mien.demo.dataset import draw_faces
from mien.prediction.detect import make_detector
from mien.prediction.outputs import RowsFile
from mien.prediction.predict import Predictor
from mien.prediction.quality import notes

LINE = 1.25e9
"""Bytes a second of a network of 10 gigabit/s."""


def seconds(work: Callable[[int], object], count: int) -> float:
    """Processor seconds of one call; the first ones are not counted."""
    for number in range(min(10, count)):
        work(number)
    begin = time.process_time()
    for number in range(count):
        work(number)
    return (time.process_time() - begin) / count


def crop_files(folder: Path) -> list[Path]:
    draw_faces(folder / "drawn")
    files = []
    for number, file in enumerate(sorted((folder / "drawn").rglob("*.jpg"))[:200]):
        files.append(folder / f"{number}.jpg")
        Image.open(file).resize((200, 200)).save(files[-1], quality=90)
    return files


def photograph_file(folder: Path) -> Path:
    scene = Image.new("RGB", (1280, 960), "slategrey")
    scene.paste(Image.fromarray(data.astronaut()), (300, 200))
    scene.save(folder / "photograph.jpg", quality=90)
    return folder / "photograph.jpg"


def steps(predictor: Predictor, folder: Path, count: int) -> dict[str, dict[str, float]]:
    """Kind of image -> step -> processor seconds of one image."""
    size, files, scene = predictor.size, crop_files(folder), photograph_file(folder)
    faces = np.stack([images.load_face(file, size) for file in files[:64]])
    row = next(predictor.stream([str(files[0])], crops=True))
    detector, pixels = make_detector(), images.load(scene)

    def write(_: int) -> None:
        with RowsFile(folder / "rows.parquet", predictor.columns) as add:
            for _ in range(1024):
                add(row)

    common = {
        "network, batches of 64": seconds(lambda _: predictor.predict_pixels(faces), max(4, count // 64)) / 64,
        "quality notes": seconds(lambda n: notes(faces[n % 64], None, 200, 200, False), count),
        "writing Parquet": seconds(write, 8) / 1024,
    }
    few = max(4, count // 50)
    return {
        "crop": {"reading and decoding": seconds(lambda n: images.load_face(files[n % 200], size), count)} | common,
        "photograph": {
            "reading and decoding": seconds(lambda _: images.load(scene), few),
            "detection": seconds(lambda _: detector(pixels), few),
        }
        | common,
    }


class Processors(threading.Thread):
    """The processor seconds of all processes that have a mark in their environment, also of those that have ended."""

    def __init__(self, mark: str) -> None:
        super().__init__(daemon=True)
        self._mark = mark.encode()
        self._seen: dict[str, float] = {}
        self.start()

    def run(self) -> None:
        """Looks five times a second."""
        while True:
            self.seconds()
            time.sleep(0.2)

    def seconds(self) -> float:
        """What they took so far."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self._mark in (folder / "environ").read_bytes().split(b"\0"):
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                    used = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
                    self._seen[folder.name] = max(used, self._seen.get(folder.name, 0))
            except OSError:
                continue
        return sum(self._seen.values())


def with_ray(folder: Path, count: int) -> float:
    """Processor seconds of one more crop in `--engine ray`: of a long run, less those of a short one."""
    import ray

    from mien.prediction.ray_cluster import predict_cluster

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "MIEN_BENCHMARK": str(os.getpid())}
    ray.init(include_dashboard=False, object_store_memory=100_000_000, logging_level="error", log_to_driver=False)
    processors, taken = Processors(f"MIEN_BENCHMARK={os.getpid()}"), []
    files = crop_files(folder)
    for many in (100, count):
        home = folder / f"ray-{many}"
        home.mkdir()
        for number in range(many):
            (home / f"{number}.jpg").hardlink_to(files[number % 200])
        before = processors.seconds()
        predict_cluster([str(home)], str(folder / f"answers-{many}"), crops=True)
        taken.append(processors.seconds() - before)
    ray.shutdown()
    return (taken[1] - taken[0]) / (count - 100)


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--ray", type=int, help="crops of the longer run")
    options = parser.parse_args()
    count = options.images
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        if options.ray:
            print(f"--engine ray: {with_ray(folder, options.ray) * 1e3:.2f} processor ms a crop", flush=True)
            return
        found = steps(Predictor(threads=1), folder, count)
        sizes = {"crop": np.mean([file.stat().st_size for file in folder.glob("[0-9]*.jpg")])}
        sizes["photograph"] = (folder / "photograph.jpg").stat().st_size
    for kind, parts in found.items():
        total = sum(parts.values())
        print(f"\n| {kind} | processor ms an image | share |\n|---|---|---|")
        for name, value in parts.items():
            print(f"| {name} | {value * 1e3:.3f} | {value / total:.0%} |")
        print(f"| together | {total * 1e3:.2f} | {1 / total:.0f} images/s a core |")
        size = float(sizes[kind])
        print(f"a million: {total * 1e6 / 3600:.1f} core hours; {size / 1e3:.0f} kB an image:", end=" ")
        print(f"{size * 1e6 / LINE:.0f} s of 10 gigabit/s, which {LINE / size * total:.0f} cores would fill")


if __name__ == "__main__":
    main()
