"""`mien predict` as a user runs it."""

import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from skimage import data

from mien.cli import main
from mien.prediction.outputs import Journal


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    home = tmp_path_factory.mktemp("photos")
    astronaut = data.astronaut()
    Image.fromarray(astronaut).save(home / "astronaut.png")
    Image.fromarray(astronaut[:240, 100:340]).save(home / "face.png")
    Image.fromarray(np.full((80, 80), 90, np.uint8)).save(home / "plain.png")
    (home / "bad.jpg").write_bytes(b"not an image")
    return home


def mien(*arguments):
    """Exit status of the command line."""
    try:
        return main([str(argument) for argument in arguments]) or 0
    except SystemExit as stop:
        return stop.code or 0


def test_one_photograph_goes_to_the_screen(photos, capsys):
    assert mien("predict", photos / "astronaut.png") == 0
    shown = capsys.readouterr().out
    assert "gender" in shown and "1 image: 1 ok" in shown


def test_a_folder_goes_to_a_table_and_bad_files_are_rows_and_status_2(photos, tmp_path, capsys):
    out = tmp_path / "faces.csv"
    assert mien("predict", photos, "--out", out) == 2
    table = pd.read_csv(out).set_index("file")
    assert table.loc[str(photos / "bad.jpg"), "status"] == "not an image"
    assert table.loc[str(photos / "plain.png"), "status"] == "no face"
    assert table.loc[str(photos / "astronaut.png"), "p_female"] > 0.5
    assert "1 not an image" in capsys.readouterr().out


def test_every_output_holds_the_same_rows(photos, tmp_path):
    for ending in ("csv", "jsonl", "parquet"):
        assert (
            mien("predict", photos / "face.png", photos / "astronaut.png", "--crops", "--out", tmp_path / f"t.{ending}")
            == 0
        )
    csv, lines = pd.read_csv(tmp_path / "t.csv"), pd.read_json(tmp_path / "t.jsonl", lines=True)
    parquet = pd.read_parquet(tmp_path / "t.parquet")
    for name in ("file", "age_group", "status"):
        assert list(csv[name]) == list(lines[name]) == list(parquet[name]), name
    for name in ("p_female", "age"):  # pandas' parsers differ in the last bit
        assert np.allclose(csv[name], parquet[name], atol=1e-9) and np.allclose(lines[name], parquet[name], atol=1e-9)


def test_an_output_that_exists_is_refused_before_any_work(photos, tmp_path, capsys):
    out = tmp_path / "faces.csv"
    out.write_text("mine")
    assert mien("predict", photos, "--out", out) == 1
    assert out.read_text() == "mine" and "--overwrite" in capsys.readouterr().err
    assert mien("predict", photos / "face.png", "--crops", "--out", out, "--overwrite") == 0
    assert len(pd.read_csv(out)) == 1


def test_drawings_show_boxes(photos, tmp_path):
    assert mien("predict", photos / "astronaut.png", "--draw", tmp_path / "boxes") == 0
    drawing = np.asarray(Image.open(tmp_path / "boxes" / "astronaut.png"))
    original = data.astronaut()
    assert drawing.shape == original.shape and 0.005 < (drawing != original).any(axis=2).mean() < 0.3


def test_one_image_needs_neither_pandas_nor_a_detector(photos):
    code = (
        "import sys; from mien.cli import main\n"
        f"try: main(['predict', '--crops', {str(photos / 'face.png')!r}])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('pandas', 'torch', '_dlib_pybind11', 'rich') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]", shown


def test_names_with_line_breaks_stay_on_their_line(photos, tmp_path, capsys):
    odd = tmp_path / "two\nlines.png"
    odd.write_bytes((photos / "face.png").read_bytes())
    assert mien("predict", odd, "--crops") == 0
    assert "two\\nlines.png" in capsys.readouterr().out


class Killed(BaseException):
    """Nothing in the program catches this, as nothing can catch SIGKILL."""


def test_an_interrupted_command_goes_on_and_gives_the_same_table_and_drawings(photos, tmp_path, monkeypatch, capsys):
    home = tmp_path / "many"
    home.mkdir()
    for number in range(150):
        (home / f"{number:03d}.png").symlink_to(photos / ("bad.jpg" if number % 9 == 4 else "face.png"))
    command = ("predict", "--crops", home, "--draw", tmp_path / "boxes", "--threads", 1)
    assert mien(*command, "--out", tmp_path / "whole.csv") == 2
    drawings = {path.name: path.read_bytes() for path in (tmp_path / "boxes").iterdir()}
    shutil.rmtree(tmp_path / "boxes")
    real = Journal.add

    def stop(self, rows):
        if len(asked) == 100:
            raise Killed
        asked.append(rows)
        real(self, rows)

    asked = []
    monkeypatch.setattr(Journal, "add", stop)
    out = tmp_path / "out.csv"
    with pytest.raises(Killed):
        mien(*command, "--out", out)
    assert not out.exists() and (tmp_path / "out.csv.part").exists()
    assert mien(*command, "--out", out, "--detector", "centerface") == 1
    assert "with another detector" in capsys.readouterr().err
    asked = []
    assert mien(*command, "--out", out) == 2
    assert len(asked) == 150 - 64 and "64 files are done" in capsys.readouterr().out
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert {path.name: path.read_bytes() for path in (tmp_path / "boxes").iterdir()} == drawings
    assert not (tmp_path / "out.csv.part").exists()


def test_a_folder_that_goes_away_is_an_error_and_no_rows_of_missing_images(photos, tmp_path, monkeypatch, capsys):
    home, away, out = tmp_path / "many", tmp_path / "away", tmp_path / "out.csv"
    home.mkdir()
    for number in range(150):
        (home / f"{number:03d}.png").symlink_to(photos / "face.png")
    command = ("predict", "--crops", home, "--threads", 1, "--out")
    assert mien(*command, tmp_path / "whole.csv") == 0
    real = Journal.add

    def take_away(self, rows):
        real(self, rows)
        if self.done == 5 and home.exists():
            home.rename(away)

    monkeypatch.setattr(Journal, "add", take_away)
    assert mien(*command, out) == 1
    assert f"folder '{home}' is gone" in capsys.readouterr().err and not out.exists()
    away.rename(home)
    monkeypatch.undo()
    assert mien(*command, out) == 0
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
