"""What the training of the detector is asked for; each value is a default of `python -m mien.training.detector`."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class Scenes(BaseModel):
    """How training pictures are put together; shares are probabilities."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sides: tuple[int, ...] = (256, 320, 320, 384, 448)
    """Sides in pixels of the scenes, one of them a batch."""

    pixels: int = 16 * 320 * 320
    """Of a batch: as many scenes as fit."""

    grids: tuple[int, ...] = (1, 1, 2, 2, 2, 3, 3, 4)
    """Pictures along each side of a scene, one of them a scene."""

    shares: dict[str, float] = Field(
        default={
            "photographs": 0.42,
            "aaf": 0.15,
            "celeba": 0.07,
            "lfw": 0.06,
            "utkface": 0.13,
            "none": 0.13,
            "skimage": 0.04,
        }
    )
    """Of the sources among the pictures of a scene."""

    smallest: float = 11.0
    """Side in pixels of the smallest face that is drawn, and least that counts as one."""

    enlarge: float = 2.5
    """Pictures are enlarged at most so much."""

    close: float = 0.2
    """Share of the faces that nearly fill their place, however far they have to be enlarged."""

    mask: float = 0.15
    sunglasses: float = 0.06
    hand: float = 0.08
    """Shares of faces that get a drawn mask, drawn sunglasses, or something before them."""

    lookalikes: float = 0.4
    """Of a picture with lookalikes (see `lookalikes.py`) and faces, how often a lookalike is shown."""

    shade: float = 0.15
    """Share of the pictures of a scene with a light of their own."""


class Settings(BaseModel):
    """All settings of a training run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path
    """The folder that holds photographs/, aaf/, celeba/, lfw/ and utkface/, as far as they are there."""

    out: Path
    """The folder of the run: labels, decoded pictures, checkpoints, log, the ONNX file."""

    start: Path | None = None
    """An exported detector whose weights the training starts from, and whose errors it learns from; None: neither."""

    seed: int = 0
    steps: int = 4600
    learning_rate: float = 0.0015
    weight_decay: float = 0.02
    warmup: int = 300
    decay: float = 0.65
    """Share of the steps, at the end, in which the learning rate falls."""
    average: float = 0.998
    """Decay of the moving average of the weights, which is what is measured and shipped."""

    save_every: int = 100
    validate_every: int = 1000
    scenes: Scenes = Scenes()

    side: int = 512
    """Longer side in pixels of what the network sees of a photograph."""

    candidates: float = 0.45
    """Score from which on a place is looked at again, upright and at scales of its own."""

    looks: tuple[float, ...] = (1.4, 3.1)
    """Widths of these looks in sides of the face; the score is the mean of theirs, the place that of the closest."""

    false: float = 0.0125
    """False faces a picture of the validation part, for which the score is chosen."""
