import pytest
import yaml

from mien.base.strict_yaml import RecipeError
from mien.experiments.study import StudyError, load_study
from mien.recipe.load import load_recipe, recipe_names
from mien.recipe.settings import Recipe, first_stage


def mistake(*changes, recipe=None):
    with pytest.raises(RecipeError) as error:
        load_recipe(recipe or {}, changes)
    return str(error.value)


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_load_and_have_a_full_header(name):
    from importlib import resources

    text = (resources.files("mien") / "recipe" / "recipes" / f"{name}.yaml").read_text()
    header = text.split("\n")[:4]
    assert all(line.startswith("# ") for line in header)
    assert [line.split(":")[0] for line in header[1:]] == ["# command", "# time", "# score"]
    assert load_recipe(name).name == name


def test_a_recipe_survives_yaml():
    recipe = load_recipe({"tasks": ["gender", "age"]}, ["model.hidden=[1024,512]", "tasks.age.sigma=3"])
    assert load_recipe(yaml.safe_load(recipe.to_yaml())) == recipe
    assert recipe.model.hidden == (1024, 512) and recipe.tasks.age.sigma == 3


def test_later_changes_win_and_numbers_may_be_scientific():
    assert load_recipe({}, ["optim.lr=1e-3", "optim.lr=5e-4"]).optim.lr == 5e-4


def test_a_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert load_recipe({}, ["data.root=~/faces"]).data.root == "/home/somebody/faces"


@pytest.mark.parametrize("name", ["../../../evil", "/evil", "a/b", "a\\b", "..", ".evil", "", " ", "a\0b", "a" * 201])
def test_a_name_is_that_of_one_folder(name):
    with pytest.raises(RecipeError, match="cannot be the name of a folder; valid"):
        load_recipe({"name": name})
    with pytest.raises(StudyError, match="cannot be the name of a folder; valid"):
        load_study({"name": name, "base": "demo-gender", "axes": {"x": {"a": {}, "b": {"set": ["optim.lr=0.1"]}}}})


def test_defaults_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Recipe().optim.lr = 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("trainer.epoch=3", ["trainer.epoch = 3", "'epochs'", "batch_size"]),
        ("optm.lr=3", ["optm", "'optim'", "trainer"]),
        ("optim.lr=fast", ["optim.lr = 'fast'", "number"]),
        ("optim.lr=-1", ["optim.lr = -1", "greater than 0"]),
        ("trainer.epochs=2.5", ["trainer.epochs = 2.5", "integer"]),
        ("trainer.epochs=true", ["trainer.epochs = True", "integer"]),
        ("trainer.epochs=null", ["trainer.epochs = None", "integer"]),
        ("split.method=fold", ["split.method = 'fold'", "'folds'", "'subjects'"]),
        ("tasks=[gendre]", ["tasks.gendre", "'gender'", "age_group"]),
        ("tasks=[]", ["no task", "gender, age_group, age"]),
        ("tasks.gender=null", ["no task"]),
        ("tasks.age.weigth=2", ["tasks.age.weigth = 2", "'weight'"]),
        ("augment.zoom=[1.2, 0.8]", ["augment", "zoom", "low <= high"]),
        ("optim.warmup=20", ["optim.warmup", "20", "trainer.epochs (10)"]),
        ("data.map={sex: gender}", []),
        ("optim=3", ["optim = 3"]),
        ("optim.lr.x=3", ["optim.lr.x=3"]),
        ("nonsense", ["nonsense", "key=value"]),
        ("optim.lr=[", ["optim.lr=[", "YAML"]),
    ],
)
def test_mistakes_repeat_key_and_value_and_say_what_is_valid(change, words):
    if not words:
        assert load_recipe({}, [change]).data.map == {"sex": "gender"}
        return
    message = mistake(change, recipe={"optim": {"lr": 0.1}})
    assert all(word in message for word in words), message


def test_impossible_combinations():
    assert "source is 'adience'" in mistake("data.source=adience", "data.map={a: b}")
    assert "plateau" in mistake("optim.schedule=plateau", "optim.warmup=1")
    assert "model.freeze" in mistake("init.weights=none", "model.freeze=backbone")


def test_all_mistakes_are_listed_at_once():
    message = mistake("optim.lr=fast", "trainer.epoch=3")
    assert "optim.lr" in message and "trainer.epoch" in message


def test_unknown_names_files_and_yaml(tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'utkface-lite0'"):
        load_recipe("utkface-lite")
    with pytest.raises(RecipeError, match="does not exist"):
        load_recipe(tmp_path / "absent.yaml")
    for text, words in (
        ("- a\n- b", "mapping"),
        ("a: [", "YAML"),
        ("optim: {lr: 1.0, lr: 2.0}", "occurs twice"),
    ):
        (tmp_path / "broken.yaml").write_text(text)
        with pytest.raises(RecipeError, match=words):
            load_recipe(tmp_path / "broken.yaml")


def test_a_recipe_may_start_from_another(tmp_path):
    (tmp_path / "low.yaml").write_text("tasks: [gender]\nmodel: {image_size: 64, hidden: [8]}\noptim: {lr: 0.1}\n")
    (tmp_path / "high.yaml").write_text("base: low.yaml\ntasks: {age: {}}\nmodel: {hidden: []}\n")
    recipe = load_recipe(tmp_path / "high.yaml", ["optim.lr=0.2"])
    assert recipe.name == "high" and recipe.model.image_size == 64 and recipe.model.hidden == ()
    assert list(recipe.tasks.named()) == ["gender", "age"] and recipe.optim.lr == 0.2
    (tmp_path / "high.yaml").write_text("base: low.yaml\ntasks: [age]\n")
    assert list(load_recipe(tmp_path / "high.yaml").tasks.named()) == ["age"]
    assert load_recipe({"base": "demo-gender"}).model.backbone == "test_resnet"


def test_a_base_that_leads_back_or_nowhere_is_an_error(tmp_path):
    (tmp_path / "one.yaml").write_text("base: two.yaml\n")
    (tmp_path / "two.yaml").write_text("base: one.yaml\n")
    assert "its own base" in mistake(recipe=tmp_path / "one.yaml")
    (tmp_path / "two.yaml").write_text("base: demo-gendre\n")
    assert "'demo-gendre'" in mistake(recipe=tmp_path / "one.yaml")


def test_a_first_stage_takes_from_the_second_what_it_has_not_of_its_own():
    stage = {"data": {"source": "celeba"}, "split": {"method": "partition"}, "tasks": ["gender"]}
    recipe = load_recipe({"tasks": ["age"], "optim": {"lr": 0.3}, "init": {"weights": "none", **stage}})
    first = first_stage(recipe)
    assert first.data.source == "celeba" and first.split.method == "partition" and first.optim.lr == 0.3
    assert list(first.tasks.named()) == ["gender"] and first.init.weights == "none" and first.init.data is None
    assert first_stage(load_recipe({})) is None


def test_settings_of_a_first_stage_need_its_data():
    assert "needs init.data" in mistake("init.tasks=[gender]")
    assert "first stage" in mistake("init.data.source=celeba", "init.trainer={epochs: 1}", "init.optim={warmup: 2.0}")


def test_further_columns_are_no_columns_of_the_spine():
    gender = {"tasks": ["gender"]}
    assert list(load_recipe(gender, ["tasks.columns={race: {}}"]).tasks.named()) == ["gender", "race"]
    assert "'subject'" in mistake("tasks.columns={subject: {}}", recipe=gender)
    assert "no task" in mistake("tasks={columns: {race: {}}}")


def test_an_empty_mapping_of_names_removes_those_of_the_base(tmp_path):
    low = {"tasks": {"gender": {"unsure": 0.1}, "columns": {"race": {}}}, "data": {"map": {"sex": "gender"}}}
    high = {"base": "low.yaml", "tasks": {"gender": {}, "columns": {}}, "data": {"map": {}}}
    for name, tree in (("low", low), ("high", high)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(tree))
    recipe = load_recipe(tmp_path / "high.yaml")
    assert recipe.tasks.columns == {} and recipe.data.map == {}
    assert recipe.tasks.gender.unsure == 0.1  # an empty task is one with the settings of the base
