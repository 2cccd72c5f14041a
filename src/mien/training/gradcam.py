"""Grad-CAM (Selvaraju and others, 2017) of a run's network, through the library grad-cam.

Occlusion explains a model file from its predictions alone; Grad-CAM uses the last feature maps of the network. Its maps
are never negative: they show what raises a prediction, not what lowers it.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mien.base.errors import MienError, MissingExtra
from mien.evaluation.occlusion import pool_map
from mien.runs.run import Run
from mien.training.model import FaceNet
from mien.training.network import load_network


class GradCam:
    """Computes Grad-CAM maps of faces.

    Args:
        run: A finished run, or a published model with its weights.

    Raises:
        MienError: The run predicts neither gender nor age, or its network has no feature maps (a transformer).
    """

    def __init__(self, run: Run) -> None:
        try:
            from pytorch_grad_cam import GradCAM
        except ImportError:
            raise MissingExtra("Grad-CAM", "train") from None
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
        self._cam = GradCAM(model=self._scores, target_layers=[layer])

    def __call__(self, face: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the maps of a face.

        Args:
            face: uint8 (size, size, 3).

        Returns:
            Maps (16, 16) from 0 to 1 of `gender`, for the more probable gender, and of `age`.
        """
        images = torch.from_numpy(face.copy()).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            now = self._scores(images)[0]
        maps: dict[str, np.ndarray] = {}
        for place, task in enumerate(self._scores.tasks):
            sign = -1.0 if task == "gender" and now[place] < 0 else 1.0
            grey = self._cam(input_tensor=images, targets=[_Target(place, sign)])[0]
            maps[task] = pool_map(grey)
        return maps


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


class _Target:
    def __init__(self, place: int, sign: float) -> None:
        self._place = place
        self._sign = sign

    def __call__(self, scores: Tensor) -> Tensor:
        return self._sign * scores[self._place]


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
