import itertools
import pickle
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mien.base.table import check_faces
from mien.data import leaks, split_units, splits
from mien.data.leaks import LeakError
from mien.data.sources import read_faces
from mien.data.split_units import SplitError
from mien.recipe.settings import Split


def make(**columns):
    rows = len(next(iter(columns.values())))
    ids = [f"face {row}" for row in range(rows)]
    return check_faces(pd.DataFrame({"face": ids, "path": [f"{name}.jpg" for name in ids], **columns}))


def random_faces(seed, rows, subjects):
    """Each subject has a gender; some subjects, photographs, genders and ages are not known."""
    rng = np.random.default_rng(seed)
    subject = rng.integers(0, subjects, rows)
    gender = np.array(["female", "male"])[subject % 2].astype(object)
    gender[rng.random(rows) < 0.1] = None
    return make(
        subject=[f"s{number}" if rng.random() < 0.9 else None for number in subject],
        photo=[f"p{rng.integers(rows)}" if rng.random() < 0.1 else None for _ in subject],
        gender=gender,
        age=np.where(rng.random(rows) < 0.1, np.nan, subject % 70.0),
        fold=subject % 4,
    )


def few(**columns):
    """Ten faces of five subjects, already split: 5 train, 2 val, 3 test."""
    return make(split=["train"] * 5 + ["val"] * 2 + ["test"] * 3, **columns)


class TestAssign:
    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 2**32), rows=st.integers(60, 300), method=st.sampled_from(["subjects", "folds"]))
    @example(seed=21574381, rows=60, method="subjects")  # no stratum alone asks for a face in the validation part
    def test_nothing_that_belongs_together_is_parted(self, seed, rows, method):
        faces = random_faces(seed, rows, rows // 2)
        groups = np.random.default_rng(seed).integers(0, 6 * rows, rows)
        if method == "folds":
            faces["photo"] = None  # which may chain folds together
            faces.loc[faces["subject"].isna(), "subject"] = "nobody " + faces["face"]
            groups = np.arange(rows)
        out = splits.assign(faces, method, seed=seed, groups=groups)
        assert out["split"].notna().all()
        for labels in (out["subject"], out["photo"], groups):
            parts_of = pd.DataFrame({"label": labels, "split": out["split"]}).dropna().drop_duplicates()
            assert parts_of["label"].is_unique
        assert leaks.find_leaks(out, groups) == []
        pd.testing.assert_frame_equal(out.drop(columns="split"), faces.drop(columns="split"))

    @pytest.mark.parametrize(("subjects", "parts"), [(3, [1, 1, 1]), (10, [1, 1, 8])])
    def test_no_part_is_empty_where_there_are_subjects_enough(self, subjects, parts):
        out = splits.assign(make(subject=[f"s{number}" for number in range(subjects)]), "subjects", val=0.01, test=0.01)
        assert sorted(out["split"].value_counts()) == parts
        with pytest.raises(splits.SplitError, match="leaves a part of the 2 faces empty"):
            splits.assign(make(subject=["a", "b"]), "subjects")

    @pytest.mark.parametrize("method", ["subjects", "folds", "random", "subject_folds", "random_folds"])
    def test_the_order_of_the_rows_does_not_matter_and_the_seed_does(self, method):
        faces = random_faces(0, 400, 150)
        groups = pd.Series(np.random.default_rng(1).integers(0, 900, 400), index=faces["face"])
        out = splits.assign(faces, method, seed=3, groups=groups.to_numpy()).set_index("face")["split"]
        shuffled = faces.sample(frac=1, random_state=5)
        relabelled = -groups[shuffled["face"]].to_numpy()
        again = splits.assign(shuffled, method, seed=3, groups=relabelled)
        assert again.index.equals(shuffled.index)
        assert again.set_index("face")["split"][out.index].equals(out)
        other = splits.assign(faces, method, seed=4, groups=groups.to_numpy()).set_index("face")["split"]
        assert not other.equals(out)

    @settings(max_examples=10, deadline=None)
    @given(
        seed=st.integers(0, 2**32),
        val=st.sampled_from([0.05, 0.1, 0.3]),
        test=st.sampled_from([0.1, 0.2, 0.5]),
        method=st.sampled_from(["subjects", "random"]),
    )
    def test_shares_are_near_those_asked_for(self, seed, val, test, method):
        faces = random_faces(seed, 2000, 900).drop(columns="photo").pipe(check_faces)
        out = splits.assign(faces, method, val=val, test=test, seed=seed)
        shares = out["split"].value_counts(normalize=True)
        assert shares["test"] == pytest.approx(test, abs=0.005)
        assert shares["val"] == pytest.approx((1 - test) * val, abs=0.005)
        if method == "subjects":
            by_gender = pd.crosstab(out["gender"].astype(str), out["split"], normalize="index")
            assert (by_gender["test"] - test).abs().max() < 0.03

    def test_strata_are_exact_where_they_can_be(self):
        """100 single faces of each gender and age group."""
        cells = list(itertools.product(["female", "male"], [1, 5, 30, 70])) * 100
        faces = make(gender=[gender for gender, _ in cells], age=[age for _, age in cells])
        out = splits.assign(faces, "subjects", val=0.25, test=0.2)
        counts = pd.crosstab([out["gender"], out["age"]], out["split"])
        assert (counts[["train", "val", "test"]] == [60, 20, 20]).all(axis=None)

    def test_a_giant_subject_does_not_upset_the_shares(self):
        faces = make(subject=["giant"] * 300 + [f"s{row // 2}" for row in range(700)])
        out = splits.assign(faces, "subjects")
        counts = out["split"].value_counts()
        assert (counts["train"], counts["val"], counts["test"]) == (720, 80, 200)
        assert set(out.loc[out["subject"] == "giant", "split"]) == {"train"}

    def test_rare_strata_teach(self):
        """A class that occurs once can only be learnt where it is in the training part."""
        faces = make(age=[70.0] + [30.0] * 99)
        for seed in range(20):
            out = splits.assign(faces, "subjects", seed=seed)
            splits.check_classes(out, "age_group")

    def test_folds(self):
        faces = random_faces(0, 400, 150)
        faces["photo"] = None
        out = splits.assign(faces, "folds", test_fold=2, val=0.25)
        assert ((out["split"] == "test") == (faces["fold"] == 2)).all()
        assert (out["split"] == "val").sum() == pytest.approx((faces["fold"] != 2).sum() / 4, abs=2)

    def test_partition_stays_as_it_is(self):
        faces = few()
        assert splits.assign(faces, "partition")["split"].equals(faces["split"])

    def test_random_takes_single_images(self):
        out = splits.assign(make(subject=["s"] * 100), "random", val=0.1, test=0.2)
        assert out["split"].value_counts().to_dict() == {"train": 72, "val": 8, "test": 20}


class TestRefused:
    @pytest.mark.parametrize(
        ("method", "given", "message"),
        [
            ("fold", {}, "unknown split method 'fold' .*'folds'.*valid: folds, partition, subjects, random"),
            ("random", {"val": 0}, "val=0 .*above 0 and below 1"),
            ("random", {"test": 1.5}, "test=1.5 .*above 0 and below 1"),
            ("random", {"test": float("nan")}, "test=nan"),
            ("folds", {"test_fold": 7}, "unknown fold 7; valid: 0, 1"),
            ("subjects", {"groups": [1, 2]}, r"10 faces; given: shape \(2,\)"),
            ("partition", {}, "3 of 10 faces are in no part"),
            ("random", {"test": 0.01}, "leaves a part of the 10 faces empty: train 9, val 1, test 0"),
        ],
    )
    def test_what_is_asked_for(self, method, given, message):
        faces = make(fold=[0, 1] * 5, split=["train"] * 4 + ["val"] * 3 + [None] * 3)
        with pytest.raises(SplitError, match=message):
            splits.assign(faces, method, **given)

    def test_tables_that_lack_what_is_needed(self):
        with pytest.raises(SplitError, match="has no folds; split by 'subjects'"):
            splits.assign(make(age=[1.0, 2.0]), "folds")
        with pytest.raises(SplitError, match="1 of 3 faces have no fold"):
            splits.assign(make(fold=[0, 1, None]), "folds")
        with pytest.raises(SplitError, match="without rows"):
            splits.assign(make(age=[1.0]).iloc[:0], "random")
        with pytest.raises(SplitError, match="train 0, val 0, test 2"):
            splits.assign(make(fold=[1, 1]), "folds", test_fold=1)
        with pytest.raises(SplitError, match="leaves a part of the 9 faces empty"):
            splits.assign(make(subject=["one"] * 4 + ["two"] * 5), "subjects")

    def test_a_class_that_cannot_be_learnt(self):
        faces = few(gender=["male"] * 5 + ["female"] * 3 + [None] * 2, age=[30.0] * 10)
        with pytest.raises(SplitError, match=r"'gender'.* lacks the class 'female' \(3 faces"):
            splits.check_classes(faces, "gender")
        splits.check_classes(faces, "age_group")
        splits.check_classes(faces, "age")
        with pytest.raises(SplitError, match="'age_group': no face of the training part has a label"):
            splits.check_classes(few(age=[None] * 5 + [3.0] * 5), "age_group")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 80), keys=st.integers(1, 3), values=st.integers(1, 80))
def test_connected_agrees_with_scipy(seed, rows, keys, values):
    codes = np.random.default_rng(seed).integers(-1, values, (keys, rows))
    row, key = np.tile(np.arange(rows), keys), codes + np.arange(keys)[:, None] * values + rows
    known = (codes >= 0).ravel()
    size = rows + keys * values
    graph = coo_array((known[known], (row[known], key.ravel()[known])), shape=(size, size))
    expected = connected_components(graph, directed=False)[1][:rows]
    assert split_units.connected(list(codes)).tolist() == pd.factorize(expected)[0].tolist()


def test_a_long_chain_is_connected():
    rows = np.random.default_rng(0).permutation(20_000)
    assert set(split_units.connected([rows // 2, (rows + 1) // 2])) == {0}


class TestLeaks:
    def test_counts_by_hand(self):
        faces = few(
            subject=["a", "a", "b", "c", None, "d", "b", "a", "d", None],
            photo=[None] * 4 + ["p"] + [None] * 4 + ["p"],
        )
        found = leaks.find_leaks(faces, groups=[0, 1, 2, 3, 4, 5, 6, 7, 5, 5])
        assert [(leak.kind, leak.earlier, leak.later, leak.images) for leak in found] == [
            ("subject", "train", "val", 1),
            ("subject", "train", "test", 1),
            ("photo", "train", "test", 1),
            ("subject", "val", "test", 1),
            ("near-duplicate", "val", "test", 2),
        ]
        assert found[0].share == 0.5
        assert found[-1].share == pytest.approx(2 / 3)
        assert found[1].example == ("face 7", "face 0")

    def test_faces_boxed_in_one_file_are_one_photograph(self):
        faces = few()
        faces.loc[[0, 9], "path"] = "group.jpg"
        (leak,) = leaks.find_leaks(faces)
        assert (leak.kind, leak.images, leak.example) == ("photo", 1, ("face 9", "face 0"))

    def test_equal_names_in_two_data_sets_are_no_leak(self):
        faces = few(subject=["1"] * 10, dataset=["a"] * 5 + ["b"] * 2 + ["c"] * 3)
        assert leaks.find_leaks(faces) == []

    def test_a_leak_stops_unless_it_is_allowed(self):
        faces = few(subject=[*"aabbc", *"de", *"aaf"])
        with pytest.raises(LeakError) as caught:
            leaks.check_leaks(faces)
        assert str(caught.value) == (
            "leak: 2 test images (66.7%) show a subject of the train part, for instance 'face 7' and 'face 0'"
        )
        assert leaks.check_leaks(faces, allow=True) == caught.value.leaks
        assert pickle.loads(pickle.dumps(caught.value)).leaks == caught.value.leaks
        assert leaks.check_leaks(few()) == []

    def test_rows_without_a_split_are_left_out(self):
        faces = few(subject=["a"] * 10)
        faces.loc[:4, "split"] = None
        assert [leak.earlier for leak in leaks.find_leaks(faces)] == ["val"]

    def test_other_data(self):
        train = make(subject=["a", "b", "c"], dataset=["x"] * 3)
        other = make(subject=["b", "b", "d", "c"], dataset=["x", "x", "x", "y"])
        other["path"] = ["1", "2", "3", "face 0.jpg"]
        other["face"] = [f"other {row}" for row in range(4)]
        (leak,) = leaks.leaks_between(train, other)
        assert (leak.kind, leak.images, leak.share) == ("subject", 2, 0.5)
        assert leak.example == ("other 0", "face 1")
        assert str(leak).startswith("2 other images (50.0%) show a subject of the train part")
        near = leaks.leaks_between(train, other, groups=[0, 1, 2, 3, 4, 5, 0])[-1]
        assert (near.kind, near.images, near.example) == ("near-duplicate", 1, ("other 3", "face 0"))
        with pytest.raises(SplitError, match="7 faces"):
            leaks.leaks_between(train, other, groups=[0, 1, 2])


@pytest.fixture(scope="module")
def adience(shared_data):
    return read_faces("adience", shared_data / "adience", labels="gender")


class TestAdience:
    def test_a_random_split_leaks(self, adience):
        """94% of the test images of a random 80/20 split show a subject of the other part."""
        assert len(adience) == 17_492
        shares = []
        for seed in range(5):
            out = splits.assign(adience, "random", test=0.2, seed=seed)
            out.loc[out["split"] == "val", "split"] = "train"
            leak = leaks.find_leaks(out)[0]
            assert (leak.kind, leak.later) == ("subject", "test")
            shares.append(leak.share)
        assert np.mean(shares) == pytest.approx(0.94, abs=0.01)

    @pytest.mark.parametrize("fold", range(5))
    def test_official_folds_do_not(self, adience, fold):
        out = splits.assign(adience, "folds", test_fold=fold)
        assert leaks.find_leaks(out) == []
        rest = out[out["split"] != "test"]
        assert (rest["split"] == "val").mean() == pytest.approx(0.1, abs=0.01)
        for column in ("gender", "age_group"):
            splits.check_classes(out, column)

    def test_subjects_do_not(self, adience):
        out = splits.assign(adience, "subjects")
        assert leaks.find_leaks(out) == []
        assert (out["split"] == "test").mean() == pytest.approx(0.2, abs=0.01)


class TestMadeFolds:
    @pytest.mark.parametrize("method", ["subject_folds", "random_folds"])
    def test_every_face_is_tested_once_and_folds_are_as_large_as_each_other(self, method):
        faces = random_faces(2, 600, 300)
        parts = [splits.assign(faces, method, test_fold=fold, folds=4, seed=1)["split"] for fold in range(4)]
        judged = np.stack([part == "test" for part in parts])
        assert (judged.sum(axis=0) == 1).all()
        assert np.abs(judged.sum(axis=1) - 150).max() <= 3

    def test_no_subject_photograph_or_near_duplicate_is_parted_by_subject_folds(self):
        faces = random_faces(3, 300, 120)
        groups = np.random.default_rng(3).integers(0, 2000, 300)
        for fold in range(5):
            assert leaks.find_leaks(splits.assign(faces, "subject_folds", test_fold=fold, groups=groups), groups) == []
        assert leaks.find_leaks(splits.assign(faces, "random_folds"))

    @pytest.mark.parametrize("method", ["subject_folds", "random_folds"])
    def test_a_fold_that_is_not_made_is_refused(self, method):
        with pytest.raises(SplitError, match="fold 3.*valid: 0, 1, 2"):
            splits.assign(random_faces(0, 60, 30), method, test_fold=3, folds=3)
        with pytest.raises(SplitError, match="1 folds; valid: at least 2"):
            splits.assign(random_faces(0, 60, 30), method, folds=1)


def test_a_recipe_names_every_method_and_the_reverse():
    assert set(get_args(Split.model_fields["method"].annotation)) == set(splits.METHODS)


@pytest.mark.parametrize("name", splits.METHODS)
class TestEveryMethod:
    def test_every_face_gets_a_part_and_the_same_one_again(self, name):
        faces = random_faces(0, 400, 150)
        if name == "partition":
            faces = splits.assign(faces, "subjects")
        first, again = (splits.assign(faces, name, seed=7)["split"] for _ in range(2))
        assert first.notna().all() and set(first) == {"train", "val", "test"}
        assert first.equals(again)
        shuffled = faces.sample(frac=1, random_state=5)
        assert splits.assign(shuffled, name, seed=7)["split"].sort_index().equals(first)

    def test_reports_can_describe_it(self, name):
        asked = Split(method=name, test_fold=1, folds=4, seed=3).model_dump()
        method = splits.METHODS[name]
        texts = [method.protocol, method.study, method.sentence]
        filled = [text.format(together="TOGETHER", **asked) for text in texts]
        assert all(filled) and "{" not in "".join(filled)
        assert ("1" in filled[0]) == method.has_folds
