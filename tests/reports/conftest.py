"""Fixtures for the reports of runs."""

import pytest
from made_runs import make_run

from mien.reports import figures
from mien.runs.run import Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    root = tmp_path_factory.mktemp("runs")
    return {
        "both": make_run(root / "both", skill=2.0, seed=1),
        "gender": make_run(root / "gender", ("gender",), skill=0.1),
        "twin": make_run(root / "twin", skill=2.0, seed=2),
        "fewer": make_run(root / "fewer", skill=2.0, seed=3, drop=100),
        "other": make_run(root / "other", data_seed=5, leaks=["94 test images (94.0%) show a subject"]),
    }


@pytest.fixture
def words_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the drawing, which takes most of the time, where a test reads words alone."""
    monkeypatch.setattr(figures, "svg", lambda figure, name, alt: "<svg aria-label='chart'></svg>")
