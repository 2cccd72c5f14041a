"""Augmentation with torchvision's transforms, MixUp and CutMix."""

import math
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from mien.recipe.settings import Augment


def make_augmentation(settings: Augment, size: int) -> v2.Transform:
    """Returns a transform of uint8 (3, size, size) tensors; random numbers come from torch's generator."""
    steps = [step for _, step in augmentation_steps(settings, size)]
    return v2.Compose(steps) if steps else v2.Identity()


def augmentation_steps(settings: Augment, size: int) -> list[tuple[str, v2.Transform]]:
    """The steps of `make_augmentation` by name, in their order; disabled steps are left out."""
    steps: list[tuple[str, v2.Transform]] = []
    if settings.flip:
        steps.append(("flip", v2.RandomHorizontalFlip(settings.flip)))
    steps += _geometry(settings, size)
    if settings.brightness or settings.contrast or settings.saturation:
        steps.append(("colour", v2.ColorJitter(settings.brightness, settings.contrast, settings.saturation)))
    if settings.gray:
        steps.append(("gray", v2.RandomGrayscale(settings.gray)))
    if settings.blur:
        kernel = max(3, size // 32 * 2 + 1)
        steps.append(("blur", v2.RandomApply([v2.GaussianBlur(kernel, (0.1, size / 64))], settings.blur)))
    if settings.resample:
        steps.append(("resample", v2.RandomApply([Resample(size)], settings.resample)))
    if settings.sharpen:
        steps.append(("sharpen", v2.RandomApply([UnsharpMask(size)], settings.sharpen)))
    if settings.jpeg:
        steps.append(("JPEG", v2.RandomApply([v2.JPEG((15, 75))], settings.jpeg)))
    if settings.randaugment is not None:
        asked = settings.randaugment
        steps.append(("RandAugment", v2.RandAugment(asked.layers, asked.magnitude)))
    if settings.erase:
        steps.append(("erase", v2.RandomErasing(settings.erase, scale=(0.02, 0.2))))
    return steps


class Resample(v2.Transform):
    """Reduces an image to a random side and enlarges it again: the detail of a small or distant face.

    A network that never sees the same face in several sharpnesses can take sharpness for age, as mien-1 did.

    Args:
        size: Side of the image; the reduced side is log-uniform from `smallest` to it.
        smallest: In pixels.
    """

    _ENLARGE = (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)

    def __init__(self, size: int, smallest: int = 24) -> None:
        super().__init__()
        self._size, self._smallest = size, min(smallest, size)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the side and how the image is enlarged."""
        low, high = math.log(self._smallest), math.log(self._size)
        side = round(math.exp(low + (high - low) * float(torch.rand(()))))
        return {"side": side, "enlarge": self._ENLARGE[int(torch.randint(2, ()))]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Reduces and enlarges one image."""
        small = functional.resize(inpt, [params["side"]] * 2, InterpolationMode.BILINEAR, antialias=True)
        return functional.resize(small, [self._size] * 2, params["enlarge"], antialias=True)


class UnsharpMask(v2.Transform):
    """Sharpens an image as cameras and editors do: adds its difference from a blurred copy.

    Args:
        size: Side of the image; the blur's standard deviation is uniform from 0.4% to 2% of it, the amount from 0.3
            to 2.5.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws width and amount."""
        width, amount = torch.rand(2).tolist()
        return {"sigma": (0.004 + 0.016 * width) * self._size, "amount": 0.3 + 2.2 * amount}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Sharpens one image."""
        kernel = 2 * math.ceil(2 * params["sigma"]) + 1
        image = inpt.float()
        soft = functional.gaussian_blur(image, [kernel, kernel], [params["sigma"]] * 2)
        return (image + params["amount"] * (image - soft)).round().clamp(0, 255).to(inpt.dtype)


def _geometry(settings: Augment, size: int) -> list[tuple[str, v2.Transform]]:
    """One affine map; what it moves in from beyond the image repeats the edge, as in `images.cut`."""
    if not (settings.rotate or settings.shift or settings.shear) and settings.zoom == (1.0, 1.0):
        return []
    turn = math.radians(min(settings.rotate, 45))
    reach = (math.cos(turn) + math.sin(turn) + math.tan(math.radians(settings.shear))) / min(settings.zoom[0], 1)
    pad = math.ceil(size * ((reach - 1) / 2 + settings.shift))
    shift = settings.shift * size / (size + 2 * pad)
    affine = v2.RandomAffine(
        settings.rotate, (shift, shift), settings.zoom, settings.shear or None, InterpolationMode.BILINEAR
    )
    return [("affine", v2.Compose([v2.Pad(pad, padding_mode="edge"), affine, v2.CenterCrop(size)]))]


def mix(images: Tensor, settings: Augment) -> tuple[Tensor, Tensor, Tensor]:
    """Mixes each image of a batch with another one, by MixUp (Zhang et al. 2018) or CutMix (Yun et al. 2019).

    Where both are asked for, a batch gets either with equal probability. torchvision's own transforms mix one-hot
    labels; ours may be missing, or years, so a label is not mixed: the loss counts both, by their shares.

    Args:
        images: uint8 (n, 3, size, size).
        settings: Settings with `mixup` or `cutmix` above 0.

    Returns:
        The mixed images, the index (n,) of each one's partner, and the share of the own image, a number in [0, 1].
    """
    partner = torch.randperm(len(images))
    cut = settings.cutmix > 0 and (settings.mixup == 0 or bool(torch.rand(()) < 0.5))
    alpha = torch.tensor(settings.cutmix if cut else settings.mixup)
    share = torch.distributions.Beta(alpha, alpha).sample()
    if not cut:
        mixed = images * share + images[partner] * (1 - share)
        return mixed.round().to(torch.uint8), partner, share
    mixed, size = images.clone(), images.shape[-1]
    half = 0.5 * size * math.sqrt(1 - float(share))
    (x, y) = torch.rand(2) * size
    left, right, top, bottom = (
        int(min(max(edge, 0), size)) for edge in (float(x) - half, float(x) + half, float(y) - half, float(y) + half)
    )
    mixed[:, :, top:bottom, left:right] = images[partner][:, :, top:bottom, left:right]
    return mixed, partner, torch.tensor(1 - (right - left) * (bottom - top) / size**2)
