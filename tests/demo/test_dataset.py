import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mien.base.errors import MienError
from mien.data.sources import read_faces
from mien.demo.dataset import MARKER, draw_faces
from mien.demo.portraits import STYLES, portrait, sample_person, sample_picture

NUMBERS = ["x", "y", "dx", "dy", "tilt_ang", "fiducial_yaw_angle", "fiducial_score"]
ADIENCE_COLUMNS = ["user_id", "original_image", "face_id", "age", "gender", *NUMBERS]
COMMON_AGES = {"(0, 2)", "(4, 6)", "(8, 12)", "(15, 20)", "(25, 32)", "(38, 43)", "(48, 53)", "(60, 100)"}
ODD_AGES = {"(27, 32)", "(25, 23)", "(38, 42)", "(38, 48)", "(8, 23)"}


def read_adience(root: Path) -> pd.DataFrame:
    folds = []
    for k in range(5):
        path = root / f"fold_{k}_data.txt"
        assert b"\r" not in path.read_bytes()
        folds.append(pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False).assign(fold=k))
    return pd.concat(folds, ignore_index=True)


def image_path(row) -> str:
    return f"faces/{row.user_id}/coarse_tilt_aligned_face.{row.face_id}.{row.original_image}"


def contents(root: Path) -> dict[str, bytes]:
    paths = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def adience(tmp_path_factory):
    root = tmp_path_factory.mktemp("adience")
    return root, draw_faces(root, seed=3, subjects=50)


@pytest.fixture(scope="module")
def celeba(tmp_path_factory):
    root = tmp_path_factory.mktemp("celeba")
    return root, draw_faces(root, layout="celeba", seed=3, subjects=20)


def test_adience_files_have_the_real_format_and_every_image(adience):
    root, counts = adience
    rows = read_adience(root)
    assert list(rows.columns) == [*ADIENCE_COLUMNS, "fold"]
    assert len(rows) == counts["rows"]
    assert rows["face_id"].nunique() == counts["subjects"] == 50
    assert rows["user_id"].nunique() == counts["albums"]
    assert rows["user_id"].str.fullmatch(r"\d+@N0\d").all()
    images = {image_path(row) for row in rows.itertuples()}
    assert images == {path.relative_to(root).as_posix() for path in root.rglob("*.jpg")}
    assert len(images) == counts["images"]
    assert set(rows["gender"]) == {"f", "m", "u", ""}
    assert all(age in COMMON_AGES | ODD_AGES | {"None"} or age.isdigit() for age in rows["age"])
    assert rows[NUMBERS].map(lambda number: -180 <= int(number) < 10_000).all(axis=None)
    for name in itertools.islice(sorted(images), 0, None, 40):
        with Image.open(root / name) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", STYLES["adience"].size)


def test_adience_folds_share_no_subject_album_or_photograph(adience):
    rows = read_adience(adience[0])
    for column in ("face_id", "user_id", "original_image"):
        assert not rows.drop_duplicates([column, "fold"]).duplicated(column).any()
    assert rows["fold"].value_counts(normalize=True).between(0.1, 0.3).all()


def test_adience_has_the_oddities_of_the_real_files(adience):
    rows = read_adience(adience[0])
    assert rows.duplicated().sum() >= 1
    faces = rows.drop_duplicates()
    assert not faces.duplicated(["user_id", "original_image", "face_id"]).any()
    assert (faces.groupby("original_image").size() > 1).any()  # several faces of one photograph
    assert faces["age"].str.isdigit().any()
    assert (faces["age"] == "None").any()
    assert faces["age"].isin(ODD_AGES).any()
    assert faces.loc[faces["gender"] == "u", "age"].isin(["(0, 2)", "(4, 6)", "None"]).all()
    genders = faces[faces["gender"].isin(["f", "m"])].groupby("face_id")["gender"].nunique()
    assert genders.max() == 2  # some labels are wrong


def test_celeba_files_have_the_real_format_and_every_image(celeba):
    root, counts = celeba
    count, header, *rows = (root / "list_attr_celeba.txt").read_text().splitlines()
    assert int(count) == len(rows) == counts["images"] == counts["rows"]
    attributes = header.split()
    assert len(attributes) == 40
    assert attributes.index("Male") == 20
    assert all(re.fullmatch(r"\d{6}\.jpg( [- ]1){40}", row) for row in rows)
    names = [row.split()[0] for row in rows]
    assert names == sorted(path.name for path in (root / "img_align_celeba").iterdir())
    assert names[0] == "000001.jpg"
    with Image.open(root / "img_align_celeba" / names[0]) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", STYLES["celeba"].size)
    partition = dict(line.split(" ") for line in (root / "list_eval_partition.txt").read_text().splitlines())
    identity = dict(line.split(" ") for line in (root / "identity_CelebA.txt").read_text().splitlines())
    assert list(partition) == list(identity) == names
    assert list(partition.values()) == sorted(partition.values())
    assert set(partition.values()) == {"0", "1", "2"}
    assert len(set(identity.values())) == counts["subjects"]
    assert len({(identity[name], partition[name]) for name in names}) == counts["subjects"]


def test_celeba_header_is_that_of_the_real_file(celeba, shared_data):
    real, drawn = (root / "list_attr_celeba.txt" for root in (shared_data / "celeba", celeba[0]))
    assert drawn.read_text().split("\n")[1] == real.read_text().split("\n")[1]


def test_celeba_attributes_do_not_contradict_each_other(celeba):
    lines = (celeba[0] / "list_attr_celeba.txt").read_text().splitlines()
    table = pd.DataFrame([line.split()[1:] for line in lines[2:]], columns=lines[1].split()) == "1"
    assert (table[["Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Bald"]].sum(axis=1) <= 1).all()
    beard = table[["Goatee", "Mustache", "5_o_Clock_Shadow", "Sideburns"]].any(axis=1)
    assert (table["No_Beard"] != beard).all()
    assert not (table["Heavy_Makeup"] & ~table["Wearing_Lipstick"]).any()
    assert not (table["Straight_Hair"] & table["Wavy_Hair"]).any()
    assert 0.2 < table["Male"].mean() < 0.8


@pytest.mark.parametrize("layout", ["adience", "celeba"])
def test_the_real_adapter_reads_every_image(layout, request):
    root, counts = request.getfixturevalue(layout)
    faces = read_faces(layout, root)
    ledger = faces.attrs["ledger"]
    assert ledger["read"] == counts["rows"]
    assert not [entry for entry in ledger["entries"] if entry["kind"] == "warning"]
    assert len(faces) > 0.7 * counts["images"]
    assert faces["subject"].nunique() > 0.7 * counts["subjects"]
    assert all((root / path).is_file() for path in faces["path"])


@pytest.mark.parametrize("layout", ["adience", "celeba"])
def test_the_same_seed_draws_the_same_bytes(tmp_path, layout):
    steps = []
    for name in ("a", "b"):
        draw_faces(tmp_path / name, layout, 5, 10, progress=lambda done, total: steps.append((done, total)))
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "b")
    images = {data for name, data in first.items() if name.endswith(".jpg")}
    assert steps == 2 * [(done + 1, len(images)) for done in range(len(images))]
    # Another seed replaces the earlier drawing, of which no image stays.
    draw_faces(tmp_path / "b", layout, 6, 10)
    assert images.isdisjoint(contents(tmp_path / "b").values())


def test_an_interrupted_drawing_has_no_labels_and_can_be_drawn_again(tmp_path):
    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    counts = draw_faces(tmp_path, subjects=10)
    with pytest.raises(KeyboardInterrupt):
        draw_faces(tmp_path, seed=1, subjects=10, progress=interrupt)
    assert {path.name for path in tmp_path.iterdir()} == {MARKER, "faces"}
    (tmp_path / ".fold_0_data.x1y2z3.txt").touch()  # what a killed process may leave
    assert draw_faces(tmp_path, subjects=10) == counts
    assert len(list(tmp_path.rglob("*.jpg"))) == counts["images"]
    assert len(list(tmp_path.glob("*.txt"))) == 5


def test_a_folder_that_mien_did_not_draw_is_left_alone(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(MienError, match=r"holiday\.jpg"):
        draw_faces(tmp_path, subjects=10)
    assert contents(tmp_path) == {"holiday.jpg": b"precious"}


def test_a_strangers_file_in_a_drawing_and_another_layout_are_refused(tmp_path):
    draw_faces(tmp_path, subjects=10)
    (tmp_path / "faces" / "notes.txt").write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(MienError, match=r"faces/notes\.txt"):
        draw_faces(tmp_path, subjects=10)
    with pytest.raises(MienError, match="a drawing of layout 'adience'"):
        draw_faces(tmp_path, layout="celeba", subjects=10)
    assert contents(tmp_path) == before


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "root").touch()
    with pytest.raises(MienError, match="not a folder"):
        draw_faces(tmp_path / "root", subjects=10)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layout": "celebA"}, "unknown layout 'celebA' .*'celeba'.*; valid: adience, celeba"),
        ({"subjects": 3}, "subjects 3 must be 10 or more"),
        ({"seed": -1}, "seed -1 must be 0 or more"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, wrong, message):
    with pytest.raises(MienError, match=message):
        draw_faces(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()


def test_cues_of_gender_overlap_and_grow_with_age():
    rng = np.random.default_rng(0)

    def best_accuracy(age: float) -> float:
        looks = {g: [sample_person(rng, g, age).look for _ in range(1000)] for g in ("female", "male")}
        return float((np.mean(np.array(looks["female"]) > 0) + np.mean(np.array(looks["male"]) < 0)) / 2)

    baby, child, adult = (best_accuracy(age) for age in (1.0, 6.0, 30.0))
    assert 0.45 < baby < 0.7 < child < adult < 1.0


def test_some_men_but_no_boys_have_beards():
    rng = np.random.default_rng(0)
    beards = {age: np.mean([sample_person(rng, "male", age).beard != "" for _ in range(200)]) for age in (8, 35)}
    assert beards[8] == 0
    assert 0.3 < beards[35] < 0.95


@pytest.mark.parametrize("layout", STYLES)
def test_pictures_of_a_person_differ(layout):
    rng = np.random.default_rng(0)
    person, style = sample_person(rng, "female", 30.0), STYLES[layout]
    pictures = [portrait(person, sample_picture(rng, person, style, (0, k)), style) for k in range(6)]
    assert {(picture.mode, picture.size) for picture in pictures} == {("RGB", style.size)}
    pixels = [np.asarray(picture, dtype=float) for picture in pictures]
    assert min(np.abs(a - b).mean() for a, b in itertools.combinations(pixels, 2)) > 10


def test_subjects_do_not_look_like_near_duplicates(adience):
    imagehash = pytest.importorskip("imagehash")
    faces = read_adience(adience[0]).drop_duplicates().sample(150, random_state=0)
    hashes = [imagehash.phash(Image.open(adience[0] / image_path(row))).hash for row in faces.itertuples()]
    bits = np.reshape(hashes, (len(hashes), 64))
    distance = (bits[:, None] != bits[None]).sum(axis=-1)
    subject = faces["face_id"].to_numpy()
    assert distance[subject[:, None] != subject[None]].min() > 4
