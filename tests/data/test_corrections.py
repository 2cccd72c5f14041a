import pandas as pd
import pytest

from mien.base.errors import MienError
from mien.base.ledger import Ledger
from mien.base.table import check_faces
from mien.data.corrections import apply_corrections, read_corrections
from mien.data.sources import read_faces


@pytest.fixture
def faces():
    return check_faces(
        pd.DataFrame(
            {
                "face": ["a", "b", "c", "d"],
                "path": ["a.jpg", "b.jpg", "c.jpg", "d.jpg"],
                "gender": ["female", "male", None, "male"],
                "age": [3, 30, None, 51.5],
                "age_group": [None, None, "60+", None],
                "race": ["x", "y", "x", "y"],
            }
        )
    )


@pytest.fixture
def write(tmp_path):
    def written(*rows, header="face,column,old,new,why"):
        path = tmp_path / "fixed.csv"
        path.write_text("\n".join([header, *rows]) + "\n")
        return path

    return written


def test_labels_are_corrected_and_written_down(faces, write):
    path = write(
        "a,gender,female,male,seen", "b,gender,male,,a dog", "a,age,3,40.5,seen", "d,age,51.5,52,", "c,gender,,female,x"
    )
    ledger = Ledger("made")
    out = apply_corrections(faces, path, ledger)
    assert out["gender"].astype("object").where(out["gender"].notna(), None).tolist() == [
        "male",
        None,
        "female",
        "male",
    ]
    assert out["age"].tolist()[:2] == [40.5, 30] and out["age"].tolist()[3] == 52
    assert out["age_group"].tolist() == ["38-43", "25-32", "60+", "48-53"]
    assert {(entry.kind, entry.reason, entry.rows, entry.example) for entry in ledger.entries} == {
        ("changed", "gender corrected from female to male, by fixed.csv", 1, "a"),
        ("changed", "gender corrected from male to unknown, by fixed.csv", 1, "b"),
        ("changed", "gender corrected from unknown to female, by fixed.csv", 1, "c"),
        ("changed", "age corrected, by fixed.csv", 2, "a"),
    }
    pd.testing.assert_frame_equal(out, check_faces(out))
    assert faces["gender"].tolist()[0] == "female"  # the caller's table stays


def test_an_age_group_without_years(faces, write):
    out = apply_corrections(faces, write("c,age_group,60+,48-53,"), Ledger("made"))
    assert out["age_group"].tolist() == ["0-2", "25-32", "48-53", "48-53"]


def test_ids_and_ages_that_a_table_program_made_fractions_of(write):
    table = check_faces(pd.DataFrame({"face": ["1", "2"], "path": ["1.jpg", "2.jpg"], "age": [20, 30]}))
    path = write("1.0,age,20.0,21.0,")
    assert apply_corrections(table, path, Ledger("made"))["age"].tolist() == [21, 30]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("e,gender,male,female,", "face 'e', gender: no such face among the 4 faces"),
        ("a,race,x,y,", "face 'a': unknown column 'race'; valid: gender, age, age_group"),
        ("a,gender,male,female,", "face 'a', gender: old is 'male', but the table has 'female'"),
        ("a,gender,,male,", "old is None, but the table has 'female'"),
        ("a,gender,female,woman,", "unknown value 'woman'.*valid: female, male, or empty"),
        ("a,age,3,old,", "face 'a', age: 'old' is not an age; valid: 0 to 130"),
        ("a,age,3,-1,", "'-1' is not an age"),
        ("a,age,3,nan,", "'nan' is not an age"),
        ("a,age,3,3.0,", "give another new value"),
        ("a,age_group,0-2,8-13,", "follows from the age, 3 years; correct 'age'"),
    ],
)
def test_what_does_not_fit_is_named(faces, write, row, said):
    with pytest.raises(MienError, match=said) as raised:
        apply_corrections(faces, write("b,age,30,31,", row), Ledger("made"))
    assert "fixed.csv" in str(raised.value)


def test_twice_or_without_a_column(write):
    with pytest.raises(MienError, match="age of face 'a' is corrected more than once"):
        read_corrections(write("a,age,3,4,", "a,age,4,5,"))
    with pytest.raises(MienError, match="needed column 'old' is absent; there are: face, column, new, why"):
        read_corrections(write("a,age,3,4", header="face,column,new,why"))


def test_a_source_is_read_with_corrections(make_adience, write):
    root = make_adience(images="aligned")
    before = read_faces("adience", root)
    face = before.loc[before["gender"] == "female", "face"].iloc[0]
    after = read_faces("adience", root, corrections=write(f"{face},gender,female,male,seen"))
    assert (before["gender"].astype("str") != after["gender"].astype("str")).sum() == 1
    ledger = after.attrs["ledger"]
    assert {"kind": "changed", "reason": "gender corrected from female to male, by fixed.csv", "rows": 1} in [
        {key: entry[key] for key in ("kind", "reason", "rows")} for entry in ledger["entries"]
    ]
    assert ledger["kept"] == len(after)


def test_ranges_of_ages(faces, write):
    faces = check_faces(faces.assign(age=["20-29", 30, "60+", 51.5], age_group=None))
    out = apply_corrections(faces, write("a,age,20-29,31,", "b,age,30,25-32,", "c,age,60+,,"), Ledger("made"))
    assert out["age"].fillna(-1).tolist() == [31, -1, -1, 51.5]
    assert out["age_from"].fillna(-1).tolist() == [-1, 25, -1, -1] and out["age_to"].tolist()[1] == 32
    assert out["age_group"].astype("object").fillna("").tolist() == ["25-32", "25-32", "", "48-53"]
    with pytest.raises(MienError, match="old is '20-28', but the table has '20-29'"):
        apply_corrections(faces, write("a,age,20-28,31,"), Ledger("made"))
