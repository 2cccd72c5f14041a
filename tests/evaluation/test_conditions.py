import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage.data import astronaut
from skimage.transform import rotate

from mien import metrics
from mien.base.errors import MienError
from mien.base.table import check_faces
from mien.data import images
from mien.data.sources import read_faces
from mien.evaluation.conditions import (
    CONDITIONS,
    DEGRADATIONS,
    ORIGINAL,
    covered,
    dark,
    face_pixels,
    force_decision,
    predict_conditions,
    score_conditions,
)


@pytest.fixture
def face():
    return np.ascontiguousarray(astronaut()[0:200, 130:330])


class Brightness:
    """A model with known answers: bright pictures are female, the mean value is the age."""

    size, margin, threads = 32, 0.0, 2

    def __init__(self, unsure_below=None):
        self.metadata = {} if unsure_below is None else {"unsure_below": unsure_below}

    def predict_pixels(self, batch):
        mean = batch.mean(axis=(1, 2, 3))
        p = mean / 255
        gender = np.where(p >= 0.5, "female", "male").astype(object)
        gender[np.maximum(p, 1 - p) < self.metadata.get("unsure_below", 0.5)] = "unsure"
        return {"p_female": p, "gender": gender, "age": mean / 4, "age_low": mean / 5, "age_high": mean / 3}


@pytest.fixture
def plain_faces(tmp_path):
    """Faces of one grey value each, bright ones labelled female, aged as `Brightness` says."""
    values = [30, 60, 90, 120, 150, 180, 210, 240]
    for value in values:
        Image.new("RGB", (40, 40), (value, value, value)).save(tmp_path / f"{value}.png")
    gender = ["female" if value > 127 else "male" for value in values]
    names = [f"{value}.png" for value in values]
    faces = pd.DataFrame({"face": names, "path": names, "gender": gender, "age": [value / 4 for value in values]})
    return check_faces(faces), tmp_path


@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.parametrize("shape", [(200, 200), (37, 61), (61, 37), (8, 8)])
def test_every_condition_gives_a_picture_that_a_network_can_take(name, shape):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    before = picture.copy()
    worse = CONDITIONS[name](picture)
    assert worse.dtype == np.uint8 and worse.ndim == 3 and worse.shape[2] == 3
    assert np.array_equal(worse, CONDITIONS[name](picture))
    assert np.array_equal(picture, before)
    images.load_face(worse, 32)


def test_only_the_first_condition_changes_nothing(face):
    changed = {name: not np.array_equal(condition(face), face) for name, condition in CONDITIONS.items()}
    assert changed.pop(ORIGINAL) is False
    assert all(changed.values())


def test_small_crops_are_the_middle_and_large_ones_repeat_the_edge(face):
    assert np.array_equal(CONDITIONS["crop 80%"](face), face[20:180, 20:180])
    edge = np.pad(face, ((20, 20), (20, 20), (0, 0)), mode="edge")
    assert np.array_equal(CONDITIONS["crop 120%"](face), edge)


def test_shifts_move_the_face_in_the_direction_they_name(face):
    def edge(rows, columns):
        return np.pad(face, (rows, columns, (0, 0)), mode="edge")

    assert np.array_equal(CONDITIONS["shift left 10%"](face), edge((0, 0), (0, 20))[:, 20:])
    assert np.array_equal(CONDITIONS["shift right 10%"](face), edge((0, 0), (20, 0))[:, :200])
    assert np.array_equal(CONDITIONS["shift up 10%"](face), edge((0, 20), (0, 0))[20:])
    assert np.array_equal(CONDITIONS["shift down 10%"](face), edge((20, 0), (0, 0))[:200])


@pytest.mark.parametrize(("name", "degrees"), [("rotation 20 degrees left", 20), ("rotation 20 degrees right", -20)])
def test_rotation_agrees_with_another_library(face, name, degrees):
    # The other library's "edge" clamps coordinates after turning; only what lies inside is the same.
    other = rotate(face, degrees, mode="edge", preserve_range=True)
    inside = np.hypot(*np.mgrid[-99.5:100, -99.5:100]) < 98
    difference = np.abs(CONDITIONS[name](face).astype(float) - other)[inside]
    assert difference.mean() < 0.6 and np.quantile(difference, 0.999) < 8


def test_rotation_leaves_no_black_corners():
    white = np.full((50, 50, 3), 255, np.uint8)
    assert (CONDITIONS["rotation 20 degrees left"](white) == 255).all()


def test_blur_spreads_as_its_sigma_says():
    point = np.zeros((201, 201, 3), np.uint8)
    point[98:103, 98:103] = 255
    spread = CONDITIONS["blur, sigma 1.3% of the side"](point)[..., 0].astype(float)
    rows = np.arange(201) - 100
    sigma = np.sqrt((spread.sum(axis=1) * rows**2).sum() / spread.sum() - (5**2 - 1) / 12)
    assert sigma == pytest.approx(3 / 224 * 201, rel=0.1)


def test_jpeg_is_what_a_file_of_that_quality_holds(face):
    file = io.BytesIO()
    Image.fromarray(face).save(file, "JPEG", quality=20)
    assert np.array_equal(CONDITIONS["JPEG quality 20"](face), images.load(file.getvalue()))


def test_small_grey_and_dark(face):
    assert CONDITIONS["48 pixels"](face).shape == (48, 48, 3)
    grey = CONDITIONS["grey"](face)
    assert (grey == grey[..., :1]).all()
    assert np.abs(grey[..., 0] - face @ [0.299, 0.587, 0.114]).max() <= 1
    assert np.array_equal(CONDITIONS["dark, a third of each pixel"](face), face // 3)


def test_a_face_is_cut_from_its_box_in_its_own_pixels(face):
    whole = face_pixels(face)
    assert np.array_equal(whole, face)
    assert np.array_equal(face_pixels(face, (50, 60, 40, 40)), face[60:100, 50:90])
    assert np.array_equal(face_pixels(face, (50, 60, 40, 40), margin=0.5), face[50:110, 40:100])


def test_scores_show_what_the_dark_costs(plain_faces):
    faces, root = plain_faces
    table = score_conditions(Brightness(), faces, root).set_index(["metric", "condition"])
    original, dark = (table.loc[("gender_accuracy", name)] for name in (ORIGINAL, "dark, a third of each pixel"))
    assert original["value"] == 1 and np.isnan(original["difference"]) and original["n"] == 8
    # A third of any value is below 128: all are called male.
    assert dark["value"] == 0.5 and dark["difference"] == -0.5
    assert dark["difference_low"] < -0.5 < dark["difference_high"] < 0
    assert table.loc[("age_mae", ORIGINAL), "value"] == 0
    ages = faces["age"].to_numpy()
    assert table.loc[("age_mae", "dark, a third of each pixel"), "value"] == pytest.approx(ages.mean() * 2 / 3)
    assert (table.loc["gender_accuracy"]["value"].drop("dark, a third of each pixel") == 1).all()
    assert "gender_unsure" not in table.index.get_level_values("metric")


def test_accuracy_takes_the_likelier_gender_and_unsure_is_a_share_of_its_own(plain_faces):
    faces, root = plain_faces
    table = score_conditions(Brightness(unsure_below=0.6), faces, root, {}).set_index("metric")
    assert list(table["condition"].unique()) == [ORIGINAL]
    assert table.loc["gender_accuracy", "value"] == 1
    assert table.loc["gender_unsure", "value"] == 2 / 8  # 120 and 150 of 255 are near a half


def test_likelier_only_replaces_unsure():
    rows = pd.DataFrame({"face": ["a", "b"], "p_female": [0.52, 0.9], "gender": ["unsure", "female"]})
    faces = check_faces(pd.DataFrame({"face": ["a", "b"], "path": ["a", "b"], "gender": "female"}))
    assert list(metrics.join(faces, force_decision(rows))["gender"]) == ["female", "female"]
    said = pd.DataFrame({"face": ["a"], "gender": ["male"]})
    assert force_decision(said) is said


def test_a_condition_of_ones_own_is_scored_too(plain_faces):
    faces, root = plain_faces
    table = score_conditions(Brightness(), faces, root, {"negative": lambda face: 255 - face})
    assert list(table["condition"].unique()) == [ORIGINAL, "negative"]
    assert table.query("metric == 'gender_accuracy' and condition == 'negative'")["value"].item() == 0


def test_the_whole_crop_predicts_as_prediction_does(drawn):
    faces = read_faces("adience", drawn, "masked").head(5)
    ours = predict_conditions(Brightness(), faces, drawn, {})[ORIGINAL]
    boxes = zip(*(faces[name] for name in "xywh"), strict=True)
    for path, box, age in zip(faces["path"], boxes, ours["age"], strict=True):
        cut = images.load_face(drawn / path, 32, None if np.isnan(box).any() else box)
        assert age == pytest.approx(cut.mean() / 4, abs=0.5)


def test_unreadable_faces_count_as_wrong_under_every_condition(plain_faces):
    faces, root = plain_faces
    (root / "240.png").write_bytes(b"no picture")
    answers = predict_conditions(Brightness(), faces, root)
    assert set(answers) == set(CONDITIONS)
    for table in answers.values():
        assert list(table["face"]) == list(faces["face"])
        assert list(table["status"]) == ["ok"] * 7 + ["not an image"]
    table = score_conditions(Brightness(), faces, root, {}).set_index("metric")
    assert table.loc["gender_accuracy", "value"] == 7 / 8 and table.loc["age_mae", "n"] == 7


def test_faces_of_which_none_can_be_read_are_an_error(plain_faces, tmp_path):
    faces, _ = plain_faces
    with pytest.raises(MienError, match="none of 8 faces in .*nowhere.* can be read; '30.png': missing"):
        score_conditions(Brightness(), faces, tmp_path / "nowhere")


def test_progress_is_told(plain_faces):
    told = []
    predict_conditions(Brightness(), *plain_faces, {}, lambda done, total: told.append((done, total)))
    assert told == [(8, 8)]


def test_nothing_to_score_is_an_error(plain_faces):
    faces, root = plain_faces
    with pytest.raises(MienError, match="has no rows"):
        score_conditions(Brightness(), faces.head(0), root)
    with pytest.raises(MienError, match="no face has a label for the model's predictions"):
        score_conditions(Brightness(), faces[["face", "path"]].pipe(check_faces), root, {})


ALL_LEVELS = [(kind, level) for kind, levels in DEGRADATIONS.items() for level in levels]


@pytest.mark.parametrize(("kind", "level"), ALL_LEVELS)
def test_every_level_gives_a_picture_that_a_network_can_take(kind, level, face):
    before = face.copy()
    worse = DEGRADATIONS[kind][level](face)
    assert worse.dtype == np.uint8 and worse.ndim == 3 and not np.array_equal(worse, face)
    assert np.array_equal(face, before)


@pytest.mark.parametrize("kind", ["blur", "JPEG", "darkness", "eyes covered", "mouth covered"])
def test_levels_go_from_mild_to_hard(kind, face):
    lost = [np.abs(change(face).astype(float) - face).mean() for change in DEGRADATIONS[kind].values()]
    assert lost == sorted(lost)


def test_covered_and_dark_by_hand(face):
    hidden = covered(face, 0.25, 0.5)
    assert np.array_equal(hidden[:50], face[:50]) and np.array_equal(hidden[100:], face[100:])
    assert (hidden[50:100] == face.mean(axis=(0, 1)).astype(np.uint8)).all()
    assert np.array_equal(dark(face, 10), face // 10)
