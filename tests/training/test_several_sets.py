"""Whole runs on several drawn data sets."""

import shutil

import numpy as np
import pandas as pd
import pytest

import mien
from mien.audit.data.audit import audit_faces
from mien.data.sources import read_faces
from mien.demo.dataset import draw_faces
from mien.evaluation.conditions import CONDITIONS, score_conditions
from mien.evaluation.evaluate import evaluate_on
from mien.prediction.predict import Predictor
from mien.recipe.load import load_recipe
from mien.training.data import EpochSampler, WeightedOrder
from mien.training.fit import train
from mien.training.publish import model_card
from mien.training.study_cells import run_study

SMALL = {
    "split": {"method": "subjects", "test": 0.3, "val": 0.2},
    "model": {"backbone": "test_byobnet", "image_size": 32},
    "init": {"weights": "none"},
    "tasks": ["gender", "age_group"],
    "trainer": {"epochs": 1, "batch_size": 16, "workers": 0},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two drawn data sets; a test face of the second is a training face of the first too."""
    home = tmp_path_factory.mktemp("sets")
    draw_faces(home / "ad", "adience", seed=0, subjects=24)
    draw_faces(home / "ce", "celeba", seed=1, subjects=24)
    return home


def recipe_of(folders, **changed):
    sets = {
        "ad": {"source": "adience", "labels": "masked", "root": str(folders / "ad")},
        "ce": {"source": "celeba", "root": str(folders / "ce"), "split": {"method": "partition"}},
    }
    for name, keys in changed.items():
        sets[name] |= keys
    return load_recipe(SMALL | {"data": {"sets": sets}})


@pytest.fixture(scope="module")
def finished(folders, tmp_path_factory):
    return train(
        recipe_of(folders, ce={"weight": 2.0, "crop": "detector"}), out=tmp_path_factory.mktemp("runs") / "two"
    )


def test_a_run_on_two_sets(finished, folders):
    faces = finished.faces
    assert set(faces["dataset"]) == {"ad", "ce"} and faces["face"].is_unique
    assert faces.loc[faces["dataset"] == "ad", "roll"].eq(0).all()
    assert faces.loc[faces["dataset"] == "ce", "x"].notna().mean() > 0.5
    predictions = finished.predictions.set_index("face")
    tested = faces[faces["split"] == "test"]
    assert (predictions.loc[tested["face"], "status"] == "ok").all()
    assert finished.info["ledger"]["source"] == "adience+celeba" and finished.info["faces"]["test"] == len(tested)
    report = finished.report_file.read_text()
    assert "ce (celeba), weight 2, cropped by the detector" in report
    assert "ad: by subject, seed 0; ce: official partition" in report


def test_other_data_is_compared_with_the_training_faces_of_both(finished, folders):
    other = read_faces("celeba", folders / "ce")
    with pytest.raises(Exception, match=r"leak: \d+ other images .* are near-duplicates"):
        evaluate_on(finished, other, folders / "ce", "again")
    table = evaluate_on(finished, finished.faces, finished.folder, "itself", allow_leaks=True)
    assert table["n"].max() == len(finished.faces)


def test_the_folder_of_the_run_is_the_root_of_its_faces(finished, tmp_path):
    faces = finished.faces.groupby("dataset").head(6).reset_index(drop=True)
    audited = audit_faces(faces, finished.folder)
    assert (audited.images.files["status"] == "ok").all() and len(audited.images.files) == 12
    predictor = Predictor(finished.model_file)
    maps = mien.explain(faces=faces, root=finished.folder, by=["dataset"], out=tmp_path, model=predictor, limit=1)
    assert {"dataset ad", "dataset ce"} <= set(maps["group"])
    scores = score_conditions(predictor, faces, finished.folder, {"grey": CONDITIONS["grey"]})
    assert scores.loc[scores["condition"] == "grey", "n"].min() > 0
    again = predictor.predict_faces(faces, finished.folder).set_index("face")["p_female"]
    known = finished.predictions.set_index("face")["p_female"]
    shared = again.index.intersection(known.index)
    np.testing.assert_allclose(again[shared], known[shared], atol=1e-5)


def test_the_card_has_the_scores_of_each_set_and_their_terms(finished):
    card = model_card(finished, "shown", None)
    assert "### By data set" in card and "--set data.sets.ad.root=FOLDER --set data.sets.ce.root=FOLDER" in card
    assert "adience (drawn)" in card and "celeba (drawn)" in card
    assert "Source adience, label policy 'masked'" in card


def test_a_copied_picture_is_left_out_of_training(folders, tmp_path):
    home = tmp_path / "copied"
    shutil.copytree(folders, home)
    before = train(recipe_of(home), out=tmp_path / "before", score=False).faces
    first = before[(before["dataset"] == "ad") & (before["split"] == "train")]["path"].iloc[0].removeprefix("ad/")
    second = before[(before["dataset"] == "ce") & (before["split"] == "test")]["path"].iloc[0].removeprefix("ce/")
    shutil.copyfile(home / "ad" / first, home / "ce" / second)
    run = train(recipe_of(home), out=tmp_path / "run", score=False)
    lost = set(before["face"]) - set(run.faces["face"])
    assert lost == set(before.loc[before["path"] == f"ad/{first}", "face"])
    entry = next(one for one in run.info["ledger"]["entries"] if "later part of another" in one["reason"])
    assert (entry["rows"], entry["reason"].partition(":")[0]) == (1, "ad")
    allowed = recipe_of(home).model_copy(update={"split": run.recipe.split.model_copy(update={"allow_leaks": True})})
    leaky = train(allowed, out=tmp_path / "leaky", score=False)
    assert set(leaky.faces["face"]) == set(before["face"])
    assert any("1 test images" in leak and f"ce/{second[-10:]}" in leak for leak in leaky.info["leaks"])


def test_a_set_that_is_only_tested(folders, tmp_path, finished):
    run = train(recipe_of(folders, ce={"weight": 0.0}), out=tmp_path / "run")
    kept = run.faces[run.faces["dataset"] == "ce"]
    whole = finished.faces
    theirs = whole[(whole["dataset"] == "ce") & (whole["split"] == "test")]
    assert set(kept["face"]) == set(theirs["face"])
    assert (run.faces["split"] == "test").sum() == (whole["split"] == "test").sum()


class TestWeights:
    def members(self, sizes):
        edges = np.cumsum([0, *sizes])
        return [np.arange(start, end) for start, end in zip(edges[:-1], edges[1:], strict=True)]

    @pytest.mark.parametrize(
        ("sizes", "weights"), [((100, 50), (1, 4)), ((7, 13, 31), (0.5, 1, 3)), ((40, 3), (1, 20))]
    )
    def test_sets_have_their_share_and_faces_take_turns(self, sizes, weights):
        order = WeightedOrder(self.members(sizes), weights, seed=3)
        epochs = [order(epoch) for epoch in range(40)]
        assert {len(epoch) for epoch in epochs} == {sum(sizes)}
        drawn = np.bincount(np.concatenate(epochs), minlength=sum(sizes))
        expected = sum(sizes) * np.multiply(sizes, weights) / np.dot(sizes, weights)
        for own, count in zip(self.members(sizes), expected, strict=True):
            assert drawn[own].sum() / 40 == pytest.approx(count, abs=1)
            assert np.ptp(drawn[own]) <= 1  # none is drawn again before all others were

    def test_an_order_depends_on_seed_and_epoch_alone(self):
        first, second = (WeightedOrder(self.members((20, 10)), (1, 3), seed=5) for _ in range(2))
        assert [list(first(epoch)) for epoch in (0, 1, 2)] == [list(second(epoch)) for epoch in (0, 1, 2)]
        assert list(first(0)) != list(first(1)) != list(WeightedOrder(self.members((20, 10)), (1, 3), 6)(1))

    def test_an_epoch_can_be_resumed_and_shared(self):
        order = WeightedOrder(self.members((20, 10)), (1, 3), seed=5)
        sampler = EpochSampler(np.arange(30), True, 5, whole=4, weighted=order)
        sampler.set_epoch(2)
        whole = list(sampler)
        assert whole == [(2, int(index)) for index in order(2)[:28]]
        sampler.start = 8
        assert list(sampler) == whole[8:]
        parts = [EpochSampler(np.arange(30), True, 5, rank, 2, 4, order) for rank in (0, 1)]
        for part in parts:
            part.set_epoch(2)
        assert [key for pair in zip(*parts, strict=True) for key in pair] == whole

    def test_equal_weights_change_nothing(self, folders):
        from mien.training.data import FaceData

        recipe = recipe_of(folders)
        faces = pd.DataFrame({"split": ["train"] * 64, "dataset": ["ad", "ce"] * 32})
        data = FaceData(faces, range(64), {}, recipe)
        assert data._weighted(np.arange(64)) is None
        uneven = FaceData(faces, range(64), {}, recipe_of(folders, ce={"weight": 3.0}))
        assert list(uneven._weighted(np.arange(64)).counts) == [16, 48]


def test_the_study_trains_on_each_set_and_tests_on_every_one(folders, tmp_path):
    (tmp_path / "base.yaml").write_text(recipe_of(folders).to_yaml())
    study = {"base": str(tmp_path / "base.yaml"), "data_sets": "trained on", "compare": ["trained on"]}
    study |= {"reference": {"trained on": "all"}, "metrics": ["gender_accuracy", "age_group_exact"]}
    results = run_study(study, out=tmp_path / "study")
    assert {found.cell.slug: found.status for found in results.cells} == dict.fromkeys(
        ("all_seed-0", "only-ad_seed-0", "only-ce_seed-0"), "finished"
    )
    runs = {found.cell.levels["trained on"]: found.run for found in results.cells}
    tested = {level: set(run.faces.query("split == 'test'")["face"]) for level, run in runs.items()}
    known = set(runs["all"].faces.dropna(subset="gender")["face"])
    assert tested["all"] == tested["only ad"] and tested["only ce"] == tested["all"] & known
    assert set(runs["only ce"].faces.query("split != 'test'")["dataset"]) == {"ce"}
    assert list(runs["only ce"].recipe.tasks.predicted()) == ["gender"]  # CelebA has no ages
    right = {}
    for level, run in runs.items():
        faces = run.faces.merge(run.predictions[["face", "gender"]], on="face", suffixes=("", "_predicted"))
        faces = faces[(faces["split"] == "test") & faces["gender"].notna()]
        right |= {(level, name): own["gender"] == own["gender_predicted"] for name, own in faces.groupby("dataset")}
    gender = results.table[results.table["metric"] == "gender_accuracy"].set_index(["trained on", "tested on"])
    for key, correct in right.items():
        assert gender.loc[key, "value"] == pytest.approx(correct.mean()) and gender.loc[key, "n"] == len(correct)
    compared = results.comparisons.set_index(["metric", "second", "tested on"])
    assert len(compared) == 2 * 2 + 1  # age groups are known of one set, and learnt from it
    difference = compared.loc[("gender_accuracy", "only ce", "ad"), "value"]
    assert difference == pytest.approx(right["all", "ad"].mean() - right["only ce", "ad"].mean())
    assert "tested on ce: all" in compared.loc[("gender_accuracy", "only ad", "ce"), "in words"]
    shown = (tmp_path / "study" / "table.md").read_text()
    assert "Gender accuracy, %: rows trained on, columns tested on" in shown and "| trained on | ad | ce |" in shown
