"""Evaluation of a run on its own parts and on other data, with a model whose predictions are given."""

import numpy as np
import pandas as pd
import pytest

from mien.base.errors import MienError
from mien.base.table import check_faces, write_table
from mien.evaluation import evaluate as module
from mien.evaluation.evaluate import TRAINING_SAMPLE, evaluate, evaluate_on
from mien.recipe.load import load_recipe
from mien.runs.run import Run


class Constant:
    """Predicts one gender and records which faces it was given."""

    given: list[pd.DataFrame] = []

    def __init__(self, model):
        pass

    def predict_faces(self, faces, root, progress=None, pixels=None):
        self.given.append(faces)
        return pd.DataFrame({"face": faces["face"], "status": "ok", "gender": "female", "p_female": 0.9})


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "Predictor", Constant)
    monkeypatch.setattr(Constant, "given", [])
    made = Run(tmp_path / "mine")
    made.begin(load_recipe({"tasks": ["gender"], "data": {"root": str(tmp_path)}}))
    number = TRAINING_SAMPLE + 500
    split = np.array(["train"] * number + ["val"] * 40 + ["test"] * 60 + [None] * 10, dtype=object)
    names = [f"{place}.png" for place in range(len(split))]
    gender = np.where(np.arange(len(split)) % 4 == 0, "female", "male")
    faces = pd.DataFrame({"face": names, "path": names, "gender": gender, "split": split})
    write_table(check_faces(faces), made.faces_file)
    return made


def test_parts_are_scored_and_training_is_sampled(run):
    table = evaluate(run)
    faces = Constant.given[0].merge(run.faces[["face", "split"]], on="face", suffixes=("", "_own"))
    counts = faces["split"].value_counts()
    assert counts.to_dict() == {"train": TRAINING_SAMPLE, "val": 40, "test": 60}
    accuracy = table[(table["metric"] == "gender_accuracy") & (table["group"] == "all")].set_index("split")
    assert accuracy["n"].to_dict() == {"train": TRAINING_SAMPLE, "val": 40, "test": 60}
    assert accuracy.loc["test", "value"] == pytest.approx(
        (run.faces.query("split == 'test'")["gender"] == "female").mean()
    )
    assert run.metrics["run"].unique().tolist() == ["mine"]


def test_stored_predictions_are_scored_again_without_images(run):
    first = evaluate(run)
    again = evaluate(run)
    assert len(Constant.given) == 1
    pd.testing.assert_frame_equal(first, again)


def test_other_data_need_the_training_images_for_the_leak_check(run, tmp_path):
    other = run.faces[run.faces["split"] == "test"].reset_index(drop=True)
    with pytest.raises(MienError, match=r"leak check needs the images that 'mine' was trained on, and '0.png'"):
        evaluate_on(run, other, tmp_path, "other")
