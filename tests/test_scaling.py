"""A reduced form of benchmarks/scaling.py: each station works and counts what it should; times are not looked at."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

FILE = Path(__file__).parent.parent / "benchmarks" / "scaling.py"


@pytest.fixture(scope="module")
def scaling():
    spec = importlib.util.spec_from_file_location("scaling", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scaling")


@pytest.mark.parametrize("name", ["read", "table", "split", "duplicates", "metrics", "audit", "report"])
def test_each_station_of_tables_runs(scaling, folder, monkeypatch, name):
    monkeypatch.setenv("MIEN_CACHE", str(folder / "cache"))
    line = scaling.one(name, 1000, folder)
    assert line["station"] == name and line["n"] == 1000
    assert line["seconds"] > 0 and line["mb"] >= line["mb_input"] > 0


def test_exponents_are_those_of_the_last_two_sizes_that_took_long_enough(scaling):
    rows = pd.DataFrame(
        {
            "station": "made",
            "n": [100, 1000, 10_000, 100_000],
            "seconds": [0.5, 0.05, 2.0, 200.0],
            "mb": [50, 51, 52, 60],
        }
    )
    line = scaling.slopes(rows).iloc[0]
    assert np.isclose(line["exponent"], 2.0)
    assert (line["MB"], line["MB at the smallest"]) == (60, 50)


def test_what_is_measured_again_replaces_what_was_recorded(scaling, folder, monkeypatch):
    record = folder / "record.csv"
    seconds = iter([1.0, 2.0, 3.0])

    def run(command, **options):
        assert command[:2] == [sys.executable, str(FILE)]
        line = {"station": command[4], "n": int(command[6]), "seconds": next(seconds), "mb": 1, "mb_input": 1}
        return type("Answer", (), {"returncode": 0, "stdout": json.dumps(line) + "\n"})

    monkeypatch.setattr(scaling.subprocess, "run", run)
    scaling.measure(["split"], [1000], folder, record)
    scaling.measure(["read", "split"], [1000], folder, record)
    scaling.measure(["train"], [1_000_000], folder, record)  # beyond its limit: nothing
    rows = pd.read_csv(record)
    assert list(zip(rows["station"], rows["seconds"], strict=True)) == [("read", 2.0), ("split", 3.0)]
