"""8-bit files of small networks trained on drawn faces."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from mien.base.errors import MienError
from mien.cli.program import app
from mien.prediction.predict import Predictor
from mien.training.fit import train
from mien.training.quantize import quantize

SMALL = ["model.image_size=32", "trainer.epochs=1", "trainer.workers=0", "optim.warmup=0.0"]


@pytest.fixture(scope="module")
def run(drawn, tmp_path_factory):
    return train("demo-gender", [*SMALL, f"data.root={drawn}"], tmp_path_factory.mktemp("runs") / "small")


def test_it_has_8_bit_weights_the_same_columns_and_says_what_was_lost(run, tmp_path):
    out = tmp_path / "small.onnx"
    result = quantize(run, out, max_loss=100)
    assert {initial.data_type for initial in onnx.load(out).graph.initializer} >= {onnx.TensorProto.INT8}
    before, after = Predictor(run.model_file), Predictor(out)
    assert after.columns == before.columns
    faces = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), dtype=np.uint8)
    difference = after.predict_pixels(faces)["p_female"] - before.predict_pixels(faces)["p_female"]
    assert 0 < np.abs(difference).max() < 0.2
    noted = after.metadata["quantized"]
    assert noted["part"] == "val" and noted["agreement"] == pytest.approx(result.agreement, abs=1e-4)
    row = result.differences.set_index("metric").loc["gender_accuracy"]
    assert row["n"] == (run.faces["split"] == "val").sum()
    assert row["after"] - row["before"] == pytest.approx(row["difference"])
    assert {key: value for key, value in after.metadata.items() if key != "quantized"} == before.metadata


def test_the_same_run_gives_the_same_bytes_without_paths(run, tmp_path):
    for name in ("a.onnx", "b.onnx"):
        quantize(run, tmp_path / name, max_loss=100)
    content = (tmp_path / "a.onnx").read_bytes()
    assert content == (tmp_path / "b.onnx").read_bytes()
    assert str(Path.cwd()).encode() not in content and str(tmp_path).encode() not in content


def test_it_refuses_beyond_the_loss_and_writes_nothing(run, tmp_path):
    with pytest.raises(MienError, match=r"points of gender_accuracy on \d+ validation faces; allowed: -101"):
        quantize(run, tmp_path / "small.onnx", max_loss=-101)
    assert not list(tmp_path.iterdir())


def test_the_command_shows_the_cost_and_keeps_what_exists(run, tmp_path):
    out = tmp_path / "small.onnx"
    arguments = ["export", str(run.folder), "--out", str(out), "--quantize", "--max-loss", "100"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "gender_accuracy" in shown.output and "times as fast" in shown.output
    assert isinstance(CliRunner().invoke(app, arguments).exception, MienError)


def test_openvino_gives_equal_results_in_full_precision(run):
    pytest.importorskip("openvino")
    faces = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), dtype=np.uint8)
    ours = Predictor(run.model_file).predict_pixels(faces)["p_female"]
    other = Predictor(run.model_file, runtime="openvino").predict_pixels(faces)["p_female"]
    np.testing.assert_allclose(other, ours, atol=1e-3)


def test_its_options_belong_to_it(run, tmp_path):
    arguments = ["export", str(run.folder), "--out", str(tmp_path / "whole.onnx"), "--max-loss", "1"]
    refused = CliRunner().invoke(app, arguments).exception
    assert isinstance(refused, MienError) and "belong to --quantize" in str(refused)
