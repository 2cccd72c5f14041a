"""Worse pictures by group, with a model whose answers are known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mien.audit.model.audit import AuditSettings, audit_predictions
from mien.audit.model.robustness import RobustnessTest
from mien.evaluation.conditions import DEGRADATIONS


class Brightness:
    """Bright pictures are female, the mean value is the age."""

    size, margin, threads = 16, 0.0, 2

    def __init__(self) -> None:
        self.metadata = {"unsure_below": 0.6}

    def predict_pixels(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        p = batch.mean(axis=(1, 2, 3)) / 255
        gender = np.where(p >= 0.5, "female", "male").astype(object)
        gender[np.maximum(p, 1 - p) < 0.6] = "unsure"
        return {"p_female": p, "gender": gender, "age": p * 60}


@pytest.fixture
def faces(tmp_path: Path) -> tuple[pd.DataFrame, Path]:
    values = [*range(20, 60), *range(200, 240)]
    for value in values:
        Image.new("RGB", (32, 32), (value,) * 3).save(tmp_path / f"{value}.png")
    names = [f"{value}.png" for value in values]
    gender = ["female" if value > 127 else "male" for value in values]
    return pd.DataFrame({"face": names, "path": names, "gender": gender, "age": np.array(values) / 255 * 60}), tmp_path


def test_darkness_hurts_those_who_are_known_by_brightness(faces: tuple[pd.DataFrame, Path]) -> None:
    table, root = faces
    predictions = pd.DataFrame({"face": table["face"], "gender": table["gender"], "age": table["age"]})
    robustness = RobustnessTest(Brightness(), table, root)
    report = audit_predictions(
        predictions, table, ["gender"], robustness=robustness, settings=AuditSettings(n_boot=100)
    )
    found = {(one.degradation, one.level, one.group, one.metric): one for one in report.robustness}
    hurt = found["darkness", "1/3 of each pixel", "gender=female", "gender_accuracy"]
    assert (hurt.result.value, hurt.change.value, hurt.excess_over_others.value) == (0, -1, -1)
    spared = found["darkness", "1/3 of each pixel", "gender=male", "gender_accuracy"]
    assert (spared.result.value, spared.change.value, spared.excess_over_others.value) == (1, 0, 1)
    all_faces = found["darkness", "1/3 of each pixel", "all", "gender_accuracy"]
    assert all_faces.change.value == -0.5 and all_faces.excess_over_others.value is None
    unsure = found["darkness", "1/2 of each pixel", "gender=female", "gender_unsure"]
    assert unsure.result.value == pytest.approx(
        np.mean([max(v // 2, 255 - v // 2) / 255 < 0.6 for v in range(200, 240)])
    )
    age = found["darkness", "1/2 of each pixel", "gender=female", "age_mae"]
    assert age.result.value == pytest.approx(np.mean([(v - v // 2) / 255 * 60 for v in range(200, 240)]))
    assert age.excess_over_others.low > 0  # bright faces lose more years than dark ones
    levels = sum(map(len, DEGRADATIONS.values()))
    assert len(report.robustness) == levels * 3 * 3


def test_a_sample_is_enough(faces: tuple[pd.DataFrame, Path]) -> None:
    table, root = faces
    few = RobustnessTest(Brightness(), table, root, sample=10).run([], 20, 0)
    assert {one.n for one in few} == {10} and {one.group for one in few} == {"all"}
