"""The verbs as a user types them."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import typer.main

from mien.cli import main
from mien.cli.program import app
from mien.recipe.load import recipe_names


def run(capsys, *arguments):
    """Exit status, what was printed, what was complained about."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


VERBS = [*(set(typer.main.get_command(app).commands) - {"audit"}), "audit model", "audit data"]


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_a_help_with_an_example(capsys, verb):
    status, out, _ = run(capsys, *verb.split(), "--help")
    assert status == 0 and f"Example: mien {verb}" in " ".join(out.split())


def test_recipes_one_line_each(capsys):
    _, out, _ = run(capsys, "recipes")
    assert [line.split()[0] for line in out.splitlines()] == list(recipe_names())


def test_draw_faces_and_eda(capsys, tmp_path, drawn):
    table = tmp_path / "faces.csv"
    status, out, _ = run(capsys, "faces", "adience", drawn, "--labels", "exact", "--out", table, "--json")
    ledger = json.loads(out)
    assert status == 0 and len(pd.read_csv(table)) == ledger["kept"] < ledger["read"]
    status, out, _ = run(capsys, "faces", "adience", drawn, "--out", table)
    assert status == 1
    status, out, _ = run(capsys, "faces", "adience", drawn, "--out", table, "--overwrite")
    assert "duplicate" in out and f"faces in {table}" in out
    status, out, _ = run(capsys, "eda", table, "--root", drawn, "--out", tmp_path / "eda")
    assert status == 0 and (tmp_path / "eda" / "eda.html").exists()


def test_a_table_of_ones_own(capsys, tmp_path, drawn):
    image = next(drawn.rglob("*.jpg"))
    pd.DataFrame({"file": [image.relative_to(drawn)], "sex": ["F"]}).to_csv(drawn / "own.csv", index=False)
    arguments = [
        "faces",
        "csv",
        drawn / "own.csv",
        "--map",
        "file=path",
        "--map",
        "sex=gender",
        "--out",
        tmp_path / "f.csv",
    ]
    status, _, _ = run(capsys, *arguments)
    assert status == 0 and pd.read_csv(tmp_path / "f.csv")["gender"].tolist() == ["female"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["faces", "adiense", "."], ["'adiense'", "did you mean 'adience'", "utkface"]),
        (["faces", "adience", "absent"], ["absent"]),
        (["faces", "csv", "t.csv", "--map", "sex"], ["--map 'sex'", "theirs=ours"]),
        (["faces", "utkface", ".", "--out", "faces.xls"], ["faces.xls", ".parquet", ".csv"]),
        (["eda", "absent.csv"], ["absent.csv", "does not exist"]),
        (["train", "demo-gendr"], ["'demo-gendr'", "demo-gender"]),
        (["train", "demo-gender", "--set", "optim.lr=fast"], ["optim.lr = 'fast'", "number"]),
        (["evaluate", "absent"], ["absent", "not a mien run"]),
        (["evaluate", "absent", "--faces", "x.csv"], ["--faces and --root go together"]),
        (["export", "absent", "--out", "model.pt"], ["model.pt", ".onnx"]),
        (["report", "absent"], ["absent", "not a mien run"]),
        (["draw", "x", "--layout", "adiance"], ["'adiance'", "adience, celeba"]),
    ],
)
def test_mistakes_end_in_one_message_and_status_1(capsys, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(capsys, *arguments)
    assert status == 1 and err.startswith("mien: ") and all(word in err for word in words), err
    assert "Traceback" not in err and not list(tmp_path.iterdir())


def test_version():
    done = subprocess.run(
        [Path(sys.executable).parent / "mien", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("mien 0.")


def test_without_the_extras_the_message_says_what_to_install(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for module in [name for name in sys.modules if name.startswith("mien.training")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torch", None)
    status, _, err = run(capsys, "train", "demo-gender")
    assert status == 1 and "pip install 'mien[train]'" in err
