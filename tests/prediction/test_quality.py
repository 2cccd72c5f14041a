"""Notes on the picture of a face."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from skimage import data

from mien.base.labels import AGE_GROUPS, age_group_codes
from mien.prediction.predict import FaceCrop, Predictor
from mien.prediction.quality import notes, sharpness, unusual


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


def grouped(*rows):
    return {f"p_{group}": np.array(values) for group, values in zip(AGE_GROUPS, zip(*rows, strict=True), strict=True)}


def test_two_separate_peaks_are_unusual():
    answers = {
        (0.6, 0.1, 0.05, 0.05, 0.0, 0.0, 0.0, 0.2): True,
        (0.0, 0.0, 0.5, 0.05, 0.4, 0.05, 0.0, 0.0): True,
        (0.7, 0.1, 0.05, 0.05, 0.05, 0.05, 0.0, 0.0): False,  # one peak
        (0.04, 0.0, 0.0, 0.0, 0.06, 0.8, 0.1, 0.0): False,  # the second one is small
        (0.0, 0.0, 0.0, 0.4, 0.25, 0.35, 0.0, 0.0): False,  # the valley is not deep
        (0.125,) * 8: False,
    }
    assert unusual(grouped(*answers)).tolist() == list(answers.values())
    assert unusual({"p_female": np.ones(3)}).tolist() == [False] * 3


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 100), st.floats(0.5, 12), st.floats(0.5, 12))
def test_one_peak_over_the_years_is_never_unusual(peak, rise, fall):
    years = np.arange(101)
    density = np.exp(np.where(years < peak, (years - peak) / rise, (peak - years) / fall))
    masses = np.bincount(age_group_codes(years), density / density.sum(), len(AGE_GROUPS))
    assert not unusual(grouped(masses))[0]


def test_the_note_is_in_the_rows_of_photographs(monkeypatch):
    predictor = Predictor(threads=1)
    pixels = np.zeros((predictor.size, predictor.size, 3), np.uint8)
    crops = [FaceCrop({"file": name, "quality": quality}, pixels) for name, quality in (("a", ""), ("b", "small"))]
    monkeypatch.setattr("mien.prediction.quality.unusual", lambda columns: np.array([True, True]))
    rows = list(predictor.predict_crops([crops[0], FaceCrop({"file": "c", "status": "no face"}, None), crops[1]]))
    assert [row.get("quality") for row in rows] == ["unusual", None, "small; unusual"]
