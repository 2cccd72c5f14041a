"""Predictions of any program find their faces, or an error says why not."""

import pandas as pd
import pytest

from mien.audit.model.inputs import match, read_predictions
from mien.base.errors import MienError


def faces(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame({"face": ["a", "b", "c"], "path": ["x/1.jpg", "x/2.jpg", "y/3.jpg"]} | columns)


def found(predictions: pd.DataFrame, column: str = "gender", **options: object) -> list[object]:
    joined = match(faces(), read_predictions(predictions, **options)).joined
    return joined[column].astype("object").where(joined[column].notna(), None).tolist()


def test_by_face_id_counts_what_is_missing_and_what_is_too_much() -> None:
    rows = pd.DataFrame({"face": ["b", "a", "z"], "gender": ["male", "female", "male"]})
    matched = match(faces(), read_predictions(rows))
    assert matched.joined["gender"].astype("object").tolist()[:2] == ["female", "male"]
    assert (matched.key, matched.unmatched, matched.missing) == ("face id", 1, 1)


def test_by_path_then_by_file_name() -> None:
    rows = pd.DataFrame({"file": ["x/2.jpg", "x/1.jpg"], "gender": ["male", "female"]})
    assert found(rows) == ["female", "male", None]
    assert found(rows.assign(file=["/data/here/2.jpg", "C:\\pictures\\1.jpg"])) == ["female", "male", None]


def test_words_of_deepface() -> None:
    rows = pd.DataFrame(
        {"file": ["1.jpg", "2.jpg"], "dominant_gender": ["Woman", "Man"], "gender.Woman": [99.5, 20.0], "age": [31, 40]}
    )
    assert found(rows, preset="deepface") == ["female", "male", None]
    assert found(rows, "p_female", preset="deepface") == [0.995, 0.2, None]
    with pytest.raises(MienError, match="should be in percent"):
        read_predictions(rows.assign(**{"gender.Woman": [0.995, 0.2]}), preset="deepface")


@pytest.mark.parametrize("column", [{"sex": ["F", "M"]}, {"gender": [0, 1]}])
def test_words_of_insightface(column: dict[str, list[object]]) -> None:
    rows = pd.DataFrame({"file": ["1.jpg", "2.jpg"], "age": [31, 40]} | column)
    assert found(rows, preset="insightface") == ["female", "male", None]
    assert found(rows, "age", preset="insightface")[:2] == [31.0, 40.0]


def test_numbers_are_no_genders_without_the_preset() -> None:
    with pytest.raises(MienError, match="--preset insightface"):
        read_predictions(pd.DataFrame({"file": ["1.jpg"], "gender": [1]}))


def test_any_names_by_map() -> None:
    rows = pd.DataFrame({"image": ["1.jpg"], "pred": ["w"], "years": [30.0]})
    assert found(rows[["image", "years"]], "age", map={"image": "file", "years": "age"}) == [30.0, None, None]
    with pytest.raises(MienError, match="gender 'w' is not understood"):
        read_predictions(rows, {"image": "file", "pred": "gender"})


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ({"gender": ["f"]}, {}, "neither 'face' nor 'file'"),
        ({"file": ["1.jpg"], "gender": ["f"]}, {"map": {"sex": "gender"}}, "unknown column of the predictions 'sex'"),
        ({"file": ["1.jpg"], "sex": ["f"]}, {"map": {"sex": "gendr"}}, "did you mean 'gender'"),
        ({"file": ["1.jpg"], "gender": ["f"]}, {"preset": "deepfase"}, "did you mean 'deepface'"),
        ({"file": ["1.jpg", "q/1.jpg"], "gender": ["f", "m"]}, {}, "ambiguous"),
        ({"face": ["a", "a"], "gender": ["f", "m"]}, {}, "ambiguous"),
        ({"file": ["9.jpg"], "gender": ["f"]}, {}, "no file is in the faces table"),
        ({"face": ["z"], "gender": ["f"]}, {}, "no face id is in the faces table"),
    ],
)
def test_mistakes_are_named(rows: dict[str, list[object]], options: dict[str, object], words: str) -> None:
    with pytest.raises(MienError, match=words):
        match(faces(), read_predictions(pd.DataFrame(rows), **options))


def test_one_name_of_two_faces_is_ambiguous() -> None:
    two = faces(path=["x/1.jpg", "y/1.jpg", "y/3.jpg"])
    rows = pd.DataFrame({"file": ["1.jpg"], "gender": ["f"]})
    with pytest.raises(MienError, match="faces table: 1 file names occur more than once"):
        match(two, read_predictions(rows))
    assert match(two, read_predictions(rows.assign(file="x/1.jpg"))).missing == 2


def test_several_files_make_one_table(tmp_path) -> None:
    pd.DataFrame({"face": ["a"], "gender": ["f"]}).to_csv(tmp_path / "1.csv", index=False)
    pd.DataFrame({"face": ["b"], "gender": ["m"]}).to_csv(tmp_path / "2.csv", index=False)
    read = read_predictions([tmp_path / "1.csv", tmp_path / "2.csv"])
    assert read["gender"].tolist() == ["female", "male"]


@pytest.mark.parametrize(("column", "preset"), [("dominant_gender", "deepface"), ("sex", "insightface")])
def test_genders_of_another_program_are_not_left_out_without_a_word(column, preset):
    table = pd.DataFrame({"file": ["a.jpg"], "age": [30], column: ["M" if preset == "insightface" else "Man"]})
    with pytest.raises(MienError, match=f"'{column}', which --preset {preset} or --map {column}=gender reads"):
        read_predictions(table)
    with pytest.raises(MienError, match=f"'{column}', which --preset {preset}"):
        read_predictions(table.rename(columns={"file": "img"}), map={"img": "file"})
    assert list(read_predictions(table, map={"age": "age"}).columns) == ["age", "file"]
    assert read_predictions(table, preset=preset)["gender"].tolist() == ["male"]


def test_a_number_for_a_gender_is_named_as_it_stands_in_the_table():
    with pytest.raises(MienError, match=r"gender '1' is not understood .*--preset insightface reads 0 and 1"):
        read_predictions(pd.DataFrame({"file": ["a.jpg"], "gender": [1]}))
