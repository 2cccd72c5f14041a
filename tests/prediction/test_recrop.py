"""A data set cut as in prediction; the faces are the astronaut, as she is and turned."""

import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage import data

from mien.base.ledger import Ledger
from mien.base.table import check_faces
from mien.data.face_pixels import FilePixels
from mien.prediction import recrop as module
from mien.prediction.detect import make_detector
from mien.prediction.face_cropper import FaceCropper
from mien.prediction.recrop import detect_places, recrop

TURN = 30
"""Degrees by which the second astronaut is turned counterclockwise."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("astronauts")
    astronaut = Image.fromarray(data.astronaut())
    astronaut.save(root / "upright.png")
    astronaut.rotate(TURN, Image.Resampling.BICUBIC, center=(225, 125)).save(root / "turned.png")
    two = Image.new("RGB", (768, 512))
    two.paste(astronaut, (256, 0))
    two.paste(astronaut.resize((256, 256)), (0, 0))
    two.save(root / "two.png")
    Image.new("RGB", (100, 100)).save(root / "none.png")
    (root / "broken.png").write_bytes(b"")
    return root


def table(root, names, **columns):
    faces = check_faces(pd.DataFrame({"face": names, "path": names, "dataset": "own", **columns}))
    return faces, [root / name for name in names]


def test_training_sees_the_pixels_of_prediction(folder):
    names = ["upright.png", "turned.png"]
    faces, paths = table(folder, names)
    found = recrop(faces, paths, Ledger("own", 2))
    assert abs(found["roll"][0]) < math.radians(8) and math.degrees(found["roll"][1]) == pytest.approx(-TURN, abs=10)
    pixels = FilePixels(found, folder, 128, 0.1)
    cropper = FaceCropper(make_detector(), 128, 0.1)
    for row, path in enumerate(paths):
        (best, *_) = cropper(path)
        np.testing.assert_array_equal(pixels[row], best.pixels)


def test_the_face_that_is_meant(folder):
    names = ["two.png", "again.png"]
    faces, paths = table(folder, names, x=[np.nan, 88.0], y=[np.nan, 38.0], w=[np.nan, 48.0], h=[np.nan, 48.0])
    paths = [paths[0], paths[0]]
    found = recrop(faces, paths, Ledger("own", 2))
    assert found["w"][0] > 70 and found["x"][0] > 350  # the largest, since there is no box
    assert found["w"][1] < 60 and found["x"][1] < 120  # the small one, whose box is given


def test_a_face_that_is_not_found_keeps_its_crop(folder):
    names = ["none.png", "broken.png", "upright.png"]
    faces, paths = table(folder, names, x=[10.0, 20.0, 400.0], y=5.0, w=30.0, h=30.0)
    ledger = Ledger("own", 3)
    found = recrop(faces, paths, ledger)
    pd.testing.assert_frame_equal(found[["x", "y", "w", "h"]], faces[["x", "y", "w", "h"]])
    assert (found["roll"] == 0).all()
    (entry,) = ledger.entries
    assert (entry.kind, entry.rows, ledger.kept) == ("changed", 3, 3) and "own: the detector finds no" in entry.reason


def test_faces_are_detected_once(folder, monkeypatch):
    paths = [folder / "upright.png", folder / "none.png"]
    first = detect_places(paths)
    monkeypatch.setattr(module, "_detect", None)
    again = detect_places(paths)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [len(one) for one in again] == [1, 0]
