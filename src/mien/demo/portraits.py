"""Illustrated portraits of people who do not exist: their traits, a picture of them, and its pixels.

These faces check machinery and say nothing about people. The labels come first and the drawing follows from
them, by rules made up in this file: a score shows that reading, splitting, training and reporting work, and
nothing else.

A subject's gender and age act on its traits through one hidden number each (`look`, and the age that it
seems to have), drawn from overlapping distributions, and every trait adds its own chance: no classifier can
reach 100%. Pose, light, blur, clothes, place and what is in the way are independent of both.
"""

from collections.abc import Callable, Sequence
from colorsys import hsv_to_rgb
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

Colour = tuple[int, int, int]
Rng = np.random.Generator

_SKINS = (
    (255, 226, 208),
    (246, 207, 180),
    (232, 184, 148),
    (206, 150, 112),
    (168, 112, 78),
    (124, 78, 52),
    (84, 54, 40),
)
_HAIRS = {
    "black": (28, 24, 26),
    "dark brown": (62, 40, 30),
    "brown": (104, 68, 44),
    "red": (158, 74, 38),
    "dark blond": (164, 124, 72),
    "blond": (220, 184, 116),
    "platinum": (238, 224, 190),
}
_EYES = ((66, 42, 28), (98, 66, 36), (112, 120, 60), (70, 120, 90), (84, 130, 170), (120, 140, 150))
_CLOTHES = ("crew", "vee", "shirt", "tie", "hood", "roll")
_OCCLUDERS = ("hand", "mug", "bar", "sunglasses", "scarf", "leaf")
_WHITE, _INK = (250, 248, 244), (38, 28, 34)


@dataclass(frozen=True)
class Style:
    """How portraits are drawn; what they show does not depend on it."""

    size: tuple[int, int]  # width and height in pixels
    zoom: float  # half the head's height as a share of the width
    contour: float  # width of the ink lines; 0: painted without
    bits: int  # of each colour
    grain: float  # greatest standard deviation of the noise
    backgrounds: tuple[str, ...]


STYLES = {
    "adience": Style((96, 96), 0.345, 0.0, 8, 4.0, ("plain", "bokeh", "stripes", "horizon", "blocks", "leaves")),
    "celeba": Style((89, 109), 0.35, 0.034, 4, 0.0, ("plain", "rays", "dots", "stripes", "blocks")),
}


@dataclass(frozen=True)
class Person:
    """What stays the same over the pictures of a subject: lengths in units of the face, shares of 0 to 1.

    `look` is the hidden number behind gender: about 1 for women, -1 for men, 0 for babies, and it overlaps.
    """

    gender: str
    age: float
    look: float
    baby: float
    wrinkles: float
    skin: Colour
    hair_name: str
    hair: Colour
    grey: float
    eye: Colour
    skull: float
    cheek: float
    jaw: float
    chin: float
    eye_size: float
    eye_gap: float
    eye_open: float
    eye_tilt: float
    brow: float
    brow_arch: float
    brow_gap: float
    nose_long: float
    nose_wide: float
    lips: float
    mouth: float
    ears: float
    texture: str
    length: float
    volume: float
    receding: float
    part: float
    fringe: bool
    beard: str
    glasses: int  # 0: none; or one of three frames
    lashes: float
    makeup: float
    freckles: bool

    @property
    def eye_height(self) -> float:
        """Where the eyes lie; those of babies lie low."""
        return 0.02 + 0.22 * self.baby

    @property
    def mouth_height(self) -> float:
        """Where the lips meet."""
        return 0.655 + 0.02 * self.baby

    @property
    def bald(self) -> bool:
        """Whether the crown is bare."""
        return self.receding > 0.75

    @property
    def shaven(self) -> bool:
        """Whether the hair is a mere shade."""
        return self.length < 0.14

    @property
    def has_fringe(self) -> bool:
        """Whether hair hangs over the forehead."""
        return self.fringe and not self.shaven and self.baby < 0.6


@dataclass(frozen=True)
class Picture:
    """What changes from one picture of a subject to the next; `turn` and `yaw` are in radians."""

    seed: tuple[int, ...]
    turn: float
    zoom: float
    shift: tuple[float, float]
    yaw: float
    nod: float
    smile: float
    open: float
    gaze: float
    squint: float
    tied: bool
    makeup: float
    hat: str
    glasses: bool
    earrings: bool
    necklace: bool
    clothes: str
    background: str
    occluder: str
    gain: float
    cast: tuple[float, float, float]
    light: tuple[float, float]
    grey: bool
    blur: float
    noise: float

    @property
    def made_up(self) -> bool:
        """Whether lips and lids are painted."""
        return self.makeup > 0.3

    @property
    def shows_necklace(self) -> bool:
        """Whether a necklace is drawn."""
        return self.necklace and self.clothes in ("crew", "vee")


# -------------------------------------------------------------------------------------------- traits and pose


def sample_person(rng: Rng, gender: str, age: float) -> Person:
    """Draws the traits of a subject of this gender (female or male) and age in years."""
    seems = max(0.0, age * np.exp(0.07 * rng.normal()) + 0.4 * rng.normal())
    baby = float(np.exp(-seems / 8.5))
    old = float(np.clip((seems - 29) / 32, 0, 1.2))
    # Little tells baby girls from baby boys; the cues grow until adulthood.
    dimorphism = float(np.interp(age, [0, 3, 6, 12, 17, 22], [0.05, 0.4, 0.78, 0.88, 0.97, 1.0]))
    look = (1 if gender == "female" else -1) * dimorphism + 0.36 * rng.normal()

    def cue(mean: float, by_look: float, spread: float, by_baby: float = 0.0, by_old: float = 0.0) -> float:
        return float(mean + by_look * look * (1 - 0.6 * baby) + by_baby * baby + by_old * old + spread * rng.normal())

    hair_name = str(rng.choice([*_HAIRS, "dyed"], p=[0.2, 0.17, 0.18, 0.08, 0.11, 0.13, 0.07, 0.06]))
    hair = _HAIRS[hair_name] if hair_name in _HAIRS else _any_colour(rng)
    tone = float(rng.uniform(0, len(_SKINS) - 1.001))
    balding = look < -0.1 and rng.random() < 0.75 * old
    return Person(
        gender=gender,
        age=age,
        look=look,
        baby=baby,
        wrinkles=float(np.clip(old * np.exp(0.2 * rng.normal()), 0, 1.2)),
        skin=_jitter(rng, _mix(_SKINS[int(tone)], _SKINS[int(tone) + 1], tone % 1), 4),
        hair_name=hair_name,
        hair=_jitter(rng, hair, 12),
        grey=float(np.clip(1.4 * old - 0.35 + 0.22 * rng.normal(), 0, 1)) if seems > 28 else 0.0,
        eye=_jitter(rng, _EYES[rng.integers(len(_EYES))], 12),
        skull=cue(0.73, 0, 0.025, 0.09),
        cheek=cue(0.70, -0.012, 0.03, 0.18),
        jaw=cue(0.56, -0.065, 0.026, 0.16, 0.05),
        chin=cue(0.27, -0.07, 0.025, 0.06, 0.02),
        eye_size=cue(0.185, 0.018, 0.011, 0.08, -0.016),
        eye_gap=cue(0.33, 0, 0.016, 0.07),
        eye_open=cue(0.52, 0.04, 0.05, 0.26, -0.15),
        eye_tilt=cue(0.0, 0.035, 0.045),
        brow=max(0.02, cue(0.08, -0.044, 0.01, -0.04)),
        brow_arch=cue(0.05, 0.035, 0.025),
        brow_gap=cue(0.21, 0.03, 0.02, 0.05, -0.01),
        nose_long=cue(0.40, -0.018, 0.025, -0.2, 0.04),
        nose_wide=cue(0.145, -0.016, 0.016, -0.035, 0.03),
        lips=max(0.03, cue(0.085, 0.032, 0.011, -0.01, -0.03)),
        mouth=cue(0.27, -0.008, 0.018, -0.1),
        ears=cue(0.17, -0.01, 0.015, 0.02, 0.05),
        texture=str(rng.choice(["straight", "wavy", "curly"], p=[0.42, 0.36, 0.22])),
        length=_hair_length(rng, look, seems),
        volume=float(rng.uniform(0.04, 0.2)),
        receding=float(np.clip(rng.uniform(0.3, 1.3) if balding else 0.12 * rng.random() + 0.15 * old, 0, 1)),
        part=float(rng.uniform(-0.4, 0.4)),
        fringe=bool(rng.random() < 0.26 and not balding),
        beard=_beard(rng, look, seems),
        glasses=int(rng.integers(1, 4)) if rng.random() < 0.1 + 0.35 * old else 0,
        lashes=float(np.clip(cue(0.42, 0.46, 0.13), 0, 1)),
        makeup=float(np.clip(cue(0.14, 0.5, 0.24), 0, 1)) if seems > 14 else 0.0,
        freckles=bool(rng.random() < 0.14),
    )


def _hair_length(rng: Rng, look: float, seems: float) -> float:
    """0 is shaven, 0.2 short, 0.5 at the jaw, 1 below the shoulders."""
    if seems < 2.5:
        return float(rng.uniform(0.03, 0.25))
    return float(np.clip(0.46 + 0.31 * look + 0.18 * rng.normal(), 0.08, 1.0))


def _beard(rng: Rng, look: float, seems: float) -> str:
    if seems < 18 or rng.random() > 0.8 / (1 + np.exp(7 * (look + 0.35))):
        return ""
    return str(rng.choice(["stubble", "moustache", "goatee", "full"], p=[0.34, 0.14, 0.2, 0.32]))


def sample_picture(rng: Rng, person: Person, style: Style, seed: tuple[int, ...]) -> Picture:
    """Draws pose, mood, dress, place and light; make-up, earrings and glasses follow from the person."""
    return Picture(
        seed=seed,
        turn=float(np.clip(0.11 * rng.normal(), -0.35, 0.35)),
        zoom=float(rng.uniform(0.9, 1.12)),
        shift=(float(rng.normal(0, 0.07)), float(rng.normal(0, 0.06))),
        yaw=float(np.clip(0.24 * rng.normal(), -0.55, 0.55)),
        nod=float(np.clip(0.05 * rng.normal(), -0.11, 0.11)),
        smile=float(np.clip(rng.normal(0.45, 0.4), -0.3, 1)),
        open=float(max(0, rng.normal(-0.1, 0.5))),
        gaze=float(rng.normal(0, 0.12)),
        squint=0.1 if rng.random() < 0.03 else float(rng.uniform(0.8, 1.1)),
        tied=bool(rng.random() < 0.28),
        makeup=float(np.clip(person.makeup * rng.uniform(0.6, 1.3), 0, 1)),
        hat=str(rng.choice(["beanie", "cap", "brim"])) if rng.random() < 0.1 else "",
        glasses=person.glasses > 0 and rng.random() < 0.85,
        earrings=bool(person.makeup > 0.3 and rng.random() < 0.45),
        necklace=bool(rng.random() < 0.12),
        clothes=str(rng.choice(_CLOTHES, p=[0.3, 0.2, 0.17, 0.07, 0.13, 0.13])),
        background=str(rng.choice(style.backgrounds)),
        occluder=str(rng.choice(_OCCLUDERS)) if rng.random() < 0.13 else "",
        gain=float(rng.uniform(0.78, 1.18)),
        cast=tuple(float(v) for v in rng.normal(1, 0.035, 3)),  # type: ignore[arg-type]
        light=(float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0, 0.3))),
        grey=bool(rng.random() < 0.04),
        blur=float(rng.uniform(0.4, 1.0)) if rng.random() < 0.14 else 0.0,
        noise=float(rng.uniform(0, style.grain)),
    )


# -------------------------------------------------------------------------------------------- the drawing kit


def _mix(a: Sequence[int], b: Sequence[int], share: float) -> Colour:
    return tuple(int(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def _shade(colour: Colour, factor: float) -> Colour:
    return tuple(max(0, min(255, int(v * factor))) for v in colour)  # type: ignore[return-value]


def _jitter(rng: Rng, colour: Sequence[int], spread: float) -> Colour:
    red, green, blue = (rng.standard_normal(3) * spread + colour).clip(0, 255).astype(int).tolist()
    return red, green, blue


def _any_colour(rng: Rng) -> Colour:
    """Any hue, moderate saturation."""
    red, green, blue = hsv_to_rgb(rng.random(), rng.uniform(0.08, 0.65), rng.uniform(0.2, 0.97))
    return int(255 * red), int(255 * green), int(255 * blue)


_CATMULL_ROM = 0.5 * np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]])


@lru_cache(maxsize=256)
def _spline_matrix(n: int, closed: bool, steps: int = 5) -> np.ndarray:
    """The matrix that turns n control points into the points of a Catmull-Rom curve through them."""
    basis = np.power.outer(np.arange(steps) / steps, np.arange(4)) @ _CATMULL_ROM
    rows = []
    for i in range(n if closed else n - 1):
        neighbours = np.arange(i - 1, i + 3)
        neighbours = neighbours % n if closed else np.clip(neighbours, 0, n - 1)
        block = np.zeros((steps, n))
        for k, j in enumerate(neighbours):
            block[:, j] += basis[:, k]
        rows.append(block)
    if not closed:
        rows.append(np.eye(n)[-1:])
    return np.vstack(rows)


def smooth(points: Any, closed: bool = True) -> np.ndarray:
    """A smooth curve, (m, 2), through control points, (n, 2)."""
    points = np.asarray(points, dtype=float)
    return _spline_matrix(len(points), closed) @ points


def _blob(right: Sequence[tuple[float, float]]) -> np.ndarray:
    """A smooth symmetric outline from the control points of its right half, from top to bottom."""
    half = np.asarray(right, dtype=float)
    return smooth(np.vstack([half, half[half[:, 0] != 0][::-1] * (-1, 1)]))


def _arc(right: Sequence[tuple[float, float]]) -> np.ndarray:
    """A smooth symmetric curve from left to right, from the control points of its right half, outwards."""
    half = np.asarray(right, dtype=float)
    return smooth(np.vstack([half[half[:, 0] != 0][::-1] * (-1, 1), half]), closed=False)


class _Pen:
    """Draws in units of the face, whose head reaches from -1 (crown) to 1 (chin), in the picture's pose."""

    oversampling = 3

    def __init__(self, style: Style, picture: Picture, canvas: Image.Image) -> None:
        self.draw = ImageDraw.Draw(canvas, "RGBA")
        self.style, self.yaw, self.nod = style, picture.yaw, picture.nod
        self.unit = style.zoom * picture.zoom * canvas.width
        cos, sin = np.cos(picture.turn) * self.unit, np.sin(picture.turn) * self.unit
        self.matrix = np.array([[cos, sin], [-sin, cos]])
        self.offset = (np.array([0.5, 0.5]) + np.array(picture.shift) * 0.5) * canvas.width
        self.offset[1] += (canvas.height - canvas.width) / 2

    def to_face(self, points: Any, out: float = 1.0) -> np.ndarray:
        """Moves points of a frontal face, taken for a cylinder, to the turned one; a nose stands `out`."""
        points = np.array(points, dtype=float)
        angle = np.arcsin(np.clip(points[:, 0], -0.98, 0.98)) + self.yaw
        points[:, 0] = np.sin(angle) * out - (out - 1) * np.sin(angle - self.yaw) - 0.25 * np.sin(self.yaw)
        points[:, 1] += self.nod
        return points

    def lean(self, points: Any) -> np.ndarray:
        """Moves an outline: the lower face turns further than the skull."""
        points = np.array(points, dtype=float)
        points[:, 0] += self.yaw * np.clip(0.12 + 0.16 * points[:, 1], 0.0, 0.3)
        return points

    def _pixels(self, points: Any) -> list[float]:
        return (np.asarray(points) @ self.matrix + self.offset).ravel().tolist()

    def fill(self, points: Any, colour: Colour, alpha: int = 255, contour: bool = False) -> None:
        pixels = self._pixels(points)
        self.draw.polygon(pixels, fill=(*colour, alpha))
        if contour and self.style.contour:
            width = max(1, round(self.style.contour * self.unit))
            self.draw.line(pixels + pixels[:4], fill=(*_INK, 255), width=width, joint="curve")

    def line(self, points: Any, width: float, colour: Colour, alpha: int = 255) -> None:
        self.draw.line(self._pixels(points), fill=(*colour, alpha), width=max(1, round(width * self.unit)))

    def disc(self, x: float, y: float, rx: float, ry: float, colour: Colour, alpha: int = 255) -> None:
        self.fill(_circle(20) * (rx, ry) + (x, y), colour, alpha)

    def glow(self, x: float, y: float, rx: float, ry: float, colour: Colour, alpha: int) -> None:
        """A disc with a soft edge."""
        for k in (1.0, 0.8, 0.6, 0.4):
            self.disc(x, y, rx * k, ry * k, colour, alpha // 4)


@lru_cache(maxsize=8)
def _circle(n: int) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.column_stack([np.cos(angle), np.sin(angle)])


# ---------------------------------------------------------------------------------------- background and body


def _background(rng: Rng, kind: str, size: tuple[int, int]) -> Image.Image:
    """A gradient between four random colours, and things on it."""
    base = _any_colour(rng)
    corners = np.array([_jitter(rng, base, 20) for _ in range(4)], dtype=np.uint8).reshape(2, 2, 3)
    canvas = Image.fromarray(corners).resize(size, Image.Resampling.BILINEAR)
    if kind in _PATTERNS:
        _PATTERNS[kind](ImageDraw.Draw(canvas, "RGBA"), rng, base, *size)
    return canvas


def _bokeh(draw: ImageDraw.ImageDraw, rng: Rng, base: Colour, wide: int, high: int) -> None:
    _ellipses(draw, rng, base, (wide, high), lambda: 1.0)


def _leaves(draw: ImageDraw.ImageDraw, rng: Rng, base: Colour, wide: int, high: int) -> None:
    _ellipses(draw, rng, base, (wide, high), lambda: rng.uniform(0.3, 0.6))


def _ellipses(
    draw: ImageDraw.ImageDraw, rng: Rng, base: Colour, size: tuple[int, int], squeeze: Callable[[], float]
) -> None:
    wide, high = size
    for _ in range(12):
        x, y, r = rng.uniform(0, wide), rng.uniform(0, high), rng.uniform(0.04, 0.16) * wide
        flat = r * squeeze()
        draw.ellipse((x - r, y - flat, x + r, y + flat), fill=(*_jitter(rng, base, 40), 130))


def _stripes(draw: ImageDraw.ImageDraw, rng: Rng, base: Colour, wide: int, high: int) -> None:
    slant, colour, step = rng.uniform(-0.6, 0.6) * wide, _jitter(rng, base, 32), wide / rng.uniform(3, 9)
    for x in np.arange(-wide, 2 * wide, step):
        stripe = (x, 0, x + step / 2, 0, x + step / 2 + slant, high, x + slant, high)
        draw.polygon(stripe, fill=(*colour, 200))


def _horizon(draw: ImageDraw.ImageDraw, rng: Rng, base: Colour, wide: int, high: int) -> None:
    y, tilt = rng.uniform(0.3, 0.8) * high, rng.uniform(-0.1, 0.1) * high
    draw.polygon((0, y, wide, y + tilt, wide, high, 0, high), fill=(*_any_colour(rng), 230))


def _blocks(draw: ImageDraw.ImageDraw, rng: Rng, base: Colour, wide: int, high: int) -> None:
    for _ in range(5):
        x, y, w, h = rng.uniform((-0.2, -0.2, 0.1, 0.1), (0.9, 0.9, 0.6, 0.6)) * (wide, high, wide, wide)
        draw.rectangle((x, y, x + w, y + h), fill=(*_jitter(rng, base, 35), 200))


def _rays(draw: ImageDraw.ImageDraw, rng: Rng, base: Colour, wide: int, high: int) -> None:
    x, y, colour = rng.uniform(0, wide), rng.uniform(0, high), _jitter(rng, base, 38)
    for angle in np.arange(0, 2 * np.pi, np.pi / 8) + rng.uniform(0, 1):
        edge = [(x + 2 * wide * np.cos(a), y + 2 * wide * np.sin(a)) for a in (angle, angle + np.pi / 16)]
        draw.polygon([(x, y), *edge], fill=(*colour, 255))


def _dots(draw: ImageDraw.ImageDraw, rng: Rng, base: Colour, wide: int, high: int) -> None:
    colour, step = _jitter(rng, base, 38), wide / rng.uniform(6, 12)
    for i, x in enumerate(np.arange(0, wide + step, step)):
        for y in np.arange((i % 2) * step / 2, high + step, step):
            r = step * 0.36 * y / high
            draw.ellipse((x - r, y - r, x + r, y + r), fill=(*colour, 255))


_PATTERNS = {
    "blocks": _blocks,
    "bokeh": _bokeh,
    "dots": _dots,
    "horizon": _horizon,
    "leaves": _leaves,
    "rays": _rays,
    "stripes": _stripes,
}
"""What can be on a background, by its kind; one of another kind is plain."""


def _body(pen: _Pen, rng: Rng, person: Person, picture: Picture) -> None:
    """Neck, shoulders and clothes."""
    cloth, second = _any_colour(rng), _any_colour(rng)
    neck = (0.37 - 0.035 * person.look) * (1 - 0.4 * person.baby)
    wide = (1.28 - 0.09 * person.look + rng.normal(0, 0.08)) * (1 - 0.36 * person.baby)
    shadow = _shade(person.skin, 0.8)
    pen.fill(_blob([(neck, 0.4), (neck * 1.05, 1.2), (neck * 2, 1.6)]), shadow, contour=True)
    drop = rng.uniform(1.22, 1.34)
    shoulder = [(wide * 0.75, drop + 0.14), (wide, drop + 0.42), (wide * 1.1, 2.9)]
    pen.fill(_blob([(0, drop + 0.16), (neck * 1.15, drop), *shoulder]), cloth, contour=True)
    if rng.random() < 0.3:
        for x in np.linspace(-1.1, 1.1, int(rng.integers(4, 10))) * wide:
            pen.line([(x, drop + 0.3 + 0.2 * abs(x)), (x, 3)], 0.07, second, 150)
    if picture.clothes == "vee":
        pen.fill([(-neck, drop - 0.03), (neck, drop - 0.03), (0, drop + 0.55)], person.skin, contour=True)
    elif picture.clothes in ("shirt", "tie"):
        for side in (-1, 1):
            flap = np.array([(neck * 1.2, -0.14), (0, 0.2), (0.4, 0.42), (neck * 1.6, 0.08)])
            pen.fill(flap * (side, 1) + (0, drop), _mix(cloth, _WHITE, 0.6), contour=True)
        if picture.clothes == "tie":
            tie = [(-0.1, drop + 0.18), (0.1, drop + 0.18), (0.17, 2.9), (-0.17, 2.9)]
            pen.fill(tie, second, contour=True)
    elif picture.clothes == "hood":
        hood = [(0, drop + 0.25), (0.5, drop - 0.12), (0.8, drop + 0.2), (0, drop + 0.6)]
        pen.fill(_blob(hood), _shade(cloth, 0.75), contour=True)
    elif picture.clothes == "roll":
        pen.fill(_blob([(neck * 1.15, 0.98), (neck * 1.25, drop + 0.15)]), _shade(cloth, 0.88), contour=True)
    if picture.shows_necklace:
        pen.line(_arc([(0, drop + 0.24), (neck, drop - 0.06)]), 0.035, (236, 206, 110))


# ------------------------------------------------------------------------------------------------------- head


def _outline(person: Person) -> np.ndarray:
    s, c, j, k = person.skull, person.cheek, person.jaw, person.chin
    skull = [(0, -1), (0.56 * s, -0.9), (0.92 * s, -0.62), (s, -0.25)]
    return _blob([*skull, (c, 0.12), (0.5 * (c + j), 0.42), (j, 0.65), (k, 0.92), (0, 1.0)])


def _head(pen: _Pen, person: Person, picture: Picture) -> None:
    skin, dark = person.skin, _shade(person.skin, 0.76)
    for side in (-1, 1):
        x, r = side * (person.skull + 0.02) - 0.24 * pen.yaw, person.ears
        pen.fill(_circle(20) * (0.6 * r, r) + (x, 0.12 + pen.nod), _shade(skin, 0.92), contour=True)
        pen.disc(x - side * 0.02, 0.12 + pen.nod, 0.28 * r, 0.6 * r, dark, 150)
        if picture.earrings:
            pen.disc(x + side * 0.02, 0.12 + r * 1.15, 0.06, 0.08, (240, 210, 110))
    outline = pen.lean(_outline(person))
    pen.fill(outline, skin, contour=True)
    # A darker side away from the light gives form.
    away = 1 if np.cos(picture.light[0]) < 0 else -1
    if pen.style.contour == 0:
        rim = outline[outline[:, 0] * away > 0]
        for share in (0.62, 0.82):
            pen.fill(np.vstack([rim, rim[::-1] * (share, 0.98)]), dark, 45)
    blush = _mix(skin, (214, 70, 70), 0.55)
    for side in (-1, 1):
        x, y = pen.to_face([(side * 0.42, 0.36)])[0]
        rouge = max(0.0, picture.makeup - 0.3)
        pen.glow(x, y, 0.22, 0.17, blush, int(50 + 90 * person.baby + 80 * rouge))


def _age_lines(pen: _Pen, rng: Rng, person: Person) -> None:
    """Wrinkles, bags under the eyes and freckles."""
    dark, amount = _shade(person.skin, 0.5), person.wrinkles
    drop = 0.12 * person.baby
    alpha = int(min(215, 80 + 170 * amount))
    if amount > 0.12:
        for i in range(int(1 + 2.6 * amount)):
            y = -0.5 + 0.1 * i + rng.normal(0, 0.012)
            pen.line(pen.to_face(_arc([(0.15, y), (0.36, y + 0.02)])), 0.034, dark, int(alpha * 0.75))
        for side in (-1, 1):
            fold = smooth([(side * 0.19, 0.36), (side * 0.31, 0.48), (side * 0.35, 0.64)], False)
            bag = smooth([(side * 0.2, 0.17), (side * 0.34, 0.22), (side * 0.47, 0.15)], False)
            pen.line(pen.to_face(fold), 0.02 + 0.03 * amount, dark, alpha)
            pen.line(pen.to_face(bag), 0.02 + 0.025 * amount, dark, alpha)
            for k in (-1, 0, 1):
                foot = [(side * 0.54, 0.02 + 0.025 * k), (side * 0.63, 0.02 + 0.075 * k)]
                pen.line(pen.to_face(foot), 0.03, dark, int(alpha * 0.8))
    if person.freckles:
        for x, y in rng.normal((0, 0.28), (0.3, 0.08), (14, 2)):
            x, y = pen.to_face([(np.clip(x, -0.6, 0.6), y + drop)])[0]
            pen.disc(x, y, 0.016, 0.016, _mix(dark, (160, 80, 40), 0.4), 130)


def _eyes(pen: _Pen, person: Person, picture: Picture) -> None:
    y0 = person.eye_height
    w, h = person.eye_size, person.eye_size * max(0.2, person.eye_open) * picture.squint
    lid = _shade(person.skin, 0.86)
    shadow = _mix(person.skin, _shade(person.eye, 0.7), 0.7)
    for side in (-1, 1):
        x0 = side * person.eye_gap

        def at(points: Any, x0: float = x0, side: int = side) -> np.ndarray:
            points = np.asarray(points, dtype=float) * (side, 1)
            points[:, 1] -= points[:, 0] * side * person.eye_tilt
            return pen.to_face(points + (x0, y0))

        upper = [(-w, 0.1 * h), (-0.5 * w, -0.75 * h), (0.1 * w, -h), (0.7 * w, -0.65 * h), (w, 0)]
        lower = [(0.6 * w, 0.65 * h), (0, 0.9 * h), (-0.6 * w, 0.6 * h)]
        if picture.made_up:
            painted = smooth([*upper, (0.8 * w, -2.2 * h), (-0.3 * w, -2.1 * h)])
            pen.fill(at(painted), shadow, int(170 * picture.makeup))
        pen.fill(at(smooth([*upper, *lower])), _WHITE if picture.squint > 0.2 else lid)
        if picture.squint > 0.2:
            r = 0.95 * h if h > 0.42 * w else 1.12 * h
            x, y = picture.gaze * w * side, -0.05 * h
            for share, colour in ((1, _shade(person.eye, 0.55)), (0.8, person.eye), (0.45, (16, 12, 14))):
                pen.fill(at(_circle(20) * (share * r) + (x, y)), colour)
            pen.fill(at(_circle(20) * (0.2 * r) + (x - side * 0.3 * r, y - 0.35 * r)), (255, 255, 255), 230)
        # The lid hides what the iris has too much, and carries the lashes.
        crease = [(0.8 * w, -1.35 * h), (0, -1.75 * h), (-0.8 * w, -1.1 * h)]
        pen.fill(at(smooth([*upper, *crease])), lid, 60 if picture.made_up else 200)
        lash = 0.018 + 0.058 * person.lashes * (1 + 0.5 * picture.makeup) * (1 - 0.4 * person.baby)
        pen.line(at(smooth(upper, False)), lash, _INK)
        if person.lashes > 0.35:
            flick = 0.3 + 0.5 * person.lashes
            tip = (w * (1 + 0.55 * flick), -h * flick - 0.02)
            pen.line(at([(0.7 * w, -0.55 * h), tip]), lash * 0.9, _INK)
        pen.line(at(smooth([upper[-1], *lower, upper[0]], False)), 0.014, _shade(person.skin, 0.5), 170)


def _brows(pen: _Pen, person: Person, colour: Colour) -> None:
    y0 = person.eye_height - person.brow_gap - 0.03
    w, t, arch = person.eye_size * 1.18, person.brow / 2, person.brow_arch
    line = np.array([(-0.85 * w, -0.45 * arch), (-0.3 * w, -0.8 * arch), (0.35 * w, -arch)])
    top, bottom = line - [(0, 0.8 * t), (0, 1.1 * t), (0, t)], line + [(0, 0.9 * t), (0, t), (0, 0.7 * t)]
    shape = smooth(np.vstack([top, [(1.05 * w, 0.03)], bottom[::-1]]))
    dark = _shade(_mix(colour, _INK, 0.4), 0.85)
    for side in (-1, 1):
        placed = pen.to_face(shape * (side, 1) + (side * person.eye_gap, y0))
        pen.fill(placed, dark, int(240 - 150 * person.baby))


def _nose(pen: _Pen, person: Person) -> None:
    top, tip = person.eye_height + 0.03, 0.05 + 0.12 * person.baby + person.nose_long
    w, dark = person.nose_wide, _shade(person.skin, 0.66)
    side = -1 if pen.yaw > 0 else 1
    bridge = smooth([(side * 0.07, top), (side * 0.075, 0.6 * tip), (side * w * 0.9, tip - 0.04)], False)
    pen.line(pen.to_face(bridge, 1.25), 0.032, dark, int(120 * (1 - 0.7 * person.baby)))
    x, y = pen.to_face([(0, tip - 0.05)], 1.25)[0]
    pen.disc(x, y, w * 0.6, 0.075, _mix(person.skin, _WHITE, 0.25), 110)
    base = _arc([(0, tip + 0.035), (w * 0.35, tip), (w * 0.9, tip + 0.01), (w, tip - 0.07)])
    pen.line(pen.to_face(base, 1.25), 0.034, dark, 200)
    for s in (-1, 1):
        x, y = pen.to_face([(s * w * 0.5, tip)], 1.25)[0]
        pen.disc(x, y, w * 0.23, 0.022, _shade(dark, 0.55), 200)


def mouth_gap(person: Person, picture: Picture) -> float:
    """How far the lips stand apart; less than 0.02 is drawn closed."""
    return 0.1 * picture.open * (1 - 0.3 * person.baby)


def _mouth(pen: _Pen, person: Person, picture: Picture) -> None:
    y0, w, f = person.mouth_height, person.mouth * (1 + 0.16 * picture.smile), person.lips
    corner, gap = -0.09 * picture.smile, mouth_gap(person, picture)
    red = _mix(_shade(person.skin, 0.8), (176, 62, 70), 0.42)
    lipstick = _mix((196, 20, 60), _shade(person.eye, 1.1), 0.12)
    colour = _mix(red, lipstick, picture.makeup if picture.made_up else 0.0)
    end, middle = (w, y0 + corner), y0 + 0.02 * picture.smile
    upper = [(0, middle - 0.7 * f - gap / 3), (0.3 * w, middle - 0.95 * f - gap / 3)]
    bottom = middle + 1.3 * f + gap
    pen.fill(pen.to_face(_blob([*upper, end, (0.5 * w, bottom - 0.35 * f), (0, bottom)]), 1.08), colour)
    if gap > 0.02:
        inside = _blob([(0, middle - gap / 3), (0.9 * w, y0 + corner), (0, middle + gap)])
        pen.fill(pen.to_face(inside, 1.08), (70, 24, 30))
        if person.age > 0.8:
            edge = (0.66 * w, middle - 0.2 * gap + 0.5 * corner)
            pen.fill(pen.to_face(_blob([(0, middle - gap / 3), edge, (0, middle + 0.4 * gap)]), 1.08), _WHITE)
    else:
        pen.line(pen.to_face(_arc([(0.4 * w, middle), end]), 1.08), 0.028, _shade(colour, 0.5))
    under = _arc([(0, bottom + 0.075), (0.4 * w, bottom + 0.06)])
    pen.line(pen.to_face(under, 1.08), 0.03, _shade(person.skin, 0.7), 90)


def _facial_hair(pen: _Pen, rng: Rng, person: Person, colour: Colour) -> None:
    if not person.beard:
        return
    y, m, j, k = person.mouth_height, person.mouth, person.jaw, person.chin
    dark = _shade(colour, 0.85)
    under_nose = [(0, -0.16), (m * 0.8, -0.1), (m * 1.2, 0.04), (m * 0.5, -0.035), (0, -0.05)]
    moustache = _blob(under_nose) + (0, y)
    long, c = float(rng.uniform(0, 0.12)), person.cheek
    goatee = _blob([(0.2, y + 0.17), (0.22, 0.93), (0, 1.04 + long)])
    outside = np.array([(c * 0.98, 0.16), (j * 1.02, 0.66), (k * 1.1, 0.95 + long), (0, 1.03 + 1.5 * long)])
    around_mouth = [(0, y + 0.2), (m * 0.9, y + 0.15), (m * 1.15, y - 0.06)]
    inside, mirror = np.array([*around_mouth, (j * 0.8, 0.5), (c * 0.84, 0.2)]), (-1, 1)
    full = smooth(np.vstack([outside, outside[-2::-1] * mirror, inside[:0:-1] * mirror, inside]))
    solid = 70 if person.beard == "stubble" else 225
    if person.beard in ("full", "stubble"):
        pen.fill(pen.lean(full), dark, solid)
    if person.beard == "goatee":
        pen.fill(pen.lean(goatee), dark, solid)
    if person.beard != "goatee" or rng.random() < 0.7:
        pen.fill(pen.to_face(moustache, 1.05), dark, solid)
    if person.beard != "moustache":
        spots = rng.normal((0, 0.85), (0.32 if person.beard != "goatee" else 0.1, 0.1), (36, 2))
        for x, y in pen.lean(spots[(np.abs(spots[:, 0]) < j) & (spots[:, 1] > 0.74)]):
            pen.line([(x, y), (x + 0.02, y + 0.06)], 0.016, _shade(colour, float(rng.uniform(0.6, 1.3))), 150)


# ------------------------------------------------------------------------------------------------------- hair


def _hair_back(pen: _Pen, rng: Rng, person: Person, picture: Picture, colour: Colour) -> None:
    """What hangs or stands behind the head."""
    dark, s = _shade(colour, 0.72), person.skull
    if person.texture == "curly" and person.length > 0.3:
        r = 0.14 + 0.1 * person.length
        low = -0.1 + 1.25 * person.length * (not picture.tied)
        for t in np.linspace(0, 1, 11):
            for side in (-1, 1):
                out = (s + 0.08 + person.volume) * np.sin(min(1.0, 2.2 * t + 0.1) * np.pi / 2)
                shade = _shade(dark, float(rng.uniform(0.9, 1.15)))
                pen.disc(side * out + rng.normal(0, 0.03), -0.95 + t * (low + 0.95), r, r, shade)
    if picture.tied and person.length > 0.45:
        if rng.random() < 0.5:
            pen.disc(0.4 * person.part, -1.14, 0.3, 0.26, dark)
        else:
            tail = smooth([(s, -0.5), (1.12, -0.2), (1.05, 0.9), (0.8, 0.6)])
            pen.fill(tail * (np.sign(person.part), 1), dark, contour=True)
    elif person.length > 0.36:
        low = -0.25 + 2.1 * person.length
        swing = 0.07 if person.texture != "straight" else 0.0
        wide = s + 0.13 + person.volume
        hang = [(wide + swing, 0.3 * low), (wide - swing, 0.6 * low), (wide * 1.02, low), (0.4, low + 0.05)]
        pen.fill(_blob([(0, -1.0), (0.75 * wide, -0.8), (wide, -0.2), *hang]), dark, contour=True)
        for x in rng.uniform(-wide, wide, 12):
            strand = smooth([(x * 0.9, -0.2), (x + swing, 0.4 * low), (x, low)], False)
            pen.line(strand, 0.03, _shade(colour, float(rng.uniform(0.6, 1.15))), 120)


def _hair_front(pen: _Pen, rng: Rng, person: Person, picture: Picture, colour: Colour) -> None:
    """The cap of hair, its hairline, fringe and locks."""
    s, short = person.skull, person.shaven
    low = -0.02 + 0.1 * min(person.length, 0.5) - 0.3 * person.baby
    low += 0.1 * (person.beard in ("full", "stubble"))
    if person.bald:  # a bare crown: hair at the sides only
        patch = [(s * 1.02, low), (s * 1.07, -0.3), (s * 0.93, -0.68), (s * 0.86, -0.4), (s * 0.92, -0.1)]
        for side in (-1, 1):
            pen.fill(smooth(np.array(patch) * (side, 1)) - (0.05 * pen.yaw, 0), colour, 235)
        return
    up = 0.02 if short else 0.05 + person.volume
    side_up = [(s * 0.86 + 0.6 * up, -0.72), (s * (1.03 + 0.5 * up), -0.32), (s * 1.02, low)]
    outer = np.array([(0, -1.03 - up), (s * 0.5, -0.95 - 0.9 * up), *side_up])
    cap = np.vstack([outer[:0:-1] * (-1, 1), outer])
    shape = smooth(np.vstack([cap, _hairline(rng, person)])) + (0.06 * pen.yaw, 0)
    thin = short or person.baby > 0.6
    solid = int(np.clip(255 * (1 - 0.75 * person.baby), 80, 255)) if thin else 255
    pen.fill(shape, colour, solid, contour=not thin)
    if person.texture == "curly" and not thin:
        for x, y in shape[::4] + rng.normal(0, 0.03, (len(shape[::4]), 2)):
            pen.disc(x, min(y, 0.0), 0.1, 0.1, _shade(colour, float(rng.uniform(0.86, 1.1))))
    else:
        p = person.part * s
        for e in rng.uniform(-1, 1, 16):
            tip = (e * s * 1.02, -0.42 - 0.2 * (1 - abs(e)))
            strand = smooth([(p, -0.95 - up), ((p + tip[0]) / 2, -0.88 - 0.6 * up), tip], False)
            pen.line(strand, 0.022, _shade(colour, float(rng.choice([0.72, 1.3]))), 90 * solid // 255)
    if person.length > 0.5 and not picture.tied:
        _locks(pen, rng, person, colour)


def _hairline(rng: Rng, person: Person) -> np.ndarray:
    """Control points from the right temple over the forehead to the left one."""
    s, p, back = person.skull, person.part * person.skull, person.receding
    if person.has_fringe:
        drop = float(-0.26 + 0.06 * rng.normal())
        right, middle = [(s * 0.9, -0.25), (s * 0.7, drop), (s * 0.36, drop - 0.05)], (p, drop - 0.02)
    else:
        top = -0.56 - 0.12 * back - 0.12 * person.baby
        corner = top - 0.32 * back
        right, middle = [(s * 0.9, -0.28), (s * 0.72, corner + 0.08), (s * 0.42, corner)], (p, top - 0.06)
    side = np.array(right)
    return np.vstack([side, [middle], side[::-1] * (-1, 1)])


def _locks(pen: _Pen, rng: Rng, person: Person, colour: Colour) -> None:
    s, low = person.skull, -0.3 + 1.9 * person.length
    swing = 0.08 if person.texture != "straight" else 0.01
    outer = [(0.84 * s, -0.5), (1.08 * s, -0.4), (1.16 * s + swing, 0.3 * low), (1.12 * s - swing, 0.7 * low)]
    inner = [(1.15 * s, low), (0.95 * s, low * 0.95), (0.9 * s - swing, 0.5 * low), (0.92 * s, 0)]
    lock = smooth([*outer, *inner])
    for side in (-1, 1):
        pen.fill(lock * (side, 1) + (0.06 * pen.yaw, 0), _shade(colour, 0.93))
        for x in rng.uniform(0.92, 1.12, 4) * s * side:
            strand = smooth([(x, -0.3), (x + swing * side, 0.4 * low), (x, 0.9 * low)], False)
            pen.line(strand, 0.024, _shade(colour, float(rng.choice([0.7, 1.25]))), 110)


# ---------------------------------------------------------------------------------- things worn or in the way


def _hat(pen: _Pen, rng: Rng, person: Person, kind: str) -> None:
    if not kind:
        return
    colour, s = _any_colour(rng), person.skull * 1.12
    pen.fill(_blob([(s * 0.5, -1.3), (s * 0.95, -0.95), (s, -0.48), (0, -0.55)]), colour, contour=True)
    band = _shade(colour, 0.7)
    if kind == "beanie":
        pen.fill(_blob([(0, -0.84), (s * 1.03, -0.75), (s * 1.03, -0.42), (0, -0.5)]), band, contour=True)
    elif kind == "cap":
        peak = _blob([(0, -0.66), (s * 0.85, -0.56), (s * 0.7, -0.36), (0, -0.3)])
        pen.fill(peak + (0.7 * pen.yaw, 0), band, contour=True)
    else:
        pen.fill(_blob([(0, -0.74), (s * 1.75, -0.5), (0, -0.4)]), band, contour=True)


def _glasses(pen: _Pen, rng: Rng, person: Person, dark: bool) -> None:
    frame = _mix(_INK, _any_colour(rng), 0.4) if person.glasses < 3 else (196, 170, 110)
    y, r = person.eye_height + 0.02, person.eye_size * (1.42 if person.glasses != 2 else 1.5)
    lens = _circle(20) * (r, r * 0.86)
    if person.glasses == 2:
        lens = smooth([(-r, -0.7 * r), (r, -0.75 * r), (0.9 * r, 0.6 * r), (-0.8 * r, 0.6 * r)])
    for side in (-1, 1):
        rim = pen.to_face(lens * (side, 1) + (side * person.eye_gap, y), 1.05)
        pen.fill(rim, (24, 22, 30) if dark else (235, 245, 255), 240 if dark else 40)
        pen.line(np.vstack([rim, rim[:2]]), 0.034, frame)
        edge = pen.to_face([(side * (person.eye_gap + r), y - 0.05)], 1.05)[0]
        pen.line([edge, (side * person.skull - 0.2 * pen.yaw, y - 0.02 + pen.nod)], 0.034, frame)
    inner = person.eye_gap - r
    pen.line(pen.to_face([(-inner, y - 0.04), (inner, y - 0.04)], 1.05), 0.04, frame)


def _occluder(pen: _Pen, rng: Rng, person: Person, kind: str) -> None:
    side, colour = float(rng.choice([-1, 1])), _any_colour(rng)
    if kind == "hand":
        x, y = side * rng.uniform(0.25, 0.6), rng.uniform(0.75, 1.05)
        wrist = x + 0.36 * side
        palm = [(x - 0.3, y + 0.1), (x + 0.3, y + 0.1), (wrist + 0.2, 2.6), (wrist - 0.25, 2.6)]
        pen.fill(smooth(palm), person.skin, contour=True)
        for k in range(4):
            fx = x - 0.24 + 0.16 * k
            finger = smooth([(-0.08, 0.25), (-0.07, -0.22), (0.07, -0.25), (0.08, 0.25)]) + (fx, y)
            pen.fill(finger, _shade(person.skin, 0.96), contour=True)
            pen.line([(fx + 0.08, y - 0.15), (fx + 0.08, y + 0.25)], 0.02, _shade(person.skin, 0.6), 180)
    elif kind == "mug":
        x, y = side * rng.uniform(0, 0.25), rng.uniform(0.55, 0.8)
        pen.line(_circle(20) * 0.22 + (x + side * 0.42, y + 0.35), 0.08, _shade(colour, 0.8))
        cup = [(x - 0.4, y), (x + 0.4, y), (x + 0.35, y + 0.75), (x - 0.35, y + 0.75)]
        pen.fill(cup, colour, contour=True)
        pen.disc(x, y, 0.4, 0.08, _shade(colour, 0.6))
    elif kind == "bar":
        at, lean = side * rng.uniform(0.15, 0.9), rng.uniform(-0.3, 0.3)
        bar = [(at - 0.11, -3), (at + 0.11, -3), (at + 0.11 + lean, 3), (at - 0.11 + lean, 3)]
        pen.fill(bar, colour, contour=True)
    elif kind == "scarf":
        y = rng.uniform(0.72, 0.95)
        wrap = _blob([(0, y + 0.12), (0.85, y - 0.05), (1.0, y + 0.55), (0, y + 0.8)])
        pen.fill(wrap, colour, contour=True)
        pen.line(_arc([(0, y + 0.42), (0.85, y + 0.25)]), 0.05, _shade(colour, 0.7))
    elif kind == "leaf":
        for x, y in rng.normal((side * 0.9, rng.uniform(-0.9, 0.9)), 0.2, (4, 2)):
            dx, dy = rng.normal(0, 0.3, 2)
            tips = [(-dx, -dy), (dy * 0.4, -dx * 0.4), (dx, dy), (-dy * 0.4, dx * 0.4)]
            leaf = smooth(np.array(tips) + (x, y))
            pen.fill(leaf, _shade(colour, float(rng.uniform(0.7, 1.2))), contour=True)
    elif kind == "sunglasses":
        _glasses(pen, rng, person, dark=True)


# -------------------------------------------------------------------------------------------------- portraits


def portrait(person: Person, picture: Picture, style: Style) -> Image.Image:
    """Draws one picture of a person: RGB, of the style's size in pixels."""
    rng = np.random.default_rng(picture.seed)
    scale = _Pen.oversampling
    canvas = _background(rng, picture.background, (style.size[0] * scale, style.size[1] * scale))
    pen = _Pen(style, picture, canvas)
    hair = _mix(person.hair, (206, 206, 208), 0.9 * person.grey)
    if picture.hat != "beanie":
        _hair_back(pen, rng, person, picture, hair)
    _body(pen, rng, person, picture)
    _head(pen, person, picture)
    _age_lines(pen, rng, person)
    _facial_hair(pen, rng, person, hair)
    _mouth(pen, person, picture)
    _nose(pen, person)
    _eyes(pen, person, picture)
    _brows(pen, person, hair)
    _hair_front(pen, rng, person, picture, hair)
    if picture.glasses and picture.occluder != "sunglasses":
        _glasses(pen, rng, person, dark=False)
    _hat(pen, rng, person, picture.hat)
    _occluder(pen, rng, person, picture.occluder)
    return _photograph(rng, canvas.reduce(scale), picture, style)


def _photograph(rng: Rng, image: Image.Image, picture: Picture, style: Style) -> Image.Image:
    """Adds what light and camera do to a picture."""
    if picture.blur:
        image = image.filter(ImageFilter.GaussianBlur(picture.blur))
    if picture.grey:
        image = image.convert("L").convert("RGB")
    pixels = np.asarray(image, dtype=np.float32)
    high, wide, _ = pixels.shape
    angle, strength = picture.light
    x, y = np.linspace(-1, 1, wide, dtype=np.float32), np.linspace(-1, 1, high, dtype=np.float32)[:, None]
    falloff = 1 + strength * (x * np.cos(angle) + y * np.sin(angle))
    cast = np.array(picture.cast if not picture.grey else (1, 1, 1), dtype=np.float32)
    pixels = pixels * (picture.gain * falloff)[..., None].astype(np.float32) * cast
    pixels += rng.standard_normal((high, wide, 1), dtype=np.float32) * picture.noise
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return ImageOps.posterize(image, style.bits) if style.bits < 8 else image
