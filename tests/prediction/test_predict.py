"""The predictor with the model that ships: photographs, crops, bad input, threads."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from PIL import Image
from skimage import data

from mien import MienError, Predictor
from mien.base.labels import AGE_GROUPS
from mien.data import images
from mien.prediction.predict import shipped_model


@pytest.fixture(scope="module")
def predictor():
    return Predictor(threads=1)


@pytest.fixture(scope="module")
def astronaut():
    return data.astronaut()


@pytest.fixture(scope="module")
def face(astronaut):
    return astronaut[0:240, 100:340]


def test_a_crop_is_small_by_its_own_pixels(predictor, astronaut):
    crop = Image.fromarray(astronaut[30:200, 140:310])
    table = predictor.predict([crop, crop.resize((39, 39)), crop.resize((41, 41))], crops=True)
    assert list(table["quality"].str.contains("small")) == [False, True, False]


def test_the_shipped_model_is_small_and_says_what_it_is(predictor):
    assert shipped_model().stat().st_size <= 8_000_000
    assert predictor.metadata["tasks"] == ["gender", "age"]
    assert predictor.metadata["lineage"]["dataset"] == "utkface+aaf+lfw"
    assert 0.5 < predictor.metadata["unsure_below"] < 1


def test_a_photograph_is_found_cut_and_judged(predictor, astronaut):
    (row,) = predictor.predict(astronaut).to_dict("records")
    assert row["status"] == "ok" and row["face_index"] == 0
    # A golden output on NASA's portrait of Eileen Collins; the answers are those of this model file.
    assert row["p_female"] == pytest.approx(0.71, abs=0.1) and row["gender"] == "female"
    assert row["age_low"] < row["age"] < row["age_high"] and row["age"] == pytest.approx(24.9, abs=1.5)
    x, y, w, h = (row[edge] for edge in "xywh")
    assert 150 < x + w / 2 < 290 and 60 < y + h / 2 < 190 and 60 < w < 180


def test_columns_are_those_of_the_predictions_table(predictor, face):
    table = predictor.predict(face, crops=True)
    assert list(table.columns) == predictor.columns
    groups = table[[f"p_{group}" for group in AGE_GROUPS]].to_numpy()
    assert groups.shape == (1, 8) and groups.sum() == pytest.approx(1, abs=1e-3)
    assert table["age_group"][0] in AGE_GROUPS and table["detector_score"].isna().all()


def test_every_kind_of_input_gives_the_same_answer(predictor, face, tmp_path):
    path = tmp_path / "face.png"
    Image.fromarray(face).save(path)
    kinds = [path, str(path), path.read_bytes(), face, Image.fromarray(face)]
    rows = predictor.predict(kinds, crops=True)
    assert list(rows["file"]) == [str(path), str(path), "2", "3", "4"]
    assert (rows[["p_female", "age"]] == rows[["p_female", "age"]].iloc[0]).all(axis=None)
    for kind in kinds:
        alone = predictor.predict(kind, crops=True)
        assert len(alone) == 1 and alone["p_female"][0] == pytest.approx(rows["p_female"][0], abs=1e-3)


def test_what_cannot_be_read_is_a_row_and_the_others_are_answered(predictor, face, tmp_path):
    good = tmp_path / "good.jpg"
    Image.fromarray(face).save(good)
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:2000])
    names = ["gone.jpg", "empty.jpg", "text.jpg", "cut.jpg", "good.jpg"]
    table = predictor.predict([tmp_path / name for name in names], crops=True)
    assert list(table["status"]) == ["missing", "empty", "not an image", "truncated", "ok"]
    assert table["p_female"].notna().tolist() == [False] * 4 + [True]
    wrong = predictor.predict(
        [face.astype(float), face[:, :, :2], face[:4, :4], np.empty((0, 0, 3), np.uint8)], crops=True
    )
    assert list(wrong["status"]) == ["not an image", "not an image", "too small", "empty"]


def test_a_picture_without_a_face_is_a_row(predictor):
    table = predictor.predict(data.camera()[:100, :100])
    assert list(table["status"]) == ["no face"] and table["face_index"].isna().all()


def test_no_images_are_no_rows(predictor):
    table = predictor.predict([])
    assert len(table) == 0 and list(table.columns) == predictor.columns


def test_order_and_answers_do_not_depend_on_batches_or_threads(predictor, face):
    faces = [np.roll(face, 7 * step, axis=1) for step in range(150)]
    together = predictor.predict(faces, crops=True)
    assert list(together["file"]) == [str(n) for n in range(150)]
    with ThreadPoolExecutor(4) as pool:
        parts = list(
            pool.map(lambda part: predictor.predict(part, crops=True), [faces[n : n + 50] for n in (0, 50, 100)])
        )
    apart = pd.concat(parts, ignore_index=True)
    assert np.allclose(apart["p_female"], together["p_female"], atol=1e-3)
    assert np.allclose(apart["age"], together["age"], atol=0.05)


def test_unsure_is_a_threshold_of_certainty(predictor):
    words = predictor._add_labels({"p_female": np.array([0.5, 0.999, 0.001], np.float32)})
    assert list(words["gender"]) == ["unsure", "female", "male"]


def edited(tmp_path, change):
    model = onnx.load(shipped_model())
    change(model)
    path = tmp_path / "edited.onnx"
    onnx.save(model, path)
    return path


def test_a_model_that_is_not_miens_is_refused_with_what_is_missing(tmp_path):
    def clear(model):
        del model.metadata_props[:]

    with pytest.raises(MienError, match="not a mien model: its metadata has no entry 'mien'"):
        Predictor(edited(tmp_path, clear))

    def forget(model):
        (entry,) = model.metadata_props
        kept = json.loads(entry.value)
        del kept["margin"], kept["tasks"]
        entry.value = json.dumps(kept)

    with pytest.raises(MienError, match="'mien' has no margin, tasks"):
        Predictor(edited(tmp_path, forget))

    for key, value, message in (
        ("format", 1, "metadata has format 1; valid: 2"),
        ("format", 3, "metadata has format 3; valid: 2"),
        ("resize", "lanczos", "resize filter is 'lanczos'; valid: 'pillow-bilinear'"),
    ):

        def change(model, key=key, value=value):
            (entry,) = model.metadata_props
            entry.value = json.dumps(json.loads(entry.value) | {key: value})

        with pytest.raises(MienError, match=message):
            Predictor(edited(tmp_path, change))

    def spoil(model):
        model.metadata_props[0].value = "{"

    with pytest.raises(MienError, match="is not JSON"):
        Predictor(edited(tmp_path, spoil))


def test_a_corrupt_model_is_refused(tmp_path):
    content = shipped_model().read_bytes()
    for name, bad in (("short", content[: len(content) // 2]), ("text", b"hello"), ("empty", b"")):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(bad)
        with pytest.raises(MienError, match="not a usable ONNX file"):
            Predictor(path)


def test_an_unknown_runtime_or_detector_is_refused():
    with pytest.raises(MienError, match="openvinno.*openvino"):
        Predictor(runtime="openvinno")
    with pytest.raises(MienError, match="dlibb.*did you mean 'dlib'"):
        Predictor(detector="dlibb").predict(np.zeros((64, 64, 3), np.uint8))


def test_openvino_is_refused_for_an_8_bit_file():
    with pytest.raises(MienError, match="is 8-bit.*valid: the runtime 'onnxruntime'"):
        Predictor(runtime="openvino")


def test_the_answer_is_that_of_the_file_in_a_bare_session(predictor, face):
    session = onnxruntime.InferenceSession(shipped_model())
    pixels = images.load_face(face, predictor.size)[None]
    expected = dict(zip([o.name for o in session.get_outputs()], session.run(None, {"images": pixels}), strict=True))
    ours = predictor.predict_pixels(pixels)
    for name, value in expected.items():
        assert np.allclose(ours[name], value, atol=1e-5), name
