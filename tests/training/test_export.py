"""Export to ONNX: the file agrees with torch, carries its metadata, and is not written if it differs."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from mien.base.errors import MienError
from mien.recipe.load import load_recipe
from mien.training import export as module
from mien.training.export import export
from mien.training.model import FaceNet


@pytest.fixture
def net():
    torch.manual_seed(0)
    model = {"backbone": "test_byobnet", "image_size": 32}
    recipe = load_recipe({"model": model, "init": {"weights": "none"}, "tasks": ["gender", "age"]})
    return FaceNet(recipe).train()


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


def test_the_file_agrees_with_torch_and_carries_its_metadata(net, images, tmp_path):
    path = export(net, tmp_path / "model.onnx", {"note": "mine"}, images)
    assert net.training, "the mode of the network must not change"
    session = onnxruntime.InferenceSession(path)
    got = dict(zip([one.name for one in session.get_outputs()], session.run(None, {"images": images}), strict=True))
    with torch.inference_mode():
        expected = net.eval().decode(net(torch.from_numpy(images).permute(0, 3, 1, 2)))
    assert set(got) == set(expected) and "p_female" in got
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values.numpy(), atol=1e-2 if name.startswith("age") else 1e-3)
    stored = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(stored["mien"])["note"] == "mine"


def test_a_file_that_differs_from_torch_is_not_written(net, images, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TOLERANCE", -1.0)
    with pytest.raises(MienError, match="differs from torch by .*it was not written"):
        export(net, tmp_path / "model.onnx", {}, images)
    assert list(tmp_path.iterdir()) == []
