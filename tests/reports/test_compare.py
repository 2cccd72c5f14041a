"""The comparison of runs: paired differences, and runs that are not comparable."""

from pathlib import Path

import pandas as pd
import pytest
from made_runs import check_page, make_run

from mien import metrics
from mien.base.errors import MienError
from mien.base.table import check_faces, write_table
from mien.metrics.wording import with_interval
from mien.reports.compare import compare_runs
from mien.runs.run import Run


@pytest.mark.usefixtures("words_only")
def test_comparison_of_runs_on_the_same_faces(runs: dict[str, Run], tmp_path: Path) -> None:
    table = compare_runs([runs["gender"], runs["both"], runs["twin"]], tmp_path / "deep" / "c.html")
    text = (tmp_path / "deep" / "c.html").read_text("utf-8")
    check_page(text)
    assert table["run"].tolist() == ["gender", "both", "twin", "baseline"]
    assert list(table.columns[:4]) == ["run", "tasks", "protocol", "gender accuracy, %"]
    assert table.loc[0, "parameters"] == "1,234,567" and table.loc[0, "images/s"] == "30"
    assert table.loc[1, "tasks"] == "gender, age" and table.loc[0, "mean absolute error of age, years"] == ""
    joined = {name: metrics.join(*judged(runs[name])) for name in ("gender", "both", "twin")}
    found = metrics.paired_difference(
        *(part[part["true_gender"].notna()] for part in (joined["gender"], joined["both"])), "gender_accuracy"
    )
    differences = table.attrs["differences"]
    size = with_interval("gender_accuracy", -found.value, -found.high, -found.low, unit=True, difference=True)
    assert differences[0] == f"both is better than gender in gender accuracy by {size}, n {found.n}"
    alike = [words for words in differences if "both and twin are not distinguishable in" in words]
    assert len(alike) >= 3 and all(words in text for words in alike)
    assert text.index("3 runs. Tested on the same") < text.index("<nav")


def judged(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    faces, predictions = run.faces, run.predictions
    test = faces[faces["split"] == "test"]
    return test, predictions[predictions["face"].isin(test["face"])]


@pytest.mark.usefixtures("words_only")
def test_different_faces_are_not_comparable(runs: dict[str, Run], tmp_path: Path) -> None:
    table = compare_runs([runs["both"], runs["other"]], tmp_path / "c.html")
    assert table.attrs["differences"] == ["both and other are not comparable: they share no test faces"]
    assert sum(name.startswith("baseline") for name in table["run"]) == 2
    text = (tmp_path / "c.html").read_text("utf-8")
    assert "on different faces or labels, so that the numbers in the table are not comparable: gender accuracy" in text


@pytest.mark.usefixtures("words_only")
def test_each_metric_is_comparable_or_not(runs: dict[str, Run], tmp_path: Path) -> None:
    """As in the demonstration: one run has faces without a gender too, which count in no gender metric."""
    one = make_run(tmp_path / "one", ("gender",), skill=2.0, seed=1)
    faces = one.faces
    write_table(faces[faces["gender"].notna()], one.faces_file)
    compare_runs([one, runs["both"]], tmp_path / "c.html")
    lead = (tmp_path / "c.html").read_text("utf-8").partition("<nav")[0]
    count = judged(runs["both"])[0]["gender"].notna().sum()
    assert f"Tested on the same {count} faces: gender accuracy" in lead and "not comparable" not in lead


@pytest.mark.usefixtures("words_only")
def test_faces_in_common_are_compared(runs: dict[str, Run], tmp_path: Path) -> None:
    table = compare_runs([runs["both"], runs["fewer"]], tmp_path / "c.html")
    shared = judged(runs["fewer"])[0]["gender"].notna().sum()
    assert f"on the {shared} faces that both were tested on" in table.attrs["differences"][0]


@pytest.mark.usefixtures("words_only")
def test_another_label_is_not_comparable(runs: dict[str, Run], tmp_path: Path) -> None:
    changed = make_run(tmp_path / "changed", ("gender",), skill=2.0, seed=1)
    faces = changed.faces
    faces["gender"] = faces["gender"].cat.rename_categories({"female": "male", "male": "female"}).astype(str)
    faces["gender"] = faces["gender"].where(faces["gender"] != "nan", None)
    write_table(check_faces(faces), changed.faces_file)
    table = compare_runs([runs["both"], changed], tmp_path / "c.html")
    assert (
        "not comparable in gender accuracy: models are compared on the same faces only" in table.attrs["differences"][0]
    )


@pytest.mark.usefixtures("words_only")
def test_one_run_and_wrong_runs(runs: dict[str, Run], tmp_path: Path) -> None:
    assert compare_runs([runs["gender"]], tmp_path / "c.html").attrs["differences"] == []
    with pytest.raises(MienError, match="at least one"):
        compare_runs([], tmp_path / "c.html")
    with pytest.raises(MienError, match="given twice"):
        compare_runs([runs["both"], Run(runs["both"].folder)], tmp_path / "c.html")


@pytest.mark.usefixtures("words_only")
def test_runs_of_one_name_are_told_apart(runs: dict[str, Run], tmp_path: Path) -> None:
    again = make_run(tmp_path / "both", ("gender",))
    names = compare_runs([runs["both"], again], tmp_path / "c.html")["run"]
    assert names[0] != names[1] and names[1] == str(tmp_path / "both")
