"""Reports of runs: what they say, what they refuse to compare, and that they are one harmless file."""

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mien import metrics
from mien.base.errors import MienError
from mien.base.labels import AGE_GROUPS
from mien.base.table import age_to_group, check_faces, write_table
from mien.metrics.definitions import PERCENT
from mien.metrics.words import metrics_table, number, scores, verdict, with_interval
from mien.recipe.load import load_recipe
from mien.reports import figures
from mien.reports.compare import compare_runs
from mien.reports.page import Chart, Section, Table, write_report
from mien.reports.run import run_report
from mien.runs.run import Run

HOSTILE = "<script>alert(1)</script>"


def make_faces(rows: int, seed: int, labels: Sequence[str]) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    subject = rng.integers(0, rows // 4, rows)
    faces = pd.DataFrame(
        {
            "face": [f"{seed}-{row}" for row in range(rows)],
            "path": [f"{HOSTILE[:-10]}{row}.jpg" for row in range(rows)],
            "dataset": "made up",
            "subject": subject.astype(str),
            "gender": rng.choice(["female", "male", None], rows, p=[0.5, 0.45, 0.05]),
            "age": np.clip(rng.gamma(3, 11, rows), 0, 95).round(),
            "fold": subject % 5,
            "race": rng.choice([HOSTILE, "b $x_1$"], rows),
            "split": np.select([subject % 5 == 0, subject % 5 == 1], ["test", "val"], "train"),
        }
    )
    return check_faces(faces.drop(columns=[name for name in ("gender", "age") if name not in labels]))


def predict(faces: pd.DataFrame, tasks: Sequence[str], skill: float, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    out = pd.DataFrame({"file": faces["path"], "face_index": 0, "face": faces["face"], "status": "ok"})
    if "gender" in tasks:
        logit = skill * np.where(faces["gender"] == "female", 1, -1) + rng.normal(0, 1, len(faces))
        out["p_female"] = 1 / (1 + np.exp(-logit))
        out["gender"] = np.where(out["p_female"] >= 0.5, "female", "male")
    if "age" in tasks:
        out["age"] = np.clip(faces["age"] + rng.normal(0, 6, len(faces)), 0, 100)
        out["age_low"], out["age_high"] = out["age"] * 0.8, out["age"] * 1.2
        group = age_to_group(out["age"])
        out["age_group"] = group.astype(object)
        near = np.exp(-np.abs(np.arange(len(AGE_GROUPS)) - group.codes[:, None]))
        out[[f"p_{name}" for name in AGE_GROUPS]] = near / near.sum(axis=1, keepdims=True)
    answers = out.columns.difference(["file", "face_index", "face", "status"])
    out[answers] = out[answers].mask(pd.Series(out.index == 3))
    out.loc[3, "status"] = "truncated"
    return out


def make_run(
    folder: Path,
    tasks: Sequence[str] = ("gender", "age"),
    *,
    skill: float = 1.0,
    seed: int = 0,
    data_seed: int = 0,
    drop: int = 0,
    recipe: dict[str, Any] | None = None,
    **info: Any,
) -> Run:
    """A finished run, as `mien.train` would leave it, with made-up predictions."""
    run = Run(folder)
    run.begin(load_recipe({"tasks": list(tasks), "split": {"method": "folds"}, **(recipe or {})}))
    faces = make_faces(300, data_seed, tasks).iloc[drop:].reset_index(drop=True)
    judged = faces[faces["split"] != "train"].reset_index(drop=True)
    predictions = predict(judged, tasks, skill, seed)
    write_table(faces, run.faces_file)
    write_table(predictions, run.predictions_file)
    reasons = pd.DataFrame({"face": ["x", "y"], "path": HOSTILE, "reason": f"truncated: {HOSTILE}"})
    write_table(reasons, run.unreadable_file)
    parts = []
    for split in ("val", "test"):
        part = faces[faces["split"] == split]
        joined = metrics.join(part, predictions[predictions["face"].isin(part["face"])])
        train = faces[faces["split"] == "train"]
        parts.append(metrics.score(joined, train_faces=train, n_boot=20).assign(run=run.name, split=split))
    write_table(pd.concat(parts), run.metrics_file)
    log = {
        "epoch": [1, 2],
        "train_loss": [1.0, 0.5],
        "val_loss": [1.2, 0.8],
        "val_gender_accuracy": [0.6, 0.8],
    }
    write_table(pd.DataFrame(log), run.log_file)
    ledger = {
        "source": HOSTILE,
        "read": 310,
        "kept": 300,
        "entries": [{"kind": "dropped", "reason": HOSTILE, "rows": 10, "example": ""}],
    }
    facts = {"status": "finished", "parameters": 1_234_567, "seconds_training": 20.0, "images_trained": 600}
    run.note(**facts, epochs=2, device="cpu", leaks=[], ledger=ledger)
    run.note(**info)
    return run


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


class Checker(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.unnamed = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"a handler: {name}"
            if name in ("src", "href", "xlink:href", "action", "data"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag == "svg":
            self.unnamed += not dict(attrs).get("aria-label")


def check_page(text: str) -> Checker:
    """One file that asks for nothing and runs nothing, whose parts are told apart."""
    page = Checker(text)
    assert not page.tags & {"script", "iframe", "object", "embed", "link", "foreignobject"}
    assert all(link.startswith(("#", "data:image/")) for link in page.links)
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:|//)|url\(\s*["']?(https?:|//)|@import""", text)
    assert len(page.ids) == len(set(page.ids))
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(page.ids)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert page.unnamed == 0
    drawn = re.findall(r"<[^>]+>", "".join(re.findall(r"<svg.*?</svg>", text, re.S)))
    assert not [tag for tag in drawn if re.search(r'[:"] ?#[0-9a-f]{6}', tag)], "a colour that no theme changes"
    assert "perceived binary gender" in text and "prefers-color-scheme" in text and "viewport" in text
    return page


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
    assert text.index("3 runs were tested on the same") < text.index("<nav")


def judged(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    faces, predictions = run.faces, run.predictions
    test = faces[faces["split"] == "test"]
    return test, predictions[predictions["face"].isin(test["face"])]


@pytest.mark.usefixtures("words_only")
def test_different_faces_are_not_comparable(runs: dict[str, Run], tmp_path: Path) -> None:
    table = compare_runs([runs["both"], runs["other"]], tmp_path / "c.html")
    assert table.attrs["differences"] == ["both and other are not comparable: they share no test faces"]
    assert sum(name.startswith("baseline") for name in table["run"]) == 2
    assert "their numbers in the table are not comparable" in (tmp_path / "c.html").read_text("utf-8")


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


@pytest.mark.usefixtures("words_only")
def test_runs_of_one_name_are_told_apart(runs: dict[str, Run], tmp_path: Path) -> None:
    again = make_run(tmp_path / "both", ("gender",))
    names = compare_runs([runs["both"], again], tmp_path / "c.html")["run"]
    assert names[0] != names[1] and names[1] == str(tmp_path / "both")


@pytest.mark.parametrize(
    ("metric", "numbers", "text"),
    [
        ("gender_accuracy", (0.9123, 0.8951, 0.9278), "91.2 [89.5, 92.8]"),
        ("gender_auc", (0.9623, 0.951, 0.9701), "0.962 [0.951, 0.970]"),
        ("age_mae", (4.897, 4.7, 5.104), "4.90 [4.70, 5.10]"),
        ("age_mae", (4.897, np.nan, np.nan), "4.90 [no interval]"),
        ("age_bias", (-0.3, -0.5, -0.1), "-0.30 [-0.50, -0.10]"),
        ("gender_accuracy", (np.nan, np.nan, np.nan), "–"),
    ],
)
def test_numbers_are_written_in_their_units(metric: str, numbers: tuple[float, ...], text: str) -> None:
    assert with_interval(metric, *numbers) == text


def test_units_follow_numbers() -> None:
    assert number("gender_accuracy", 0.931, unit=True) == "93.1%" and number("age_mae", 4.4, unit=True) == "4.40 years"
    assert with_interval("age_mae", 4.4, 4, 5, unit=True) == "4.40 years [4.00, 5.00]"
    size = with_interval("gender_accuracy", 0.01, 0.005, 0.015, unit=True, difference=True)
    assert size == "1.0 points [0.5, 1.5]"
    assert with_interval(PERCENT, 0.5, 0.4, 0.6) == "50.0 [40.0, 60.0]"


def test_verdicts_and_missing_baselines() -> None:
    columns = list(metrics.METRICS_COLUMNS)
    table = pd.DataFrame(
        [
            ("all", "gender_accuracy", 0.5, 0.4, 0.6, 9, 3, 0.5, "unclear"),
            ("all", "age_mae", 9.0, 8.0, 10.0, 9, 3, 5.0, "worse"),
            ("gender=male", "gender_accuracy", 0.5, 0.4, 0.6, 9, 3, 0.0, None),
            ("race=b", "gender_accuracy", np.nan, np.nan, np.nan, 0, 0, np.nan, None),
        ],
        columns=columns,
    )
    rows = scores(table)
    assert [verdict(row) for row in rows] == [
        "no better than always predicting the majority class",
        "worse than always predicting the median age",
        "",
    ]
    assert metrics_table(rows)["baseline"].tolist() == ["50.0", "5.00", "–"]


def test_pages_hold_any_text(tmp_path: Path) -> None:
    rows = pd.DataFrame({HOSTILE: [HOSTILE, "a & b"], "n": [1234, 5], "share": [0.5, np.nan], "yes": [True, False]})
    counts = pd.DataFrame({HOSTILE: [1, 2], 'x" id="y': [3, 4]}, index=["$a_1$", "fill: #0072b2"])
    section = Section(
        HOSTILE,
        [HOSTILE],
        [HOSTILE],
        [Table(HOSTILE, rows), Table("empty", rows.head(0))],
        [Chart(figures.bars(counts), HOSTILE, counts)] * 2,
    )
    path = write_report(HOSTILE, "{{ 1 }}", [section, section], tmp_path / "page.html")
    text = path.read_text("utf-8")
    page = check_page(text)
    assert "y" not in page.ids
    assert "{{ 1 }}" in text and ">1,234<" in text and ">yes<" in text and "fill: #0072b2<" in text
    again = write_report(HOSTILE, "{{ 1 }}", [section, section], tmp_path / "again.html")
    assert again.read_bytes() == path.read_bytes()
    with pytest.raises(MienError, match="is a folder"):
        write_report("", "", [], tmp_path)
    with pytest.raises(MienError, match="is not a folder"):
        write_report("", "", [], path / "below.html")


def test_charts_stand_little_and_much() -> None:
    nothing = pd.DataFrame({"label": [], "value": [], "low": [], "high": [], "baseline": []})
    one = pd.DataFrame({"label": ["a"], "value": [0.5], "low": [np.nan], "high": [np.nan], "baseline": [np.nan]})
    empty = metrics.reliability([], [])
    edges = np.arange(3.0)
    lines = {str(name): pd.Series([1.0, 2.0], index=[1, 2]) for name in range(9)}
    drawn = [
        figures.intervals(nothing, "x"),
        figures.intervals(one, "x", reference="all", baseline="constant"),
        figures.reliability(empty),
        figures.bars(pd.DataFrame({"faces": [0]}, index=["none"])),
        figures.histogram({"none": np.array([])}, edges, "x"),
        figures.confusion(pd.DataFrame([[0, 0], [1, 2]], index=["a", "b"], columns=["a", "b"])),
        figures.curves(lines, "loss"),
        figures.joint(np.array([0.5]), np.array([1.5]), edges, "x", "y"),
    ]
    for figure in drawn:
        assert figures.svg(figure, "f1", "what").startswith('<svg role="img" aria-label="what"')
