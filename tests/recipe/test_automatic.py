"""Settings that follow from the number of faces: all that a recipe with `auto` leaves open, and nothing else."""

import numpy as np
import pandas as pd
import pytest
import yaml

from mien.base.errors import MienError
from mien.base.table import check_faces
from mien.experiments.study import StudyError, load_study, make_cells
from mien.recipe.automatic import MIN_FACES, choose_settings
from mien.recipe.load import load_recipe


def table(count, women=0.5, **columns):
    number = np.arange(count)
    made = {"face": number.astype(str), "path": [f"{n}.jpg" for n in number]}
    if women is not None:
        made["gender"] = np.where(number < women * count, "female", "male")
    return check_faces(pd.DataFrame(made | columns))


def chosen(count, *changes, recipe="own", **options):
    return choose_settings(load_recipe(recipe, changes), table(count, **options))


@pytest.mark.parametrize("count", [MIN_FACES, 60, 199, 200, 600, 5_000, 30_000, 1_000_000])
def test_any_number_of_faces_gives_a_valid_recipe(count):
    recipe, sentence = chosen(count)
    assert recipe.tasks.gender is not None and recipe.tasks.age is None
    assert f"chosen for {count:,} labelled faces: tasks gender, {recipe.trainer.epochs} epochs" in sentence
    assert 8 <= recipe.trainer.epochs <= 30 and 0 < recipe.optim.warmup < recipe.trainer.epochs
    assert recipe.trainer.batch_size <= 0.7 * count and 0.5 <= recipe.trainer.averaging < 1
    # Also from its file nothing is left to choose.
    assert not recipe.auto and load_recipe(yaml.safe_load(recipe.to_yaml())) == recipe


def test_more_faces_mean_fewer_epochs_larger_batches_and_less_that_is_frozen():
    recipes = [chosen(count)[0] for count in (60, 600, 6_000, 60_000)]
    epochs = [recipe.trainer.epochs for recipe in recipes]
    batches = [recipe.trainer.batch_size for recipe in recipes]
    assert epochs == sorted(epochs, reverse=True) and batches == sorted(batches)
    assert [recipe.model.freeze for recipe in recipes] == ["backbone", "none", "none", "none"]


def test_what_is_stated_stays():
    recipe, sentence = chosen(60, "trainer.epochs=2", "model.freeze=none", "tasks=[gender]", "trainer.averaging=0")
    assert recipe.trainer.epochs == 2 and recipe.model.freeze == "none" and recipe.trainer.averaging == 0
    assert recipe.optim.warmup == 0.2
    assert "tasks" not in sentence and ", 2 epochs" not in sentence and "frozen" not in sentence
    own, _ = chosen(60, recipe={"base": "own", "trainer": {"batch_size": 5}})
    assert own.trainer.batch_size == 5 and own.trainer.epochs == 30


def test_random_weights_are_not_frozen():
    assert chosen(60, "init.weights=none")[0].model.freeze == "none"


def test_tasks_follow_from_the_labels():
    ages = np.where(np.arange(100) < 90, 30.0, np.nan)
    assert list(chosen(100, age=ages)[0].tasks.predicted()) == ["gender", "age"]
    assert list(chosen(100, age_group=["0-2"] * 100)[0].tasks.predicted()) == ["gender", "age_group"]
    assert list(chosen(100, age=ages, age_group=["0-2"] * 100)[0].tasks.predicted()) == ["gender", "age_group"]
    recipe, sentence = chosen(100, women=0.05, age=ages)
    assert list(recipe.tasks.predicted()) == ["age"]
    assert "not learnt: gender has 100 labelled faces (female 5, male 95) and needs 40, at least 10 of each" in sentence


@pytest.mark.parametrize(
    ("count", "options", "words"),
    [
        (
            12,
            {},
            r"12 faces are too few .*gender has 12 labelled faces \(female 6, male 6\) and needs 40.*mien",
        ),
        (100, {"women": 1.0}, r"gender has 100 labelled faces \(female 100, male 0\) .*at least 10 of each gender"),
        (100, {"women": None}, "gender has 0 labelled faces .*age has 0 labelled faces and needs 40"),
    ],
)
def test_too_few_faces_say_how_many_are_needed(count, options, words):
    with pytest.raises(MienError, match=words):
        chosen(count, **options)


def test_a_stated_task_is_not_left_out():
    with pytest.raises(MienError, match="age has 0 labelled faces and needs 40"):
        chosen(100, "tasks=[gender,age]")


def test_a_study_compares_stated_settings():
    study = load_study({"name": "s", "base": "own", "axes": {"lr": {"a": {}, "b": {"set": ["optim.lr=0.1"]}}}})
    with pytest.raises(StudyError, match="auto is true, and a study compares stated settings"):
        make_cells(study)
