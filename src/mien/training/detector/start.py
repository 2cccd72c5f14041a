"""The start from an exported detector, whose convolutions hold the normalisations: the two are parted again."""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from mien.base.errors import MienError, shortened
from mien.training.detector.network import SPREAD, FaceNet
from mien.training.onnx_weights import settle_batch_norm

_NORM = 0.577
"""Euclidean norm of the weights of a channel after the default initialisation of a convolution."""


@torch.no_grad()
def load_exported(network: FaceNet, file: Path, images: Tensor) -> None:
    """Gives the network the weights of an exported file, so that its outputs in evaluation are those of the file.

    An exported convolution W, b is the product of a convolution and the batch normalisation that followed. They are
    parted by one pass over images: the normalisation gets the mean m and the variance v of what the convolution
    gives there, and the scale sqrt(v + eps) and the shift b + m that undo both. Each channel of W is scaled to the
    norm of a new network's, for the step sizes of the optimiser are meant for such weights.

    Args:
        network: Is changed; its shape has to be that of the file's.
        file: As `export` wrote it.
        images: (n, 3, h, w), 0 to 255: training scenes.

    Raises:
        MienError: The file is missing, damaged, or of a network of another shape.
    """
    folded = _convolutions(file)
    layers = _layers(network, images[:1])
    shapes = [tuple(convolution.weight.shape) for convolution, _ in layers]
    if [weight.shape for weight, _ in folded] != shapes:
        raise MienError(f"detector file {str(file)!r} is of another network: its convolutions have other shapes")
    for (convolution, norm), (weight, bias) in zip(layers, folded, strict=True):
        weight = weight * SPREAD if convolution is network.stem else weight  # see `export.Exported`
        convolution.weight.copy_(weight)
        if norm is None:
            assert convolution.bias is not None
            convolution.bias.copy_(bias)
        else:
            _unfold(convolution, norm, bias)
    settle_batch_norm(network, images)


def _convolutions(file: Path) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each convolution of an ONNX file, in the order of execution."""
    if not file.is_file():
        raise MienError(f"detector file {str(file)!r}: there is no such file")
    try:
        graph = onnx.load(file).graph
    except Exception as error:  # the parser's classes share no base
        raise MienError(f"detector file {str(file)!r} is damaged: {shortened(str(error))}") from error
    values = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in values:  # the exporter keeps equal values once
            values[node.output[0]] = values[node.input[0]]
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in values.items()}
    convolutions = (node.input for node in graph.node if node.op_type == "Conv" and len(node.input) == 3)
    return [(tensors[weight], tensors[bias]) for _, weight, bias in convolutions]


def _layers(network: FaceNet, image: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d | None]]:
    """The convolutions in the order of execution, each with the normalisation that follows it."""
    called: list[nn.Module] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: called.append(module))
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    network.eval()(image)
    for hook in hooks:
        hook.remove()
    after = [*called[1:], None]
    return [
        (module, norm if isinstance(norm, nn.BatchNorm2d) else None)
        for module, norm in zip(called, after, strict=True)
        if isinstance(module, nn.Conv2d)
    ]


def _unfold(convolution: nn.Conv2d, norm: nn.BatchNorm2d, bias: Tensor) -> None:
    """Moves the bias and the size of the weights of each channel into the normalisation."""
    size = (convolution.weight.flatten(1).norm(dim=1) / _NORM).clamp(min=1e-6)
    convolution.weight.div_(size[:, None, None, None])
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    norm.weight.copy_(size)
    norm.bias.copy_(bias)
