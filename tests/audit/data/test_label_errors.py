"""Likely label errors: which predictions count, and how labels are ranked."""

import json

import numpy as np
import pandas as pd
import pytest
from cleanlab.filter import find_label_issues

from mien.audit.data.label_errors import out_of_fold, suggest
from mien.base.errors import MienError
from mien.base.labels import AGE_GROUPS
from mien.base.table import check_faces, write_table
from mien.runs.run import open_run

RECIPE = "data: {source: csv, root: nowhere}\n"


def make_faces(n=300, seed=0):
    rng = np.random.default_rng(seed)
    return check_faces(
        pd.DataFrame(
            {
                "face": [f"f{at:04d}" for at in rng.permutation(n)],
                "path": [f"{at}.jpg" for at in range(n)],
                "gender": rng.choice(["female", "male"], n),
                "age": rng.integers(0, 90, n),
            }
        )
    )


def make_answers(faces, seed=1):
    """Answers that agree with most labels."""
    rng = np.random.default_rng(seed)
    right = np.where(rng.random(len(faces)) < 0.95, 0.5 + rng.random(len(faces)) / 2, rng.random(len(faces)) / 2)
    age = np.clip(faces["age"] + rng.normal(0, 5, len(faces)), 0, 100)
    return pd.DataFrame(
        {
            "face": faces["face"],
            "status": "ok",
            "p_female": np.where(faces["gender"] == "female", right, 1 - right),
            "age": age,
            "age_low": age - 6,
            "age_high": age + 6,
        }
    )


def make_run(folder, faces, split, predictions, **info):
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "run.json").write_text(json.dumps({"status": "finished", **info}))
    write_table(faces.assign(split=split), folder / "faces.parquet")
    write_table(predictions, folder / "predictions.parquet")
    return open_run(folder)


class TestOutOfFold:
    def test_faces_of_the_training_part_are_ignored_and_counted(self, tmp_path):
        faces = make_faces(60)
        predictions = make_answers(faces)
        split = np.repeat(["train", "val", "test"], [30, 10, 20])
        found = out_of_fold(faces, [make_run(tmp_path / "a", faces, split, predictions.iloc[10:])], None)
        assert (found.predictions["runs"] > 0).tolist() == [False] * 30 + [True] * 30
        assert found.predictions["p_female"].iloc[30:].tolist() == predictions["p_female"].iloc[30:].tolist()
        assert found.used.to_dict("records") == [
            {
                "run": "a",
                "used": 30,
                "trained_on": 20,
                "shared": 0,
                "unreadable": 0,
                "no_prediction": 10,
            }
        ]

    def test_what_two_runs_say_is_averaged(self, tmp_path):
        faces = make_faces(60)
        one, two = make_answers(faces, 1), make_answers(faces, 2)
        runs = [
            make_run(tmp_path / "a", faces, np.repeat(["train", "test"], 30), one),
            make_run(tmp_path / "b", faces, np.repeat(["test", "train", "test"], 20), two),
        ]
        answers = out_of_fold(faces, runs, None).predictions
        assert answers["runs"].tolist() == [1] * 20 + [0] * 10 + [1] * 10 + [2] * 20
        mean = (one["age"] + two["age"]) / 2
        assert answers["age"].iloc[40:].tolist() == pytest.approx(mean.iloc[40:].tolist())
        assert answers["age"].iloc[:20].tolist() == pytest.approx(two["age"].iloc[:20].tolist())

    def test_a_near_duplicate_or_subject_of_a_training_face_does_not_count(self, tmp_path):
        faces = make_faces(60).assign(subject=["s"] + [None] * 58 + ["s"])
        groups = np.arange(60)
        groups[1] = groups[58] = 99
        split = np.repeat(["train", "test"], 30)
        found = out_of_fold(faces, [make_run(tmp_path / "a", faces, split, make_answers(faces))], groups)
        assert found.predictions["runs"].tolist() == [0] * 30 + [1] * 28 + [0] * 2
        assert found.used["shared"].tolist() == [2]

    def test_an_unreadable_face_has_no_answer(self, tmp_path):
        faces = make_faces(60)
        predictions = make_answers(faces).assign(status=["missing"] * 5 + ["ok"] * 55)
        found = out_of_fold(faces, [make_run(tmp_path / "a", faces, "test", predictions)], None)
        assert (found.predictions["runs"] == 0).sum() == 5
        assert found.used["unreadable"].tolist() == [5]

    def test_a_run_that_learnt_from_another_on_the_same_source(self, tmp_path):
        faces = make_faces(60)
        lineage = {"weights": "package", "teachers": [{"run": "t", "dataset": "csv", "from": None}]}
        run = make_run(tmp_path / "a", faces, "test", make_answers(faces), lineage=lineage)
        with pytest.raises(
            MienError, match="'a' was initialised or distilled from run 't', which was also trained on 'csv'"
        ):
            out_of_fold(faces, [run], None)

    def test_a_run_of_other_faces(self, tmp_path):
        faces = make_faces(60)
        run = make_run(tmp_path / "a", faces, "test", make_answers(faces))
        with pytest.raises(MienError, match="'a' predicted none of the 60 faces"):
            out_of_fold(faces.assign(face=faces["face"] + "x"), [run], None)


class TestSuggest:
    def test_planted_errors_come_first(self):
        faces = make_faces(600)
        answers = make_answers(faces).drop(columns=["face", "status"]).assign(runs=1)
        answers["p_female"] = np.where(faces["gender"] == "female", 0.9, 0.1)
        wrong = np.random.default_rng(3).permutation(600)[:20]
        flipped = faces["gender"].astype("object")
        flipped.iloc[wrong] = flipped.iloc[wrong].map({"female": "male", "male": "female"})
        moved = faces["age"].to_numpy().copy()
        moved[wrong] += np.where(moved[wrong] > 50, -40, 40)
        corrupted = check_faces(faces.assign(gender=flipped, age=moved, age_group=None))
        answers["age"] = faces["age"] + np.random.default_rng(4).uniform(-5, 5, 600)
        answers["age_low"], answers["age_high"] = answers["age"] - 6, answers["age"] + 6
        found = suggest(
            corrupted, answers.assign(**{f"p_{group}": np.nan for group in faces["age_group"].cat.categories})
        )
        for column in ("gender", "age"):
            rows = found[found["column"] == column]
            assert set(rows["face"]) == set(faces["face"].iloc[wrong])
            assert rows["flagged"].all()
            assert rows["rank"].tolist() == list(range(1, 21))
        suggested = found[found["column"] == "gender"].set_index("face")["suggested"]
        assert (suggested == faces.set_index("face")["gender"][suggested.index]).all()

    def test_flags_are_cleanlabs_and_ranks_those_of_self_confidence(self):
        faces = make_faces(800)
        answers = make_answers(faces).assign(runs=1)
        for group in faces["age_group"].cat.categories:
            answers[f"p_{group}"] = np.nan
        rows = suggest(faces, answers)
        rows = rows[rows["column"] == "gender"]
        female = answers.set_index("face")["p_female"].reindex(rows["face"]).to_numpy()
        given = np.where(rows["given"] == "female", female, 1 - female)
        assert (given < 0.5).all() and (np.diff(given) >= 0).all()
        labels = (faces["gender"] == "male").astype(int).to_numpy()
        p = np.column_stack([answers["p_female"], 1 - answers["p_female"]])
        issues = find_label_issues(labels, p, n_jobs=1)
        assert set(rows.loc[rows["flagged"], "face"]) == set(faces["face"][issues])

    def test_age_groups_of_faces_without_years(self):
        faces = make_faces(400)
        alone = check_faces(faces.assign(age=np.nan))
        answers = pd.DataFrame({"runs": 1}, index=faces.index)
        codes = faces["age_group"].cat.codes.to_numpy()
        for at, group in enumerate(faces["age_group"].cat.categories):
            answers[f"p_{group}"] = np.where(codes == at, 0.86, 0.02)
        for column in ("p_female", "age", "age_low", "age_high"):
            answers[column] = np.nan
        wrong = alone["age_group"].astype("object")
        wrong.iloc[7] = "60+" if wrong.iloc[7] != "60+" else "0-2"
        found = suggest(check_faces(alone.assign(age_group=wrong)), answers)
        assert found[["column", "face", "suggested"]].to_numpy().tolist() == [
            ["age_group", faces["face"].iloc[7], faces["age_group"].iloc[7]]
        ]

    def test_ages_known_as_ranges(self):
        table = {"age": ["20-29", "20-29", "20-29", "60+", "50"], "age_group": [None, None, "25-32", None, None]}
        faces = check_faces(pd.DataFrame({"face": list("abcde"), "path": "x.jpg", **table}))
        answers = pd.DataFrame({"runs": 1, "p_female": np.nan, "age": [31.0, 45, np.nan, 30, 45]})
        answers = answers.assign(age_low=[25.0, 40, np.nan, 25, 40], age_high=[35.0, 50, np.nan, 35, 51])
        answers = answers.assign(**dict.fromkeys((f"p_{group}" for group in AGE_GROUPS), np.nan))
        found = suggest(faces, answers)
        years = found[found["column"] == "age"].set_index("face")
        # 45 is 16 years above 29, with 5 years down to its interval's end; 31 is within its interval of 29.
        assert years["given"].to_dict() == {"b": "20-29", "d": "60+"}
        assert years["score"]["b"] == pytest.approx(1 / (1 + 16 / 5)) and years["flagged"].all()

    def test_the_order_of_the_rows_changes_nothing(self):
        faces = make_faces(500)
        answers = make_answers(faces).assign(runs=1)
        for group in faces["age_group"].cat.categories:
            answers[f"p_{group}"] = np.nan
        order = np.random.default_rng(5).permutation(500)
        one = suggest(faces, answers)
        other = suggest(faces.iloc[order].reset_index(drop=True), answers.iloc[order].reset_index(drop=True))
        pd.testing.assert_frame_equal(one, other)
