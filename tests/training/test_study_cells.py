"""A whole study on drawn faces with timm's tiny networks, as a user runs it."""

import os
import signal
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from mien.base.errors import MienError
from mien.demo.dataset import draw_faces
from mien.experiments.study import StudyFolder, load_study, make_cells
from mien.training import plan as planning
from mien.training.plan import make_plan, operations
from mien.training.study_cells import run_study

STUDY = {
    "base": "demo-gender",
    "set": ["model.image_size=32", "trainer.epochs=1", "trainer.workers=0", "optim.warmup=0.0"],
    "axes": {
        "start": {
            "random": {},
            "CelebA first": {"set": ["init.data.source=celeba", "init.split.method=partition"]},
        }
    },
    "folds": [0],
    "seeds": [0, 1],
    "compare": ["start"],
}  # fmt: skip


@pytest.fixture(scope="module")
def roots(drawn, tmp_path_factory):
    celeba = tmp_path_factory.mktemp("drawn") / "celeba"
    draw_faces(celeba, "celeba", subjects=30)
    return [f"data.root={drawn}", f"init.data.root={celeba}"]


@pytest.fixture(scope="module")
def folder(roots, tmp_path_factory):
    out = tmp_path_factory.mktemp("studies") / "demo"
    levels = STUDY["axes"]["start"]
    first = {"set": [*levels["CelebA first"]["set"], roots[1]]}
    levels = levels | {"CelebA first": first, "absent weights": {"set": ["init.weights=absent.safetensors"]}}
    run_study(STUDY | {"axes": {"start": levels}}, roots[:1], out)
    return StudyFolder(out)


def test_it_trains_compares_and_says_what_failed(folder):
    runs = pd.read_parquet(folder.folder / "runs.parquet")
    assert runs.groupby("start")["status"].unique().map(list).to_dict() == {
        "random": ["finished"],
        "CelebA first": ["finished"],
        "absent weights": ["failed"],
    }
    assert runs["reason"].str.contains("absent.safetensors").sum() == 2
    # A first stage is of the seed of its cell, and shared by nobody else here.
    assert len(list(folder.stages.iterdir())) == 2
    files = {path.name for path in folder.folder.iterdir()}
    assert {"table.md", "table.csv", "comparisons.csv", "runs.parquet", "report.html", "cells", "stages"} <= files
    words = pd.read_csv(folder.folder / "comparisons.csv")["in words"]
    assert len(words) == 1 and "2 seeds" in words[0] and "Holm" in words[0]
    log = (folder.folder / "cells" / "random_fold-0_seed-1.log").read_text()
    assert "epoch 1/1" in log


def test_plan_counts_runs_names_what_is_missing_and_estimates(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(planning, "_SECONDS", 0.0)  # only the quickest network is measured then
    networks = {"small": {}, "pretrained": {"set": ["model.backbone=resnet18.a1_in1k", "init.weights=imagenet"]}}
    study = STUDY | {"axes": {"start": STUDY["axes"]["start"], "network": networks}}
    plan = make_plan(study, out=tmp_path / "out")
    assert plan.runs["runs"].str.startswith("2 x ").all() and len(plan.runs) == 6
    assert plan.runs["runs"].str.contains("first stage on celeba").sum() == 2
    missing = " ".join(plan.missing)
    assert "data.root is not set" in missing and "init.data.root" in missing
    assert "weights of resnet18.a1_in1k" in missing and "test_resnet" not in missing
    assert "8 runs, 0 of them finished. About" in plan.time and "assumed" in plan.time
    assert plan.runs["images/s here"].str.contains("not measured").any()
    assert not (tmp_path / "out").exists()
    with pytest.raises(MienError, match="did you mean 'transfer'"):
        make_plan("transfr")


def test_operations_are_those_of_the_layers():
    from mien.recipe.load import load_recipe

    recipe = load_recipe("demo-gender", ["model.backbone=resnet18", "model.image_size=224"])
    # 1.8 billion multiply-adds as published (He et al. 2016, table 1), each two operations.
    assert operations(recipe) == pytest.approx(2 * 1.8e9, rel=0.03)


KILLED = """
import os, signal
from mien.cli import main
from mien.experiments.progress import StudyProgress
def kill(self, name, row):
    if name.startswith("other"):
        os.kill(os.getpid(), signal.SIGKILL)
StudyProgress.epoch_ended = kill
main()
"""


def test_a_study_that_is_killed_goes_on_and_trains_nothing_twice(roots, tmp_path):
    study = STUDY | {"axes": {"start": {"random": {}, "other": {"set": ["trainer.epochs=2"]}}}, "seeds": [0]}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    options = {"cwd": tmp_path, "env": os.environ | {"OMP_NUM_THREADS": "1"}, "capture_output": True, "text": True}
    arguments = ["study", "small.yaml", "--set", roots[0], "--out", "out"]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], **options)
    assert killed.returncode == -signal.SIGKILL
    folder = StudyFolder(tmp_path / "out")
    first, second = (folder.run(cell) for cell in make_cells(load_study(study)))
    assert first.finished and second.faces_file.exists() and not second.finished
    before = first.weights_file.stat().st_mtime_ns
    done = subprocess.run([sys.executable, "-c", "from mien.cli import main; main()", *arguments], **options)
    assert done.returncode == 0 and "2 cells, 1 of them already finished" in done.stdout
    assert second.finished and len(second.log) == 2
    assert first.weights_file.stat().st_mtime_ns == before
    assert "resuming" in (folder.folder / "cells" / "other_fold-0_seed-0.log").read_text()
