"""`mien audit data`: what is found, the verdict, and the report in JSON."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage import data
from test_label_errors import make_answers, make_faces, make_run
from typer.testing import CliRunner

import mien
from mien.api.audit import audit_data
from mien.audit.data import findings
from mien.audit.data.checks import share_check
from mien.audit.data.label_errors import expected_precision
from mien.audit.data.schema import DataAuditReport, json_schema
from mien.base.errors import MienError
from mien.base.table import check_faces, write_table
from mien.cli.program import app


def checks(report):
    return {check.name: check for check in report.checks}


def levels(report, level):
    return {name for name, check in checks(report).items() if check.level == level}


def valid(report):
    """Checks what the schema alone does not say."""
    assert report == DataAuditReport.model_validate_json(report.to_json())
    assert report.passed == (not levels(report, "problem"))
    for check in report.checks:
        assert 0 <= check.count <= check.of
        if check.low is not None:
            assert check.low <= check.count / check.of <= check.high
    assert all(one.flagged <= one.suggested for one in report.suggestions)
    return report


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """60 different pictures, five of which are there twice, and one that is none."""
    root = tmp_path_factory.mktemp("photos")
    face = Image.fromarray(data.astronaut())
    rng = np.random.default_rng(0)
    for at in range(60):
        left, top = rng.integers(0, 300, 2)
        face.crop((left, top, left + 200, top + 200)).rotate(6 * at).save(root / f"{at}.png")
    for at in range(5):
        Image.open(root / f"{at}.png").save(root / f"again-{at}.jpg", quality=90)
    (root / "bad.jpg").write_text("no image")
    return root


@pytest.fixture
def faces(photos):
    rng = np.random.default_rng(1)
    paths = sorted(path.name for path in photos.iterdir())
    gender = rng.choice(["female", "male"], len(paths))
    return check_faces(pd.DataFrame({"face": paths, "path": paths, "gender": gender, "age": 30}))


def test_the_shipped_schema_is_that_of_the_report():
    shipped = Path(mien.__file__).parent / "audit" / "data" / "data.schema.json"
    assert json.loads(shipped.read_text("utf-8")) == json_schema()


def test_metadata_alone(tmp_path):
    report = valid(audit_data(make_faces(), None, out=tmp_path))
    assert report.passed and report.data.images is None
    assert {"duplicates", "images", "labels", "leaks.fold", "leaks.split"} <= levels(report, "not checked")
    assert (tmp_path / "report.json").read_text() == report.to_json()
    assert not (tmp_path / "review.html").exists()


def test_leaks_across_folds_and_parts(tmp_path):
    faces = make_faces(200).assign(fold=np.arange(200) % 2, split=["train", "val", "test", "test"] * 50)
    faces = faces.assign(gender="male", age=30, age_group=None)
    faces["subject"] = [f"s{at // 2}" if at < 6 else f"t{at}" for at in range(200)]
    report = valid(audit_data(faces, None, out=tmp_path))
    assert levels(report, "problem") == {"leaks.fold.subject", "leaks.split.subject"}
    assert checks(report)["leaks.fold.subject"].count == 6
    assert "6 faces have their subject in several folds." in report.summary


def test_subjects_that_contradict_themselves():
    rows = [("s1", "female", 5.0, None), ("s1", "male", 50.0, None), ("s2", "male", None, "0-2")]
    rows += [("s2", "male", None, "48-53"), ("s3", None, None, "25-32"), ("s3", "male", 60.0, None)]
    rows += [("s4", "male", None, "60+"), ("s4", "male", 95.0, None)]
    table = pd.DataFrame(rows, columns=["subject", "gender", "age", "age_group"])
    table = check_faces(table.assign(face=[f"f{at}" for at in range(8)], path="x.jpg"))
    found = findings.subjects(table)
    by_name = {check.name: check for check in found.checks}
    assert (by_name["subjects.gender"].count, by_name["subjects.gender"].of) == (1, 3)
    assert by_name["subjects.age"].count == 2
    # s2: at least 46 - 3 years, as ages between two groups belong to the nearer one.
    # s3: 28 at most lie between 32 and 60; s4: 60+ may be 95.
    assert found.tables["subjects"]["subject"].tolist() == ["s1", "s2"]
    assert found.tables["subjects"]["years_apart"].tolist() == [45, 43]


def test_ages(tmp_path):
    faces = make_faces(100).drop(columns="age_group")
    faces["age"] = [-1.0, 200.0, 115.0, 20.5, *[25.0] * 96]
    report = valid(audit_data(faces, None, out=tmp_path))
    assert levels(report, "problem") == {"ages.impossible"}
    assert checks(report)["ages.impossible"].count == 2
    assert {"ages.rare", "ages.fractions", "ages.heaps"} <= levels(report, "notice")
    wrong = make_faces(100).assign(age=[1.0] * 10 + [25.0] * 90, age_group="25-32")
    assert checks(audit_data(wrong, None, out=tmp_path, overwrite=True))["ages.group"].level == "problem"


def test_whipples_index():
    years = pd.Series(range(23, 63), dtype=float)
    assert findings.whipple(years) == (100, 8, 40)
    assert findings.whipple(pd.Series([30.0, 45.0, 12.0])) == (500, 2, 2)
    assert findings.whipple(pd.Series([25.9, 26.0])) == (250, 1, 2)


def test_whether_the_data_suffices_to_tell():
    assert share_check("x", "", 1, 10, 0.05).level == "notice"
    assert share_check("x", "", 200, 1000, 0.05).level == "problem"
    assert share_check("x", "", 4, 100, 0.05).level == "ok"
    assert share_check("x", "", 0, 0, 0.05).level == "not checked"


def test_pictures_and_duplicates(tmp_path, faces, photos):
    for at in range(5):
        faces.loc[faces["face"] == f"{at}.png", "gender"] = "female"
        faces.loc[faces["face"] == f"again-{at}.jpg", "gender"] = "male" if at < 3 else "female"
    faces["fold"] = (faces["face"] == "again-4.jpg").astype(int)
    report = valid(audit_data(faces, photos, out=tmp_path))
    found = checks(report)
    assert (found["duplicates.gender"].count, found["duplicates.gender"].of) == (3, 5)
    assert found["duplicates.gender"].level == "problem"
    assert found["leaks.fold.near-duplicate"].count == 2
    assert found["images.unusable"].example == "bad.jpg"
    assert report.data.images == 66
    images_ = pd.read_csv(tmp_path / "image_quality.csv").set_index("face")
    assert images_.loc["bad.jpg", "status"] == "not an image"
    assert "3 of 5 groups" in (tmp_path / "report.html").read_text()


def test_a_class_that_a_fold_lacks(tmp_path):
    faces = make_faces(200)
    faces = faces.assign(fold=(faces["gender"] == "male").astype(int))
    report = valid(audit_data(faces, None, out=tmp_path))
    assert "balance.fold.gender.classes" in levels(report, "problem")
    assert checks(report)["balance.fold.gender"].level == "notice"
    assert "Cramer's V 1.000" in checks(report)["balance.fold.gender"].message
    table = pd.read_csv(tmp_path / "balance.csv")
    assert table.loc[table["label"] == "gender", "faces"].sum() == 200


def test_the_same_in_any_order_of_rows(tmp_path, faces, photos):
    faces = faces.assign(fold=range(len(faces)), subject=[f"s{at // 2}" for at in range(len(faces))])
    shuffled = faces.sample(frac=1, random_state=2)
    split = np.where(np.arange(len(faces)) < 5, "train", "test")
    run = make_run(tmp_path / "run", faces, split, make_answers(faces))
    for table, out in ((faces, "one"), (shuffled, "other")):
        audit_data(table, photos, [run.folder], tmp_path / out)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert {"report.html", "report.json", "review.html", "suggestions.csv"} <= set(files)
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes(), name


def test_the_verb_says_so_by_its_status(tmp_path):
    good, bad = make_faces(100), make_faces(100).assign(age=-5.0, age_group=None)
    for table, status in ((good, 0), (bad, 3)):
        path = write_table(table, tmp_path / "faces.csv")
        words = ["audit", "data", str(path), "--out", str(tmp_path / "out")]
        result = CliRunner().invoke(app, [*words, "--overwrite"])
        assert result.exit_code == status, result.output
    refused = CliRunner().invoke(app, words)
    assert "has an earlier report; give another folder, or --overwrite" in str(refused.exception)
    assert "problem: 100 ages are below 0 or above 130 years" in result.output


def test_what_cannot_be_audited(tmp_path, photos):
    with pytest.raises(MienError, match="nothing to audit"):
        audit_data(make_faces().head(0), None, out=tmp_path)
    with pytest.raises(MienError, match="none of the 300 images"):
        audit_data(make_faces(), tmp_path, out=tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(MienError, match="is a file; give a folder"):
        audit_data(make_faces(), None, out=tmp_path / "file")


def test_predictions_no_better_than_a_constant_suggest_nothing(tmp_path):
    faces = make_faces()
    answers = make_answers(faces)
    split = np.where(np.arange(len(faces)) < 5, "train", "test")
    good = make_run(tmp_path / "good", faces, split, answers)
    shuffled = answers.assign(p_female=answers["p_female"].sample(frac=1, random_state=0).to_numpy())
    poor = make_run(tmp_path / "poor", faces, split, shuffled)
    found = checks(audit_data(faces, None, [good.folder], tmp_path / "a"))["labels.gender"]
    assert "of the contradictions, about" in found.message
    report = audit_data(faces, None, [poor.folder], tmp_path / "b")
    found = checks(report)["labels.gender"]
    assert found.level == "not checked" and "no better than always predicting" in found.message
    assert "gender" not in {suggestion.column for suggestion in report.suggestions}


def test_expected_precision():
    assert expected_precision(0.95, 0.05) == pytest.approx(1.0)
    assert expected_precision(0.8, 0.01) == pytest.approx(0.01 * (0.8 / 0.99) / 0.2)
