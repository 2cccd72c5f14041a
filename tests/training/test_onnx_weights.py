"""Training goes on from an exported ONNX file: the network read back answers as the file does."""

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from mien.base.errors import MienError
from mien.data.face_pixels import FilePixels
from mien.prediction.predict import SHIPPED, Predictor
from mien.recipe.load import load_recipe
from mien.training.fit import train
from mien.training.model import FaceNet
from mien.training.onnx_weights import settle_batch_norm
from mien.training.publish import notices
from mien.training.quantize import quantize
from mien.training.trained_network import load_network

SMALL = ["model.image_size=32", "trainer.epochs=1", "trainer.workers=0", "optim.warmup=0.0"]
NAME = SHIPPED.removesuffix(".onnx")


def crops(size):
    """Squares of a photograph, with its face and without."""
    photograph = Image.fromarray(astronaut())
    places = [(150, 30, 330, 210), (170, 60, 290, 180), (0, 0, 512, 512), (200, 200, 420, 420), (20, 300, 120, 400)]
    return np.stack([np.asarray(photograph.crop(place).resize((size, size))) for place in places])


def decoded(net, images):
    with torch.inference_mode():
        columns = net.decode(net(torch.from_numpy(images).permute(0, 3, 1, 2)))
    return {name: values.numpy() for name, values in columns.items()}


def started_from(source):
    described = Predictor(None if source == NAME else source).metadata["recipe"]
    recipe = load_recipe({key: described[key] for key in ("model", "tasks")}, ["tasks.columns={}"])
    recipe = load_recipe(recipe, [f"init.weights={source}", "init.heads=true"])
    return FaceNet(recipe).eval()


@pytest.fixture(scope="module")
def run(drawn, tmp_path_factory):
    settings = [*SMALL, "init.weights=none", "model.backbone=tf_efficientnet_lite0", f"data.root={drawn}"]
    return train("demo-gender", settings, tmp_path_factory.mktemp("runs") / "small")


def test_a_file_of_32_bits_is_read_back_as_the_same_network(run):
    images = crops(32)
    expected = Predictor(run.model_file).predict_pixels(images)["p_female"]
    assert decoded(started_from(str(run.model_file)), images)["p_female"] == pytest.approx(expected, abs=1e-4)


def test_a_file_of_8_bits_is_read_back_up_to_the_rounding_of_its_activations(run, tmp_path):
    quantize(run, tmp_path / "small.onnx", max_loss=100)
    images = crops(32)
    expected = Predictor(run.model_file).predict_pixels(images)["p_female"]
    assert decoded(started_from(str(tmp_path / "small.onnx")), images)["p_female"] == pytest.approx(expected, abs=0.05)


def test_the_shipped_model_is_read_back_by_its_name():
    images = crops(Predictor().size)
    expected = Predictor().predict_pixels(images)
    got = decoded(started_from(NAME), images)
    assert np.abs(got["p_female"] - expected["p_female"]).mean() < 0.1  # the file rounds its activations
    assert np.abs(got["age"] - expected["age"]).mean() < 2


def test_settling_keeps_the_answers_and_makes_training_mode_agree_with_them():
    images = crops(Predictor().size)
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    net = started_from(NAME)
    before = decoded(net, images)
    settle_batch_norm(net, tensor)
    after = decoded(net, images)
    for name in ("p_female", "age"):
        assert after[name] == pytest.approx(before[name], abs=1e-2)
    # On the faces that it was settled with, each normalisation computes the same from the batch's own statistics.
    for module in net.modules():
        module.training = isinstance(module, torch.nn.BatchNorm2d)  # without dropout
    for name, values in decoded(net, images).items():
        assert values == pytest.approx(after[name], abs=1e-2), name


def test_a_run_starts_from_the_shipped_model_with_its_heads(drawn, tmp_path):
    settings = [f"init.weights={NAME}", "init.heads=true", f"data.root={drawn}", "data.sample=150", "optim.lr=1e-7"]
    model = Predictor().metadata["recipe"]["model"]
    settings += [f"model.{key}={model[key]}" for key in ("backbone", "image_size", "margin")]
    settings += ["tasks=[gender]", "trainer.epochs=1", "trainer.workers=0", "trainer.batch_size=16"]
    run = train({"data": {"source": "adience"}, "optim": {"warmup": 0.0}}, settings, tmp_path / "run", score=False)
    lineage = run.info["lineage"]
    assert {"utkface", "aaf", "lfw"} <= set(notices(run))  # the terms of its weights stay with what starts from them
    assert lineage["run"] == NAME and lineage["faces"]["train"] > 20_000 and lineage["leaks"] is None
    # With a learning rate of next to nothing it still answers as the shipped model does, which knows no drawn faces.
    pixels = FilePixels(run.faces, drawn, model["image_size"], model["margin"])
    images = np.stack([pixels[index] for index in range(40)])
    ours, theirs = decoded(load_network(run), images)["p_female"], decoded(started_from(NAME), images)["p_female"]
    assert np.corrcoef(ours, theirs)[0, 1] > 0.95


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b"no protobuf"), "is not an ONNX file"),
        (lambda path: onnx.save(onnx.ModelProto(), path), "was not exported by mien"),
    ],
)
def test_other_files_are_named(tmp_path, write, message):
    write(tmp_path / "other.onnx")
    with pytest.raises(MienError, match=message):
        FaceNet(load_recipe({}, [f"init.weights={tmp_path / 'other.onnx'}"]))


def test_another_input_is_refused():
    with pytest.raises(MienError, match=r"was trained with another input: model\.image_size was \d+, is 33"):
        model = Predictor().metadata["recipe"]["model"]
        FaceNet(load_recipe({}, [f"init.weights={NAME}", f"model.backbone={model['backbone']}", "model.image_size=33"]))
