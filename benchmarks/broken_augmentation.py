"""Breaks RandAugment and MixUp in the ways in which training pipelines break, and mends them: what each mistake costs.

    python benchmarks/broken_augmentation.py --root UTKFACE --out runs/broken

mien's own pipeline keeps pixels uint8 until the network, mixes labels in the loss and never augments what is judged
unless it is asked to, so the first mistakes are made here, around it. One small network (timm's test_resnet, 64 pixels,
random weights), 5,000 faces, one run each; prints a Markdown table.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from mien.runs.run import Run
from mien.training import data, model
from mien.training.fit import train

RECIPE = {
    "base": "utkface-small",
    "tasks": {"gender": {}, "age": None},
    "model": {"backbone": "test_resnet", "image_size": 64, "dropout": 0.0},
    "init": {"weights": "none"},
    "augment": {"randaugment": {}, "mixup": 0.2},
    "trainer": {"epochs": 8, "averaging": 0.0},
}


@contextmanager
def as_it_is() -> Iterator[None]:
    """Changes nothing."""
    yield


@contextmanager
def training_in_0_to_1() -> Iterator[None]:
    """Training images come out of the augmentation in [0, 1] where the network, as in prediction, expects 0 to 255."""
    real = model.FaceNet.forward

    def forward(self: Any, images: torch.Tensor) -> Any:
        return real(self, images // 255 if self.training else images)

    with mock.patch.object(model.FaceNet, "forward", forward):
        yield


@contextmanager
def randaugment_for_0_to_255() -> Iterator[None]:
    """RandAugment is given pixels in [0, 1] and told that they reach to 255: it cuts them to zeros and ones."""
    real = data.make_augmentation

    def make(settings: Any, size: int) -> Callable[[torch.Tensor], torch.Tensor]:
        steps = real(settings, size)
        return lambda image: steps((image / 255).round().to(torch.uint8)) * 255

    with mock.patch.object(data, "make_augmentation", make):
        yield


@contextmanager
def labels_of_the_partner() -> Iterator[None]:
    """MixUp mixes the images, and the label is that of the other image."""
    real = data.mix

    def mix(images: torch.Tensor, settings: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mixed, partner, share = real(images, settings)
        return mixed, partner, 1 - share

    with mock.patch.object(data, "mix", mix):
        yield


@contextmanager
def labels_of_anybody() -> Iterator[None]:
    """Images and labels are shuffled each by itself, as by two generators with seeds of their own."""
    real = data.FaceSamples.collate

    def collate(self: Any, samples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = real(self, samples)
        if self._mixing is not None:
            order = torch.randperm(len(batch["index"]))
            batch["targets"] = {task: target[order] for task, target in batch["targets"].items()}
        return batch

    with mock.patch.object(data.FaceSamples, "collate", collate):
        yield


ARMS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "neither RandAugment nor MixUp": (as_it_is, ["augment.randaugment=null", "augment.mixup=0.0"]),
    "both, correct": (as_it_is, []),
    "validation and test augmented too": (as_it_is, ["augment.evaluation=true"]),
    "RandAugment told 255 for pixels in [0, 1]": (randaugment_for_0_to_255, []),
    "training in [0, 1], prediction in 0 to 255": (training_in_0_to_1, []),
    "MixUp with the partner's label": (labels_of_the_partner, []),
    "images and labels shuffled apart": (labels_of_anybody, []),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", required=True, help="folder of UTKFace")
    parser.add_argument("--out", type=Path, default=Path("runs/broken"))
    asked = parser.parse_args()
    print("| | gender accuracy, test (n) | women among the answers | training | validation |\n|---|---|---|---|---|")
    for number, (name, (broken, changes)) in enumerate(ARMS.items()):
        run = Run(asked.out / f"{number}")
        if not run.finished:
            with broken():
                train(RECIPE, [f"data.root={asked.root}", *changes], run.folder)
        scores = run.metrics[(run.metrics["group"] == "all") & (run.metrics["metric"] == "gender_accuracy")]
        test = scores[scores["split"] == "test"].iloc[0]
        faces = run.faces.set_index("face")["split"]
        answers = run.predictions.set_index("face")["gender"]
        women = (answers[faces[faces == "test"].index] == "female").mean()
        others = [f"{scores.loc[scores['split'] == split, 'value'].iloc[0]:.1%}" for split in ("train", "val")]
        print(
            f"| {name} | {test['value']:.1%} [{test['low']:.1%}, {test['high']:.1%}] ({test['n']}) | {women:.1%} | "
            + " | ".join(others)
            + " |",
            flush=True,
        )


if __name__ == "__main__":
    main()
