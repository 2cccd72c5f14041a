"""Grad-CAM of small networks trained on drawn faces, against the definition."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from typer.testing import CliRunner

from mien.base.errors import MienError
from mien.cli.program import app
from mien.evaluation.occlusion import pool_map
from mien.training.fit import train
from mien.training.gradcam import GradCam

SMALL = {
    "data": {"source": "adience", "labels": "masked"},
    "split": {"method": "folds", "near_duplicates": False},
    "model": {"backbone": "test_resnet", "image_size": 64, "normalize": "unit"},
    "init": {"weights": "none"},
    "tasks": ["gender", "age"],
    "trainer": {"epochs": 1, "batch_size": 32, "workers": 0},
}


@pytest.fixture(scope="module")
def run(drawn, tmp_path_factory):
    return train(SMALL, [f"data.root={drawn}"], tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture
def face():
    return np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)


def by_hand(explainer, face, place):
    """Selvaraju and others 2017, equations 1 and 2; for gender of the more_probable one."""
    scores = explainer._scores
    kept = {}
    layer = explainer._layer
    handle = layer.register_forward_hook(lambda _, __, answer: kept.update(maps=answer))
    score = scores(torch.from_numpy(face).permute(2, 0, 1)[None].float())[0, place]
    handle.remove()
    if scores.tasks[place] == "gender":
        score = score.abs()
    (gradient,) = torch.autograd.grad(score, kept["maps"])
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    raw = functional.relu((weights * kept["maps"]).sum(1))[0].detach().numpy()
    raw = raw - raw.min()
    raw = raw / (1e-7 + raw.max())
    return pool_map(np.asarray(Image.fromarray(raw).resize((64, 64), Image.Resampling.BILINEAR)))


def test_the_maps_are_those_of_the_definition(run, face):
    explainer = GradCam(run)
    maps = explainer(face)
    assert list(maps) == ["gender", "age"]
    for place, grid in enumerate(maps.values()):
        assert grid.shape == (16, 16) and grid.min() >= 0 and grid.max() <= 1
        # Libraries interpolate in slightly different ways.
        np.testing.assert_allclose(grid, by_hand(explainer, face, place), atol=0.05)


def test_the_scores_are_those_of_the_exported_file(run, face):
    from mien.prediction.predict import Predictor

    with torch.no_grad():
        odds, years = GradCam(run)._scores(torch.from_numpy(face).permute(2, 0, 1)[None].float())[0].tolist()
    answer = Predictor(run.model_file).predict_pixels(face[None])
    # The file is calibrated, which changes certainties and no side.
    assert (odds > 0) == (answer["p_female"][0] > 0.5)
    assert abs(years - answer["age"][0]) < 15


def test_the_verb_and_its_refusals(run, tmp_path, face):
    Image.fromarray(face).save(tmp_path / "face.png")
    arguments = ["explain", str(tmp_path / "face.png"), "--crops", "--method", "gradcam", "--out", str(tmp_path / "o")]
    assert CliRunner().invoke(app, [*arguments, "--run", str(run.folder)]).exit_code == 0
    assert (tmp_path / "o" / "explain.html").exists()
    needs_run = CliRunner().invoke(app, arguments).exception
    assert isinstance(needs_run, MienError) and "needs --run" in str(needs_run)
    unknown = CliRunner().invoke(app, [*arguments[:-3], "lime"]).exception
    assert isinstance(unknown, MienError) and "valid: occlusion, gradcam" in str(unknown)


def test_a_transformer_has_no_maps_to_weigh(drawn, tmp_path):
    changes = [f"data.root={drawn}", "model.backbone=test_vit", "model.image_size=160"]
    with pytest.raises(MienError, match="needs feature maps, and 'test_vit' has none"):
        GradCam(train(SMALL, changes, tmp_path / "vit"))
