"""Rows to files."""

import io
import json
import os

import pandas as pd
import pytest
from PIL import Image

from mien.base.errors import MienError
from mien.prediction.outputs import Journal, RowsFile, StandardOutput, check_output, read_coco

COLUMNS = ["file", "face_index", "status", "p_female", "quality"]
ROWS = [
    {"file": 'a, "b"\n.jpg', "face_index": 0, "status": "ok", "p_female": 0.25, "quality": ""},
    {"file": "c.jpg", "status": "truncated"},
]


@pytest.mark.parametrize("ending", [".csv", ".json", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_table_back(tmp_path, ending):
    path = tmp_path / "new" / f"out{ending}"
    with RowsFile(path, COLUMNS) as write:
        for row in ROWS * 1500:
            write(row)
    read = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".jsonl": lambda p: pd.read_json(p, lines=True)}
    table = (read | {".json": pd.read_json})[ending](path)
    assert list(table.columns) == COLUMNS and len(table) == 3000
    assert table["file"][0] == ROWS[0]["file"] and table["p_female"][0] == 0.25
    assert table["face_index"].isna().sum() == table["p_female"].isna().sum() == 1500


def test_a_file_without_rows_has_its_columns(tmp_path):
    for ending in (".csv", ".parquet"):
        with RowsFile(tmp_path / f"out{ending}", COLUMNS):
            pass
    with RowsFile(tmp_path / "out.json", COLUMNS):
        pass
    assert json.loads((tmp_path / "out.json").read_text()) == []
    assert list(pd.read_csv(tmp_path / "out.csv")) == list(pd.read_parquet(tmp_path / "out.parquet")) == COLUMNS


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_an_error_leaves_what_was_there(tmp_path, ending):
    path = tmp_path / f"out{ending}"
    path.write_text("before")
    with pytest.raises(RuntimeError), RowsFile(path, COLUMNS) as write:
        write(ROWS[0])
        raise RuntimeError
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_names_that_are_no_text_can_be_written(tmp_path, ending):
    with RowsFile(tmp_path / f"out{ending}", COLUMNS) as write:
        write(ROWS[1] | {"file": b"caf\xe9.jpg".decode("utf-8", "surrogateescape")})
    content = (tmp_path / f"out{ending}").read_bytes()
    if ending == ".csv":
        assert b"caf\\udce9.jpg" in content, "so that the table stays text, and can be read"
    if ending == ".jsonl":
        assert json.loads(content)["file"] == "caf\udce9.jpg"


def test_an_output_that_exists_is_refused_unless_told(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("x")
    with pytest.raises(MienError, match="exists; use --overwrite to replace it"):
        check_output(path, overwrite=False)
    check_output(path, overwrite=True)
    with pytest.raises(MienError, match="unknown extension '.xlsx'; valid: .csv, .parquet, .json, .jsonl"):
        check_output(tmp_path / "out.xlsx", overwrite=False)
    with pytest.raises(MienError, match="is a folder"):
        (tmp_path / "dir.csv").mkdir()
        check_output(tmp_path / "dir.csv", overwrite=True)


ASKED = {"list of images": "abc", "model": "def"}


def journal(path, images=10, asked=ASKED, overwrite=False):
    return Journal(path, asked, images, 4, overwrite)


def answers(number):
    return [ROWS[0] | {"file": f"caf\udce9 {number}", "face_index": face} for face in range(1 + number % 3)]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_journal_goes_on_after_the_last_whole_batch_and_ends_in_the_same_table(tmp_path, ending):
    whole, out = tmp_path / f"whole{ending}", tmp_path / f"out{ending}"
    with RowsFile(whole, COLUMNS) as write:
        for number in range(10):
            for row in answers(number):
                write(row)
    for begun, until in ((0, 3), (0, 6), (4, 9), (8, 10)):
        with journal(out) as kept:
            assert kept.done == begun and list(kept.images()) == [answers(number) for number in range(begun)]
            for number in range(begun, until):
                kept.add(answers(number))
        assert not out.exists()
        if until < 10:
            with (tmp_path / f"out{ending}.part").open("ab") as file:
                file.write(b'[{"file": "half a li')
    with journal(out) as kept:
        assert kept.done == 10
        kept.finish(COLUMNS)
    assert out.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {whole.name, out.name}


def test_a_journal_of_another_command_is_refused_or_begun_anew(tmp_path, capsys):
    out = tmp_path / "out.csv"
    with journal(out) as kept:
        for number in range(8):
            kept.add(answers(number))
        with pytest.raises(MienError, match="out.csv.part' is in use by another process"), journal(out):
            pass
    other = {"list of images": "abc", "model": "another"}
    with pytest.raises(MienError, match="with another model; valid: rerun the same command.*--overwrite"):
        journal(out, asked=other).__enter__()
    with journal(out, overwrite=True) as kept:
        assert kept.done == 8, "--overwrite may have been part of the command that was interrupted"
    with journal(out, asked=other, overwrite=True) as kept:
        assert kept.done == 0 and "starting over, the interrupted command had another model" in capsys.readouterr().out
    for strange in ("mine\n", "[1]\n", '{"a": 1}\n'):
        (tmp_path / "out.csv.part").write_text(strange)
        with pytest.raises(MienError, match="is not an unfinished table of mien"):
            journal(out, overwrite=True).__enter__()
        assert (tmp_path / "out.csv.part").read_text() == strange


def test_a_journal_whose_process_died_after_the_table_was_there_is_removed(tmp_path):
    out = tmp_path / "out.csv"
    with journal(out, images=1) as kept:
        kept.add(ROWS)
        kept.finish(COLUMNS)
    kept.path.write_text(json.dumps(ASKED | {"images": 1}) + "\n" + json.dumps(ROWS) + "\n")
    os.utime(kept.path, (0, 0))
    check_output(out, overwrite=True)
    assert not kept.path.exists()


@pytest.mark.parametrize("name", ["-", "-.jsonl"])
def test_standard_output_holds_the_table_alone(name, capsys):
    output = StandardOutput(name, COLUMNS)
    for row in ROWS:
        output.add([row, row | {"time": 0.5}])
    shown = io.StringIO(capsys.readouterr().out)
    table = pd.read_csv(shown) if name == "-" else pd.read_json(shown, lines=True)
    assert list(table.columns) == COLUMNS and table["status"].tolist() == ["ok", "truncated"]


def test_coco_has_each_image_and_each_face(tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    a, gone = str(tmp_path / "a.png"), str(tmp_path / "gone.png")
    box = {"x": 1.0, "y": 2.0, "w": 10.0, "h": 20.0}
    rows = [
        {"file": a, "status": "ok", "gender": "male", "age": 30.0, "detector_score": 0.9} | box,
        {"file": a, "status": "ok", "gender": None, "age": 3.0},
        {"file": gone, "status": "missing"},
    ]
    with RowsFile(tmp_path / "faces.coco.json", ["file", "status", "gender", "age", *box]) as write:
        for row in rows:
            write(row)
    found = json.loads((tmp_path / "faces.coco.json").read_text())
    assert [(image["id"], image.get("width"), image.get("status")) for image in found["images"]] == [
        (1, 60, None),
        (2, None, "missing"),
    ]
    names = {category["id"]: category["name"] for category in found["categories"]}
    first, second = found["annotations"]
    assert first["bbox"] == [1, 2, 10, 20] and first["area"] == 200 and first["score"] == 0.9
    assert names[first["category_id"]] == "male" and first["attributes"] == {"gender": "male", "age": 30.0}
    assert names[second["category_id"]] == "face" and second["bbox"] == [0, 0, 60, 40]
    assert {one["image_id"] for one in found["annotations"]} == {1}
    back = read_coco(tmp_path / "faces.coco.json")
    assert [(row["file"], row["status"], row.get("age")) for row in back] == [
        *((gone, "missing", None), (a, "ok", 30.0), (a, "ok", 3.0))
    ]
