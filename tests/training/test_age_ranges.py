"""Ages known as ranges, from a data set to a published model: the recipe `mien-open`, and tasks of years on Adience."""

import shutil

import numpy as np
import pandas as pd
import pytest
from skimage.data import astronaut

from mien.base.table import age_ranges
from mien.data.sources import SOURCES, read_faces
from mien.data.sources.fairface import RANGES
from mien.prediction.predict import Predictor
from mien.recipe.load import load_recipe
from mien.training.fit import train
from mien.training.publish import publish

SMALL = ["model.backbone=test_byobnet", "model.image_size=32", "init.weights=none", "trainer.epochs=1"]
RACES = ("Black", "East Asian", "Indian", "White")
BROKEN = {"3-9": "9-Mar", "70+": "more than 70"}  # as the real files write them


@pytest.fixture(scope="module")
def fairface(drawn, tmp_path_factory):
    """Drawn faces in FairFace's layout."""
    root = tmp_path_factory.mktemp("drawn-fairface")
    faces = read_faces("adience", drawn, "masked")
    middle = age_ranges(faces).mean(axis=1)
    names = np.array(list(RANGES), dtype=object)
    starts = np.array([first for first, _ in RANGES.values()])
    rows = []
    for at, (face, years) in enumerate(zip(faces.itertuples(), middle, strict=True)):
        part = "val" if at % 5 == 0 else "train"
        file = root / part / f"{at}.jpg"
        file.parent.mkdir(exist_ok=True)
        shutil.copyfile(drawn / face.path, file)
        age = "" if np.isnan(years) else names[np.searchsorted(starts, years, side="right") - 1]
        gender = {"female": "Female", "male": "Male"}.get(face.gender, "")
        rows.append((part, f"{part}/{at}.jpg", BROKEN.get(age, age), gender, RACES[at % len(RACES)], at % 2 == 0))
    table = pd.DataFrame(rows, columns=["part", "file", "age", "gender", "race", "service_test"])
    for part, lines in table.groupby("part"):
        lines.drop(columns="part").to_csv(root / f"fairface_label_{part}.csv", index=False)
    return root


@pytest.fixture(scope="module")
def run(fairface, tmp_path_factory):
    changes = [f"data.root={fairface}", "data.sample=150", "trainer.workers=0", "trainer.batch_size=16", *SMALL]
    return train("mien-open", changes, tmp_path_factory.mktemp("runs") / "open")


def test_the_recipe_learns_from_fairface_alone():
    recipe = load_recipe("mien-open")
    assert recipe.data.source == "fairface" and recipe.init.data is None and recipe.distillation is None
    assert list(recipe.tasks.named()) == ["gender", "age", "race"]
    # Neither the weights that ship nor those of another run: their terms would go with them.
    assert recipe.init.weights == "package"


def test_a_run_on_ranges_is_scored_and_reported(run):
    assert run.faces["age"].isna().all() and run.faces["age_from"].notna().any()
    table = run.metrics.set_index(["split", "group", "metric"])
    test = run.faces[(run.faces["split"] == "test") & run.faces["age_from"].notna()]
    for metric in ("age_range_error", "age_in_range"):
        line = table.loc["test", "all", metric]
        assert line["n"] == len(test) and line["low"] <= line["value"] <= line["high"] and line["baseline"] >= 0
    assert "age_mae" not in run.metrics["metric"].to_numpy()
    assert "val_age_range_error" in run.log and run.log["val_age_range_error"].notna().all()
    page = (run.folder / "report.html").read_text()
    assert "Ages known as ranges" in page and "years outside" in page


def test_its_model_predicts_years_and_groups_of_photographs(run):
    row = Predictor(run.folder, threads=1).predict(astronaut()).iloc[0]
    assert row["status"] == "ok" and 0 <= row["age_low"] <= row["age"] <= row["age_high"] <= 100
    assert row["age_group"] and row["gender"] in ("female", "male")


def test_its_publication_states_the_licence_of_the_data(run, tmp_path):
    said = publish(run, str(tmp_path / "open"), license="cc-by-4.0")
    card = (tmp_path / "open" / "README.md").read_text()
    assert SOURCES["fairface"].NOTICE in said and "CC BY 4.0" in card and "license: cc-by-4.0" in card
    assert "years outside of the age range" in card


def test_ages_in_years_are_learnt_from_adience(drawn, tmp_path):
    changes = [f"data.root={drawn}", "data.labels=masked", "split.method=folds", "tasks=[gender, age]", *SMALL]
    made = train({"data": {"source": "adience"}}, [*changes, "trainer.workers=0"], tmp_path / "run")
    known = made.faces[made.faces["split"] == "test"]
    table = made.metrics[made.metrics["split"].eq("test") & made.metrics["group"].eq("all")].set_index("metric")
    assert table.loc["age_range_error", "n"] == known["age_from"].notna().sum() > 0
    assert table.loc["age_group_exact", "n"] == known["age_group"].notna().sum()
