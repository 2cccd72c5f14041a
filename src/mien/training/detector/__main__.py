"""python -m mien.training.detector --data FOLDER --out FOLDER: label, decode, train and export the detector."""

import argparse
from pathlib import Path

import torch

from mien.training.detector import cache, teacher
from mien.training.detector.fit import train
from mien.training.detector.lookalikes import find_lookalikes
from mien.training.detector.settings import Settings
from mien.training.detector.validate import release


def main() -> None:
    """Goes through the steps; what an interrupted call has done is not done again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=Settings.model_fields["steps"].default)
    parser.add_argument("--start", type=Path, help="an exported detector to start from, and to learn from its errors")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    settings = Settings(data=asked.data, out=asked.out, steps=asked.steps, start=asked.start)
    teacher.label_sources(asked.data, asked.out / "teacher")
    cache.build(asked.data, asked.out / "teacher", asked.out / "cache")
    if asked.start is not None:
        find_lookalikes(asked.out / "cache", asked.start)
    train(settings)
    print(f"detector: {release(settings)}")


if __name__ == "__main__":
    main()
