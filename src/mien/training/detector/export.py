"""The trained network as one ONNX file that takes images of any size, with what must travel in its metadata."""

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

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps (n, 14, h / stride, w / stride) from uint8 (n, h, w, 3), both sides multiples of 32."""
        maps = self.network.maps(images.permute(0, 3, 1, 2).float() - MIDDLE)
        return tuple(torch.cat([torch.sigmoid(one[:, :1]), one[:, 1:]], dim=1) for one in maps)


def export(network: FaceNet, file: Path, about: dict[str, object]) -> None:
    """Writes the file: standard operators, opset 17, any number of images, their height and width multiples of 32."""
    names = [f"map{stride}" for stride in STRIDES]
    axes = {"images": {0: "n", 1: "height", 2: "width"}}
    axes |= {
        name: {0: "n", 2: f"rows{stride}", 3: f"columns{stride}"} for name, stride in zip(names, STRIDES, strict=True)
    }
    torch.onnx.export(
        Exported(network).eval(),
        (torch.zeros(2, 320, 320, 3, dtype=torch.uint8),),
        file,
        input_names=["images"],
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
