"""A photograph to try things on: drawn people side by side."""

from dataclasses import replace

import numpy as np
from PIL import Image

from mien.demo.portraits import STYLES, portrait, sample_person, sample_picture

_STYLE = replace(STYLES["adience"], size=(320, 400), contour=0.02, grain=1.0)
_PEOPLE = (("female", 29, 4), ("male", 64, 7), ("female", 26, 12), ("male", 40, 10))
"""Gender, age and seed of each."""


def draw_sample() -> Image.Image:
    """Four people who do not exist, the same each time: RGB, 1280 x 400 pixels."""
    wide, high = _STYLE.size
    sample = Image.new("RGB", (wide * len(_PEOPLE), high))
    for index, (gender, age, seed) in enumerate(_PEOPLE):
        rng = np.random.default_rng(seed)
        person = sample_person(rng, gender, age)
        picture = replace(sample_picture(rng, person, _STYLE, (seed,)), occluder="", hat="", blur=0.0, grey=False)
        sample.paste(portrait(person, picture, _STYLE), (index * wide, 0))
    return sample
