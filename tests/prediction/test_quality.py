"""Notes on the picture of a face."""

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage import data

from mien.prediction.quality import notes, sharpness


@pytest.fixture(scope="module")
def face():
    return np.asarray(Image.fromarray(data.astronaut()[70:180, 170:280]).resize((128, 128)))


def test_a_good_face_has_no_notes(face):
    assert notes(face, (180, 80, 91, 91), 512, 512, False) == ""


def test_each_fault_has_its_word(face):
    blurred = np.asarray(Image.fromarray(face).filter(ImageFilter.GaussianBlur(4)))
    assert notes(blurred, None, 128, 128, False) == "blurred"
    assert notes(face, (180, 80, 39, 60), 512, 512, False) == "small"
    assert notes(face, None, 30, 60, False) == "small"
    assert notes(face, (-20, 80, 91, 91), 512, 512, False) == "cut off"
    assert notes(face, (180, 80, 91, 91), 512, 512, True) == "turned away"
    assert notes(blurred, (-30, 0, 39, 39), 512, 512, True) == "small; blurred; cut off; turned away"


def test_a_box_that_reaches_a_little_beyond_is_not_cut_off(face):
    assert notes(face, (-8, 80, 91, 91), 512, 512, False) == ""


def test_sharpness_falls_with_blur(face):
    values = [sharpness(np.asarray(Image.fromarray(face).filter(ImageFilter.GaussianBlur(r)))) for r in (0, 1, 2, 4)]
    assert values == sorted(values, reverse=True)


def test_a_square_of_one_colour_is_no_face():
    for value in (0, 128, 255):
        assert notes(np.full((64, 64, 3), value, np.uint8), None, 64, 64, False) == "one colour"
