"""The way from a messy folder to a trained, audited model: each case ends in a result, or in one message."""

import re
import shutil

import pandas as pd
import pytest
from PIL import Image, ImageOps

import mien
from messy import CASES, COUNT
from mien.base.errors import MienError
from mien.base.table import read_faces_table
from mien.cli import main
from test_docs import BLOCKS, SMALL, commands_of

TINY = [change for change in SMALL if change.split(".")[0] not in ("data", "split")]
TINY = [change for change in TINY if change.split("=")[0] not in ("trainer.batch_size", "optim.warmup", "model.freeze")]
"""A network and a length of training that take seconds; what follows from the number of faces stays open."""


@pytest.fixture(scope="module")
def pictures(drawn):
    """600 different pictures: drawn faces, whole and in parts, and their mirror images."""
    found = []
    for path in sorted(drawn.rglob("*.jpg"))[:150]:
        with Image.open(path) as image:
            whole = image.convert("RGB").resize((64, 64))
        part = whole.crop((8, 0, 64, 56)).resize((64, 64))
        found += [whole, ImageOps.mirror(whole), part, ImageOps.mirror(part)]
    return found


def write(folder, pictures):
    folder.mkdir()
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.jpg")


def run(*words):
    """Runs `mien WORDS`; returns the status."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return stop.value.code or 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_messy_set_is_read_or_refused_in_one_message(case, pictures, tmp_path, capsys):
    write(tmp_path / "photos", pictures[:COUNT])
    given = case.make(tmp_path)
    out = tmp_path / "faces.csv"
    root = None if case.root is None else tmp_path / case.root
    options = [word for theirs, ours in case.map.items() for word in ("--map", f"{theirs}={ours}")]
    options += [] if root is None else ["--root", root]
    status = run("faces", "csv", given, *options, "--out", out)
    shown = capsys.readouterr()
    if case.kept is None:
        assert status == 1 and re.search(case.words, shown.err), shown.err
        assert shown.err.startswith("mien: ") and "Traceback" not in shown.err
        assert "np." not in shown.err
        with pytest.raises(MienError) as error:
            mien.faces("csv", given, root=root, map=case.map)
        assert str(error.value) in shown.err
        return
    assert status == 0, shown.err
    faces = mien.faces("csv", given, root=root, map=case.map)
    reasons = " ".join(entry["reason"] for entry in faces.attrs["ledger"]["entries"])
    assert re.search(case.words, reasons), reasons
    pd.testing.assert_frame_equal(read_faces_table(out), faces, check_dtype=False)
    assert len(faces) == case.kept
    assert faces["gender"].notna().sum() == (case.kept if case.genders is None else case.genders)
    known = (faces["age"].notna() | faces["age_from"].notna()).sum()
    assert known == (case.kept if case.years is None else case.years)
    if "no images are there" not in reasons:
        folder = root or (given if given.is_dir() else given.parent)
        assert all((folder / path).is_file() for path in faces["path"])


def labels(count, **columns):
    made = {"file": [f"{number}.jpg" for number in range(count)]}
    made |= {
        "sex": [("m", "f")[number % 2] for number in range(count)],
        "age": [5 + number % 60 for number in range(count)],
    }
    return pd.DataFrame(made | {"person": [f"p{number // 4}" for number in range(count)]} | columns)


@pytest.fixture
def here(pictures, tmp_path, monkeypatch):
    """Writes `photos/` with so many faces and their labels, and works beside it."""

    def make(count, **columns):
        write(tmp_path / "photos", pictures[:count])
        labels(count, **columns).to_csv(tmp_path / "photos" / "labels.csv", index=False)
        monkeypatch.chdir(tmp_path)

    return make


def documented(*verbs):
    """The commands of the guide with these verbs."""
    page = [block for block in BLOCKS if block.page.name == "csv.md" and block.language == "bash"]
    found = [words[1:] for block in page for words in commands_of(block)]
    return [words for words in found if words[0] in verbs]


def follow(*verbs):
    """Runs the commands of the guide, with a tiny network; returns the first status that is not 0."""
    for words in documented(*verbs):
        more = [word for change in TINY for word in ("--set", change)] if words[0] in ("train", "preview") else []
        if status := run(*words, *more):
            return status
    return 0


@pytest.mark.parametrize("count", [600, 60])
def test_the_commands_of_the_guide_run_on_any_number_of_faces(count, here, capsys):
    here(count)
    assert follow("faces", "eda", "train", "report", "predict", "audit") in (0, 3), capsys.readouterr().err
    shown = capsys.readouterr().out
    assert f"chosen for {count} labelled faces: tasks gender, age, batches of {16 if count == 600 else 8}" in shown
    recipe = mien.Run("runs/mine").recipe
    assert not recipe.auto and recipe.trainer.batch_size == (16 if count == 600 else 8)
    # The preview shows the parts of the run.
    from mien.training.fit import prepare_faces

    assert mien.Run("runs/mine").info["chosen"].startswith("chosen for")
    again = mien.Run("again")
    again.begin(recipe)
    pd.testing.assert_series_equal(
        prepare_faces(again, recipe, mien.Run("runs/mine").folder.parent.parent / "photos")["split"],
        mien.Run("runs/mine").faces["split"],
    )


def test_twelve_faces_are_too_few_and_the_message_says_how_many_are_needed(here, capsys):
    here(12)
    assert follow("faces", "eda") == 0
    assert follow("train") == 1
    told = capsys.readouterr().err
    assert "12 faces are too few to train on: gender has 12 labelled faces (female 6, male 6) and needs 40" in told
    assert "mien predict FOLDER --crops" in told


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"sex": "f"}, "gender has 60 labelled faces .female 60, male 0.*at least 10 of each gender"),
        ({"person": "p"}, "leaves a part of the 60 faces empty"),
    ],
)
def test_what_cannot_be_learnt_says_so(columns, words, here, capsys):
    here(60, **({"age": ""} | columns))
    assert follow("faces") == 0
    assert follow("train") == 1
    assert re.search(words, capsys.readouterr().err)


def test_a_poor_run_is_called_one_and_its_suggestions_are_refused(here, capsys):
    here(60)
    assert follow("faces", "train") == 0
    assert re.search(
        r"gender accuracy .* than always predicting the majority class .*nothing shows", capsys.readouterr().out
    )
    report = mien.audit_data("faces.parquet", "photos", "runs/mine", out="checked")
    (check,) = (check for check in report.checks if check.name == "labels.gender")
    assert check.level == "not checked" and "Labels of gender were not checked" in check.message
    shutil.rmtree("checked")
