"""Grad-CAM (Selvaraju and others, 2017) of a run's network, by its definition.

Occlusion explains a model file from its predictions alone; Grad-CAM uses the last feature maps of the network. Its maps
are never negative: they show what raises a prediction, not what lowers it.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mien.base.errors import MienError
from mien.evaluation.occlusion import pool_map
from mien.runs.run import Run
from mien.training.model import FaceNet
from mien.training.trained_network import load_network


class GradCam:
    """Computes Grad-CAM maps of faces.

    Args:
        run: A finished run, or a published model with its weights.

    Raises:
        MienError: The run predicts neither gender nor age, or its network has no feature maps (a transformer).
    """

    def __init__(self, run: Run) -> None:
        net = load_network(run)
        self._scores = _Scores(net)
        if not self._scores.tasks:
            raise MienError(f"run {run.name!r} predicts neither gender nor age; valid: a run with one of these tasks")
        size = run.recipe.model.image_size
        layer = _last_maps(net, torch.zeros(1, 3, size, size))
        if layer is None:
            raise MienError(
                f"run {run.name!r}: Grad-CAM needs feature maps, and {run.recipe.model.backbone!r} has none; "
                "valid: a convolutional network, or --method occlusion"
            )
        self._layer = layer

    def __call__(self, face: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the maps of a face.

        Args:
            face: uint8 (size, size, 3).

        Returns:
            Maps (16, 16) from 0 to 1 of `gender`, for the more probable gender, and of `age`.
        """
        images = torch.from_numpy(face.copy()).permute(2, 0, 1)[None].float()
        # The image requires a gradient too, so that the feature maps of frozen layers have one.
        scores, features = self._forward(images.requires_grad_())
        maps: dict[str, np.ndarray] = {}
        for place, task in enumerate(self._scores.tasks):
            score = scores[0, place].abs() if task == "gender" else scores[0, place]
            (gradient,) = torch.autograd.grad(score, features, retain_graph=True)
            maps[task] = pool_map(_weighted(features, gradient, face.shape[0]))
        return maps

    def _forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the scores (1, tasks) and the feature maps (1, channels, h, w)."""
        kept: list[Tensor] = []
        handle = self._layer.register_forward_hook(lambda _module, _images, maps: kept.append(maps))
        try:
            return self._scores(images), kept[-1]
        finally:
            handle.remove()


def _weighted(features: Tensor, gradient: Tensor, size: int) -> np.ndarray:
    """Returns the positive part of the maps, weighted by their mean gradients (equations 1 and 2), scaled to [0, 1]."""
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    grey = (weights * features).sum(1, keepdim=True).relu()
    grey = grey - grey.min()
    grey = grey / (1e-7 + grey.max())
    grey = functional.interpolate(grey, size=(size, size), mode="bilinear")
    return grey[0, 0].detach().numpy()


class _Scores(nn.Module):
    """Log odds of female, and mean age in years (the median has no gradient), of float images (n, 3, size, size)."""

    _years: Tensor

    def __init__(self, net: FaceNet) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("_years", torch.arange(net.heads["age"].units if "age" in net.heads else 0).float())
        self.tasks = [task for task in ("gender", "age") if task in net.heads]

    def forward(self, images: Tensor) -> Tensor:
        logits = self.net(images)
        columns: dict[str, Tensor] = {}
        if "gender" in self.tasks:
            columns["gender"] = logits["gender"][:, 0]
        if "age" in self.tasks:
            columns["age"] = logits["age"].softmax(1) @ self._years
        return torch.stack([columns[task] for task in self.tasks], dim=1)


def _last_maps(net: FaceNet, images: Tensor) -> nn.Module | None:
    """Returns the module of the last feature maps that are larger than one cell, or None."""
    seen: list[nn.Module] = []

    def note(module: nn.Module, _: Any, answer: Any) -> None:
        if isinstance(answer, Tensor) and answer.dim() == 4 and min(answer.shape[2:]) > 1:
            seen.append(module)

    handles = [module.register_forward_hook(note) for module in net.backbone.modules() if not list(module.children())]
    try:
        with torch.no_grad():
            net(images)
    finally:
        for handle in handles:
            handle.remove()
    convolved = [module for module in seen if not isinstance(module, nn.Dropout | nn.Identity)]
    # The patches of a transformer are its only maps, and belong to the first layer.
    if len([module for module in convolved if isinstance(module, nn.Conv2d)]) < 2:
        return None
    return convolved[-1]
