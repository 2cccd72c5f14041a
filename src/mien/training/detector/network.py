"""The network: depthwise separable blocks, a feature pyramid of three levels, and one small head a level.

After YuNet (Wu, Peng and Yu, "YuNet: A Tiny Millisecond-level Face Detector", 2023) and FCOS (Tian et al., 2019), with
the centre offsets of CenterNet (Zhou et al., 2019).
"""

from torch import Tensor, nn
from torch.nn import functional

STRIDES = (8, 16, 32)
"""Pixels between the cells of each level."""

CHANNELS = 14
"""Of each level's map: the score's logit, right, down and log size of the square, five landmarks (right, down)."""

SIZES = (20.0, 64.0, 200.0)
"""The size in pixels of a square whose log size is 0, by level."""

MIDDLE, SPREAD = 127.5, 64.0
"""What is subtracted from pixels, and what they are divided by."""


class Separable(nn.Module):
    """A depthwise 3x3 and a pointwise convolution; with the input added where the shapes agree."""

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inside, inside, 3, stride, 1, groups=inside, bias=False)
        self.norm1 = nn.BatchNorm2d(inside)
        self.pointwise = nn.Conv2d(inside, outside, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outside)
        self.adds = inside == outside and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """(n, inside, h, w) to (n, outside, h / stride, w / stride)."""
        inner = functional.relu(self.norm1(self.depthwise(x)), inplace=True)
        result = self.norm2(self.pointwise(inner))
        return functional.relu(result + x if self.adds else result, inplace=True)


class FaceNet(nn.Module):
    """From pixels to one map a level.

    Args:
        widths: Channels at strides 2, 4, 8, 16 and 32.
        depths: Blocks at strides 4, 8, 16 and 32.
        neck: Channels of the pyramid.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (16, 32, 64, 96, 128),
        depths: tuple[int, ...] = (1, 3, 4, 3),
        neck: int = 64,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, 2, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(widths[0])
        self.stages = nn.ModuleList(
            nn.Sequential(Separable(inside, outside, 2), *(Separable(outside, outside) for _ in range(depth - 1)))
            for inside, outside, depth in zip(widths, widths[1:], depths, strict=False)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, neck, 1) for width in widths[2:])
        self.smooth = nn.ModuleList(Separable(neck, neck) for _ in STRIDES)
        self.head = nn.ModuleList(Separable(neck, neck) for _ in STRIDES)
        self.out = nn.ModuleList(nn.Conv2d(neck, CHANNELS, 1) for _ in STRIDES)
        for layer in self.out:
            assert isinstance(layer, nn.Conv2d) and layer.bias is not None
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
            layer.bias.data[0] = -4.6  # a score of 1% at first

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps (n, 14, h / stride, w / stride) by level, from float images (n, 3, h, w) of 0 to 255."""
        return self.maps((images - MIDDLE) / SPREAD)

    def maps(self, x: Tensor) -> list[Tensor]:
        """See `forward`, from normalised images."""
        x = functional.relu(self.stem_norm(self.stem(x)))
        levels = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index > 0:
                levels.append(x)
        features = [lateral(level) for lateral, level in zip(self.lateral, levels, strict=True)]
        for index in (1, 0):
            above = functional.interpolate(features[index + 1], scale_factor=2.0, mode="nearest")
            features[index] = functional.relu(features[index] + above)
        maps = []
        for smooth, head, out, feature in zip(self.smooth, self.head, self.out, features, strict=True):
            maps.append(out(head(smooth(feature))))
        return maps
