"""The exploratory report: its counts, what it finds in images, and that it stands any table."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mien.base.errors import MienError
from mien.base.labels import AGE_GROUPS
from mien.base.table import check_faces
from mien.data.image_files import inspect_images
from mien.data.sources import read_faces
from mien.reports import figures
from mien.reports.eda import explore, tabulate

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def words_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the drawing, which takes most of the time, where a test reads words alone."""
    monkeypatch.setattr(figures, "svg", lambda figure, name, alt: "<svg aria-label='chart'></svg>")


def make_faces(rows: int = 60, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    subject = rng.integers(0, 12, rows)
    faces = pd.DataFrame(
        {
            "face": [f"f{row}" for row in range(rows)],
            "path": [f"{row}.png" for row in range(rows)],
            "dataset": "made up",
            "subject": subject.astype(str),
            "gender": rng.choice(["female", "male", None], rows, p=[0.5, 0.4, 0.1]),
            "age": rng.integers(0, 90, rows).astype(float),
            "fold": subject % 3,
            "race": rng.choice(["a", "b", "c"], rows),
        }
    )
    faces.loc[:4, "age"] = np.nan
    return check_faces(faces)


def write_images(root: Path, faces: pd.DataFrame) -> None:
    rng = np.random.default_rng(1)
    for path in faces["path"].unique():
        coarse = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((40, 48), Image.Resampling.BICUBIC).save(root / path)


def html_of(faces: pd.DataFrame, out: Path, root: Path | None = None) -> str:
    return explore(faces, root, out).read_text("utf-8")


@pytest.mark.usefixtures("words_only")
def test_counts_equal_crosstabs(tmp_path: Path) -> None:
    faces = make_faces(200)
    explore(faces, None, tmp_path / "out")
    gender = faces["gender"].astype(object).fillna("no gender")
    group = faces["age_group"].astype(object).fillna("no age group")
    read = {file.stem: pd.read_csv(file) for file in (tmp_path / "out").glob("*.csv")}
    assert read["gender"].set_index("gender")["faces"].to_dict() == gender.value_counts().to_dict()
    cross = read["gender_by_age_group"].set_index("age_group")
    expected = pd.crosstab(group, gender)
    assert (
        cross.equals(expected.loc[cross.index, cross.columns].rename_axis(columns=None))
        and cross.to_numpy().sum() == 200
    )
    folds = read["by_fold"].set_index("fold")
    assert folds["faces"].to_dict() == faces["fold"].value_counts().to_dict()
    assert folds["subjects"].to_dict() == faces.groupby("fold")["subject"].nunique().to_dict()
    for label, values in (("female", gender), ("8-13", group), ("no age group", group)):
        assert folds[label].to_dict() == pd.crosstab(faces["fold"], values)[label].to_dict()
    missing = read["missing"].set_index("label")["missing"]
    assert missing["gender"] == faces["gender"].isna().sum() and missing["age in years"] == 5
    pictures = faces["subject"].value_counts()
    table = read["images_per_subject"].set_index("images")
    assert table.loc["11-20", "subjects"] == pictures.between(11, 20).sum() and table["faces"].sum() == 200
    assert read["categories"]["faces"].tolist() == faces["race"].value_counts().sort_index().tolist()


@pytest.mark.usefixtures("words_only")
def test_real_adience_counts(shared_data: Path, tmp_path: Path) -> None:
    faces = read_faces("adience", shared_data / "adience", "masked")
    text = html_of(faces, tmp_path / "out")
    counts = pd.read_csv(tmp_path / "out" / "by_fold.csv")
    assert counts["faces"].sum() == 18_662 and counts["no gender"].sum() == 1_170
    assert "18,662 faces of 2,242 subjects" in text
    assert "Subjects in more than one fold: 0." in text
    assert "19,487 rows read, 18,662 kept" in text


@pytest.mark.usefixtures("words_only")
def test_finds_duplicates_and_unreadable_images(tmp_path: Path) -> None:
    faces = make_faces(12)
    faces["gender"] = pd.Categorical(["female"] * 6 + ["male"] * 6, categories=["female", "male"])
    faces["fold"] = pd.array([0] * 6 + [1] * 6, dtype="Int64")
    root = tmp_path / "images"
    root.mkdir()
    write_images(root, faces)
    (root / "11.png").write_bytes((root / "0.png").read_bytes())  # other gender, other fold
    (root / "2.png").write_bytes((root / "1.png").read_bytes())
    (root / "3.png").write_text("no image")
    (root / "4.png").unlink()
    seen: list[tuple[int, int]] = []
    path = explore(faces, root, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    text = path.read_text("utf-8")
    assert seen[-1] == (12, 12)
    pairs = pd.read_csv(tmp_path / "out" / "duplicates.csv")
    assert set(zip(pairs["path_1"], pairs["path_2"], strict=True)) == {
        ("0.png", "11.png"),
        ("1.png", "2.png"),
    }
    assert pairs["gender_differs"].tolist() == [True, False] == pairs["fold_differs"].tolist()
    assert "Pairs of near-duplicate images: 2: 1 disagree about gender, 1 are in different folds." in text
    assert "Leak: 2 images have a near-duplicate in another fold." in text
    assert "Images that cannot be read: 2 of 12." in text
    unreadable = pd.read_csv(tmp_path / "out" / "unreadable.csv").set_index("reason")["images"]
    assert unreadable.to_dict() == {"not an image": 1, "missing": 1}
    sizes = pd.read_csv(tmp_path / "out" / "image_sizes.csv")
    assert sizes.to_numpy().tolist() == [["40 x 48", 10]]
    # Samples: the ten faces that can be read, and both of each pair.
    assert len(re.findall(r'src="data:image/jpeg;base64,', text)) == 10 + 4


@pytest.mark.usefixtures("words_only")
def test_faces_of_one_photograph_are_no_duplicates(tmp_path: Path) -> None:
    faces = make_faces(4)
    faces["path"] = ["0.png", "0.png", "1.png", "2.png"]
    faces[["x", "y", "w", "h"]] = [[0, 0, 20, 20], [20, 10, 20, 20], [0, 0, 30, 30], [-100.0, 0, 5, 5]]
    write_images(tmp_path, faces)
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes())
    found = inspect_images(faces, tmp_path)
    assert len(found.files) == 3 and found.groups.shape == (4,)
    assert found.pairs[["path_1", "path_2"]].to_numpy().tolist() == [["0.png", "1.png"]]
    assert not found.pairs["gender_differs"].any()
    explore(faces, tmp_path, tmp_path / "out")  # the box outside of its image is left out of the samples


@pytest.mark.usefixtures("words_only")
def test_leaks_of_a_split_are_said(tmp_path: Path) -> None:
    faces = make_faces(30)
    faces["split"] = pd.Categorical(["train", "val", "test"] * 10, categories=["train", "val", "test"])
    text = html_of(faces, tmp_path / "out")
    assert "test images" in text and 'class="warning"' in text
    assert (tmp_path / "out" / "by_split.csv").exists()


def test_hostile_strings_stay_text(tmp_path: Path) -> None:
    faces = make_faces(20)
    odd = f'{HOSTILE} $x_1$ id="y" &amp;'
    faces["dataset"] = HOSTILE
    faces["race"] = [odd, HOSTILE, "'; --", "面", "{{ 7 * 7 }}"] * 4
    faces[HOSTILE] = [1, 2, 3, 4] * 5
    faces.loc[0, ["face", "path"]] = HOSTILE.replace("/", "-") + ".png"
    faces.attrs["ledger"] = {
        "source": HOSTILE,
        "read": 20,
        "kept": 20,
        "entries": [{"kind": "warning", "reason": odd, "rows": 0, "example": HOSTILE}],
    }
    write_images(tmp_path, faces)
    text = html_of(faces, tmp_path / "out", tmp_path)
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text
    assert "{{ 7 * 7 }}" in text
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?\s*(https?:|//)""", text)
    assert "http" not in re.sub(r"http-equiv", "", text)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda faces: faces.head(1), id="one row"),
        pytest.param(lambda faces: faces[["face", "path", "gender"]], id="gender only"),
        pytest.param(lambda faces: faces[["face", "path"]], id="no labels"),
        pytest.param(lambda faces: faces.drop(columns=["fold", "subject"]), id="no folds, no subjects"),
        pytest.param(lambda faces: faces.drop(columns=["gender"]), id="no gender"),
        pytest.param(lambda faces: faces.drop(columns=["age"]), id="groups without years"),
        pytest.param(lambda faces: faces.assign(odd=[None, 1, "x"] * 20, empty=None), id="mixed columns"),
    ],
)
def test_any_table_gives_a_report(change, tmp_path: Path) -> None:
    faces = change(make_faces())
    write_images(tmp_path, faces)
    text = html_of(faces, tmp_path / "out", tmp_path)
    assert "</html>" in text and "Pairs of near-duplicate images: 0." in text


def test_attributes_with_two_values_are_counted() -> None:
    faces = make_faces(30).assign(hat=[True, False, False] * 10, many=range(30), same=1)
    table = tabulate(check_faces(faces))["categories"]
    assert table[table["column"] == "hat"].to_numpy().tolist() == [["hat", False, 20], ["hat", True, 10]]
    assert not table["column"].isin(["same"]).any()


def test_age_groups_are_in_their_order(tmp_path: Path) -> None:
    tables = tabulate(make_faces(300))
    assert tables["age_group"]["age_group"].tolist() == [*AGE_GROUPS, "no age group"]


def test_wrong_input_is_said(tmp_path: Path) -> None:
    faces = make_faces(3)
    with pytest.raises(MienError, match=r"none of the 3 images is in .*0\.png"):
        explore(faces, tmp_path, tmp_path / "out")
    with pytest.raises(MienError, match="has no rows"):
        explore(faces.head(0), None, tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(MienError, match="is a file"):
        explore(faces, None, tmp_path / "file")
