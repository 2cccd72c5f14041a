"""The page's own resampling gives Pillow's pixels, on random images."""

import base64
import io
import json
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from skimage import data

from mien.data.alignment import cut_upright

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")


def run(*operations):
    """The images that operations of the page give; each is (name, image, arguments ...)."""
    given = []
    for name, image, *rest in operations:
        height, width, _ = image.shape
        given.append([name, width, height, base64.b64encode(image.tobytes()).decode(), *rest])
    script = Path(__file__).parent / "pixels.mjs"
    done = subprocess.run([NODE, script], input=json.dumps(given), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [
        np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(height, width, 3)
        for width, height, pixels in json.loads(done.stdout)
    ]


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)


def test_resize_and_reduce_give_the_same_bits(noise):
    picture = Image.fromarray(noise)
    cases = [
        ((64, 48), (0, 0, 131, 97), None),
        ((64, 97), (0, 0, 131, 97), None),
        ((131, 40), (0, 0, 131, 97), None),
        ((131, 97), (0, 0, 131, 97), None),
        ((200, 150), (0, 0, 131, 97), None),
        ((31, 17), (12.3, 4.7, 120.9, 96.2), None),
        ((128, 128), (50.25, 40.5, 71.75, 62.1), None),
        ((10, 9), (0.4, 1.6, 130.2, 95.5), 2.0),
        ((24, 9), (0, 0, 131, 97), 2.0),
    ]
    results = run(*(("resize", noise, *size, box, gap) for size, box, gap in cases))
    for (size, box, gap), result in zip(cases, results, strict=True):
        expected = picture.resize(size, Image.Resampling.BILINEAR, box, reducing_gap=gap)
        np.testing.assert_array_equal(result, np.asarray(expected))
    blocks = [
        ((2, 2), (0, 0, 131, 97)),
        ((3, 5), (7, 3, 120, 90)),
        ((9, 4), (0, 0, 131, 97)),
        ((1, 3), (2, 2, 100, 97)),
    ]
    for (factor, box), result in zip(blocks, run(*(("reduce", noise, *f, box) for f, box in blocks)), strict=True):
        np.testing.assert_array_equal(result, np.asarray(picture.reduce(factor, box)))


def test_turns_crops_and_grey_give_the_same_bits(noise):
    picture = Image.fromarray(noise)
    turn = (0.9, -0.3, 11.0, 0.35, 1.1, -7.0)
    for name, filtered in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
        (result,) = run(("transform", noise, 90, 80, turn, name))
        expected = picture.transform((90, 80), Image.Transform.AFFINE, turn, filtered)
        np.testing.assert_array_equal(result, np.asarray(expected))
    box = (-10, 5, 140, 120)
    cropped, grey = run(("crop", noise, *box), ("grey", noise))
    np.testing.assert_array_equal(cropped, np.asarray(picture.crop(box)))
    np.testing.assert_array_equal(grey[..., 0], np.asarray(picture.convert("L")))


def test_faces_are_cut_and_turned_alike(noise):
    cases = [((20.3, 10.1, 50.7), 64, angle) for angle in (0.0, 0.05, 0.4, -2.8)]
    cases += [((-10.6, -5.2, 60.0), 48, 0.0), ((100.0, 60.0, 50.0), 48, 0.7)]
    for (where, size, angle), result in zip(cases, run(*(("cut", noise, *case) for case in cases)), strict=True):
        np.testing.assert_array_equal(result, cut_upright(noise, where, size, angle))


def test_large_jpeg_files_are_reduced_as_by_the_decoder():
    photograph = Image.fromarray(data.astronaut()).resize((1603, 1205), Image.Resampling.BICUBIC)
    for quality, least, orientation in ((95, 800, 1), (75, 400, 6), (90, 150, 3)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = io.BytesIO()
        photograph.save(file, "JPEG", quality=quality, exif=exif)
        with Image.open(file) as image:
            whole = np.asarray(image.convert("RGB"))
        with Image.open(file) as image:
            scale = least / max(image.size)
            image.draft("RGB", (math.ceil(image.width * scale), math.ceil(image.height * scale)))
            expected = np.asarray(ImageOps.exif_transpose(image)).astype(float)
        (result,) = run(("draft", whole, least, orientation))
        assert result.shape == expected.shape
        off = np.abs(result - expected)
        assert off.mean() < 1 and np.percentile(off, 99) <= 8, (quality, off.mean(), np.percentile(off, 99))
