"""`mien explain`: each face or a reason, a report, and mean maps by group."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from mien import MienError
from mien.cli.program import app
from mien.data.sources import read_faces
from mien.demo.dataset import draw_faces
from mien.prediction.predict import Predictor
from mien.reports.explanations import explain_files, explain_groups


@pytest.fixture(scope="module")
def predictor():
    return Predictor(threads=1)


def test_faces_and_reasons(predictor, tmp_path):
    Image.fromarray(data.astronaut()).save(tmp_path / "<b>a.png")
    Image.fromarray(data.coffee()[:200, :200]).save(tmp_path / "coffee.png")
    (tmp_path / "wrong.png").write_text("no image")
    table = explain_files(predictor, [str(tmp_path)], tmp_path / "out")
    assert list(table["status"]) == ["ok", "ok", "no face", "not an image"]
    assert list(table["task"].dropna()) == ["gender", "age"] and table["gain"].notna().tolist() == [
        True,
        True,
        False,
        False,
    ]
    # Of age: the model is not sure of the gender, and then its map need not be better than chance.
    assert table["gain"][1] > 0
    with np.load(tmp_path / "out" / "maps.npz") as maps:
        assert {name: maps[name].shape for name in maps} == {"0_gender": (16, 16), "0_age": (16, 16)}
    report = (tmp_path / "out" / "explain.html").read_text("utf-8")
    assert "<b>a.png" not in report and "not an image" in report and "data:image/jpeg" in report
    assert len(pd.read_csv(tmp_path / "out" / "explanations.csv")) == 4


def test_mean_maps_by_group(predictor, tmp_path):
    draw_faces(tmp_path / "faces", seed=0)
    faces = read_faces("adience", tmp_path / "faces")
    table = explain_groups(predictor, faces, tmp_path / "faces", ["gender"], tmp_path / "out", limit=3)
    assert {(row.group, row.n) for row in table.itertuples()} >= {("all", 3), ("gender female", 3), ("gender male", 3)}
    assert (table["strength"] > 0).all() and "n 3" in (tmp_path / "out" / "explain.html").read_text("utf-8")
    with pytest.raises(MienError, match="--by 'mood'"):
        explain_groups(predictor, faces, tmp_path / "faces", ["mood"], tmp_path / "out")
    with pytest.raises(MienError, match="can be read"):
        explain_groups(predictor, faces, tmp_path / "elsewhere", [], tmp_path / "out", limit=2)


def test_images_or_a_table_but_not_both(tmp_path):
    for arguments in (
        ["explain"],
        ["explain", "a.png", "--faces", "f.csv", "--root", "."],
        ["explain", "--faces", "f"],
    ):
        refused = CliRunner().invoke(app, arguments).exception
        assert isinstance(refused, MienError) and "give images, or --faces with --root" in str(refused)
