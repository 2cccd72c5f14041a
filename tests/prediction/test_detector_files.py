"""Detectors that users bring: files with known answers, made here, decoded as their authors define."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from mien.base.errors import MienError
from mien.prediction.detector_files import DetectorFile


def constant_file(path, outputs, name="input", shape=(1, 3, 640, 640)):
    """An ONNX file that gives the same outputs for every picture."""
    nodes = [helper.make_node("Constant", [], [key], value=numpy_helper.from_array(v)) for key, v in outputs.items()]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
    taken = [helper.make_tensor_value_info(key, TensorProto.FLOAT, v.shape) for key, v in outputs.items()]
    model = helper.make_model(helper.make_graph(nodes, "g", given, taken), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)
    return path


@pytest.fixture
def yunet(tmp_path):
    outputs = {}
    for stride in (8, 16, 32):
        n = (640 // stride) ** 2
        for part, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            outputs[f"{part}_{stride}"] = np.zeros((1, n, width), np.float32)
    cell = 7 * 40 + 11  # row 7, column 11 of the level of stride 16
    outputs["cls_16"][0, cell], outputs["obj_16"][0, cell] = 0.81, 1.0
    outputs["bbox_16"][0, cell] = [0.5, 0.25, np.log(4), np.log(5)]
    outputs["kps_16"][0, cell] = np.arange(10) / 10
    return constant_file(tmp_path / "yunet.onnx", outputs)


@pytest.fixture
def scrfd(tmp_path):
    outputs = {}
    for width, part in ((1, "score"), (4, "bbox"), (10, "kps")):
        for stride in (8, 16, 32):
            outputs[f"{part}_{stride}"] = np.zeros((2 * (640 // stride) ** 2, width), np.float32)
    row = 2 * (3 * 20 + 5) + 1  # the second anchor of row 3, column 5 of the level of stride 32
    outputs["score_32"][row], outputs["bbox_32"][row] = 0.9, [1, 2, 1.5, 2.5]
    outputs["kps_32"][row] = -0.5
    return constant_file(tmp_path / "scrfd.onnx", outputs)


def test_yunet_is_decoded_as_in_opencv(yunet):
    raw = DetectorFile(yunet).find(Image.new("RGB", (1280, 1280)))  # looked at in half its size
    assert raw.scores.tolist() == pytest.approx([0.9], abs=1e-6)
    x, y, w, h = raw.boxes[0] / 2
    assert (w, h) == (pytest.approx(64, abs=1e-3), pytest.approx(80, abs=1e-3))
    assert (x + w / 2, y + h / 2) == (pytest.approx(11.5 * 16), pytest.approx(7.25 * 16))
    assert raw.points[0, 1] / 2 == pytest.approx([(11 + 0.2) * 16, (7 + 0.3) * 16], abs=1e-3)


def test_scrfd_is_decoded_as_in_insightface(scrfd):
    raw = DetectorFile(scrfd).find(Image.new("RGB", (640, 320)))
    assert raw.scores.tolist() == pytest.approx([0.9])
    assert raw.boxes[0].tolist() == pytest.approx([4 * 32, 1 * 32, 2.5 * 32, 4.5 * 32])
    assert raw.points[0].tolist() == [[pytest.approx(4.5 * 32), pytest.approx(2.5 * 32)]] * 5


def test_other_files_are_refused_by_name(tmp_path):
    other = constant_file(tmp_path / "other.onnx", {"logits": np.zeros((1, 5), np.float32)})
    with pytest.raises(MienError, match="other.onnx.*no known kind.*logits.*valid: .*YuNet"):
        DetectorFile(other)
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\x08\x07garbage")
    with pytest.raises(MienError, match=r"damaged\.onnx"):
        DetectorFile(damaged)
    with pytest.raises(MienError, match="there is no such file"):
        DetectorFile(tmp_path / "absent.onnx")


def test_a_file_that_asks_for_endless_memory_is_refused(yunet, tmp_path):
    model = onnx.load(yunet)
    for side in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        side.dim_value = 10_000_000
    onnx.save(model, tmp_path / "huge.onnx")
    with pytest.raises(MienError, match=r"huge\.onnx'.*valid: 32 to 4096"):
        DetectorFile(tmp_path / "huge.onnx")
