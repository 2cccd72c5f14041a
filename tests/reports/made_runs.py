"""Runs with made-up predictions, and a checker of report pages."""

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mien import metrics
from mien.base.labels import AGE_GROUPS
from mien.base.table import age_to_group, check_faces, write_table
from mien.recipe.load import load_recipe
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
