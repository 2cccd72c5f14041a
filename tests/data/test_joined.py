"""Several data sets as one faces table."""

import itertools

import numpy as np
import pandas as pd
import pytest

from mien.base.errors import MienError
from mien.base.ledger import Ledger
from mien.base.table import check_faces, write_table
from mien.data import splits
from mien.data.duplicates import group_files
from mien.data.joined import assign_parts, join_sets, read_data, without_shared, without_untrained
from mien.data.roots import Roots, open_root, recipe_root
from mien.data.sources import read_faces
from mien.recipe.load import RecipeError, load_recipe
from mien.recipe.settings import Data


@pytest.fixture(scope="module")
def celeba(tmp_path_factory):
    from mien.demo.dataset import draw_faces

    root = tmp_path_factory.mktemp("drawn") / "celeba"
    draw_faces(root, "celeba", seed=1, subjects=20)
    return root


@pytest.fixture
def recipe(drawn, celeba):
    sets = {
        "ad": {"source": "adience", "labels": "masked", "root": str(drawn), "split": {"method": "folds"}},
        "celeba": {"root": str(celeba), "split": {"method": "subjects", "test": 0.3, "seed": 4}},
    }
    return load_recipe({"data": {"sets": sets}, "split": {"method": "random", "val": 0.2}})


def test_ids_and_paths_are_those_of_each_set(recipe, drawn, celeba):
    faces, ledger = read_data(recipe.data)
    check_faces(faces)  # ids are unique, though both sets number their subjects from 1
    root = recipe_root(recipe.data)
    alone = {"ad": read_faces("adience", drawn, "masked"), "celeba": read_faces("celeba", celeba)}
    for name, folder in (("ad", drawn), ("celeba", celeba)):
        own = faces[faces["dataset"] == name]
        assert list(own["face"]) == [f"{name}/{face}" for face in alone[name]["face"]]
        assert [root / path for path in own["path"]] == [folder / path for path in alone[name]["path"]]
        for column in ("subject", "photo", "gender", "age_group", "fold"):
            pd.testing.assert_series_equal(
                own[column].reset_index(drop=True), alone[name][column], check_names=False, obj=column
            )
    assert faces.loc[faces["dataset"] == "celeba", "age_group"].isna().all()
    assert ledger.read == sum(table.attrs["ledger"]["read"] for table in alone.values())
    assert {entry.reason.partition(":")[0] for entry in ledger.entries} <= {"ad", "celeba"}


def test_each_set_is_split_as_it_is_alone(recipe, drawn, celeba):
    faces, _ = read_data(recipe.data)
    root = recipe_root(recipe.data)
    groups = {
        name: group_files([root / path for path in own["path"]]) for name, own in faces.groupby("dataset", sort=False)
    }
    joined = assign_parts(faces, recipe, groups)
    ad = splits.assign(read_faces("adience", drawn, "masked"), "folds", val=0.2, groups=groups["ad"])
    other = splits.assign(read_faces("celeba", celeba), "subjects", val=0.2, test=0.3, seed=4, groups=groups["celeba"])
    expected = [*ad["split"], *other["split"]]
    assert list(joined["split"]) == expected and list(joined["face"]) == list(faces["face"])


def random_joined(seed, rows=300, groups=150):
    rng = np.random.default_rng(seed)
    faces = check_faces(
        pd.DataFrame(
            {
                "face": [f"f{row}" for row in range(rows)],
                "path": "a.jpg",
                "dataset": rng.choice(["a", "b", "c"], rows),
                "split": rng.choice(["train", "val", "test"], rows),
            }
        )
    )
    return faces, rng.integers(0, groups, rows)


@pytest.mark.parametrize("seed", range(5))
def test_what_a_later_part_of_another_set_has_is_left_out(seed):
    faces, groups = random_joined(seed)
    ledger = Ledger("x", len(faces))
    kept = without_shared(faces, groups, ledger)
    order = {"train": 0, "val": 1, "test": 2}
    wrong = {
        first
        for first, second in itertools.permutations(range(len(faces)), 2)
        if groups[first] == groups[second]
        and faces["dataset"][first] != faces["dataset"][second]
        and order[faces["split"][first]] < order[faces["split"][second]]
    }
    assert set(faces.index) - set(kept.index) == wrong and wrong
    assert ledger.kept == len(kept)
    tests = faces[faces["split"] == "test"]
    pd.testing.assert_frame_equal(kept[kept["split"] == "test"], tests)


def test_a_set_of_weight_0_is_tested_only(recipe):
    faces, groups = random_joined(0)
    sets = Data.model_validate(
        {"sets": {"a": {"source": "csv"}, "b": {"source": "csv", "weight": 0.0}, "c": {"source": "csv"}}}
    ).sets
    ledger = Ledger("x", len(faces))
    kept = without_untrained(faces, sets, ledger)
    assert set(kept.loc[kept["dataset"] == "b", "split"]) == {"test"}
    assert len(kept) == ledger.kept == len(faces) - ((faces["dataset"] == "b") & (faces["split"] != "test")).sum()


def test_an_error_names_the_set(recipe, tmp_path):
    changed = load_recipe(recipe, [f"data.sets.celeba.root={tmp_path / 'absent'}"])
    with pytest.raises(MienError, match=r"data\.sets\.celeba: data root .* does not exist"):
        read_data(changed.data)
    with pytest.raises(MienError, match=r"data\.sets\.celeba: split method 'folds'.*no folds"):
        assign_parts(read_data(recipe.data)[0], load_recipe(recipe, ["data.sets.celeba.split.method=folds"]), None)


def test_a_root_that_is_not_set_is_named():
    data = load_recipe({"data": {"sets": {"aaf": {"root": "x"}, "lfw": {}}}}).data
    with pytest.raises(MienError, match=r"data\.sets\.lfw\.root is not set.*--set data\.sets\.lfw\.root=FOLDER"):
        recipe_root(data)


def test_a_path_without_a_set_is_an_error(tmp_path):
    roots = Roots({"aaf": tmp_path})
    assert roots / "aaf/b/c.jpg" == tmp_path / "b/c.jpg" and roots.folders == [tmp_path]
    for path in ("b/c.jpg", "aaf"):
        with pytest.raises(MienError, match=r"begins with no data set.*valid: aaf"):
            roots / path


def test_the_folder_of_a_run_stands_for_its_roots(recipe, tmp_path, drawn):
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert open_root(tmp_path) == tmp_path  # not a run: no faces
    (tmp_path / "faces.parquet").touch()
    assert open_root(str(tmp_path)).folders == recipe_root(recipe.data).folders
    assert recipe_root(load_recipe({"data": {"source": "adience", "root": str(drawn)}}).data) == drawn


def test_joined_columns_may_differ():
    one = check_faces(pd.DataFrame({"face": ["1"], "path": ["1.jpg"], "race": ["0"]}))
    two = check_faces(pd.DataFrame({"face": ["1"], "path": ["1.jpg"], "roll": [0.5]}))
    both = check_faces(join_sets({"a": one, "b": two}))
    assert list(both["face"]) == ["a/1", "b/1"] and list(both["dataset"]) == ["a", "b"]
    assert both["race"].isna().tolist() == [False, True] and both["roll"].isna().tolist() == [True, False]


def test_the_table_of_a_run_is_read_again_with_its_parts(recipe, tmp_path):
    faces = assign_parts(read_data(recipe.data)[0], recipe, None)
    mixed = pd.concat([faces.sample(frac=1, random_state=0), faces.head(3).assign(dataset="other", face=list("abc"))])
    write_table(mixed, tmp_path / "faces.parquet")
    changes = [f"data.faces={tmp_path / 'faces.parquet'}", "split.method=partition"]
    changes += [f"data.sets.{name}.split={{}}" for name in recipe.data.sets]
    again = load_recipe(recipe, changes)
    found, ledger = read_data(again.data)
    assert [(entry.kind, entry.rows) for entry in ledger.entries] == [("dropped", 3)]
    found = assign_parts(found, again, None)
    pd.testing.assert_series_equal(
        found.set_index("face")["split"].sort_index(), faces.set_index("face")["split"].sort_index()
    )
    with pytest.raises(MienError, match="no row has 'third' in the column dataset"):
        read_data(load_recipe(again, ["data.sets.third.source=csv"]).data)


class TestRecipe:
    def test_a_set_is_the_source_of_its_name(self):
        data = load_recipe({"data": {"sets": {"aaf": {}, "mine": {"source": "csv"}}}}).data
        assert [one.source for one in data.sets.values()] == ["aaf", "csv"] and data.title == "aaf+csv"
        assert list(load_recipe({"data": {"source": "lfw"}}).data.each()) == ["lfw"]

    def test_yaml_gives_the_recipe_back(self, recipe):
        import yaml

        assert load_recipe(yaml.safe_load(recipe.to_yaml())) == recipe

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            ({"root": "x", "sets": {"aaf": {}}}, ["root is that of one data set", "sets.NAME.root", "aaf"]),
            ({"sets": {"a-b": {}}}, ["'a-b' is not a name", "underscores"]),
            ({"sets": {"aaf": {"weight": 0}}}, ["every weight is 0"]),
            ({"faces": "x.csv", "sets": {"aaf": {"faces": "y.csv"}}}, ["a table of all sets"]),
            ({"sets": {"aaf": {"weight": -1}}}, ["data.sets.aaf.weight"]),
            ({"sets": {"aaf": {"wait": 1}}}, ["data.sets.aaf.wait", "weight"]),
            ({"sets": {"aaf": {"crop": "dlib"}}}, ["data.sets.aaf.crop", "detector"]),
            ({"sets": {"aaf": {"map": {"a": "age"}}}}, ["map is for source 'csv' only", "'aaf'"]),
        ],
    )
    def test_mistakes_are_explained(self, data, words):
        with pytest.raises(RecipeError) as error:
            load_recipe({"data": data})
        assert all(word in str(error.value) for word in words), str(error.value)

    def test_sets_replace_the_data_of_the_base(self):
        several = {"base": "mien-lite0", "data": {"sets": {"aaf": {}, "utkface": {}}}}
        recipe = load_recipe(several)
        assert recipe.data.title == "aaf+utkface" and recipe.model == load_recipe("mien-lite0").model
