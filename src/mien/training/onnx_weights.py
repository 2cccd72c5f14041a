"""Weights read back from an exported ONNX file, 8-bit ones included: where fine-tuning starts from.

An export folds each batch normalisation into the convolution before it. Here the convolution gets the folded weights
and the normalisation the folded bias, with statistics that change nothing; `settle_batch_norm` then gives it the
statistics of real faces without changing the answers, so that training can go on from there.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from mien.base.errors import MienError
from mien.training.onnx_metadata import description

_PREFIX = "net."


def read_onnx_weights(path: str | Path) -> dict[str, Tensor]:
    """Returns the weights of an exported network by their names in `FaceNet`, as 32-bit floats.

    The bias of a convolution has the name `<convolution>.weight_bias`.

    Raises:
        MienError: The file is not an export of mien.
    """
    model = _opened(path)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights = {}
    for name, values in stored.items():
        if name.startswith(_PREFIX) and not name.endswith(("_scale", "_zero_point")):
            plain = name.removeprefix(_PREFIX).removesuffix("_quantized")
            weights[plain] = torch.from_numpy(np.array(_dequantized(name, values, stored), dtype=np.float32))
    return weights


def read_description(path: str | Path) -> dict[str, Any]:
    """Returns the metadata of an exported network.

    Raises:
        MienError: The file is not an export of mien.
    """
    return description(_opened(path))


def _opened(path: str | Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's error classes are not public
        raise MienError(f"init.weights: {str(path)!r} is not an ONNX file: {error}") from error
    if not any(entry.key == "mien" for entry in model.metadata_props):
        raise MienError(f"init.weights: {str(path)!r} was not exported by mien: it does not describe its network")
    return model


def _dequantized(name: str, values: np.ndarray, stored: dict[str, np.ndarray]) -> np.ndarray:
    if not name.endswith("_quantized"):
        return values
    plain = name.removesuffix("_quantized")
    # A bias keeps its suffix in the names of its scale; a weight does not.
    prefix = name if f"{name}_scale" in stored else plain
    scale = stored[f"{prefix}_scale"].astype(np.float32)
    zero = stored[f"{prefix}_zero_point"].astype(np.float32)
    shape = (-1, *(1,) * (values.ndim - 1)) if scale.ndim and scale.size > 1 else ()
    return (values.astype(np.float32) - zero.reshape(shape)) * scale.reshape(shape)


def unfolded(backbone: nn.Module, tensors: dict[str, Tensor], size: int) -> dict[str, Tensor]:
    """Returns the state of a backbone whose batch normalisations were folded.

    Args:
        backbone: The network, whose shapes are taken.
        tensors: Its weights by name, see `read_onnx_weights`.
        size: Side of its images in pixels.
    """
    state = {name: value for name, value in tensors.items() if not name.endswith(".weight_bias")}
    names = {module: name for name, module in backbone.named_modules()}
    for norm, convolution in _pairs(backbone, size):
        if f"{names[norm]}.running_var" in state or f"{names[convolution]}.weight_bias" not in tensors:
            continue
        count = norm.num_features
        state |= {
            f"{names[norm]}.weight": torch.full((count,), (1 + norm.eps) ** 0.5),
            f"{names[norm]}.bias": tensors[f"{names[convolution]}.weight_bias"],
            f"{names[norm]}.running_mean": torch.zeros(count),
            f"{names[norm]}.running_var": torch.ones(count),
            f"{names[norm]}.num_batches_tracked": torch.zeros((), dtype=torch.long),
        }
    return state


def _pairs(backbone: nn.Module, size: int) -> list[tuple[nn.BatchNorm2d, nn.Conv2d]]:
    """Each batch normalisation with the convolution that ran before it."""
    pairs: list[tuple[nn.BatchNorm2d, nn.Conv2d]] = []
    last: list[nn.Conv2d] = []

    def called(module: nn.Module, *_: object) -> None:
        if isinstance(module, nn.Conv2d):
            last[:] = [module]
        elif last and isinstance(module, nn.BatchNorm2d):
            pairs.append((module, last[0]))

    with ExitStack() as hooks, torch.inference_mode():
        for module in backbone.modules():
            if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
                hooks.enter_context(module.register_forward_hook(called))
        training = backbone.training
        backbone.eval()(torch.zeros(1, 3, size, size))
        backbone.train(training)
    return pairs


def settle_batch_norm(network: nn.Module, images: Tensor) -> None:
    """Gives each batch normalisation the statistics of its input, and changes its weights so that its output stays.

    Args:
        network: A network, such as one with weights from `unfolded`; its mode is not changed.
        images: Its input, of typical faces: (n, 3, size, size).
    """

    def settle(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
        mean, variance = given[0].mean((0, 2, 3)), given[0].var((0, 2, 3), unbiased=False)
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias.add_(factor * (mean - norm.running_mean))
        norm.weight.copy_(factor * (variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)

    training = network.training
    with ExitStack() as hooks, torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                hooks.enter_context(module.register_forward_pre_hook(settle))
        network.eval()(images)
    network.train(training)
