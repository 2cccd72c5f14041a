"""Crops that are turned upright: against drawn pictures whose angle is known."""

import math

import numpy as np
import pytest
from PIL import Image
from skimage import data, transform

from mien.data.alignment import cut_upright, roll, yaw

POINTS = np.array([[-30.0, -20], [30, -20], [0, 10], [-20, 40], [20, 40]])
"""A frontal, upright face: eyes, nose, corners of the mouth."""


def turned(points, degrees):
    angle = math.radians(degrees)
    return points @ np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


@pytest.mark.parametrize("degrees", [-170, -90, -45, -3, 0, 20, 60, 120])
def test_roll_is_the_angle_by_which_a_face_was_turned(degrees):
    assert math.degrees(roll(turned(POINTS, degrees) + 500)) == pytest.approx(degrees, abs=1e-6)


@pytest.mark.parametrize("degrees", [-60, 0, 45])
def test_roll_of_a_profile_comes_from_eyes_to_mouth(degrees):
    profile = POINTS * [0.0, 1.0] + [[0, 0], [0, 0], [40, 0], [0, 0], [0, 0]]
    assert math.degrees(roll(turned(profile, degrees))) == pytest.approx(degrees, abs=1e-6)


def test_roll_of_one_point_is_zero():
    assert roll(np.zeros((5, 2))) == 0


def test_yaw_does_not_depend_on_roll_or_size_and_changes_its_sign_in_a_mirror():
    aside = POINTS + [[0, 0], [0, 0], [25, 0], [0, 0], [0, 0]]
    assert yaw(POINTS) == pytest.approx(0)
    assert yaw(aside) > 0.3
    assert yaw(turned(3 * aside, 50)) == pytest.approx(yaw(aside))
    mirrored = (aside * [-1, 1])[[1, 0, 2, 4, 3]]
    assert yaw(mirrored) == pytest.approx(-yaw(aside))


@pytest.mark.parametrize("degrees", [-75, -45, -10, 30, 90])
def test_a_turned_face_is_cut_as_the_upright_one(degrees):
    astronaut = data.astronaut()
    centre = np.array([225.0, 125.0])
    # scikit-image turns counter-clockwise, and counts from the middle of the first pixel.
    pixels = transform.rotate(astronaut, -degrees, center=centre - 0.5, mode="edge", preserve_range=True)
    pixels = pixels.astype(np.uint8)
    where = (centre[0] - 64, centre[1] - 64, 128.0)
    expected = cut_upright(astronaut, where, 96, 0.0).astype(float)
    got = cut_upright(pixels, where, 96, math.radians(degrees)).astype(float)
    assert np.abs(got - expected).mean() < 6
    assert np.abs(cut_upright(pixels, where, 96, 0.0) - expected).mean() > 15


def test_pictures_and_pixels_give_the_same_crop():
    astronaut = data.astronaut()
    where = (160.0, 60.0, 130.0)
    assert np.array_equal(
        cut_upright(astronaut, where, 64, 0.4), cut_upright(Image.fromarray(astronaut), where, 64, 0.4)
    )


def test_what_lies_beyond_the_picture_repeats_its_edge():
    grey = np.full((60, 60, 3), 90, np.uint8)
    assert np.ptp(cut_upright(grey, (-20.0, -20.0, 60.0), 32, 0.7)) <= 1
