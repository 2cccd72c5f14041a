"""The folder of a run: what it states before, during and after training."""

import pandas as pd
import pytest

from mien.base.errors import MienError
from mien.base.table import check_faces, write_table
from mien.recipe.load import load_recipe
from mien.runs.run import Run, open_run


@pytest.fixture
def run(tmp_path):
    made = Run(tmp_path / "mine")
    made.begin(load_recipe({"tasks": ["gender"], "split": {"seed": 3}}))
    return made


def test_a_run_keeps_its_recipe_and_notes(run):
    run.note(parameters=5)
    run.note(device="cpu")
    again = Run(run.folder)
    assert again.name == "mine" and again.recipe == run.recipe and again.recipe.split.seed == 3
    assert again.info["parameters"] == 5 and again.info["device"] == "cpu"


def test_an_unfinished_run_is_not_opened(run):
    assert not run.finished
    with pytest.raises(MienError, match="is not finished"):
        open_run(run.folder)
    run.note(status="finished")
    assert run.finished and open_run(run.folder).name == "mine"


def test_a_run_with_faces_resumes_with_the_same_recipe_only(run):
    write_table(check_faces(pd.DataFrame({"face": ["a"], "path": ["a.png"]})), run.faces_file)
    assert run.begin(run.recipe)
    with pytest.raises(MienError, match=r"another recipe: split.seed was 3 and is 4 \(1 settings differ\)"):
        run.begin(load_recipe({"tasks": ["gender"], "split": {"seed": 4}}))
    run.note(status="finished")
    with pytest.raises(MienError, match="is finished; give another --out"):
        run.begin(run.recipe)


def test_a_folder_with_other_files_is_not_used(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(MienError, match="holds other files and is not a run"):
        Run(tmp_path).begin(load_recipe({"tasks": ["gender"]}))


def test_missing_tables_are_named(run):
    with pytest.raises(MienError, match="mine"):
        _ = run.predictions


def test_a_folder_without_a_run_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MienError, match="empty"):
        open_run(tmp_path / "empty")


def test_the_name_is_in_the_repr(run):
    assert "mine" in repr(run)
