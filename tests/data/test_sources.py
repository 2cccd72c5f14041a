import inspect
import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.base.errors import MienError
from mien.base.labels import AGE_GROUPS
from mien.base.table import FACES_COLUMNS, OLDEST, age_to_group, check_faces, read_faces_table, write_table
from mien.data import sources
from mien.data.source_names import SOURCE_NAMES
from mien.data.sources import adience, fairface, utkface

ATTRIBUTES = ["Bald", "Male", "Smiling"]


def entries(faces, kind=None):
    """The ledger as {reason: rows}."""
    found = faces.attrs["ledger"]["entries"]
    return {entry["reason"]: entry["rows"] for entry in found if kind in (None, entry["kind"])}


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def make_celeba(root, promised=4, images="img_align_celeba", csv=False):
    """Four images: two women in train, a man in val, a man in test."""
    values = {"1.jpg": (-1, -1, 1), "2.jpg": (-1, -1, -1), "3.jpg": (1, 1, 1), "4.jpg": (-1, 1, -1)}
    partition = {"1.jpg": 0, "2.jpg": 0, "3.jpg": 1, "4.jpg": 2}
    root.mkdir(parents=True, exist_ok=True)
    if csv:
        lines = [",".join(["image_id", *ATTRIBUTES])]
        lines += [",".join([name, *map(str, row)]) for name, row in values.items()]
        (root / "list_attr_celeba.csv").write_text("\n".join(lines))
        lines = ["image_id,partition", *(f"{name},{part}" for name, part in partition.items())]
        (root / "list_eval_partition.csv").write_text("\n".join(lines))
    else:
        # The official file has two spaces before a positive value and CRLF line ends.
        lines = [str(promised), " ".join(ATTRIBUTES) + " "]
        lines += [name + "".join(f"{value:3d}" for value in row) for name, row in values.items()]
        (root / "list_attr_celeba.txt").write_text("\r\n".join(lines) + "\r\n", newline="")
        text = "".join(f"{name} {part}\n" for name, part in partition.items())
        (root / "list_eval_partition.txt").write_text(text)
    return touch(root, *(f"{images}/{name}" for name in values)) if images else root


FAIRFACE_HEADER = "file,age,gender,race,service_test"


def make_fairface(root, train=(), val=(), header=FAIRFACE_HEADER):
    """Label files of rows such as "train/1.jpg,50-59,Male,East Asian,TRUE", with CRLF line ends as spreadsheets do."""
    for part, rows in (("train", train), ("val", val)):
        if rows:
            text = "\r\n".join([header, *rows]) + "\r\n"
            write_csv(root / f"fairface_label_{part}.csv", text)
    return root


UTKFACE_NAMES = ["25_0_3_20170116174525125.jpg.chip.jpg", "1_1_0_20161219140623097.jpg.chip.jpg"]


def write_csv(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture(params=list(sources.SOURCES))
def source_and_root(request, tmp_path, make_adience):
    builders = {
        "adience": lambda: make_adience(images="aligned"),
        "celeba": lambda: make_celeba(tmp_path / "celeba"),
        "utkface": lambda: touch(tmp_path / "utkface", *UTKFACE_NAMES),
        "fairface": lambda: touch(
            make_fairface(
                tmp_path / "fairface",
                ["train/1.jpg,9-Mar,Female,Black,FALSE", "train/2.jpg,more than 70,Male,White,TRUE"],
                ["val/1.jpg,0-2,Male,Latino_Hispanic,TRUE"],
            ),
            *("train/1.jpg", "train/2.jpg", "val/1.jpg"),
        ),
        "aaf": lambda: touch(
            tmp_path / "aaf",
            *(
                f"{place}/{name}.jpg"
                for place in ("original images", "aglined faces")
                for name in ("00001A20", "07381A30")
            ),
        ),
        "lfw": lambda: (
            write_csv(
                touch(tmp_path / "lfw", "A_B/A_B_0001.jpg", "C/C_0001.jpg") / "gender.csv",
                "path,gender\nA_B_0001.jpg,female\nC_0001.jpg,male\n",
            ).parent
        ),
        "csv": lambda: touch(tmp_path / "own", "female/a.jpg", "male/b.jpg"),
    }
    if request.param not in builders:
        pytest.fail(f"data set {request.param!r} has no example here: add a line to `builders` that makes its files")
    return request.param, builders[request.param]()


def test_help_names_every_data_set():
    assert sorted(sources.SOURCES) == list(SOURCE_NAMES), "SOURCES has a line for each module of mien.data.sources"


class TestEverySource:
    def test_policies_are_described(self, source_and_root):
        labels = sources.SOURCES[source_and_root[0]].LABELS
        assert labels
        assert all(name and text and "\n" not in text for name, text in labels.items())

    def test_the_terms_of_the_data_are_stated_in_a_sentence(self, source_and_root):
        notice = sources.SOURCES[source_and_root[0]].NOTICE
        assert notice.endswith(".")
        assert "\n" not in notice

    def test_the_published_size_is_that_of_all_faces(self, source_and_root):
        found = sources.published_faces(source_and_root[0])
        assert found is None or 0 < found[1] <= found[0]

    def test_gives_a_checked_table_for_each_policy(self, source_and_root):
        source, root = source_and_root
        for labels in sources.SOURCES[source].LABELS:
            faces = sources.read_faces(source, root, labels)
            pd.testing.assert_frame_equal(faces, check_faces(faces))
            assert list(faces.columns[: len(FACES_COLUMNS)]) == list(FACES_COLUMNS)
            assert all((root / path).is_file() for path in faces["path"])
            assert faces["dataset"].notna().all()

    def test_the_ledger_accounts_for_every_row(self, source_and_root):
        source, root = source_and_root
        for labels in sources.SOURCES[source].LABELS:
            faces = sources.read_faces(source, root, labels)
            ledger = faces.attrs["ledger"]
            dropped = sum(entries(faces, "dropped").values())
            assert ledger["source"] == source
            assert ledger["kept"] == len(faces) == ledger["read"] - dropped
            assert json.loads(json.dumps(ledger)) == ledger

    def test_the_first_policy_is_the_default(self, source_and_root):
        source, root = source_and_root
        first = next(iter(sources.SOURCES[source].LABELS))
        pd.testing.assert_frame_equal(sources.read_faces(source, str(root)), sources.read_faces(source, root, first))

    def test_a_missing_image_is_dropped_and_counted(self, source_and_root):
        source, root = source_and_root
        before = sources.read_faces(source, root)
        (root / before["path"].iloc[0]).unlink()
        after = sources.read_faces(source, root)
        assert list(after["face"]) == list(before["face"].iloc[1:])
        # A row of a label file is dropped and counted; where the images are the only rows, one row fewer is read.
        read = [faces.attrs["ledger"]["read"] for faces in (before, after)]
        counted = entries(after, "dropped").get("the image is not there", 0)
        assert read[0] - read[1] + counted == 1

    def test_survives_a_round_trip_to_disk(self, source_and_root, tmp_path):
        faces = sources.read_faces(*source_and_root)
        for name in ("faces.csv", "faces.parquet"):
            again = read_faces_table(write_table(faces, tmp_path / name))
            pd.testing.assert_frame_equal(again[list(FACES_COLUMNS)], faces[list(FACES_COLUMNS)])

    def test_unknown_policy(self, source_and_root):
        source, root = source_and_root
        with pytest.raises(MienError, match=f"{source}: unknown label policy 'everything'.*valid: "):
            sources.read_faces(source, root, "everything")

    def test_root_that_does_not_exist(self, source_and_root, tmp_path):
        with pytest.raises(MienError, match=r"data root .*nowhere' does not exist"):
            sources.read_faces(source_and_root[0], tmp_path / "nowhere")

    def test_empty_folder(self, source_and_root, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(MienError, match="empty"):
            sources.read_faces(source_and_root[0], tmp_path / "empty")

    def test_a_map_is_taken_or_refused(self, source_and_root):
        source, root = source_and_root
        if "map" not in inspect.signature(sources.SOURCES[source].read).parameters:
            with pytest.raises(MienError, match=f"{source} takes no map .*'a': 'path'.*sources that do: csv"):
                sources.read_faces(source, root, map={"a": "path"})


def test_unknown_source_names_the_nearest():
    with pytest.raises(MienError, match=r"unknown source 'utk-face' \(did you mean 'utkface'\?\); valid: adience"):
        sources.read_faces("utk-face", ".")


@pytest.mark.parametrize("source", ["adience", "celeba", "utkface", "fairface"])
def test_root_that_is_a_file(source, tmp_path):
    with pytest.raises(MienError, match="is not a folder"):
        sources.read_faces(source, write_csv(tmp_path / "file.txt", ""))


class TestAdienceOnRealMetadata:
    """The counts of DESIGN.md, computed from the real fold files."""

    @pytest.fixture
    def root(self, shared_data):
        return shared_data / "adience"

    @pytest.mark.parametrize(
        ("labels", "kept", "gender", "group"),
        [
            ("exact", 16156, 16156, 16156),
            ("all-ages", 17452, 17452, 17452),
            ("gender", 17492, 17492, 17452),
            ("masked", 18662, 17492, 18622),
        ],
    )
    def test_policies(self, root, labels, kept, gender, group):
        faces = sources.read_faces("adience", root, labels)
        assert len(faces) == kept
        assert faces["gender"].notna().sum() == gender
        assert faces["age_group"].notna().sum() == group
        assert faces.attrs["ledger"]["read"] == 19487
        assert entries(faces)["an exact duplicate of an earlier row"] == 117
        assert f"{kept:,} faces" in adience.LABELS[labels]

    def test_subjects_albums_and_folds(self, root):
        faces, ledger = adience.read(root, "masked")
        assert ledger.read == 19487
        raw = pd.concat(pd.read_csv(path, sep="\t", dtype="str") for path in sorted(root.glob("fold_?_data.txt")))
        raw = raw.drop_duplicates()
        assert len(raw) == 19370
        assert raw["face_id"].nunique() == 2284
        assert raw["user_id"].nunique() == 168
        assert set(faces["subject"]) <= set(raw["face_id"])
        for column in ("subject", "album"):
            assert faces.groupby(column)["fold"].nunique().max() == 1
        assert faces.groupby("subject")["album"].nunique().max() == 1
        assert faces["face"].is_unique

    def test_faces_by_fold(self, root):
        faces, ledger = adience.read(root, "masked")
        raw = pd.concat(
            pd.read_csv(root / f"fold_{fold}_data.txt", sep="\t", dtype="str").drop_duplicates().assign(fold=fold)
            for fold in range(5)
        )
        assert raw.groupby("fold").size().tolist() == [4484, 3730, 3894, 3446, 3816]
        labelled = raw[raw["gender"].isin(["f", "m"]) | raw["age"].ne("None") & raw["age"].notna()]
        assert faces["fold"].value_counts().to_dict() == labelled["fold"].value_counts().to_dict()

    def test_women_are_the_majority(self, root):
        faces = sources.read_faces("adience", root, "gender")
        assert faces["gender"].value_counts().to_dict() == {"female": 9368, "male": 8124}

    def test_each_odd_age_is_counted(self, root):
        faces = sources.read_faces("adience", root, "all-ages")
        changed = entries(faces, "changed")
        assert sum(changed.values()) == 17452 - 16156
        assert changed["age '35' is assigned to 25-32"] == 293
        assert changed["age '(27, 32)' is assigned to 25-32"] == 77
        assert changed["age '(8, 23)' is assigned to 15-20"] == 1
        dropped = entries(sources.read_faces("adience", root, "exact"), "dropped")
        assert dropped["age is none of the eight intervals: the files say '35'"] == 293
        assert dropped["gender is not known: the files say 'u'"] == 1099

    def test_the_table_of_odd_intervals_covers_the_files_exactly(self, root):
        raw = pd.concat(pd.read_csv(path, sep="\t", dtype="str") for path in root.glob("fold_?_data.txt"))
        intervals = {text for text in raw["age"].dropna() if text.startswith("(")}
        assert intervals == set(adience.INTERVALS) | set(adience.ODD_INTERVALS)

    def test_masked_keeps_the_babies_of_unknown_gender(self, root):
        masked = sources.read_faces("adience", root, "masked")
        babies = masked[masked["raw_age"] == "(0, 2)"]
        assert babies["gender"].isna().mean() == pytest.approx(0.44, abs=0.005)
        # A gender or not: whoever has one of the eight intervals is there.
        assert masked["raw_age"].isin(list(adience.INTERVALS)).sum() == 17321


class TestAdience:
    @pytest.mark.parametrize(("labels", "kept"), [("exact", 5), ("all-ages", 9), ("gender", 10), ("masked", 13)])
    def test_policies(self, make_adience, labels, kept):
        faces = sources.read_faces("adience", make_adience(), labels)
        assert len(faces) == kept
        assert faces.attrs["ledger"]["read"] == 15

    def test_columns(self, make_adience):
        faces = sources.read_faces("adience", make_adience(), "masked").set_index("face")
        row = faces.loc["11@N01/5.e.jpg"]
        assert row["subject"] == "5"
        assert row["photo"] == "11@N01/e.jpg"
        assert row["album"] == "11@N01"
        assert (row["fold"], row["gender"], row["age"], row["age_group"]) == (1, "male", 35.0, "25-32")
        assert row["raw_age"] == "35"
        row = faces.loc["11@N01/4.d.jpg"]
        assert pd.isna(row["gender"])
        assert pd.isna(row["age"])
        assert row["age_group"] == "0-2"
        assert faces.loc["12@N02/8.h.jpg", "age_group"] == "8-13"
        assert faces[["x", "y", "w", "h", "split"]].isna().all(axis=None)

    def test_ledger_of_masked(self, make_adience):
        faces = sources.read_faces("adience", make_adience(), "masked")
        assert entries(faces, "dropped") == {
            "an exact duplicate of an earlier row": 1,
            "neither a gender nor an age": 1,
        }
        assert entries(faces, "changed") == {
            "gender is not known: the files say 'u'": 2,
            "gender is not known: the files say ''": 1,
            "age is not known: the files say 'None'": 1,
            "age '57' is assigned to 60+": 2,
            "age '35' is assigned to 25-32": 1,
            "age '(8, 23)' is assigned to 15-20": 1,
        }

    def test_metadata_alone_is_enough_and_says_so(self, make_adience):
        faces = sources.read_faces("adience", make_adience())
        assert faces["path"].iloc[0] == "faces/10@N00/coarse_tilt_aligned_face.1.a.jpg"
        assert any("no images are there" in reason for reason in entries(faces, "warning"))

    @pytest.mark.parametrize("images", ["faces", "aligned"])
    @pytest.mark.parametrize("nested", [False, True])
    def test_layouts(self, make_adience, images, nested):
        root = make_adience(images=images, nested=nested)
        faces = sources.read_faces("adience", root)
        assert len(faces) == 10
        assert all((root / path).is_file() for path in faces["path"])

    def test_folds_and_images_may_be_in_different_places(self, make_adience):
        root = make_adience(images="faces", nested=True)
        for path in (root / "AdienceBenchmarkGenderAndAgeClassification").glob("fold_*.txt"):
            path.rename(root / path.name)
        assert sources.read_faces("adience", root)["path"].str.startswith("AdienceBenchmark").all()

    def test_aligned_is_taken_where_both_are(self, make_adience):
        make_adience(images="faces")
        faces = sources.read_faces("adience", make_adience(images="aligned"))
        assert faces["path"].str.startswith("aligned/").all()

    def test_frontal_folds_are_not_mixed_in(self, make_adience):
        root = make_adience()
        text = (root / "fold_0_data.txt").read_text().replace("10@N00", "99@N09")
        (root / "fold_frontal_0_data.txt").write_text(text)
        assert sources.read_faces("adience", root).attrs["ledger"]["read"] == 15

    def test_a_missing_fold_is_an_error(self, make_adience):
        root = make_adience()
        (root / "fold_3_data.txt").unlink()
        with pytest.raises(MienError, match=r"fold_3_data.txt .*not found .*holds: fold_0.*can be had from"):
            sources.read_faces("adience", root)

    def test_a_missing_column_is_an_error(self, make_adience):
        root = make_adience()
        path = root / "fold_2_data.txt"
        path.write_text(path.read_text().replace("gender", "sex"))
        with pytest.raises(MienError, match="fold_2_data.txt' has no column 'gender'"):
            sources.read_faces("adience", root)

    def test_bytes_that_are_no_text(self, make_adience):
        root = make_adience()
        (root / "fold_2_data.txt").write_bytes(b"\x89PNG\xff\xfe")
        with pytest.raises(MienError, match="fold_2_data.txt' is not a text file"):
            sources.read_faces("adience", root)

    def test_malformed_lines_are_dropped_by_name(self, make_adience):
        root = make_adience()
        with (root / "fold_4_data.txt").open("a") as file:
            file.write("14@N04\tbroken\n\n")
        faces = sources.read_faces("adience", root)
        entry = faces.attrs["ledger"]["entries"][0]
        assert (faces.attrs["ledger"]["read"], len(faces)) == (16, 10)
        assert (entry["reason"], entry["rows"]) == ("a line of other than 12 fields", 1)
        assert "fold_4_data.txt" in entry["example"]
        assert "broken" in entry["example"]

    def test_the_same_face_with_other_labels_is_dropped(self, make_adience):
        rows = [(0, "u", "a.jpg", "1", "(0, 2)", "f"), (0, "u", "a.jpg", "1", "(0, 2)", "m")]
        faces = sources.read_faces("adience", make_adience(rows))
        assert faces["gender"].tolist() == ["female"]
        assert entries(faces, "dropped") == {"the face of an earlier row with other values": 1}

    @pytest.mark.parametrize("text", ["(1, 99)", "abc", "-3", "131", "4.5", ""])
    @pytest.mark.parametrize(("labels", "kept"), [("exact", 1), ("all-ages", 1), ("gender", 2), ("masked", 2)])
    def test_an_unknown_age_is_never_guessed(self, make_adience, text, labels, kept):
        rows = [(0, "u", "a.jpg", "1", text, "f"), (0, "u", "b.jpg", "1", "(0, 2)", "m")]
        faces = sources.read_faces("adience", make_adience(rows), labels)
        assert len(faces) == kept
        assert faces["age_group"].dropna().tolist() == ["0-2"]
        assert faces["age"].isna().all()
        assert any(repr(text) in reason for reason in entries(faces))

    def test_nothing_left_is_an_error_with_the_reasons(self, make_adience):
        rows = [(0, "u", "a.jpg", "1", "(0, 2)", "u")]
        with pytest.raises(MienError, match="no face is left of 1 rows .*gender is not known"):
            sources.read_faces("adience", make_adience(rows))

    @given(st.integers(0, 130))
    def test_single_years_are_mapped_as_all_ages_are(self, years):
        assert adience._age(str(years)) == (years, None, None, age_to_group([years])[0])

    def test_odd_intervals_go_to_the_group_nearest_to_their_middle(self):
        for text, group in adience.ODD_INTERVALS.items():
            low, high = map(int, text.strip("()").split(","))
            assert group == age_to_group([(low + high) / 2])[0]
        assert tuple(adience.INTERVALS.values()) == AGE_GROUPS

    def test_intervals_are_ranges_of_years(self, make_adience):
        faces = sources.read_faces("adience", make_adience(), "masked")
        assert faces["age"].notna().tolist() == faces["raw_age"].str.isdecimal().tolist()
        assert faces["age_from"].notna().tolist() == faces["raw_age"].str.startswith("(").tolist()
        for text, group in {**adience.INTERVALS, **adience.ODD_INTERVALS}.items():
            first, last = adience.RANGES[text]
            assert first < last and group in age_to_group([first, last, (first + last) / 2])
        assert adience.RANGES["(8, 12)"] == (8, 12) and adience.RANGES["(60, 100)"] == (60, OLDEST)


class TestCeleba:
    @pytest.mark.parametrize("csv", [False, True])
    @pytest.mark.parametrize("images", ["img_align_celeba", "img_align_celeba/img_align_celeba"])
    def test_text_and_csv_flat_and_nested(self, tmp_path, csv, images):
        root = make_celeba(tmp_path / "c", images=images, csv=csv)
        faces = sources.read_faces("celeba", root)
        assert faces["face"].tolist() == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
        assert faces["path"].tolist() == [f"{images}/{face}" for face in faces["face"]]
        assert faces["gender"].tolist() == ["female", "female", "male", "male"]
        assert faces["split"].tolist() == ["train", "train", "val", "test"]
        assert faces["Smiling"].tolist() == [True, False, True, False]
        assert faces[ATTRIBUTES].dtypes.tolist() == [bool] * 3
        assert faces[["age", "age_group", "x", "subject"]].isna().all(axis=None)
        assert entries(faces) == {"identity_CelebA.txt is not there": 0}

    def test_official_release(self, tmp_path):
        root = make_celeba(tmp_path / "c", images="Img/img_align_celeba")
        for folder, name in (("Anno", "list_attr_celeba.txt"), ("Eval", "list_eval_partition.txt")):
            (root / folder).mkdir()
            (root / name).rename(root / folder / name)
        (root / "Anno" / "identity_CelebA.txt").write_text("1.jpg 2880\n2.jpg 2937\n3.jpg 2880\n")
        faces = sources.read_faces("celeba", root)
        assert faces["subject"].tolist()[:3] == ["2880", "2937", "2880"]
        assert pd.isna(faces["subject"].iloc[3])
        assert faces["split"].notna().all()
        assert entries(faces) == {"not in identity_CelebA.txt": 1}

    @pytest.mark.parametrize("promised", [9, 2])
    def test_a_header_that_promises_other_numbers_is_a_warning(self, tmp_path, promised):
        faces = sources.read_faces("celeba", make_celeba(tmp_path / "c", promised=promised))
        assert len(faces) == 4
        assert f"list_attr_celeba.txt promises {promised} rows and holds 4" in entries(faces, "warning")

    def test_malformed_rows_are_dropped_by_reason(self, tmp_path):
        root = make_celeba(tmp_path / "c", promised=8, images=None)
        with (root / "list_attr_celeba.txt").open("a") as file:
            file.write("5.jpg 1 1\n6.jpg 1 1 1 1\n7.jpg 0 1 1\n8.jpg x 1 1\n1.jpg 1 1 1\n")
        faces = sources.read_faces("celeba", root)
        assert len(faces) == 4
        assert entries(faces, "dropped") == {
            "a line of other than 4 fields": 2,
            "an attribute that is neither -1 nor 1": 2,
            "the image of an earlier row": 1,
        }

    def test_partition_gaps_are_counted(self, tmp_path):
        root = make_celeba(tmp_path / "c")
        (root / "list_eval_partition.txt").write_text("1.jpg 0\n1.jpg 1\n2.jpg 7\n3.jpg 1\n9.jpg 2\nbroken\n")
        faces = sources.read_faces("celeba", root)
        assert faces["split"].isna().tolist() == [False, True, False, True]
        assert faces["split"].iloc[0] == "train"
        assert entries(faces, "changed") == {
            "not in list_eval_partition.txt": 1,
            "a partition other than 0, 1, 2: the split is missing": 1,
        }
        warned = entries(faces, "warning")
        assert warned["list_eval_partition.txt names an image more than once: the first counts"] == 1
        assert warned["list_eval_partition.txt names images that the attribute list does not"] == 1
        assert any(reason.startswith("a line of other than 2 fields") for reason in warned)

    def test_without_male_there_is_no_gender(self, tmp_path):
        root = make_celeba(tmp_path / "c")
        path = root / "list_attr_celeba.txt"
        path.write_text(path.read_text().replace("Male", "Tall"))
        with pytest.raises(MienError, match="no attribute 'Male'; its header is 'Bald Tall Smiling"):
            sources.read_faces("celeba", root)

    @pytest.mark.parametrize("text", ["", "202599\n", "Bald Male\n"])
    def test_empty_lists(self, tmp_path, text):
        write_csv(tmp_path / "c" / "list_attr_celeba.txt", text)
        with pytest.raises(MienError, match="celeba: "):
            sources.read_faces("celeba", tmp_path / "c")

    def test_real_lists(self, shared_data):
        faces = sources.read_faces("celeba", shared_data / "celeba")
        assert faces.attrs["ledger"]["read"] == 20000
        assert len(faces) == 1177
        assert entries(faces, "dropped") == {"the image is not there": 20000 - 1177}
        assert "list_attr_celeba.txt promises 202,599 rows and holds 20,000" in entries(faces, "warning")
        assert len(faces.select_dtypes("bool").columns) == 40
        assert list(faces.columns).index("Male") - list(faces.columns).index("5_o_Clock_Shadow") == 20
        assert (faces["Male"] == (faces["gender"] == "male")).all()
        assert faces["split"].notna().all()


class TestFairface:
    def test_ranges_groups_and_races(self, tmp_path):
        rows = [f"train/{at}.jpg,{text},Male,White,TRUE" for at, text in enumerate([*fairface.RANGES, "more than 70"])]
        faces = sources.read_faces("fairface", make_fairface(tmp_path, rows))
        assert faces["age_range"].tolist() == [*fairface.RANGES, "70+"]
        assert faces["age_from"].tolist() == [0, 3, 10, 20, 30, 40, 50, 60, 70, 70]
        assert faces["age_to"].tolist() == [2, 9, 19, 29, 39, 49, 59, 69, OLDEST, OLDEST]
        middles = [1, 6, 14.5, 24.5, 34.5, 44.5, 54.5, 64.5, 90, 90]
        assert faces["age_group"].tolist() == list(age_to_group(middles))
        assert faces["age"].isna().all()
        assert set(faces["race"]) == {"White"}

    def test_groups_only_where_every_age_of_the_range_is_in_one(self, tmp_path):
        rows = [f"val/{at}.jpg,{text},Male,White,TRUE" for at, text in enumerate(fairface.RANGES)]
        faces = sources.read_faces("fairface", make_fairface(tmp_path, val=rows), "within").set_index("age_range")
        for name, (first, last) in fairface.RANGES.items():
            groups = set(age_to_group(np.arange(first, last + 1)))
            assert faces["age_group"][name] == groups.pop() if len(groups) == 1 else pd.isna(faces["age_group"][name])
        assert faces["age_group"].notna().sum() == 3
        assert set(faces["split"]) == {"val"}

    @pytest.mark.parametrize(
        ("written", "meant"),
        [("9-Mar", "3-9"), ("09-Mar", "3-9"), ("3-Sep", "3-9"), ("19-Oct", "10-19"), ("19-OCT", "10-19")],
    )
    def test_a_date_that_a_spreadsheet_made_is_repaired_and_noted(self, tmp_path, written, meant):
        rows = [f"train/1.jpg,{written},Male,White,TRUE", f"train/2.jpg,{meant},Female,White,TRUE"]
        faces = sources.read_faces("fairface", make_fairface(tmp_path, rows))
        assert faces["age_range"].tolist() == [meant, meant]
        assert entries(faces, "changed")[f"age {written!r} is a date that a spreadsheet made of {meant!r}"] == 1

    def test_what_is_not_known_is_missing_and_noted(self, tmp_path):
        rows = ["train/1.jpg,15-Mar,x,,", "train/2.jpg,0-2,Male,White,TRUE", "train/2.jpg,3-9,Male,White,TRUE", "a,b"]
        faces = sources.read_faces("fairface", make_fairface(tmp_path, rows))
        assert faces.loc[0, ["gender", "age_group", "age_range", "race", "service_test"]].isna().all()
        assert entries(faces, "changed") == {
            "age is not known: the files say '15-Mar'": 1,
            "a gender other than Female and Male: it is missing": 1,
        }
        assert entries(faces, "dropped") == {"the file of an earlier row": 1, "a line of other than 5 fields": 1}

    def test_images_in_the_folder_of_the_release(self, tmp_path):
        root = make_fairface(tmp_path, ["train/1.jpg,0-2,Male,White,TRUE"])
        touch(root, "fairface-img-margin025-trainval/train/1.jpg")
        faces = sources.read_faces("fairface", root)
        assert faces.loc[0, ["face", "path"]].tolist() == ["train/1.jpg", "fairface-img-margin025-trainval/train/1.jpg"]

    def test_a_needed_column_that_is_absent(self, tmp_path):
        root = make_fairface(tmp_path, ["train/1.jpg,0-2,Male"], header="file,age,gender")
        with pytest.raises(MienError, match="no column 'race'"):
            sources.read_faces("fairface", root)

    @pytest.mark.parametrize(("labels", "with_group"), [("middle", 97698), ("within", 6051)])
    def test_real_files(self, shared_data, labels, with_group):
        faces = sources.read_faces("fairface", shared_data / "fairface", labels)
        raw = pd.concat(pd.read_csv(path, dtype="str") for path in sorted((shared_data / "fairface").glob("*.csv")))
        assert len(faces) == len(raw) == 97698
        words = {"9-Mar": "3-9", "19-Oct": "10-19", "more than 70": "70+"}
        assert faces["age_range"].tolist() == raw["age"].replace(words).tolist()
        assert faces["race"].tolist() == raw["race"].tolist()
        assert faces["split"].value_counts().to_dict() == {"train": 86744, "val": 10954, "test": 0}
        assert faces["age_group"].notna().sum() == with_group
        assert f"{with_group:,}" in fairface.LABELS[labels]
        assert entries(faces, "dropped") == {}
        repaired = {reason: rows for reason, rows in entries(faces).items() if "spreadsheet" in reason}
        assert repaired == {
            f"age {text!r} is a date that a spreadsheet made of {words[text]!r}": (raw["age"] == text).sum()
            for text in ("9-Mar", "19-Oct")
        }


class TestUtkface:
    def test_names(self, tmp_path):
        names = [*UTKFACE_NAMES, "part2/99_0_4_20170110183726390.jpg", "part3/7_1_1_20170110183726390.PNG"]
        faces = sources.read_faces("utkface", touch(tmp_path, *names)).set_index("path")
        assert faces.loc[names, "age"].tolist() == [25, 1, 99, 7]
        assert faces.loc[names, "gender"].tolist() == ["male", "female", "male", "female"]
        assert faces.loc[names, "race"].tolist() == ["indian", "white", "other", "black"]
        assert faces.loc[names, "age_group"].tolist() == ["25-32", "0-2", "60+", "4-6"]
        assert faces["subject"].isna().all()
        assert faces["fold"].isna().all()
        assert (faces["photo"] == faces.index).all()

    def test_the_three_real_names_without_race(self, tmp_path):
        names = [
            "39_1_20170116174525125.jpg.chip.jpg",
            "61_1_20170109142408075.jpg.chip.jpg",
            "61_1_20170109150557335.jpg.chip.jpg",
        ]
        faces = sources.read_faces("utkface", touch(tmp_path, *names, UTKFACE_NAMES[0]))
        assert faces["age"].tolist() == [25, 39, 61, 61]
        assert faces["race"].isna().tolist() == [False, True, True, True]
        assert entries(faces, "changed") == {"a name without the race: it is missing": 3}

    @pytest.mark.parametrize(
        "name",
        [
            "24_0_1_20170116220224657 .jpg.chip.jpg",
            "24_0_1_20170116232725357jpg.chip.jpg",
            "24_0_1_20170116235150272.pg.chip.jpg",
        ],
    )
    def test_real_slips_behind_the_timestamp(self, tmp_path, name):
        faces = sources.read_faces("utkface", touch(tmp_path, name))
        assert faces.loc[0, ["age", "gender", "race"]].tolist() == [24, "male", "black"]

    def test_rows_that_cannot_be_used_are_dropped_by_reason(self, tmp_path):
        names = [
            "face.jpg",
            "53__0_20170116184028385.jpg",
            "25_0_3.jpg",
            "61_3_0_20170109150557335.jpg",
            "250_0_0_20170109150557335.jpg",
            f"part1/{UTKFACE_NAMES[0]}",
            "30_0_9_20170109150557335.jpg",
        ]
        faces = sources.read_faces("utkface", touch(tmp_path, *names, *UTKFACE_NAMES))
        assert faces.attrs["ledger"]["read"] == 9
        assert entries(faces, "dropped") == {
            "a name that is not age_gender_race_timestamp": 3,
            "a gender other than 0 (male) and 1 (female)": 1,
            "an age above 130 years": 1,
            "a file of the same name in an earlier folder": 1,
        }
        assert entries(faces, "changed") == {"a race other than 0 to 4: it is missing": 1}

    def test_other_files_are_a_warning_and_hidden_ones_no_part(self, tmp_path):
        root = touch(tmp_path, *UTKFACE_NAMES, "notes.txt", f".cache/{UTKFACE_NAMES[0]}", ".DS_Store")
        faces = sources.read_faces("utkface", root)
        assert faces.attrs["ledger"]["read"] == 2
        assert entries(faces) == {"files without an image suffix, for example 'notes.txt'": 1}

    def test_links_are_followed_once(self, tmp_path):
        touch(tmp_path / "elsewhere", *UTKFACE_NAMES)
        root = tmp_path / "root"
        root.mkdir()
        (root / "a").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        (root / "b").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        (root / "loop").symlink_to(root, target_is_directory=True)
        assert sources.read_faces("utkface", root).attrs["ledger"]["read"] == 2

    @given(st.integers(0, 116), st.sampled_from("01"), st.sampled_from("01234"), st.integers(10**8, 10**17))
    def test_any_name_is_read_back(self, age, gender, race, stamp):
        name = pd.Series([f"{age}_{gender}_{race}_{stamp}.jpg.chip.jpg"], dtype="str")
        assert name.str.extract(utkface._NAME).iloc[0].tolist() == [str(age), gender, race]

    def test_real_names(self, shared_data):
        faces = sources.read_faces("utkface", shared_data / "utkface")
        names = [path.name.split("_") for path in (shared_data / "utkface").iterdir()]
        assert len(faces) == len(names) == 19923
        assert entries(faces) == {}
        assert faces["race"].value_counts().to_dict() == Counter(utkface.RACES[name[2]] for name in names)
        assert (faces["gender"] == "female").sum() == sum(name[1] == "1" for name in names)
        assert faces["age"].max() == 116


class TestCsvTable:
    def test_path_alone_is_enough(self, tmp_path):
        faces = sources.read_faces("csv", write_csv(tmp_path / "mine.csv", "path\na.jpg\nb/c.jpg\n"))
        assert faces["face"].tolist() == faces["path"].tolist() == ["a.jpg", "b/c.jpg"]
        assert faces["dataset"].unique().tolist() == ["mine"]
        assert faces["gender"].isna().all()

    def test_map_words_and_further_columns(self, tmp_path):
        touch(tmp_path, "1.jpg", "2.jpg", "3.jpg")
        text = "file,sex,years,who,ethnicity,note\n1.jpg,F,31,7,a,x\n2.jpg, Man ,,7,b,y\n3.jpg,,4,8,,z\n"
        faces = sources.read_faces(
            "csv",
            write_csv(tmp_path / "mine.csv", text),
            map={"file": "path", "sex": "gender", "years": "age", "who": "subject", "ethnicity": "race"},
        )
        assert faces["gender"].tolist()[:2] == ["female", "male"]
        assert pd.isna(faces["gender"][2])
        assert faces["age_group"].astype("object").where(faces["age_group"].notna(), None).tolist() == [
            "25-32",
            None,
            "4-6",
        ]
        assert faces["subject"].tolist() == ["7", "7", "8"]
        assert faces["race"].tolist()[:2] == ["a", "b"]
        assert faces["note"].tolist() == ["x", "y", "z"]
        assert entries(faces) == {"gender 'F' is read as female": 1, "gender 'Man' is read as male": 1}

    def test_parquet(self, tmp_path):
        path = tmp_path / "mine.parquet"
        pd.DataFrame({"img": ["a.jpg", "b.jpg"], "gender": ["female", ""]}).to_parquet(path)
        faces = sources.read_faces("csv", path, map={"img": "path"})
        assert faces["gender"].isna().tolist() == [False, True]

    def test_data_root_is_the_folder_of_the_table(self, tmp_path):
        path = write_csv(tmp_path / "mine.csv", "path\na.jpg\nb.jpg\n")
        touch(tmp_path, "a.jpg")
        faces = sources.read_faces("csv", path)
        assert (sources.data_root(path) / faces["path"][0]).is_file()
        assert sources.data_root(tmp_path) == tmp_path
        assert entries(faces) == {"the image is not there": 1}

    def test_columns_may_be_swapped(self, tmp_path):
        path = write_csv(tmp_path / "mine.csv", "path,photo\na,b.jpg\n")
        faces = sources.read_faces("csv", path, map={"path": "photo", "photo": "path"})
        assert faces.loc[0, ["path", "photo"]].tolist() == ["b.jpg", "a"]

    @pytest.mark.parametrize(
        ("columns", "columns_map", "message"),
        [
            ("file", {}, "no column 'path' and none is mapped to it .*its columns are: file"),
            ("file", {"fiel": "path"}, r"map fiel=path: unknown column .*did you mean 'file'\?.*valid: file"),
            (
                "path,sex",
                {"sex": "gendre"},
                r"map sex=gendre: unknown column 'gendre' \(did you mean 'gender'",
            ),
            ("path,a,b", {"a": "age", "b": "age"}, "map b=age: column 'age' is already taken by 'a'"),
            ("path,file", {"file": "path"}, "map file=path: column 'path' is already taken by 'path'"),
        ],
    )
    def test_maps_that_make_no_sense(self, tmp_path, columns, columns_map, message):
        row = ",".join("1" for _ in columns.split(","))
        path = write_csv(tmp_path / "mine.csv", f"{columns}\n{row}\n")
        with pytest.raises(MienError, match=message):
            sources.read_faces("csv", path, map=columns_map)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "path,gender\na.jpg,0\nb.jpg,1\n",
                r"'gender': '0' \(1 rows\), '1' \(1 rows\) cannot be read, first in row 1 \('a.jpg'\): what such a "
                r"code means differs .*--map 'gender.0=male' --map 'gender.1=female', or missing for no label",
            ),
            ("path,gender\na.jpg,True\n", "'True'.*what such a code means differs"),
            ("path,gender\na.jpg,frau\n", r"'frau' \(1 rows\) cannot be read.*--map 'gender.frau=male'"),
            ("path,age_group\na.jpg,6-Apr\n", "'age_group'.*'6-Apr'.*a date, which a spreadsheet .*valid: 0-2, 4-6"),
            ("path,age_group\na.jpg,20-29\n", "'20-29'.*ranges of years that cross the groups; --map YOURS=age"),
            ("path,age\na.jpg,old\n", "'age'.*'old'.*cannot be read.*--map 'age.old=25-32'"),
            ("path,age\na.jpg,1987\n", "'1987'.*years of birth are no ages"),
            ("path,age\na.jpg,12.03.1987\n", "'12.03.1987'.*a date"),
            ("path\n../a.jpg\n", "'../a.jpg' must be relative to the data root"),
            ("path\n/etc/passwd\n", "row 1: the path '/etc/passwd' is outside of .*--root /etc, or another folder"),
            ("path\nC:\\a\\b.jpg\n", "row 1: the path 'C:/a/b.jpg' is outside of .*--root C:/a, or another folder"),
            ("path,gender\na.jpg,m\nb.jpg,w\n", "--map 'gender.w=female', or missing"),
            ("path\nhttps://a.b/c.jpg\n", "row 1: 'https://a.b/c.jpg' is an address; mien reads files: download"),
            ("face,path\n1,a.jpg\n1,b.jpg\n", "'face' must be unique.*'1'"),
            ("path,gender\n,f\n", "no face is left of 1 rows read .*no path"),
            ("path,gender\n", "no face is left of 0 rows read from .*it is empty"),
            ("", "cannot be read"),
        ],
    )
    def test_tables_that_are_refused(self, tmp_path, text, message):
        with pytest.raises(MienError, match=message):
            sources.read_faces("csv", write_csv(tmp_path / "mine.csv", text))

    def test_unknown_ending(self, tmp_path):
        with pytest.raises(MienError, match=r"unknown ending '.xlsx'; valid: .parquet, .csv"):
            sources.read_faces("csv", touch(tmp_path, "mine.xlsx") / "mine.xlsx")


class TestCsvClassFolders:
    def test_genders(self, tmp_path):
        root = touch(tmp_path / "own", "Women/a.jpg", "Women/more/b.png", "m/c.jpg", "loose.jpg", "README.md")
        faces = sources.read_faces("csv", root)
        assert dict(zip(faces["path"], faces["gender"], strict=True)) == {
            "Women/a.jpg": "female",
            "Women/more/b.png": "female",
            "m/c.jpg": "male",
        }
        assert faces["dataset"].unique().tolist() == ["own"]
        assert "class" not in faces
        assert entries(faces, "dropped") == {"an image outside of the class folders": 1}
        assert sum(entries(faces, "warning").values()) == 1

    def test_age_groups(self, tmp_path):
        faces = sources.read_faces("csv", touch(tmp_path, *(f"{group}/a.jpg" for group in AGE_GROUPS)))
        assert sorted(faces["age_group"].astype("str")) == sorted(AGE_GROUPS)
        assert faces[["gender", "age"]].isna().all(axis=None)

    def test_unknown_class(self, tmp_path):
        root = touch(tmp_path, "female/a.jpg", "cats/b.jpg")
        with pytest.raises(MienError, match="unknown class folder 'cats' .*valid: female, f, .*0-2, 4-6"):
            sources.read_faces("csv", root)

    def test_mixed_classes(self, tmp_path):
        with pytest.raises(MienError, match="mix genders and age groups: 0-2, female"):
            sources.read_faces("csv", touch(tmp_path, "female/a.jpg", "0-2/b.jpg"))

    def test_images_without_class_folders(self, tmp_path):
        with pytest.raises(MienError, match=r"without images in class folders; give a .csv or .parquet file"):
            sources.read_faces("csv", touch(tmp_path, "a.jpg"))

    def test_a_map_has_nothing_to_map(self, tmp_path):
        with pytest.raises(MienError, match="no columns to map; given: {'a': 'path'}"):
            sources.read_faces("csv", touch(tmp_path, "female/a.jpg"), map={"a": "path"})


class TestMessyValues:
    """What cannot be read is a missing label that the ledger counts; nothing is guessed."""

    def read(self, tmp_path, text, names="abcdefgh", **options):
        touch(tmp_path, *(f"{name}.jpg" for name in names))
        return sources.read_faces("csv", write_csv(tmp_path / "mine.csv", text), **options)

    def test_words_without_a_label_are_missing(self, tmp_path):
        values = ["f", "m", "?", "N/A", "unknown", "Girl", "boy", "x"]
        rows = "".join(f"{name}.jpg,{value}\n" for name, value in zip("abcdefgh", values, strict=True))
        faces = self.read(tmp_path, "path,gender\n" + rows)
        assert faces["gender"].astype("object").where(faces["gender"].notna(), "").tolist() == [
            *("female", "male", "", "", "", "female", "male", "")
        ]
        assert entries(faces)["gender is missing: 'x' cannot be read"] == 1
        assert faces.attrs["ledger"]["entries"][-1]["example"] == "h.jpg"

    def test_stated_values(self, tmp_path):
        text = "file,sex,years\na.jpg,0,child\nb.jpg,1,34\nc.jpg,9,25-32\nd.jpg,,60+\n"
        stated = {"gender.0": "male", "gender.1": "F", "gender.9": "missing", "age.Child": "4-12"}
        faces = self.read(tmp_path, text, "abcd", map={"file": "path", "sex": "gender", "years": "age"} | stated)
        assert faces["gender"].astype("object").where(faces["gender"].notna(), "").tolist() == [
            "male",
            "female",
            "",
            "",
        ]
        assert faces["age"].tolist()[1] == 34 and faces["age"].notna().sum() == 1
        assert faces["age_from"].tolist()[0] == 4 and faces["age_to"].tolist()[0] == 12
        assert faces["age_group"].tolist()[2:] == ["25-32", "60+"]

    @pytest.mark.parametrize(
        ("stated", "message"),
        [
            ({"gender.2": "male"}, "map gender.2=male: unknown value of column 'gender' '2'.*valid: f"),
            ({"gender.f": "lady"}, "map gender.f=lady: 'lady' is no label; valid: female, f, .*or missing"),
            ({"age.f": "30"}, "map age.VALUE: .* has no such column"),
            ({"sex.0": "male"}, "map sex.0=male: unknown column of the table"),
        ],
    )
    def test_stated_values_that_make_no_sense(self, tmp_path, stated, message):
        with pytest.raises(MienError, match=message):
            self.read(tmp_path, "path,gender\na.jpg,f\n", map=stated)

    def test_repeats(self, tmp_path):
        text = "path,gender,age\na.jpg,f,30\na.jpg,f,30\na.jpg,m,30\nb.jpg,m,\nb.jpg,,40\nc.jpg,f,5\n"
        faces = self.read(tmp_path, text)
        assert faces["face"].tolist() == ["a.jpg", "b.jpg", "c.jpg"]
        assert pd.isna(faces["gender"][0]) and faces["gender"].tolist()[1:] == ["male", "female"]
        assert faces["age"].tolist() == [30, 40, 5]
        assert entries(faces, "dropped") == {"an exact repeat of an earlier row": 1, "another row of the same face": 2}
        assert entries(faces, "changed")["rows of the same face disagree: gender is missing"] == 1

    def test_two_boxes_of_a_photograph_are_two_faces(self, tmp_path):
        faces = self.read(tmp_path, "path,x,y,w,h\na.jpg,0,0,5,5\na.jpg,9,9,5,5\nb.jpg,0,0,5,5\n")
        assert faces["face"].tolist() == ["a.jpg", "a.jpg#2", "b.jpg"]

    def test_paths_written_in_another_way(self, tmp_path):
        touch(tmp_path / "in", "sub/A.JPG", "b.png", "c.jpg", "d.jpg", "D.jpg")
        text = f"path\nsub\\a.jpg\nb\n{tmp_path}/in/c.jpg\nd.JPG\nC:\\old\\in\\sub\\e.jpg\n"
        touch(tmp_path / "in", "sub/E.jpg")
        faces = self.read(tmp_path, text, "", images=tmp_path / "in")
        assert faces["path"].tolist() == ["sub/A.JPG", "b.png", "c.jpg", "sub/E.jpg"]
        assert entries(faces, "dropped") == {"the image is not there": 1}  # D.jpg or d.jpg: not guessed
        assert set(entries(faces, "changed")) == {
            "the absolute path is read as relative to the folder of the images",
            "the path is read with / for \\",
            "the path is found in another case",
            "the path is found with the ending of its image",
        }

    def test_a_folder_of_images_is_for_tables(self, tmp_path):
        with pytest.raises(MienError, match="utkface has its images in its own folder"):
            sources.read_faces("utkface", tmp_path, images=tmp_path)
        with pytest.raises(MienError, match="does not exist"):
            self.read(tmp_path, "path\na.jpg\n", images=tmp_path / "no")
        with pytest.raises(MienError, match="--root is for a table"):
            sources.read_faces("csv", touch(tmp_path / "own", "female/a.jpg"), images=tmp_path)

    def test_separators_and_encodings(self, tmp_path):
        touch(tmp_path, "Müller.jpg", "b.jpg")
        text = "path;age;gender\nMüller.jpg;34,5;f\nb.jpg;7;m\n"
        for encoding in ("utf-8", "utf-8-sig", "utf-16", "cp1252"):
            (tmp_path / "mine.csv").write_text(text, encoding=encoding)
            faces = sources.read_faces("csv", tmp_path / "mine.csv")
            assert faces["path"].tolist() == ["Müller.jpg", "b.jpg"] and faces["age"].tolist() == [34.5, 7]
            assert "columns separated by semicolons" in entries(faces, "warning")

    def test_names_of_class_folders_can_be_stated(self, tmp_path):
        root = touch(tmp_path / "own", "weiblich/a.jpg", "m/b.jpg", "unsorted/c.jpg")
        with pytest.raises(MienError, match="unknown class folder 'unsorted'.*--map 'gender.unsorted=female'"):
            sources.read_faces("csv", root, map={"gender.weiblich": "female"})
        faces = sources.read_faces("csv", root, map={"gender.weiblich": "female", "gender.unsorted": "missing"})
        assert dict(zip(faces["path"], faces["gender"].astype("object").fillna(""), strict=True)) == {
            "weiblich/a.jpg": "female",
            "m/b.jpg": "male",
            "unsorted/c.jpg": "",
        }
