"""Teachers: what they are asked, what is learnt from them, and what they may not have seen."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mien.base.errors import MienError
from mien.base.labels import GENDERS
from mien.base.strict_yaml import RecipeError
from mien.data.face_pixels import FilePixels
from mien.data.leaks import LeakError
from mien.prediction.predict import Predictor
from mien.recipe.load import load_recipe
from mien.recipe.settings import Age, AgeGroup, Gender, Model, without_paths
from mien.runs.run import Run
from mien.training.distillation import teacher_probabilities
from mien.training.fit import train
from mien.training.heads import AgeGroupHead, AgeHead, GenderHead

SMALL = {
    "data": {"source": "adience", "labels": "masked"},
    "split": {"method": "folds", "near_duplicates": False},
    "model": {"backbone": "test_byobnet", "image_size": 32},
    "init": {"weights": "none"},
    "tasks": ["gender", "age"],
    "trainer": {"epochs": 1, "batch_size": 16, "workers": 0, "checkpoint_every": 1},
}


@pytest.fixture(scope="module")
def teachers(drawn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    larger = [f"data.root={drawn}", "model.image_size=48", "trainer.seed=1", "tasks.age_group={}"]
    return [train(SMALL, [f"data.root={drawn}"], folder / "one"), train(SMALL, larger, folder / "larger")]


def distilled(teachers, drawn, *changes):
    runs = ", ".join(str(run.folder) for run in teachers)
    return load_recipe(SMALL, [f"data.root={drawn}", f"distillation.teachers=[{runs}]", *changes])


def test_answers_are_the_mean_over_teachers_and_mirror_images(teachers, drawn, tmp_path):
    recipe = distilled(teachers, drawn)
    faces = teachers[0].faces
    answers = teacher_probabilities(Run(tmp_path), recipe, faces, drawn)
    training = np.flatnonzero(faces["split"] == "train")
    assert set(answers) == {"gender", "age"} and answers["age"].shape == (len(faces), 101)
    assert torch.isnan(answers["gender"][np.flatnonzero(faces["split"] != "train")]).all()
    expected = []
    for run in teachers:
        files = FilePixels(faces, drawn, run.recipe.model.image_size)
        pixels = np.stack([files[int(row)] for row in training])
        predictor = Predictor(run.model_file)
        expected += [predictor.predict_pixels(np.ascontiguousarray(side)) for side in (pixels, pixels[:, :, ::-1])]
    female = np.mean([each["p_female"] for each in expected], axis=0)
    assert np.allclose(answers["gender"][training, 0], female, atol=1e-3)
    assert np.allclose(answers["age"][training].sum(1), 1, atol=1e-5)
    young = np.mean([each["p_0-2"] for each in expected[:2]], axis=0)  # the other teacher's groups are a head's own
    (tmp_path / "alone").mkdir()
    alone = teacher_probabilities(Run(tmp_path / "alone"), distilled(teachers[:1], drawn), faces, drawn)
    assert np.allclose(alone["age"][training, :4].sum(1), young, atol=1e-3)


def test_a_distilled_run_that_is_interrupted_ends_in_the_same_weights(teachers, drawn, tmp_path):
    class Killed(BaseException):
        pass

    def kill(row):
        raise Killed

    recipe = distilled(teachers, drawn, "trainer.epochs=2")
    whole = train(recipe, out=tmp_path / "whole")
    with pytest.raises(Killed):
        train(recipe, out=tmp_path / "broken", on_epoch=kill)
    broken = Run(tmp_path / "broken")
    assert broken.teachers_file.exists() and not broken.finished
    weights = load_file(train(recipe, out=tmp_path / "broken").weights_file)
    assert all(torch.equal(value, weights[name]) for name, value in load_file(whole.weights_file).items())
    assert not whole.teachers_file.exists() and not broken.teachers_file.exists()
    assert [teacher["run"] for teacher in whole.info["lineage"]["teachers"]] == ["one", "larger"]
    assert str(tmp_path) not in without_paths(whole.recipe).to_yaml()
    plain = train(SMALL, [f"data.root={drawn}", "trainer.epochs=2"], tmp_path / "plain")
    assert not torch.equal(
        load_file(plain.weights_file)["head.gender.layer.1.weight"], weights["head.gender.layer.1.weight"]
    )


def test_the_share_goes_from_the_labels_to_the_teachers():
    torch.manual_seed(0)
    model = Model()
    logits = torch.randn(5, 1)
    gender = GenderHead(Gender(), 4, model)
    labels = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])
    female = (labels == GENDERS.index("female")).float()
    assert torch.isclose(gender.distillation_loss(logits, female[:, None]), gender.loss(logits, labels))
    answers = torch.rand(5, 1)
    p = torch.sigmoid(logits)
    by_hand = -(answers * p.log() + (1 - answers) * (1 - p).log()).mean()
    assert torch.isclose(gender.distillation_loss(logits, answers), by_hand)
    head = AgeHead(Age(), 4, model)
    logits, answers = torch.randn(5, 101), torch.rand(5, 101).softmax(1)
    p = logits.softmax(1)
    steps = (p.cumsum(1) - answers.cumsum(1)).square().sum(1).mean()
    by_hand = -(answers * p.log()).sum(1).mean() + steps / 10
    assert torch.isclose(head.distillation_loss(logits, answers), by_hand)
    groups = AgeGroupHead(AgeGroup(), 4, model)
    logits, index = torch.randn(5, 8), torch.arange(5)
    certain = torch.nn.functional.one_hot(index, 8).float()
    assert torch.isclose(groups.distillation_loss(logits, certain), groups.loss(logits, index.float()))


def test_teachers_that_do_not_fit_are_refused(teachers, drawn, tmp_path):
    with pytest.raises(MienError, match="predicts gender, age; valid: a run that predicts all of gender, age_group"):
        train(distilled(teachers[:1], drawn, "tasks=[gender, age_group]"), out=tmp_path / "a")
    with pytest.raises(MienError, match=r"tasks\.age\.oldest 100; valid: 90"):
        train(distilled(teachers[:1], drawn, "tasks.age={oldest: 90}"), out=tmp_path / "b")
    with pytest.raises(MienError, match="'nowhere' is not a mien run"):
        train(load_recipe(SMALL, [f"data.root={drawn}", "distillation.teachers=[nowhere]"]), out=tmp_path / "c")
    with pytest.raises(RecipeError, match=r"distillation cannot be combined with augment\.mixup"):
        distilled(teachers, drawn, "augment.mixup=0.2")
    with pytest.raises(RecipeError, match=r"distillation\.weight = 1\.5"):
        distilled(teachers, drawn, "distillation.weight=1.5")
    with pytest.raises(RecipeError, match=r"distillation\.teachers"):
        distilled([], drawn)


def test_a_teacher_that_has_seen_the_test_part_is_a_leak(teachers, drawn, tmp_path):
    recipe = distilled(teachers, drawn, "split.test_fold=1")
    with pytest.raises(LeakError):
        train(recipe, out=tmp_path / "leak")
    allowed = train(recipe, ["split.allow_leaks=true"], tmp_path / "allowed")
    assert allowed.info["lineage"]["teachers"][0]["leaks"]
