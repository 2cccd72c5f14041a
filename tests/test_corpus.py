"""Each item of the corpus given to each command that can meet it: reported by name and reason, never a traceback.

Images go through a command together, as they would in a folder: one that is bad must not stop the others.
"""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from corpus import NOT_TEXT, Picture, pictures, tables, yamls
from mien.base.table import read_table, write_table
from mien.cli import main
from mien.data import images

PICTURES = pictures()
TABLES = {table.name: table for table in tables()}
YAMLS = {item.name: item for item in yamls()}
REFUSED = [name for name, item in TABLES.items() if item.words is not None]


def escaped(name):
    """A name as a table holds it."""
    return name.encode("utf-8", "backslashreplace").decode()


def each(names):
    return pytest.mark.parametrize("name", list(names), ids=ascii)


def mien(*arguments):
    """Exit status of the command line."""
    try:
        return main([str(argument) for argument in arguments]) or 0
    except SystemExit as stop:
        return stop.code or 0


@pytest.fixture(scope="module", autouse=True)
def denied():
    """Nobody may open `denied.jpg`; simulated, since root may open anything."""
    real = Image.open

    def opened(file, *rest, **options):
        if str(file).endswith("denied.jpg"):
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images.Image, "open", opened)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("corpus") / "photos"
    home.mkdir()
    for name, picture in PICTURES.items():
        picture.write(home / name)
    (home / "again").symlink_to(home, target_is_directory=True)
    return home


@pytest.fixture(scope="module")
def faces(folder):
    """A faces table of all items whose names a table can hold."""
    names = [name for name in PICTURES if name != NOT_TEXT]
    gender = np.where(np.arange(len(names)) % 2, "female", "male")
    table = pd.DataFrame({"face": [f"f{n}" for n in range(len(names))], "path": names, "gender": gender, "age": 30.0})
    return write_table(table.assign(subject=table["face"]), folder.parent / "faces.parquet")


@pytest.fixture(scope="module")
def predicted(folder):
    """The table of `mien predict`, for crops and for photographs."""
    found = {}
    for crops in ((), ("--crops",)):
        listed = [folder / name for name in PICTURES if name != "folder.jpg"] + [f"{folder}/again/../folder.jpg/x.jpg"]
        out = folder.parent / f"predicted{len(crops)}.csv"
        assert mien("predict", *listed, *crops, "--out", out, "--threads", 1) == 2
        found[bool(crops)] = read_table(out)
    return found


@each(PICTURES)
def test_predict(predicted, folder, name):
    place = str(folder / escaped(name)) if name != "folder.jpg" else f"{folder}/again/../folder.jpg/x.jpg"
    for crops, table in predicted.items():
        rows = table[table["file"] == place]
        assert len(rows) == 1 if crops else len(rows) >= 1
        right = PICTURES[name].statuses | (frozenset() if crops else {"no face"} & _readable(PICTURES[name]))
        assert set(rows["status"]) <= right
        assert rows["p_female"].notna().all() == (rows["status"] == "ok").all()


def _readable(picture: Picture):
    return {"no face"} if "ok" in picture.statuses else set()


def test_a_folder_is_walked_once_and_its_table_read_back(folder, tmp_path, capsys):
    out = tmp_path / "table.csv"
    assert mien("predict", folder, "--crops", "--out", out) == 2
    table = read_table(out)
    endings = (".gif", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp", ".bmp")
    there = {name for name in PICTURES if name.endswith(endings) and name != "folder.jpg"}
    assert {Path(file).name for file in table["file"]} == {escaped(name) for name in there}
    assert sum(map(int, re.findall(r"[:,] (\d+) ", capsys.readouterr().out.split("images")[1]))) == len(table)
    write_table(table[["file"]].assign(file=table["file"].map(lambda file: Path(file).name)), folder / "again.csv")
    again = tmp_path / "again.csv"
    assert mien("predict", folder / "again.csv", "--crops", "--out", again) == 2
    same = table.merge(read_table(again), on="file", suffixes=("", "_again"))
    assert (same["status"] == same["status_again"]).sum() == len(table) - 1, "all but the name that is no text"


@pytest.fixture(scope="module")
def explained(folder):
    """Explained: all that cannot be read, and a few that can."""
    listed = [name for name, item in PICTURES.items() if "ok" not in item.statuses and name != "folder.jpg"]
    listed += [NOT_TEXT]
    out = folder.parent / "explained"
    assert mien("explain", *(folder / name for name in listed), "--crops", "--out", out) == 0
    return listed, read_table(out / "explanations.csv").set_index("file"), (out / "explain.html").read_text("utf-8")


def test_explain(explained, folder):
    listed, table, html = explained
    for name in listed:
        assert set(np.atleast_1d(table.loc[str(folder / escaped(name)), "status"])) <= PICTURES[name].statuses, name
    assert "<img src=x" not in html


def test_faces_and_eda_name_and_count_every_image(folder, faces, tmp_path):
    assert mien("eda", faces, "--root", folder, "--out", tmp_path / "eda") == 0
    bad = read_table(tmp_path / "eda" / "unreadable_files.csv").set_index("path")["status"]
    for name, picture in PICTURES.items():
        if name != NOT_TEXT:
            assert bad.get(name, "ok") in picture.statuses, name
    assert read_table(tmp_path / "eda" / "unreadable.csv")["images"].sum() == len(bad)


def test_audit_data_names_and_counts_every_image(folder, faces, tmp_path):
    assert mien("audit", "data", faces, "--root", folder, "--out", tmp_path / "audit") in (0, 3)
    found = read_table(tmp_path / "audit" / "image_quality.csv")
    bad = found[found["path"].isin([name for name in PICTURES if "ok" not in PICTURES[name].statuses])]
    missing = {name for name, item in PICTURES.items() if name != NOT_TEXT and "ok" not in item.statuses}
    assert missing <= set(bad["path"]), missing - set(bad["path"])


def test_a_folder_per_class_of_it_becomes_a_table(folder, tmp_path, capsys):
    (tmp_path / "classes").mkdir()
    (tmp_path / "classes" / "female").symlink_to(folder, target_is_directory=True)
    assert mien("faces", "csv", tmp_path / "classes", "--out", tmp_path / "faces.csv") == 0
    names = {Path(path).name for path in read_table(tmp_path / "faces.csv")["path"]}
    assert {"line\nbreak.png", "=1+1.png", "[bold]markup.png", "empty.jpg", "x" * 251 + ".png"} <= names
    assert "not valid UTF-8" in capsys.readouterr().out and NOT_TEXT not in names


@pytest.fixture(scope="module")
def run(folder, faces):
    """A run that trained on the corpus itself, since it was told to bear so many bad images."""
    out = folder.parent / "run"
    changes = [f"data.root={folder}", f"data.faces={faces}", "data.max_unreadable=0.9", "init.weights=none"]
    changes += ["model.backbone=test_byobnet", "model.image_size=32", "trainer.epochs=2", "trainer.workers=0"]
    changes += ["split.near_duplicates=false", "tasks=[gender]", "split.val=0.3", "split.test=0.3"]
    settings = [f"--set={change}" for change in _SOURCE + changes]
    assert mien("train", "demo-gender", *settings, "--out", out) == 0
    return out


_SOURCE = ["data.source=csv", "data.labels=all", "split.method=random"]


def test_train_counts_the_bad_ones_and_stops_at_its_bound(run, folder, faces, tmp_path, capsys):
    unreadable = read_table(run / "unreadable.csv").set_index("path")["reason"]
    for name, picture in PICTURES.items():
        if name != NOT_TEXT and "ok" not in picture.statuses:
            assert unreadable[name].partition(":")[0] in picture.statuses, name
    changes = [*_SOURCE, f"data.root={folder}", f"data.faces={faces}", "split.near_duplicates=false"]
    assert mien("train", "demo-gender", *(f"--set={change}" for change in changes), "--out", tmp_path / "run") == 1
    shown = capsys.readouterr().err
    assert re.search(rf"{len(unreadable)} of \d+ images cannot be read \(.*more than data.max_unreadable = 0.01", shown)


def test_evaluate_gives_every_face_a_row(run, folder, faces):
    assert mien("evaluate", run, "--faces", faces, "--root", folder, "--allow-leaks") == 0
    rows = read_table(run / "on-faces" / "predictions.parquet").set_index("file")["status"]
    for name, picture in PICTURES.items():
        if name != NOT_TEXT:
            assert rows[name] in picture.statuses, name


def test_the_service_answers_each_upload():
    from starlette.testclient import TestClient

    from mien import Predictor
    from mien.service.app import make_app

    with TestClient(make_app(Predictor(threads=1)), base_url="http://localhost") as client:
        for name, picture in PICTURES.items():
            if not callable(picture.content):
                answer = client.post("/v1/predict?crops=true", files=[("images", ("x", picture.content))])
                right = picture.statuses if name != "denied.jpg" else {"ok"}
                assert answer.status_code in (200, 422), name
                if answer.status_code == 200:
                    assert {row["status"] for row in answer.json()["rows"]} <= right, name
                else:
                    assert "ok" not in right or len(right) > 1, name


@each(TABLES)
def test_tables_are_read_or_refused_in_one_message(name, tmp_path, capsys):
    table = TABLES[name]
    (tmp_path / name).write_bytes(table.content)
    status = mien("faces", "csv", tmp_path / name, "--out", tmp_path / "out.csv")
    shown = capsys.readouterr()
    if table.words is None:
        assert status == 0, shown.err
        assert mien("eda", tmp_path / "out.csv", "--out", tmp_path / "eda") == 0
        back = read_table(tmp_path / "out.csv")
        assert len(back) and list(back["path"].astype(str)) == list(read_table(tmp_path / name)["path"].astype(str))
        assert "\x1b" not in shown.out + capsys.readouterr().out
    else:
        assert status == 1 and re.search(table.words, shown.err), shown.err
        assert "Traceback" not in shown.err and len(shown.err) < 4000


@each(REFUSED)
def test_no_command_falls_over_a_table(name, tmp_path, run, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(TABLES[name].content)
    train = ["train", "demo-gender", "--out", "new", *(f"--set={change}" for change in _SOURCE)]
    for command in (
        ["eda", name],
        ["audit", "data", name, "--root", ".", "--out", "audit"],
        ["audit", "model", name, "--faces", run / "faces.parquet", "--out", "audit"],
        ["audit", "model", run / "predictions.parquet", "--faces", name, "--out", "audit"],
        ["predict", name, "--crops"],
        ["evaluate", run, "--faces", name, "--root", "."],
        ["explain", "--faces", name, "--root", "."],
        [*train, f"--set=data.faces={name}", "--set=data.root=."],
        [*train, f"--set=data.root={name}"],
    ):
        status = mien(*command)
        shown = capsys.readouterr()
        # A list of images may lack the columns of faces, and may name what is not there.
        assert status == 1 or (command[0] == "predict" and status in (0, 2)), command
        assert status != 1 or (shown.err.startswith("mien: ") and len(shown.err) < 4000), command


@each(YAMLS)
def test_recipes_studies_spaces_and_limits_are_refused_in_one_message(name, tmp_path, run, capsys):
    item = YAMLS[name]
    (tmp_path / name).write_bytes(item.content)
    for command in (
        ["train", tmp_path / name, "--out", tmp_path / "run"],
        ["study", tmp_path / name, "--plan"],
        ["tune", "demo-gender", "--space", tmp_path / name, "--out", tmp_path / "search"],
        ["preview", tmp_path / name, "--out", tmp_path / "preview.html"],
        ["audit", "model", run / "predictions.parquet", "--faces", run / "faces.parquet", "--limits", tmp_path / name],
    ):
        assert mien(*command) == 1, command
        shown = capsys.readouterr().err
        assert shown.startswith("mien: ") and len(shown) < 20_000, command
        assert item.words is None or re.search(item.words, shown), shown
    assert not Path("owned").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("run.json", b""),
        ("run.json", b"[]"),
        ("run.json", b'{"status": "finished"'),
        ("run.json", b"\xff\xfe"),
        ("run.json", b"[" * 100_000),
        ("metrics.csv", b""),
        ("metrics.csv", b"a,b\n1,2\n"),
        ("recipe.yaml", b"a: [\n"),
        ("recipe.yaml", b"\xff\xfe"),
        ("predictions.parquet", b"PAR1"),
        ("faces.parquet", b"PAR1"),
        ("log.csv", b"\0"),
        ("model.onnx", b"\x08\x01"),
        ("model.onnx", b""),
    ],
)
def test_damaged_runs_are_refused_by_the_file(run, tmp_path, capsys, file, content):
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / file).write_bytes(content)
    commands = [["report", copy, "--out", tmp_path / "r.html"]]
    if file == "model.onnx":
        commands = [["predict", "--model", copy, "x.png"]]
    if file in ("run.json", "recipe.yaml", "faces.parquet"):
        commands += [["evaluate", copy], ["publish", copy, tmp_path / "published", "--license", "mit"]]
    for command in commands:
        assert mien(*command) == 1, command
        shown = capsys.readouterr().err
        assert shown.startswith("mien: ") and file.partition(".")[0] in shown, shown


def test_the_corpus_is_as_large_as_promised():
    assert len(PICTURES) + len(TABLES) + len(YAMLS) >= 60
    assert os.sep not in "".join(PICTURES)
