"""The trained network as one ONNX file that takes an image of any size, with what must travel in its metadata."""

import copy
import json
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from mien.training.detector.network import MIDDLE, SIZES, SPREAD, STRIDES, FaceNet

OPSET = 17


class Exported(nn.Module):
    """Takes pixels as they are, and gives one map a level with the scores as probabilities."""

    def __init__(self, network: FaceNet) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.network.stem.weight.data /= SPREAD  # so that no pixel has to be divided

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Maps (14, h / stride, w / stride) from uint8 (h, w, 3), both sides multiples of 32."""
        maps = self.network.maps(image.permute(2, 0, 1)[None].float() - MIDDLE)
        return tuple(torch.cat([torch.sigmoid(one[0, :1]), one[0, 1:]]) for one in maps)


def export(network: FaceNet, file: Path, about: dict[str, object]) -> None:
    """Writes the file: standard operators, opset 17, any height and width that are multiples of 32."""
    names = [f"map{stride}" for stride in STRIDES]
    axes = {"image": {0: "height", 1: "width"}}
    axes |= {name: {1: f"rows{stride}", 2: f"columns{stride}"} for name, stride in zip(names, STRIDES, strict=True)}
    torch.onnx.export(
        Exported(network).eval(),
        (torch.zeros(320, 320, 3, dtype=torch.uint8),),
        file,
        input_names=["image"],
        output_names=names,
        dynamic_axes=axes,
        opset_version=OPSET,
        dynamo=False,
    )
    model = onnx.load(file)
    entry = model.metadata_props.add()
    entry.key = "mien-detector"
    entry.value = json.dumps({"strides": STRIDES, "sizes": SIZES} | about)
    onnx.checker.check_model(model)
    onnx.save(model, file)
