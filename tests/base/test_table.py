import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.base.errors import MienError
from mien.base.labels import AGE_GROUPS
from mien.base.table import (
    FACES_COLUMNS,
    OLDEST,
    TableError,
    age_range_text,
    age_to_group,
    check_faces,
    read_age_range,
    read_faces_table,
    read_table,
    write_table,
)
from mien.data.sources import csv as csv_source

BOUNDS = [(0, 2), (4, 6), (8, 13), (15, 20), (25, 32), (38, 43), (48, 53), (60, 1000)]


def minimal(**columns):
    return pd.DataFrame({"face": ["1", "2"], "path": ["a.jpg", "b/c.jpg"], **columns})


@given(st.floats(0, 130))
def test_age_group_is_the_nearest_and_a_tie_the_younger(age):
    distance = [max(low - age, age - high, 0) for low, high in BOUNDS]
    assert age_to_group([age])[0] == AGE_GROUPS[int(np.argmin(distance))]


def test_missing_age_has_no_group():
    assert age_to_group([np.nan, 3, 3.01]).tolist()[1:] == ["0-2", "4-6"]
    assert pd.isna(age_to_group([np.nan])[0])


def test_what_is_absent_is_missing():
    faces = check_faces(minimal(age=[30, None], race=["asian", "black"]))
    assert list(faces.columns) == [*FACES_COLUMNS, "race"]
    assert faces["age_group"].tolist()[0] == "25-32" and faces["age_group"].isna()[1]
    assert faces["gender"].isna().all() and faces["subject"].isna().all()
    assert faces["dataset"].tolist() == ["unknown"] * 2


def test_ranges_of_years():
    understood = {
        "25-32": (25, 32),
        " 25 \u2013 32 ": (25, 32),
        "25 to 32": (25, 32),
        "(25, 32)": (25, 32),
        "[0,2]": (0, 2),
        "60+": (60, OLDEST),
        "2.5-3": (2.5, 3),
    }
    assert {text: read_age_range(text) for text in understood} == understood
    for text in ("35", "25,32", "9-Mar", "old", "", "-5", "25-", "+60", "25-32-40"):
        assert read_age_range(text) is None, text
    assert [age_range_text(*understood[text]) for text in ("(25, 32)", "60+")] == ["25-32", "60+"]


def test_an_age_is_a_year_or_a_range():
    table = pd.DataFrame({"face": range(6), "path": "a.jpg", "age": ["35", "25-32", "60+", "20-29", "7-7", None]})
    faces = check_faces(table)
    wanted = pd.DataFrame(
        {
            "age": [35.0, np.nan, np.nan, np.nan, 7.0, np.nan],
            "age_from": [np.nan, 25.0, 60.0, 20.0, np.nan, np.nan],
            "age_to": [np.nan, 32.0, OLDEST, 29.0, np.nan, np.nan],
        }
    )
    pd.testing.assert_frame_equal(faces[list(wanted)], wanted)
    # 20-29 is a part of two groups.
    assert faces["age_group"].astype("object").where(faces["age_group"].notna(), "").tolist() == [
        *("25-32", "25-32", "60+", "", "4-6", "")
    ]
    pd.testing.assert_frame_equal(check_faces(faces), faces)


def test_columns_of_a_range():
    faces = check_faces(minimal(age=[30, None], age_from=[25, None], age_to=[32, 17], age_group=["38-43", None]))
    assert faces["age_from"].tolist()[1:] == [0.0] and faces["age_to"].tolist()[1:] == [17.0]
    # Beside an age there is no range, and a group that is given stays.
    assert faces.loc[0, ["age_from", "age_to"]].isna().all() and faces["age_group"].tolist()[0] == "38-43"
    assert check_faces(minimal(age=[32.9, 0], age_from=[25, None], age_to=[32, None]))["age"].tolist() == [32.9, 0]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_table_survives_the_disk(tmp_path, ending):
    faces = check_faces(
        minimal(
            gender=["female", None],
            age=[30.5, None],
            subject=[7, None],
            fold=[0, None],
            split=["train", None],
            x=[1.5, None],
            race=["NA", "null"],
        )
    )
    write_table(faces, tmp_path / f"t{ending}")
    pd.testing.assert_frame_equal(read_faces_table(tmp_path / f"t{ending}"), faces)
    assert faces["subject"].tolist()[0] == "7"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (pd.DataFrame({"face": [1]}), "'path' is absent"),
        (minimal(gender=["f", "male"]), "'gender': 1 values are unknown.*'f'.*female, male"),
        (minimal(age_group=["0-2", "8-12"]), "'age_group'.*'8-12'.*8-13"),
        (minimal(age=[300, 3]), "'age': 300"),
        (minimal(age=["old", "3"]), "'age': 'old' is not a number of years, or a range such as 25-32 or 60"),
        (minimal(age=["32-25", "3"]), "32 to 25 is no range of years"),
        (minimal(age=["25-300", "3"]), "'age_to': 300 is outside of 0 to 130"),
        (minimal(age=[33, 3], age_from=[25, None], age_to=[32, None]), "the age 33 is outside of 25 to 32"),
        (minimal(fold=[0.5, 1]), "'fold'"),
        (pd.DataFrame({"face": ["1", "1"], "path": ["a", "b"]}), "'face' must be unique.*'1'"),
        (pd.DataFrame({"face": ["1", None], "path": ["a", "b"]}), "'face' is empty in 1 rows"),
        (pd.DataFrame({"face": ["1"], "path": ["/etc/passwd"]}), "'/etc/passwd' must be relative"),
        (pd.DataFrame({"face": ["1"], "path": ["a/../../b"]}), "must be relative"),
        (pd.DataFrame({"face": ["1"], "path": ["C:\\\\a"]}), "must be relative"),
        (pd.concat([minimal(), minimal()["path"]], axis=1), "'path' occurs more than once"),
    ],
)
def test_mistakes_name_the_column_and_an_example(table, words):
    with pytest.raises(TableError, match=words):
        check_faces(table)


def test_dots_in_a_name_are_no_escape():
    assert len(check_faces(pd.DataFrame({"face": ["1"], "path": ["a..b/c...jpg"]}))) == 1


def test_files_that_are_no_tables(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"no parquet")
    (tmp_path / "empty.csv").write_text("")
    for name, words in (
        ("t.xlsx", "unknown ending"),
        ("absent.csv", "does not exist"),
        ("t.parquet", "cannot be read"),
        ("empty.csv", "cannot be read"),
    ):
        with pytest.raises(TableError, match=words):
            read_table(tmp_path / name)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_table(minimal(), tmp_path / "t.csv")
    monkeypatch.setattr(pd.DataFrame, "to_csv", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_table(minimal(age=[1, 2]), path)
    assert "age" not in read_table(path) and [file.name for file in tmp_path.iterdir()] == ["t.csv"]


def test_csv_with_byte_order_mark(tmp_path):
    (tmp_path / "t.csv").write_bytes("\ufeffface,path\n1,a\n".encode())
    assert read_faces_table(tmp_path / "t.csv")["face"].tolist() == ["1"]


def test_ids_and_paths_of_a_csv_are_text(tmp_path):
    file = tmp_path / "faces.csv"
    file.write_text("face,path,subject,photo,age\n1,0001,123456789012345678,007,3\n2,0002,,008,\n")
    faces = read_faces_table(file)
    assert faces["path"].tolist() == ["0001", "0002"] and faces["photo"].tolist() == ["007", "008"]
    assert faces["subject"][0] == "123456789012345678" and faces["subject"].isna()[1] and faces["age"][0] == 3
    file.write_text("theirs,subject\n0001,7.0\n0002,\n")
    read, _ = csv_source.read(file, "all", {"theirs": "path"})
    assert read["path"].tolist() == ["0001", "0002"] and read["subject"][0] == "7"


def test_spaces_around_the_names_of_columns_lose_nothing(tmp_path):
    file = tmp_path / "faces.csv"
    file.write_text("path, gender, age, subject\na.png, female, 31, 007\nb.png, , , \n")
    faces, _ = csv_source.read(file, "all")
    faces = check_faces(faces)
    assert faces["gender"].tolist()[0] == "female" and faces["age"][0] == 31 and faces["subject"][0] == "007"
    assert faces[["gender", "age", "subject"]].isna().all(axis=1).tolist() == [False, True]
    file.write_text("path, path\na,b\n")
    with pytest.raises(TableError, match="'path' occurs more than once"):
        read_table(file)


@pytest.mark.parametrize("column", ["path", "subject", "gender", "age", "fold"])
def test_a_struct_column_of_parquet_is_one_message(tmp_path, column):
    table = pd.DataFrame({"face": ["a", "b"], "path": ["a.png", "b.png"]})
    table[column] = [{"x": 1}, {"x": 2}]
    table.to_parquet(tmp_path / "faces.parquet")
    with pytest.raises(TableError, match=f"column '{column}'"):
        read_faces_table(tmp_path / "faces.parquet")
    with pytest.raises(MienError, match=f"column '{column}'"):
        check_faces(csv_source.read(tmp_path / "faces.parquet", "all")[0])
