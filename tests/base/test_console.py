"""Notes, tables and progress: where they go, and the quiet switch."""

import os
import subprocess
import sys

import pandas as pd

from mien.base import console as module
from mien.base.console import progress, show
from mien.base.messages import note, quiet, to_file


def test_notes_and_tables_go_to_standard_output_and_progress_to_standard_error(capsys, monkeypatch):
    monkeypatch.setattr(module, "_INTERVAL", 0.0)
    note("[red]a note[/red]")
    show(pd.DataFrame({"name": ["a"]}), "a title")
    with progress("counting", "faces") as update:
        update(1, 2)
    out, err = capsys.readouterr()
    assert "[red]a note[/red]" in out and "a title" in out and "counting" not in out
    assert err.startswith("counting: 1 of 2 faces, ")


def test_quiet_switches_everything_off_and_on_again(capsys, monkeypatch):
    monkeypatch.setattr(module, "_INTERVAL", 0.0)
    with quiet():
        note("a note")
        show(pd.DataFrame({"name": ["a"]}))
        with progress("counting") as update:
            update(1, 2)
    assert capsys.readouterr() == ("", "")
    note("again")
    assert capsys.readouterr().out == "again\n"


def test_the_environment_variable_is_the_same_switch():
    code = "from mien.base.messages import note; note('a note')"
    for value, expected in (("1", ""), ("0", "a note\n"), ("", "a note\n")):
        environment = os.environ | {"MIEN_QUIET": value}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == expected


def test_output_goes_to_a_file_inside_the_block(tmp_path, capsys):
    with to_file(tmp_path / "log.txt"):
        note("inside")
        print("library")
    note("outside")
    assert (tmp_path / "log.txt").read_text() == "inside\nlibrary\n"
    assert capsys.readouterr().out == "outside\n"
