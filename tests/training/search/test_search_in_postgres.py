"""Three processes on one search in a real PostgreSQL, two of which are killed; see .ci/postgres."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

TRIALS, EPOCHS = 14, 9

WORKER = """
import json, os, sys, time
import pandas as pd
from mien.base.table import write_table
from mien.runs.run import Run
from mien.training import fit
from mien.training.search import tune

given = json.loads(sys.argv[1])

def tell(what, *facts):
    with open(given["diary"], "a") as file:
        file.write(json.dumps([what, os.getpid(), time.monotonic(), *facts]) + chr(10))

def train(recipe, out, stages, on_epoch=None, score=True):
    # Stands in for training: the log is there before an epoch is reported, as a checkpoint would be.
    run = Run(out)
    run.folder.mkdir(parents=True, exist_ok=True)
    tell("begin", run.name)
    rows = run.log.to_dict("records") if run.log_file.exists() else []
    for epoch in range(len(rows) + 1, recipe.trainer.epochs + 1):
        time.sleep(0.05)
        rows.append({"epoch": epoch, "val_loss": recipe.optim.lr + 1 / epoch, "seconds": 1.0})
        write_table(pd.DataFrame(rows), run.log_file)
        tell("epoch", run.name, epoch)
        if on_epoch:
            on_epoch(rows[-1])
    run.note(status="finished", seconds_training=1.0, device="cpu")
    if score:
        row = {"split": "test", "group": "all", "metric": "gender_accuracy", "value": 0.8, "low": 0.7, "high": 0.9}
        more = {"n": 25, "subjects": 6, "baseline": 0.5, "versus_baseline": "better"}
        write_table(pd.DataFrame([row | more]), run.metrics_file)
    return run

fit.train = train
tell("ready")
while not os.path.exists(given["start"]):
    time.sleep(0.01)
tune(given["recipe"], given["space"], given["out"], trials=given["trials"], storage=given["storage"])
"""


@pytest.fixture(scope="module")
def storage():
    url = os.environ.get("MIEN_TEST_POSTGRES")
    if not url:
        pytest.skip("MIEN_TEST_POSTGRES is not set: no PostgreSQL here (.ci/postgres starts one)")
    return url


def test_three_workers_two_of_them_killed_lose_no_trial_and_run_none_twice(storage, drawn, tmp_path):
    given = {
        "diary": str(tmp_path / "diary.jsonl"),
        "start": str(tmp_path / "start"),
        "recipe": {
            "data": {"source": "adience", "labels": "masked", "root": str(drawn)},
            "split": {"method": "folds"},
            "model": {"backbone": "test_byobnet", "image_size": 32},
            "init": {"weights": "none"},
            "trainer": {"epochs": EPOCHS},
        },
        "space": {"optim.lr": {"low": 1e-5, "high": 1e-1, "log": True}},
        "out": str(tmp_path / "search"),
        "trials": TRIALS,
        "storage": storage,
    }
    command = [sys.executable, "-c", WORKER, json.dumps(given)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **quiet) for _ in range(3)]
    try:
        wait(lambda: sum(entry[0] == "ready" for entry in diary(given)) == 3, workers)
        Path(given["start"]).touch()  # all at once: one study is made
        survivor, *victims = workers
        for victim in victims:
            wait(lambda pid=victim.pid: any(entry[:2] == ["epoch", pid] for entry in diary(given)), workers[:1])
            victim.send_signal(signal.SIGKILL)
        _, told = survivor.communicate(timeout=120)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert survivor.returncode == 0, told
    check(diary(given), [victim.pid for victim in victims], Path(given["out"]))


def check(entries, killed, out):
    trials, curves = pd.read_csv(out / "trials.csv"), pd.read_csv(out / "curves.csv")
    assert trials["trial"].tolist() == list(range(TRIALS)) and set(trials["state"]) <= {"finished", "stopped early"}
    assert not curves.duplicated(["trial", "epoch"]).any()
    begun = pd.DataFrame([entry[1:] for entry in entries if entry[0] == "begin"], columns=["pid", "at", "trial"])
    begun = begun[begun["trial"] != "best"]
    assert set(begun["trial"]) == set(map(str, range(TRIALS))) and set(killed) <= set(begun["pid"])
    again = begun[begun["trial"].duplicated()]
    lost = {str(begun[begun["pid"] == pid]["trial"].iloc[-1]) for pid in killed}
    # A trial is begun a second time only where its process was killed, and then it goes on.
    assert set(again["trial"]) <= lost and not set(again["pid"]) & set(killed[:1])
    epochs = pd.DataFrame([entry[3:] for entry in entries if entry[0] == "epoch"], columns=["trial", "epoch"])
    assert not epochs.duplicated().any()


def diary(given):
    file = Path(given["diary"])
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def wait(until, workers):
    end = time.monotonic() + 120
    while not until():
        assert time.monotonic() < end and all(worker.poll() is None for worker in workers), "a worker ended early"
        time.sleep(0.02)
