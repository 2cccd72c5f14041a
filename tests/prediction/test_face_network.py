"""The runtime of mien's own detector, with a network that is made here: it finds white squares of 24 pixels,
and draws squares of 40 around them."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw

from mien.base.errors import MienError
from mien.prediction.detect import make_detector
from mien.prediction.face_network import FaceNetwork, is_own
from mien.prediction.second_look import brightening_table, upright_patch

ABOUT = {"strides": [8], "sizes": [40.0], "side": 512, "score": 0.5}


def square_finder(path, about=ABOUT, key="mien-detector"):
    """Writes a network whose score is the squared share of white in the 16 pixels around a cell."""

    def constant(name, value):
        return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value)))

    nodes = [
        constant("channel", np.array([1])),
        constant("white", np.float32(255)),
        constant("power", np.float32(2)),
        constant("zeros", np.zeros(8, np.int64)),
        constant("pads", np.array([0, 0, 0, 0, 0, 13, 0, 0])),
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["grey"], axes=[3], keepdims=0),
        helper.make_node("Unsqueeze", ["grey", "channel"], ["plane"]),
        helper.make_node(
            "AveragePool", ["plane"], ["pooled"], kernel_shape=[16, 16], strides=[8, 8], pads=[4, 4, 4, 4]
        ),
        helper.make_node("Div", ["pooled", "white"], ["share"]),
        helper.make_node("Pow", ["share", "power"], ["score"]),
        helper.make_node("Pad", ["score", "pads"], ["map8"]),
    ]
    given = [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", "h", "w", 3])]
    taken = [helper.make_tensor_value_info("map8", TensorProto.FLOAT, [None, 14, None, None])]
    model = helper.make_model(
        helper.make_graph(nodes, "squares", given, taken), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 9
    helper.set_model_props(model, {key: json.dumps(about)})
    onnx.save(model, path)
    return path


@pytest.fixture
def file(tmp_path):
    return square_finder(tmp_path / "squares.onnx")


def with_squares(width, height, side, corners):
    image = np.zeros((height, width, 3), np.uint8)
    for x, y in corners:
        image[y : y + side, x : x + side] = 255
    return Image.fromarray(image)


def test_squares_are_found_where_they_are(file):
    faces = FaceNetwork(file).find(with_squares(512, 384, 24, [(96, 56), (296, 200)]))
    assert sorted(map(tuple, faces.squares.round().tolist())) == [(108, 68, 40), (308, 212, 40)]
    assert faces.points.shape == (2, 5, 2) and np.allclose(faces.points[0], faces.squares[0, :2])


@pytest.mark.parametrize("size", [(1024, 768), (256, 192), (2000, 1500)])
def test_places_are_in_pixels_of_the_picture(file, size):
    scale = size[0] / 512
    side, x, y = (round(value * scale) for value in (26, 99, 147))
    (found,) = FaceNetwork(file).find(with_squares(*size, side, [(x, y)])).squares
    assert np.abs(found[:2] - (x + side / 2, y + side / 2)).max() < 6 * scale
    assert found[2] == pytest.approx(40 * scale, rel=0.02)


def test_a_closer_look_finds_smaller_ones_once_each_also_across_tiles(file):
    corners = [(x, y) for x in range(40, 3000, 149) for y in range(40, 2000, 173)]
    picture = with_squares(3000, 2000, 28, corners)
    assert len(FaceNetwork(file).find(picture).scores) < len(corners) / 2
    faces = FaceNetwork(file, min_face=20).find(picture)
    distances = np.abs(faces.squares[:, None, :2] - (np.array(corners) + 14)).max(axis=2)
    assert (distances.min(axis=0) < 8).mean() > 0.99, "a square was missed"
    assert (distances.min(axis=1) < 12).all(), "something else was found"
    assert len(faces.scores) < 1.1 * len(corners)


def test_threshold_is_that_of_the_file(tmp_path):
    grey = Image.fromarray(np.full((96, 96, 3), 198, np.uint8))  # a score of 0.6
    assert len(FaceNetwork(square_finder(tmp_path / "a.onnx", ABOUT | {"score": 0.7})).find(grey).scores) == 0
    assert len(FaceNetwork(square_finder(tmp_path / "b.onnx", ABOUT | {"score": 0.5})).find(grey).scores) > 0


def test_candidates_that_do_not_look_like_a_face_at_other_scales_are_dropped(tmp_path):
    picture = with_squares(512, 384, 24, [(96, 56)])
    # This network draws squares of 40 pixels at any scale: only a look that shows them in that size confirms them.
    same = FaceNetwork(square_finder(tmp_path / "same.onnx", ABOUT | {"looks": [2.4], "candidates": 0.3}))
    (found,) = same.find(picture).squares
    assert np.abs(found - (108, 68, 40)).max() < 6
    other = FaceNetwork(square_finder(tmp_path / "other.onnx", ABOUT | {"looks": [1.2], "candidates": 0.3}))
    assert len(other.find(picture).scores) == 0
    assert len(other.find(with_squares(512, 384, 24, [(0, 0)])).scores) == 0


@pytest.mark.parametrize("angle", [0.0, 0.6, -2.0])
@pytest.mark.parametrize("side", [30.0, 150.0, 420.0])
def test_a_patch_is_the_turned_square(angle, side):
    """A cross of known arms, turned and scaled, is upright and of known size in the patch."""
    picture = Image.new("RGB", (700, 600))
    across, down = (np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)]))
    draw = ImageDraw.Draw(picture)
    middle = np.array([350.0, 300.0])
    for arm, colour in ((across, (255, 0, 0)), (down, (0, 255, 0))):  # to the right in red, downwards in green
        draw.line([tuple(middle), tuple(middle + arm * side / 4)], colour, max(2, int(side / 12)))
    patch = np.asarray(upright_patch(picture, (350.0, 300.0, side), angle)).astype(int)
    assert patch.shape == (96, 96, 3)
    rows, columns = np.nonzero(patch[..., 0] > 128)
    assert 48 < columns.mean() < 72 and abs(rows.mean() - 48) < 6 and columns.max() == pytest.approx(72, abs=6)
    rows, columns = np.nonzero(patch[..., 1] > 128)
    assert 48 < rows.mean() < 72 and abs(columns.mean() - 48) < 6 and rows.max() == pytest.approx(72, abs=6)


def test_a_patch_may_lie_beyond_the_picture():
    picture = Image.new("RGB", (50, 50), "white")
    patch = np.asarray(upright_patch(picture, (0.0, 0.0, 40.0), 0.0))
    assert patch[10, 10].max() == 0 and patch[80, 80].min() == 255
    assert np.asarray(upright_patch(picture, (2000.0, 0.0, 900.0), 0.5)).max() == 0


def test_dark_pictures_are_made_light_and_others_left_as_they_are():
    pixels = np.random.default_rng(0).integers(0, 200, (60, 80, 3), dtype=np.uint8)
    assert brightening_table(pixels) is None
    table = brightening_table(pixels // 8)
    assert np.percentile(table[pixels // 8], 99) == pytest.approx(150, abs=12)
    assert brightening_table(np.zeros((60, 80, 3), np.uint8))[5] == 50, "by a factor of 10 at most"


def test_squares_in_a_dark_picture_are_found(file):
    dark = with_squares(512, 384, 24, [(96, 56)]).point(lambda value: value // 4)
    bright = with_squares(512, 384, 24, [(96, 56)]).point(lambda value: value * 150 // 255)
    network = FaceNetwork(square_finder(file.parent / "low.onnx", ABOUT | {"score": 0.2}))
    assert len(network.find(dark).scores) == len(network.find(bright).scores) == 1


def test_many_candidates_are_looked_at_in_turns(tmp_path):
    corners = [(x, y) for x in range(8, 480, 56) for y in range(8, 480, 56)]
    network = FaceNetwork(square_finder(tmp_path / "same.onnx", ABOUT | {"looks": [2.4], "candidates": 0.3}))
    faces = network.find(with_squares(512, 512, 24, corners))
    assert len(corners) > 64 and len(faces.scores) == len(corners)


def test_odd_shapes_are_looked_at(file):
    network = FaceNetwork(file)
    for size in ((1, 1), (3000, 3), (5, 700), (33, 31)):
        assert len(network.find(Image.new("RGB", size)).scores) == 0


def test_a_damaged_file_is_named(tmp_path, file):
    short = tmp_path / "short.onnx"
    short.write_bytes(file.read_bytes()[:200])
    with pytest.raises(MienError, match=r"short\.onnx' is damaged"):
        FaceNetwork(short)
    with pytest.raises(MienError, match=r"gone\.onnx'.*no such file"):
        FaceNetwork(tmp_path / "gone.onnx")
    assert is_own(file) and not is_own(short)


@pytest.mark.parametrize(
    "wrong",
    [{"score": 2}, {"side": 0}, {"strides": []}, {"sizes": None}, {"side": "large"}, {"looks": [9]}, {"looks": 3}],
)
def test_damaged_metadata_is_refused(tmp_path, wrong):
    path = square_finder(tmp_path / "odd.onnx", ABOUT | wrong)
    with pytest.raises(MienError, match=r"odd\.onnx'.*'mien-detector' is damaged"):
        FaceNetwork(path)


def test_a_file_of_another_network_is_refused(tmp_path):
    with pytest.raises(MienError, match="is not mien's"):
        FaceNetwork(square_finder(tmp_path / "other.onnx", key="other"))


def test_a_detector_of_miens_is_taken_as_a_file(file):
    (found,) = make_detector(str(file))(with_squares(512, 384, 24, [(96, 56)]))
    assert found.box == pytest.approx((88, 48, 40, 40), abs=1)
