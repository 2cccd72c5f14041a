"""Grad-CAM (Selvaraju and others, 2017) of a run's network, by its definition.

Beside occlusion, which asks the file that ships from outside, it looks at the network's last feature maps. Its maps are
never negative: they show what raises an answer, and not what lowers it.
"""

from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from mien.base.errors import MienError
from mien.evaluation.occlusion import pooled
from mien.runs.run import Run
from mien.training.fit import without_start
from mien.training.model import FaceNet


class GradCam:
    """Makes maps of faces.

    Args:
        run: A finished run, or a published model with its weights.

    Raises:
        MienError: The run predicts neither gender nor age, or its network has no feature maps (a transformer).
    """

    def __init__(self, run: Run) -> None:
        net = _load_net(run)
        self._scores = _Scores(net)
        if not self._scores.tasks:
            raise MienError(f"run {run.name!r} predicts neither gender nor age; these are explained")
        size = run.recipe.model.image_size
        layer = _last_maps(net, torch.zeros(1, 3, size, size))
        if layer is None:
            raise MienError(
                f"run {run.name!r}: Grad-CAM needs feature maps, and {run.recipe.model.backbone!r} has none; "
                "valid: a convolutional network, or --method occlusion"
            )
        self._layer = layer

    def __call__(self, face: np.ndarray) -> dict[str, np.ndarray]:
        """The maps (16, 16) from 0 to 1 of a face, uint8 (size, size, 3): `gender` for the likelier one, and `age`."""
        images = torch.from_numpy(face.copy()).permute(2, 0, 1)[None].float()
        # Gradients are asked for at the image too, so that they reach the feature maps of frozen layers.
        scores, features = self._forward(images.requires_grad_())
        maps: dict[str, np.ndarray] = {}
        for place, task in enumerate(self._scores.tasks):
            score = scores[0, place].abs() if task == "gender" else scores[0, place]
            (gradient,) = torch.autograd.grad(score, features, retain_graph=True)
            maps[task] = pooled(_weighted(features, gradient, face.shape[0]))
        return maps

    def _forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The scores (1, tasks), and the feature maps (1, channels, h, w) that they follow from."""
        kept: list[Tensor] = []
        handle = self._layer.register_forward_hook(lambda _module, _images, maps: kept.append(maps))
        try:
            return self._scores(images), kept[-1]
        finally:
            handle.remove()


def _weighted(features: Tensor, gradient: Tensor, size: int) -> np.ndarray:
    """Equations 1 and 2: the feature maps weighted by their mean gradients, without what is negative; from 0 to 1."""
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    grey = (weights * features).sum(1, keepdim=True).relu()
    grey = grey - grey.min()
    grey = grey / (1e-7 + grey.max())
    grey = functional.interpolate(grey, size=(size, size), mode="bilinear")
    return grey[0, 0].detach().numpy()


def _load_net(run: Run) -> FaceNet:
    """The run's network in inference mode, without the heads of further columns."""
    recipe = without_start(run.recipe)
    further = tuple(f"head.{column}." for column in recipe.tasks.columns)
    net = FaceNet(recipe.model_copy(update={"tasks": recipe.tasks.model_copy(update={"columns": {}})}))
    weights = load_file(run.weights_file)
    net.load_state_dict({name: value for name, value in weights.items() if not name.startswith(further)})
    return net.eval()


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
    """The module that gives the last feature maps larger than a single cell."""
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
    # A transformer's patches are its only maps: of the first layer, not of the last.
    if len([module for module in convolved if isinstance(module, nn.Conv2d)]) < 2:
        return None
    return convolved[-1]
