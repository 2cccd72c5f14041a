"""Export of a trained network to a self-describing ONNX file."""

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from mien.base.atomic import atomic_path
from mien.base.errors import MienError
from mien.training.model import FaceNet
from mien.training.onnx_metadata import describe

TOLERANCE = 1e-3
"""Largest difference of a probability, or of an age in decades, between torch and the file."""


class _Graph(nn.Module):
    """uint8 NHWC images in; columns of the predictions table out."""

    def __init__(self, net: FaceNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.net.decode(self.net(images.permute(0, 3, 1, 2))).values())


def export(net: FaceNet, path: str | Path, metadata: dict[str, Any], check: np.ndarray) -> Path:
    """Writes a network as ONNX, after comparing it with torch.

    Args:
        net: A trained network; its mode is not changed.
        path: The `.onnx` file to write.
        metadata: Goes into the file as JSON under the key `mien`.
        check: uint8 (n, size, size, 3), real faces to compare on.

    Raises:
        MienError: The file differs from torch by more than `TOLERANCE`; it is not written.
    """
    training = net.training
    graph = _Graph(net).eval()
    images = torch.from_numpy(np.ascontiguousarray(check))
    device = net.mean.device
    try:
        with torch.inference_mode():
            expected = [column.numpy() for column in graph.cpu()(images)]
            names = list(net.decode(net(images[:1].permute(0, 3, 1, 2))))
        with atomic_path(path) as part:
            _write(graph, images, names, metadata, part)
            _compare(part, images.numpy(), names, expected)
    finally:
        net.to(device).train(training)
    return Path(path)


def _write(graph: nn.Module, images: Tensor, names: list[str], metadata: dict[str, Any], path: Path) -> None:
    sample = images[:2] if len(images) > 1 else images.repeat(2, 1, 1, 1)
    quiet = contextlib.redirect_stdout(io.StringIO())  # the exporter prints its steps
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), quiet:
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph,
            (sample,),
            input_names=["images"],
            output_names=names,
            dynamic_shapes={"images": {0: torch.export.Dim("faces")}},
            dynamo=True,
            verbose=False,
        )
    logging.getLogger("torch.onnx").setLevel(level)
    assert program is not None
    model = program.model_proto
    describe(model, metadata)
    onnx.save(model, path)


def _compare(path: Path, images: np.ndarray, names: list[str], expected: list[np.ndarray]) -> None:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    got = session.run(names, {"images": images})
    for name, theirs, ours in zip(names, got, expected, strict=True):
        scale = 10.0 if name.startswith("age") else 1.0
        difference = float(np.abs(theirs - ours).max()) / scale
        if not difference <= TOLERANCE:
            raise MienError(
                f"the ONNX file differs from torch by {difference:.2g} in {name!r} (tolerance {TOLERANCE:g}); "
                "it was not written"
            )
