"""The report of a run: its content, and that it is one self-contained page."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from made_runs import check_page, make_run

from mien.base.table import write_table
from mien.reports.compare import compare_runs
from mien.reports.run import run_report
from mien.reports.run_results import protocol
from mien.runs.run import Run


def test_run_report_says_what_was_found(runs: dict[str, Run]) -> None:
    run = runs["both"]
    path = run_report(run)
    assert path == run.report_file
    text = path.read_text("utf-8")
    check_page(text)
    row = run.metrics.query("split == 'test' and group == 'all' and metric == 'gender_accuracy'").iloc[0]
    shown = f"{100 * row.value:.1f}% [{100 * row.low:.1f}, {100 * row.high:.1f}], n {row.n}"
    assert f"gender accuracy {shown}, better than always predicting the majority class" in text
    for words in (
        "Protocol: official fold 0.",
        "Unreadable images, excluded from training: 2.",
        "310 rows read, 300 kept",
        "1,234,567 parameters",
        "600 images in 20 s (30 a second)",
        "Predicted age against the label",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "b $x_1$",
    ):
        assert words in text, words
    assert "<script" not in text


@pytest.mark.usefixtures("words_only")
def test_a_model_without_skill_is_called_no_better(runs: dict[str, Run]) -> None:
    text = run_report(runs["gender"]).read_text("utf-8")
    assert "no better than always predicting the majority class" in text
    assert "Age in years" not in text and "age group accuracy" not in text


@pytest.mark.usefixtures("words_only")
def test_leaks_are_loud(runs: dict[str, Run], tmp_path: Path) -> None:
    text = run_report(runs["other"]).read_text("utf-8")
    assert re.search(r'class="warning">Leak, allowed by the recipe of other: 94 test images', text)
    assert "WITH LEAKS" in text and "Data leaks inflate these numbers" in text
    compare_runs([runs["both"], runs["other"]], tmp_path / "c.html")
    assert 'class="warning">Leak' in (tmp_path / "c.html").read_text("utf-8")


@pytest.mark.usefixtures("words_only")
def test_a_bare_run_folder_is_enough(tmp_path: Path) -> None:
    run = make_run(tmp_path / "bare", ("age",))
    run.log_file.unlink()
    write_table(pd.DataFrame({"face": [], "path": [], "reason": []}), run.unreadable_file)
    run.info_file.write_text(json.dumps({"status": "finished"}))
    text = run_report(run).read_text("utf-8")
    check_page(text)
    assert "All images are readable." in text and "Training curves" not in text
    run.unreadable_file.unlink()
    assert run_report(run).read_text("utf-8") == text


def test_the_protocol_names_subjects_only_where_they_are_known(tmp_path):
    run = make_run(tmp_path / "run", recipe={"split": {"method": "subjects"}})
    assert protocol(run) == "by subject, seed 0"
    write_table(run.faces.assign(subject=None), run.faces_file)
    assert protocol(run) == "by photograph (subjects are not known), seed 0"
    run_report(run)
    assert "by subject, seed" not in run.report_file.read_text()
