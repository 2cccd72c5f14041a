"""The data set that docs/howto/extend.md adds as an example keeps the rules that the page states."""

import re
import types
from pathlib import Path

import pandas as pd
import pytest

from mien.base.errors import MienError
from mien.base.table import check_faces
from mien.data import sources

PAGE = Path(__file__).parents[2] / "docs/howto/extend.md"

ROWS = [
    "file\tperson\tsex\tyears",
    "a.jpg\t1\tF\t30",
    "b.jpg\t1\tM\tfoo",  # the age is not a number
    "c.jpg\t\tX\t41",  # the sex is unknown
    "d.jpg\t2\tX\tfoo",  # neither
    "e.jpg\t2\t\t",  # neither, and nothing given
    "f.jpg\t3\tF\t-1",  # out of range
    "g.jpg\t3\tM\t1e9",
    "a.jpg\t4\tM\t20",  # the file of an earlier row
    "too few fields",
    "h.jpg\t5\tM\t50",  # its image does not exist
]


@pytest.fixture
def root(tmp_path, monkeypatch):
    fences = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    (code,) = [fence for fence in fences if "def read(root: Path" in fence]
    morph = types.ModuleType("morph")
    exec(compile(code, str(PAGE), "exec"), morph.__dict__)
    monkeypatch.setitem(sources.SOURCES, "morph", morph)
    (tmp_path / "labels.tsv").write_text("\n".join(ROWS) + "\n")
    for name in "abcdefg":
        (tmp_path / f"{name}.jpg").touch()
    return tmp_path


def test_invalid_labels_are_recorded_and_missing(root):
    faces = sources.read_faces("morph", root)
    pd.testing.assert_frame_equal(faces, check_faces(faces))
    assert faces["face"].tolist() == ["a.jpg", "b.jpg", "c.jpg", "f.jpg", "g.jpg"]
    assert faces["age"].fillna(-1).tolist() == [30, -1, 41, -1, -1]
    assert faces["gender"].astype("object").fillna("").tolist() == ["female", "male", "", "female", "male"]
    ledger = faces.attrs["ledger"]
    rows = {(entry["kind"], entry["reason"]): entry["rows"] for entry in ledger["entries"]}
    assert rows == {
        ("dropped", "a line of other than 4 fields"): 1,
        ("dropped", "no file, or that of an earlier row"): 1,
        ("changed", "a sex other than F and M: the gender is missing"): 2,
        ("changed", "years other than 0 to 130: the age is missing"): 4,
        ("dropped", "neither a gender nor an age"): 2,
        ("dropped", "the image is not there"): 1,
    }
    assert ledger["read"] == len(ROWS) - 1 and ledger["kept"] == len(faces)


def test_errors_name_what_lacks(root, tmp_path):
    with pytest.raises(MienError, match=r"nowhere.* does not exist"):
        sources.read_faces("morph", tmp_path / "nowhere")
    (root / "labels.tsv").write_text(ROWS[0] + "\n")
    with pytest.raises(MienError, match="no face is left of 0 rows"):
        sources.read_faces("morph", root)
    (root / "labels.tsv").unlink()
    with pytest.raises(MienError, match=r"morph: labels.tsv not found"):
        sources.read_faces("morph", root)
