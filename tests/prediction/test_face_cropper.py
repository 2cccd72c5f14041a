"""From photographs to crops: sizes, orientation, what a reduced decode must not change. The detector here is a fake."""

import io
import math

import numpy as np
import pytest
from PIL import Image
from skimage import data

from mien.data import images
from mien.prediction.face_cropper import READ, FaceCropper
from mien.prediction.faces import DetectedFace

FACE = (180.0, 80.0, 91.0, 91.0)
"""The astronaut's face in 512x512 pixels."""


class Fake:
    """Finds the astronaut's face in the astronaut, at any size, and says how large the picture was."""

    def __init__(self, points=None, face=FACE, sides=512):
        self.seen, self._points, self._face, self._sides = [], points, face, sides

    def __call__(self, picture):
        self.seen.append(picture.size)
        scale = picture.width / self._sides
        points = None if self._points is None else self._points * scale
        return [DetectedFace(tuple(edge * scale for edge in self._face), 0.9, False, points)]

    def wants(self, longer):
        return 512


def jpeg(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def large():
    return Image.fromarray(data.astronaut()).resize((4096, 4096), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def expected():
    picture = Image.fromarray(data.astronaut())
    return images.cut(picture, images.square(512, 512, FACE, 0.1), 128).astype(float)


def test_a_large_jpeg_is_decoded_reduced_and_boxes_are_in_full_pixels(large, expected):
    fake = Fake()
    (face,) = FaceCropper(fake, 128, 0.1)(jpeg(large))
    assert fake.seen == [(1024, 1024)] and READ <= 1024
    assert [face.columns[edge] for edge in "xywh"] == pytest.approx([8 * edge for edge in FACE])
    assert np.abs(face.pixels - expected).mean() < 4


def test_a_small_face_in_a_large_jpeg_keeps_its_pixels(large):
    tiny = (190.0, 95.0, 20.0, 20.0)  # 160 pixels in full, 40 in what is decoded first
    fake = Fake(face=tiny)
    (face,) = FaceCropper(fake, 128, 0.0)(jpeg(large))
    full = images.cut(large, (190 * 8, 95 * 8, 160), 128).astype(float)
    assert np.abs(face.pixels - full).mean() < 4
    reduced = images.cut(large.reduce(4), (190 * 2, 95 * 2, 40), 128).astype(float)
    assert np.abs(face.pixels - full).mean() < np.abs(face.pixels - reduced).mean()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_photograph_is_turned_as_its_exif_says(expected, orientation):
    picture = Image.fromarray(data.astronaut())
    stored = picture.rotate({1: 0, 3: 180, 6: 90, 8: 270}[orientation], expand=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    (face,) = FaceCropper(Fake(), 128, 0.1)(jpeg(stored, exif=exif))
    assert np.abs(face.pixels - expected).mean() < 4
    assert [face.columns[edge] for edge in "xywh"] == pytest.approx(list(FACE))


def test_width_and_height_are_those_of_the_upright_photograph(large):
    wide = large.crop((0, 0, 4096, 1024))
    exif = Image.Exif()
    exif[0x0112] = 6
    reduced = images.load_reduced(jpeg(wide.rotate(90, expand=True), exif=exif), lambda longer: 1000)
    assert (reduced.width, reduced.height) == (4096, 1024)
    assert reduced.image.size == (1024, 256) and reduced.scale == 0.25


def test_a_turned_face_is_cut_upright(expected):
    angle = math.radians(35)
    turned = Image.fromarray(data.astronaut()).rotate(-35, Image.Resampling.BICUBIC)
    eyes_and_mouth = np.array([[201.0, 100], [250, 101], [225, 125], [206, 147], [244, 148]])
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    points = (eyes_and_mouth - 256) @ turn + 256
    middle = (np.array([[225.5, 125.5]]) - 256) @ turn + 256
    box = (*(middle[0] - 45.5), 91.0, 91.0)
    (face,) = FaceCropper(Fake(points, box), 128, 0.1)(turned)
    assert np.abs(face.pixels - expected).mean() < 12
    (upright,) = FaceCropper(Fake(None, box), 128, 0.1)(turned)
    assert np.abs(upright.pixels - expected).mean() > 25


def test_forty_eight_megapixels_are_read_and_no_more_is_decoded_than_needed():
    file = jpeg(Image.new("RGB", (8064, 6048), "grey"))
    fake = Fake(face=(100.0, 100.0, 300.0, 300.0))
    (face,) = FaceCropper(fake, 128, 0.1)(file)
    assert fake.seen == [(1008, 756)] and face.pixels.shape == (128, 128, 3)
