"""All-Age-Faces and Labeled Faces in the Wild: layouts, label policies and ledgers."""

import numpy as np
import pytest
from PIL import Image

from mien.base.errors import MienError
from mien.data.sources import read_faces


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def reasons(faces, kind):
    return {entry["reason"]: entry["rows"] for entry in faces.attrs["ledger"]["entries"] if entry["kind"] == kind}


def make_aaf(root):
    names = ("00000A02.jpg", "07380A33.jpg", "07381A80.jpg", "12A5.jpg")
    touch(root, *(f"original images/{name}" for name in names), *(f"aglined faces/{name}" for name in names[:2]))
    (root / "image sets").mkdir()
    (root / "image sets" / "train.txt").write_text("00000A02.jpg 0\n07381A80.jpg 1\n")
    (root / "key points").mkdir()
    points = np.array([[100 + column, 50 + 90 * row / 48] for row, column in enumerate(np.linspace(-40, 40, 49))])
    (root / "key points" / "00000A02.txt").write_text("\n".join(f"{x} {y}" for x, y in points))
    (root / "key points" / "07380A33.txt").write_text("1 2\n3 four\n")
    return root


def test_aaf_labels_parts_and_boxes(tmp_path):
    faces = read_faces("aaf", make_aaf(tmp_path))
    assert faces["gender"].tolist() == ["female", "female", "male"]
    assert faces["age"].tolist() == [2, 33, 80]
    assert faces["split"].astype("object").fillna("none").tolist() == ["train", "none", "train"]
    # Brows at 50 and lip at 140: three quarters of the side of 120, of which 6% lie above the brows.
    assert faces.loc[0, ["x", "y", "w", "h"]].tolist() == pytest.approx([40, 50 - 7.2, 120, 120])
    assert faces.loc[1:, "x"].isna().all()
    assert reasons(faces, "dropped") == {"a name that is not NNNNNAyy": 1}
    assert reasons(faces, "changed")["no readable key points: the whole photograph is used as the face"] == 2


def test_aaf_aligned_faces_have_no_box(tmp_path):
    faces = read_faces("aaf", make_aaf(tmp_path), "aligned")
    assert faces["path"].tolist() == ["aglined faces/00000A02.jpg", "aglined faces/07380A33.jpg"]
    assert faces["x"].isna().all()


def test_aaf_without_its_folder_names_it(tmp_path):
    with pytest.raises(MienError, match="'original images' not found"):
        read_faces("aaf", touch(tmp_path, "other/a.jpg"))


@pytest.mark.parametrize("layout", ["data/{0}/{0}_{1}.jpg", "lfw-deepfunneled/{0}/{0}_{1}.jpg", "{0}/{0}_{1}.png"])
def test_lfw_subjects_come_from_the_names_and_genders_from_a_list(tmp_path, layout):
    images = [("Ann_Lee", "0001"), ("Ann_Lee", "0002"), ("Bo_Ek", "0001"), ("Cy", "0001")]
    touch(tmp_path, *(layout.format(*image) for image in images))
    lines = [f"{layout.format('Ann_Lee', '0001')},female", "Ann_Lee_0002.jpg,F", "Bo_Ek_0001.jpg,male", "Cy_0001.jpg,?"]
    (tmp_path / "gender.csv").write_text("path,gender\n" + "\n".join([*lines, "Di_0001.jpg,female"]))
    listed = read_faces("lfw", tmp_path)
    assert listed["subject"].tolist() == ["Ann_Lee", "Ann_Lee", "Bo_Ek"]
    assert listed["gender"].tolist() == ["female", "female", "male"]
    assert reasons(listed, "dropped") == {"no list gives a gender": 1}
    assert any("'?'" in reason for reason in reasons(listed, "warning"))
    every = read_faces("lfw", tmp_path, "all")
    assert every["gender"].isna().tolist() == [False, False, False, True]


def test_lfw_text_lists_and_a_contradiction(tmp_path):
    touch(tmp_path, "A/A_0001.jpg", "B/B_0001.jpg", "C/C_0001.jpg")
    (tmp_path / "male_names.txt").write_text("A_0001.jpg\nB_0001.jpg\nA_0001.jpg\n")
    (tmp_path / "female_names.txt").write_text("B_0001.jpg\nC_0001.jpg\n")
    faces = read_faces("lfw", tmp_path).set_index("face")["gender"]
    assert faces.to_dict() == {"A_0001": "male", "C_0001": "female"}


def test_lfw_without_a_list_says_which_are_read(tmp_path):
    with pytest.raises(MienError, match=r"a list of genders \(gender.csv"):
        read_faces("lfw", touch(tmp_path, "A/A_0001.jpg"))


def test_the_real_sets(shared_data):
    aaf = read_faces("aaf", shared_data / "aaf")
    assert len(aaf) == 6637 and aaf["gender"].value_counts().to_dict() == {"female": 3677, "male": 2960}
    assert aaf["x"].notna().all() and (aaf["split"] == "train").all()
    sample = aaf.sample(50, random_state=0)
    for row in sample.itertuples():
        width, height = Image.open(shared_data / "aaf" / row.path).size
        assert -0.1 * row.w <= row.x and row.x + row.w <= width + 0.1 * row.w and row.y + row.h <= height + 0.1 * row.h
    lfw = read_faces("lfw", shared_data / "lfw")
    assert len(lfw) == 4977 and lfw["subject"].nunique() == 2234 and lfw["age"].isna().all()
