"""Calibration: what it finds, what it leaves alone, and that it reaches the file."""

import json

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from scipy.special import expit, softmax

from mien import load_recipe
from mien.base.labels import age_group_codes
from mien.base.table import check_faces
from mien.recipe.settings import Tasks
from mien.training import calibrate as calibration
from mien.training.calibrate import calibrate
from mien.training.fit import train
from mien.training.model import FaceNet


def net_for(**tasks):
    model = {"backbone": "test_byobnet", "image_size": 32}
    return FaceNet(load_recipe({"model": model, "init": {"weights": "none"}, "tasks": tasks})).eval()


def faces(**columns):
    n = len(next(iter(columns.values())))
    names = [f"{row}.jpg" for row in range(n)]
    return check_faces(pd.DataFrame({"path": names, "face": names, **columns}))


def test_a_temperature_is_found_again():
    random = np.random.default_rng(0)
    true = random.normal(0, 2, 20_000)
    female = random.random(20_000) < expit(true)
    net = net_for(gender={"unsure": 0.1})
    logits = {"gender": torch.tensor(true * 1.6)[:, None]}
    found = calibrate(net, logits, faces(gender=np.where(female, "female", "male")), net_tasks(gender={"unsure": 0.1}))
    assert found["gender"]["n"] == 20_000
    assert found["gender"]["temperature"] == pytest.approx(1.6, rel=0.04)
    p = net.decode({"gender": logits["gender"]})["p_female"].numpy()
    assert np.allclose(p, expit(true), atol=0.02)
    assert (np.maximum(p, 1 - p) < found["gender"]["unsure_below"]).mean() == pytest.approx(0.1, abs=0.001)


def net_tasks(**tasks):
    return Tasks.model_validate(tasks)


def test_intervals_cover_every_age_group():
    # The network takes each age for as uncertain as any other; it errs by 1 year at 5 and by 12 at 75.
    random = np.random.default_rng(0)
    years = np.arange(101)
    age = random.choice([5, 10, 18, 28, 40, 50, 75], 7000)
    centre = np.clip(age + random.normal(0, 1 + age / 7), 0, 100)
    logits = {"age": torch.tensor(-0.5 * ((years - centre[:, None]) / 5) ** 2).float()}
    net = net_for(age={})

    def covered():
        columns = {name: column.numpy() for name, column in net.decode(logits).items()}
        assert (columns["age_low"] <= columns["age"]).all() and (columns["age"] <= columns["age_high"]).all()
        inside = (columns["age_low"] <= age) & (age <= columns["age_high"])
        return inside, columns["age"]

    before, _ = covered()
    assert before[age == 5].mean() > 0.95 and before[age == 75].mean() < 0.6
    calibrate(net, logits, faces(age=age.astype(float)), net_tasks(age={}))
    after, median = covered()
    assert after.mean() == pytest.approx(0.8, abs=0.03)
    for one in np.unique(age):
        assert abs(after[age == one].mean() - 0.8) < abs(before[age == one].mean() - 0.8) + 0.05
    probability = softmax(logits["age"].numpy() / net.heads["age"].temperature.item(), axis=1)
    by_hand = [np.interp(0.5, np.cumsum(row), years + 0.5) for row in probability[:50]]
    assert np.allclose(median[:50], by_hand, atol=0.01)
    groups = np.eye(8)[age_group_codes(years)]
    assert np.allclose(net.decode(logits)["p_60+"].numpy(), (probability @ groups)[:, 7], atol=1e-5)


def test_too_few_faces_change_nothing():
    net = net_for(gender={}, age_group={})
    logits = {"gender": torch.randn(300, 1), "age_group": torch.randn(300, 8)}
    few = faces(gender=["female", "male"] * 99 + [None] * 102, age_group=["0-2", "60+"] * 150)
    before = net.decode(logits)["p_female"]
    found = calibrate(net, logits, few, net_tasks(gender={}, age_group={}))
    assert found["gender"] == {"n": 198}
    assert found["age_group"]["n"] == 300 and 1 < found["age_group"]["temperature"] <= 2
    assert torch.equal(net.decode(logits)["p_female"], before)


def test_a_run_notes_its_calibration_and_its_file_holds_it(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "FEWEST", 2)
    recipe = {
        "data": {"source": "adience", "root": str(drawn), "labels": "masked"},
        "split": {"method": "folds", "near_duplicates": False},
        "model": {"backbone": "test_byobnet", "image_size": 32},
        "init": {"weights": "none"},
        "tasks": {"gender": {"unsure": 0.2}, "age": {}},
        "trainer": {"epochs": 1, "batch_size": 16, "workers": 0},
    }
    run = train(recipe, out=tmp_path / "run")
    noted = run.info["calibration"]
    file = onnx.load(run.model_file)
    metadata = json.loads({entry.key: entry.value for entry in file.metadata_props}["mien"])
    assert metadata["calibration"] == {"part": "val", **noted}
    assert metadata["unsure_below"] == noted["gender"]["unsure_below"]
    judged = run.predictions.merge(run.faces[["face", "split"]], on="face")
    validation = judged[judged["split"] == "val"]
    assert len(validation) == noted["gender"]["n"]
    assert (validation["gender"] == "unsure").mean() == pytest.approx(0.2, abs=1.5 / len(validation))


def test_ages_known_as_ranges_give_a_temperature_and_no_levels():
    random = np.random.default_rng(0)
    age = random.uniform(0, 90, 600)
    # The network states half of the spread that its answers have.
    centre = age + random.normal(0, 8, 600)
    logits = {"age": torch.tensor(-0.5 * ((np.arange(101) - centre[:, None]) / 4) ** 2).float()}
    ranges = {"age_from": age // 10 * 10, "age_to": age // 10 * 10 + 9}
    net = net_for(age={})
    found = calibrate(net, logits, faces(**ranges), net_tasks(age={}))["age"]
    assert set(found) == {"n", "temperature"} and found["n"] == 600
    assert found["temperature"] > 1.5
    # A few hundred years are enough to leave the ranges aside.
    known = np.arange(600) < 250
    some = {name: np.where(known, np.nan, ends) for name, ends in ranges.items()}
    mixed = calibrate(net, logits, faces(age=np.where(known, age, np.nan), **some), net_tasks(age={}))["age"]
    assert mixed["n"] == 250 and {"low", "high"} <= set(mixed)
