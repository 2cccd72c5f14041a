"""Search spaces: what is read, and what is refused by name."""

import pytest

from mien.experiments.space import SpaceError, changes, is_whole, read_space
from mien.recipe.load import load_recipe

RECIPE = load_recipe({"trainer": {"epochs": 9}})


def test_a_space_is_read_from_a_file_in_its_order(tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text(
        "optim.name: {choices: [adamw, sgd]}\n"
        "optim.lr: {low: 1e-5, high: 1e-1, log: true}\n"
        "optim.momentum: {low: 0.5, high: 0.99, when: {optim.name: [sgd]}}\n"
        "trainer.batch_size: {low: 16, high: 64, step: 16}\n"
        "model.hidden: {choices: [[], [64, 32]]}\n"
    )
    space = read_space(file, RECIPE)
    assert list(space) == ["optim.name", "optim.lr", "optim.momentum", "trainer.batch_size", "model.hidden"]
    assert space["optim.lr"].low == 1e-5 and space["optim.lr"].log
    assert not space["optim.momentum"].active({"optim.name": "adamw"})
    assert space["optim.momentum"].active({"optim.name": "sgd"})
    assert not space["optim.momentum"].active({})


def test_labels_become_the_recipe_that_they_stand_for():
    space = read_space({"model.hidden": {"choices": [[], [64, 32]]}, "optim.lr": {"low": 1e-5, "high": 1.0}}, RECIPE)
    assert space["model.hidden"].labels == ["[]", "[64, 32]"]
    recipe = load_recipe(RECIPE, changes(space, {"model.hidden": "[64, 32]", "optim.lr": 3e-5}))
    assert recipe.model.hidden == (64, 32) and recipe.optim.lr == 3e-5


def test_whole_settings_are_known():
    assert is_whole("trainer.batch_size") and is_whole("trainer.patience") and is_whole("tasks.age.oldest")
    assert not is_whole("optim.lr") and not is_whole("augment.rotate") and not is_whole("nothing.there")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"optim.lrr": {"low": 1, "high": 2}}, r"optim\.lrr.*'lrr'.*lr"),
        ({"optim.lr": {"low": 0.1, "high": 0.1}}, r"optim\.lr: low 0\.1 and high 0\.1 are an empty range"),
        ({"optim.lr": {"low": 1.0, "high": 0.1}}, "empty range"),
        ({"optim.lr": {"low": 0, "high": 0.1, "log": True}}, "low 0 with log; valid: above 0"),
        ({"optim.lr": {"low": 0.1, "high": 0.5, "log": True, "step": 0.1}}, "step 0.1; valid"),
        ({"optim.lr": {"low": 0.1}}, "neither low and high nor choices"),
        ({"optim.lr": {"low": 0.1, "high": 1, "choices": [1, 2]}}, "choices beside low"),
        ({"optim.lr": {"low": 0.1, "hihg": 1}}, "unknown key 'hihg'.*did you mean 'high'"),
        ({"optim.lr": {"low": "small", "high": 1}}, r"optim\.lr\.low = 'small': input should be"),
        ({"optim.lr": {"low": -1.0, "high": 1.0}}, r"optim\.lr.*-1.*greater than 0"),
        ({"optim.lr": 0.1}, r"optim\.lr"),
        ({"optim.name": {"choices": ["sgd"]}}, "two or more different"),
        ({"optim.name": {"choices": ["sgd", "sgd"]}}, "two or more different"),
        ({"optim.name": {"choices": ["sgd", "lion"]}}, "optim.name.*'lion'"),
        ({"trainer.batch_size": {"low": 1.5, "high": 4}}, "low is 1.5; valid: a whole number"),
        ({"trainer.epochs": {"low": 1, "high": 4}}, r"cannot vary trainer\.epochs"),
        ({"split.seed": {"low": 1, "high": 4}}, "cannot vary split"),
        (
            {"optim.warmup": {"low": 0.0, "high": 9.0}},
            r"optim\.warmup: is 9, which must be below trainer\.epochs \(9\)",
        ),
        (
            {"optim.momentum": {"low": 0.1, "high": 0.5, "when": {"optim.name": ["sgd"]}}},
            "when 'optim.name'.*there is no",
        ),
        (
            {
                "optim.name": {"choices": ["sgd", "adam"]},
                "optim.lr": {"low": 0.1, "high": 1, "when": {"optim.name": ["x"]}},
            },
            r"when optim\.name is \['x'\]; valid: some of \['sgd', 'adam'\]",
        ),
        ({}, "is empty"),
    ],
)
def test_mistakes_name_key_value_and_what_is_valid(space, message):
    with pytest.raises(SpaceError, match=message):
        read_space(space, RECIPE)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(SpaceError) as caught:
        read_space({"optim.lr": {"low": 2, "high": 1}, "nope": {"low": 1, "high": 2}}, RECIPE)
    assert "optim.lr:" in str(caught.value) and "nope" in str(caught.value)


def test_a_condition_looks_upwards_only():
    momentum = {"low": 0.5, "high": 0.9, "when": {"optim.name": ["sgd"]}}
    with pytest.raises(SpaceError, match="stands above"):
        read_space({"optim.momentum": momentum, "optim.name": {"choices": ["sgd", "adam"]}}, RECIPE)


def test_files_that_hold_no_space(tmp_path):
    with pytest.raises(SpaceError, match="does not exist"):
        read_space(tmp_path / "none.yaml", RECIPE)
    file = tmp_path / "space.yaml"
    file.write_text("- a\n- b\n")
    with pytest.raises(SpaceError, match=r"space\.yaml.*list"):
        read_space(file, RECIPE)
    file.write_text("optim.lr: {low: 1, high: 2}\noptim.lr: {low: 1, high: 2}\n")
    with pytest.raises(SpaceError, match="occurs twice"):
        read_space(file, RECIPE)
