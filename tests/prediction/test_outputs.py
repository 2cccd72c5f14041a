"""Rows to files."""

import json

import pandas as pd
import pytest

from mien.errors import MienError
from mien.prediction.outputs import RowsFile, check_output

COLUMNS = ["file", "face_index", "status", "p_female", "quality"]
ROWS = [
    {"file": 'a, "b"\n.jpg', "face_index": 0, "status": "ok", "p_female": 0.25, "quality": ""},
    {"file": "c.jpg", "status": "truncated"},
]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_table_back(tmp_path, ending):
    path = tmp_path / "new" / f"out{ending}"
    with RowsFile(path, COLUMNS) as write:
        for row in ROWS * 1500:
            write(row)
    read = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".jsonl": lambda p: pd.read_json(p, lines=True)}[ending]
    table = read(path)
    assert list(table.columns) == COLUMNS and len(table) == 3000
    assert table["file"][0] == ROWS[0]["file"] and table["p_female"][0] == 0.25
    assert table["face_index"].isna().sum() == table["p_female"].isna().sum() == 1500


def test_a_file_without_rows_has_its_columns(tmp_path):
    for ending in (".csv", ".parquet"):
        with RowsFile(tmp_path / f"out{ending}", COLUMNS):
            pass
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
        assert b"caf\xe9.jpg" in content
    if ending == ".jsonl":
        assert json.loads(content)["file"] == "caf\udce9.jpg"


def test_an_output_that_exists_is_refused_unless_told(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("x")
    with pytest.raises(MienError, match="exists; --overwrite replaces it"):
        check_output(path, overwrite=False)
    check_output(path, overwrite=True)
    with pytest.raises(MienError, match="unknown ending '.xlsx'; valid: .csv, .parquet, .jsonl"):
        check_output(tmp_path / "out.xlsx", overwrite=False)
    with pytest.raises(MienError, match="is a folder"):
        (tmp_path / "dir.csv").mkdir()
        check_output(tmp_path / "dir.csv", overwrite=True)
