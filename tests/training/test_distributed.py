"""One run in two processes on one machine (gloo), beside the same run in one."""

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
from safetensors.torch import load_file

from mien.base.errors import MienError
from mien.recipe.load import load_recipe
from mien.runs.run import Run, open_run
from mien.training.callbacks import Log
from mien.training.data import EpochSampler
from mien.training.distributed import Processes
from mien.training.fit import make_net, train

# Masked labels, two tasks and mixed sizes of groups: what makes the loss of a batch no mean of its parts' losses.
SMALL = {
    "data": {"source": "adience", "labels": "masked"},
    "split": {"method": "folds"},
    "model": {"backbone": "test_convnext", "image_size": 32},
    "init": {"weights": "none"},
    "tasks": ["gender", "age_group"],
    "augment": {"rotate": 5},
    "trainer": {"epochs": 2, "batch_size": 16, "workers": 0, "checkpoint_every": 1, "keep": "last"},
}
BATCH_STATISTICS = ["model.backbone=test_byobnet"]

WORKER = """
import json, os, sys
import torch
from mien.training import fit, model
from mien.training.callbacks import Log
given = json.loads(sys.argv[1])
real = Log.on_train_batch_start

class Killed(BaseException):
    pass

for out, changes, stop, score in given["runs"]:
    def start(self, trainer, module, batch, number):
        rank, count = trainer.global_rank, trainer.world_size
        with open(f"{out}.{count}.{rank}.jsonl", "a") as file:
            print(json.dumps([trainer.current_epoch, number, batch["index"].tolist()]), file=file)
        if trainer.global_step == stop:
            raise Killed
        real(self, trainer, module, batch, number)
    Log.on_train_batch_start = start
    try:
        fit.train(given["recipe"], changes, out, score=score)
    except Killed:
        torch.distributed.barrier()
"""


@pytest.fixture(scope="module")
def runs(drawn, tmp_path_factory):
    """Runs by name: in one process, in two, and each begun by the other number of processes."""
    home = tmp_path_factory.mktemp("processes")
    alone, two = [f"data.root={drawn}"], [f"data.root={drawn}", "trainer.devices=2"]
    run_here(home / "one", alone)
    run_here(home / "one-bn", alone + BATCH_STATISTICS, score=False)
    run_here(home / "one-two", alone, stop=3)
    started = torchrun(
        [
            (home / "two", two, None, True),
            (home / "two-bn", two + BATCH_STATISTICS, None, False),
            (home / "one-two", two, None, False),
            (home / "two-one", two, 3, False),
        ]
    )
    assert started.returncode == 0, started.stderr
    run_here(home / "two-one", alone, score=False)
    return home


def run_here(out, changes, stop=None, score=True):
    real = Log.on_train_batch_start

    class Killed(BaseException):
        pass

    def start(self, trainer, module, batch, number):
        with Path(f"{out}.1.0.jsonl").open("a") as file:
            print(json.dumps([trainer.current_epoch, number, batch["index"].tolist()]), file=file)
        if trainer.global_step == stop:
            raise Killed
        real(self, trainer, module, batch, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Log, "on_train_batch_start", start)
        try:
            train(SMALL, changes, out, score=score)
        except Killed:
            assert stop is not None


def torchrun(runs, processes=2):
    given = json.dumps({"recipe": SMALL, "runs": [(str(out), *rest) for out, *rest in runs]})
    script = runs[0][0].parent / "worker.py"
    script.write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [*command, str(script), given],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )


def batches(out, count):
    """(epoch, number) -> the indices of the global batch, in order."""
    found = {}
    for rank in range(count):
        for line in Path(f"{out}.{count}.{rank}.jsonl").read_text().splitlines():
            epoch, number, indices = json.loads(line)
            found.setdefault((epoch, number), [None] * (len(indices) * count))[rank::count] = indices
    return found


def largest_difference(one, other):
    a, b = (load_file(run / "model.safetensors") for run in (one, other))
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def test_two_processes_see_the_batches_of_one_and_end_in_its_weights(runs):
    assert batches(runs / "two", 2) == batches(runs / "one", 1)
    # Far less than what training did to the weights.
    assert largest_difference(runs / "one", runs / "two") < 1e-5 < 1e-3 < largest_change(runs)
    one, two = Run(runs / "one"), Run(runs / "two")
    columns = ["train_loss", "val_loss", "val_gender_accuracy", "images", "lr", "step"]
    np.testing.assert_allclose(one.log[columns], two.log[columns], rtol=1e-5)
    assert two.info["processes"] == 2 and one.info["processes"] == 1
    assert two.info["images_trained"] == one.info["images_trained"]


def largest_change(runs):
    """How far training moved a weight of the heads."""
    run = open_run(runs / "one")
    pl.seed_everything(run.recipe.trainer.seed, verbose=False)
    start = make_net(run.recipe, run.faces).state_dict()
    end = load_file(run.weights_file)
    return max(float((start[name] - end[name]).abs().max()) for name in end if name.startswith("head"))


def test_what_is_done_once_is_there_once(runs):
    one, two = open_run(runs / "one"), open_run(runs / "two")
    assert len(one.predictions) == len(two.predictions) and two.predictions["face"].is_unique
    assert one.metrics[["split", "group", "metric", "n"]].equals(two.metrics[["split", "group", "metric", "n"]])
    assert not two.resume_file.exists() and two.report_file.exists()


def test_batch_statistics_are_those_of_a_share(runs):
    # docs/scale.md has the difference in accuracy; here only that it is there, and that it is no other run.
    assert batches(runs / "two-bn", 2) == batches(runs / "one-bn", 1)
    assert largest_difference(runs / "one-bn", runs / "two-bn") > 1e-4
    one, two = Run(runs / "one-bn"), Run(runs / "two-bn")
    np.testing.assert_allclose(one.log["train_loss"], two.log["train_loss"], rtol=0.1)


@pytest.mark.parametrize(("name", "first", "then"), [("one-two", 1, 2), ("two-one", 2, 1)])
def test_another_number_of_processes_goes_on_with_a_run(runs, name, first, then):
    whole = batches(runs / "one", 1)
    before, after = batches(runs / name, first), batches(runs / name, then)
    assert before | after == whole and 0 < len(after) < len(whole)
    assert largest_difference(runs / "one", runs / name) < 1e-5
    assert Run(runs / name).log["epoch"].tolist() == [1, 2] and Run(runs / name).info["processes"] == then


def test_an_error_in_one_process_ends_all_and_is_said(drawn, tmp_path):
    # Lightning starts the second one itself; every fourth image is broken, and only decoded in training.
    shutil.copytree(drawn, tmp_path / "broken")
    for file in sorted((tmp_path / "broken").rglob("*.jpg"))[::4]:
        file.write_bytes(b"no image")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(json.dumps(SMALL))
    changes = [f"data.root={tmp_path / 'broken'}", "data.cache=false", "split.near_duplicates=false"]
    options = [part for change in [*changes, "trainer.devices=2"] for part in ("--set", change)]
    ended = subprocess.run(
        [sys.executable, "-m", "mien", "train", str(recipe), *options, "--out", str(tmp_path / "run")],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode not in (0, None) and "more than data.max_unreadable allows" in ended.stderr
    assert not Run(tmp_path / "run").weights_file.exists()


def test_shares_of_a_batch_make_the_batch_whatever_their_number():
    def order(world):
        shares = [list(EpochSampler(np.arange(103), True, 0, rank, world, whole=12)) for rank in range(world)]
        return [key for keys in zip(*shares, strict=True) for key in keys]

    assert len(order(1)) == 96 and all(one == other for one, other in pairwise(map(order, (1, 2, 3, 4, 6, 12))))
    # Fewer than a batch, or judging: all of them, and as many in each process.
    for whole in (12, 1):
        shares = [list(EpochSampler(np.arange(7), False, 0, rank, 2, whole)) for rank in range(2)]
        assert [len(share) for share in shares] == [4, 4] and {i for s in shares for _, i in s} == set(range(7))


@pytest.mark.parametrize(
    ("environment", "changes", "message"),
    [
        ({"SLURM_STEP_NUM_TASKS": "4"}, [], "4 processes were started for one run.*trainer.nodes=MACHINES"),
        ({"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "3"}, [], "3 processes were started"),
        (
            {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "3", "RANK": "0", "LOCAL_RANK": "0"},
            ["trainer.devices=2"],
            "trainer.devices is 2 and trainer.nodes 1, which is not what was started",
        ),
    ],
)
def test_processes_that_do_not_fit_the_recipe_are_a_mistake(monkeypatch, environment, changes, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MienError, match=message):
        Processes(load_recipe(SMALL, changes).trainer)
