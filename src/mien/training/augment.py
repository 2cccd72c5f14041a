"""What is done to training images, with torchvision's transforms."""

import math

from torchvision.transforms import InterpolationMode, v2

from mien.recipe import Augment


def make_augmentation(settings: Augment, size: int) -> v2.Transform:
    """A transform of uint8 (3, size, size) tensors to the same; randomness comes from torch's generator."""
    steps: list[v2.Transform] = []
    if settings.flip:
        steps.append(v2.RandomHorizontalFlip(settings.flip))
    steps += _geometry(settings, size)
    if settings.brightness or settings.contrast or settings.saturation:
        steps.append(v2.ColorJitter(settings.brightness, settings.contrast, settings.saturation))
    if settings.gray:
        steps.append(v2.RandomGrayscale(settings.gray))
    if settings.blur:
        kernel = max(3, size // 32 * 2 + 1)
        steps.append(v2.RandomApply([v2.GaussianBlur(kernel, (0.1, size / 64))], settings.blur))
    if settings.erase:
        steps.append(v2.RandomErasing(settings.erase, scale=(0.02, 0.2)))
    return v2.Compose(steps) if steps else v2.Identity()


def _geometry(settings: Augment, size: int) -> list[v2.Transform]:
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
    return [v2.Pad(pad, padding_mode="edge"), affine, v2.CenterCrop(size)]
