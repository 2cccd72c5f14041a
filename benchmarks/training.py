"""Compares mien's training loop with bare PyTorch loops of the same network, data and augmentation.

    python benchmarks/training.py [--images 1536] [--repeats 3]

Faces are those of UTKFace where MIEN_SHARED_DATA names a folder with them, else drawn ones. Each loop runs in a
process of its own, in turn, so that ratios hold on a busy machine; images per second leave out the first steps.

- `mien`: `mien train` as a user runs it: checkpoints, logs, progress, weight averaging off.
- `bare`: a loop of twenty lines with the same memory layout and the same allocator setting as mien's.
- `plain`: that loop as most people write it: PyTorch's defaults for both.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES = {
    "small network, JPEG files": {
        "data": {"cache": False},
        "model": {"backbone": "mobilenetv3_small_075", "image_size": 128},
    },
    "resnet50, cached pixels": {"data": {"cache": True}, "model": {"backbone": "resnet50", "image_size": 96}},
}
BATCH = 32
FIRST = 4
"""Steps that are not counted."""


def recipe_of(case: str, root: str, source: str):
    from mien.recipe.load import load_recipe

    base = {
        **CASES[case],
        "init": {"weights": "none"},
        "tasks": ["gender", "age_group"],
        "augment": {"rotate": 10, "zoom": [0.9, 1.1], "brightness": 0.2, "contrast": 0.2},
        "trainer": {"epochs": 1, "batch_size": BATCH, "workers": 1},
    }
    labels = ["data.labels=masked"] if source == "adience" else []
    return load_recipe(base, [f"data.root={root}", f"data.source={source}", *labels])


def prepare(recipe, images: int):
    from mien.data.sources import read_faces
    from mien.data.splits import assign
    from mien.training.fit import open_pixels

    root = Path(recipe.data.root)
    faces = read_faces(recipe.data.source, root, recipe.data.labels).sample(images, random_state=0)
    faces = assign(faces.reset_index(drop=True), "random", val=0.02, test=0.02)
    pixels, _ = open_pixels(recipe, faces, root)
    return faces, pixels


def mien_loop(recipe, faces, pixels) -> float:
    import pytorch_lightning as pl
    import torch
    from pytorch_lightning.callbacks import ModelCheckpoint

    from mien.runs.run import Run
    from mien.training.data import FaceData
    from mien.training.fit import _trainer
    from mien.training.memory import keep_freed_memory
    from mien.training.model import FaceNet, FaceTraining

    class Clock(pl.Callback):
        ends: list[float] = []

        def on_train_batch_end(self, *_):
            self.ends.append(time.perf_counter())

    keep_freed_memory()
    torch.utils.deterministic.fill_uninitialized_memory = False  # as mien.training.fit does
    with tempfile.TemporaryDirectory() as folder:
        net = FaceNet(recipe)
        targets = {task: head.target(faces) for task, head in net.heads.items()}
        run = Run(Path(folder))
        trainer = _trainer(run, recipe, ModelCheckpoint(folder, monitor="val_loss"), bound=0)
        clock = Clock()
        trainer.callbacks.append(clock)
        trainer.fit(FaceTraining(net, recipe), datamodule=FaceData(faces, pixels, targets, recipe))
    return rate(clock.ends)


def bare_loop(recipe, faces, pixels, tuned: bool) -> float:
    import numpy as np
    import torch
    from torch.utils.data import DataLoader, Dataset

    from mien.training.augment import make_augmentation
    from mien.training.memory import keep_freed_memory
    from mien.training.model import FaceNet, make_optimizer

    if tuned:
        keep_freed_memory()
    net = FaceNet(recipe)
    layout = torch.channels_last if tuned else torch.contiguous_format
    net.to(memory_format=layout)
    targets = {task: head.target(faces) for task, head in net.heads.items()}
    augmentation = make_augmentation(recipe.augment, recipe.model.image_size)

    class Faces(Dataset):
        rows = np.flatnonzero(faces["split"] == "train")

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, item):
            row = self.rows[item]
            image = torch.from_numpy(np.array(pixels[row])).permute(2, 0, 1)
            return augmentation(image), {task: target[row] for task, target in targets.items()}

    optimizer = make_optimizer(net, recipe.optim)
    net.train()
    ends = []
    for images, labels in DataLoader(Faces(), BATCH, shuffle=True, num_workers=1, drop_last=True):
        normal = (images.to(torch.float32, memory_format=layout) - net.mean) / net.std
        features = net.backbone(normal)
        loss = sum(head.loss(head(features), labels[task]) for task, head in net.heads.items())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ends.append(time.perf_counter())
    return rate(ends)


def rate(ends: list[float]) -> float:
    return BATCH * (len(ends) - FIRST) / (ends[-1] - ends[FIRST - 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1536)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("CASE", "LOOP"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    shared = os.environ.get("MIEN_SHARED_DATA")
    with tempfile.TemporaryDirectory() as folder:
        root, source = (
            (f"{shared}/utkface", "utkface") if shared else (os.environ.get("MIEN_BENCH_DRAWN", folder), "adience")
        )
        if options.one:
            case, loop = options.one
            recipe = recipe_of(case, root, source)
            faces, pixels = prepare(recipe, options.images)
            run = mien_loop if loop == "mien" else lambda *rest: bare_loop(*rest, tuned=loop == "bare")
            print(json.dumps(run(recipe, faces, pixels)))
            return
        environment = dict(os.environ)
        if not shared:
            from mien.demo.dataset import draw_faces

            draw_faces(folder)
            environment["MIEN_BENCH_DRAWN"] = folder
        for case in CASES:
            rates: dict[str, list[float]] = {"mien": [], "bare": [], "plain": []}
            for _ in range(options.repeats):
                for loop, found in rates.items():
                    command = [sys.executable, __file__, "--images", str(options.images), "--one", case, loop]
                    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                    found.append(float(done.stdout.strip().splitlines()[-1]))
            middle = {loop: statistics.median(found) for loop, found in rates.items()}
            for rival in ("bare", "plain"):
                ratios = [ours / theirs for ours, theirs in zip(rates["mien"], rates[rival], strict=True)]
                print(
                    f"{case}: mien {middle['mien']:.1f} images/s, {rival} {middle[rival]:.1f}; ratio "
                    f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} pairs)",
                    flush=True,
                )


if __name__ == "__main__":
    main()
