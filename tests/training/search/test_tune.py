"""Searches: mostly with a stand-in for training whose curves are known, once with real training."""

import contextlib
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import optuna
import pandas as pd
import pytest
import yaml

from mien.base.errors import MienError
from mien.base.table import write_table
from mien.cli import main
from mien.recipe.load import load_recipe
from mien.runs.run import Run, open_run
from mien.training import fit
from mien.training.search import trials as trials_module
from mien.training.search import tune
from mien.training.search.hyperband import bracket_of, make_pruner

RECIPE = {
    "data": {"source": "adience", "labels": "masked"},
    "split": {"method": "folds"},
    "model": {"backbone": "test_byobnet", "image_size": 32},
    "init": {"weights": "none"},
    "trainer": {"epochs": 9, "batch_size": 32, "workers": 0},
}
SPACE = {
    "optim.name": {"choices": ["adamw", "sgd"]},
    "optim.lr": {"low": 1e-5, "high": 1e-1, "log": True},
    "optim.momentum": {"low": 0.5, "high": 0.99, "when": {"optim.name": ["sgd"]}},
    "model.hidden": {"choices": [[], [8]]},
}


class Killed(BaseException):
    """Nothing in the program catches this, as nothing can catch SIGKILL."""


class Trainings:
    """Stands in for `train`: the validation loss after an epoch follows from the learning rate alone."""

    def __init__(self):
        self.calls = []
        self.before_epoch = lambda recipe, epoch: None

    @staticmethod
    def loss(lr, epoch):
        best = 0.3 + abs(math.log10(lr) + 3) / 10
        return best + 0.5 * 0.6**epoch * (1 + math.sin(1e4 * lr))

    def __call__(self, recipe, out, stages, on_epoch=None, score=True):
        run = Run(out)
        run.folder.mkdir(parents=True, exist_ok=True)
        self.calls.append((run.name, recipe, score))
        rows = run.log.to_dict("records") if run.log_file.exists() else []
        for epoch in range(len(rows) + 1, recipe.trainer.epochs + 1):
            self.before_epoch(recipe, epoch)
            loss = self.loss(recipe.optim.lr, epoch)
            rows.append({"epoch": epoch, "val_loss": loss, "val_gender_accuracy": 1 - loss / 4, "seconds": 2.0})
            write_table(pd.DataFrame(rows), run.log_file)
            if on_epoch:
                on_epoch(rows[-1])
        run.note(status="finished", seconds_training=2.0 * len(rows), device="cpu")
        if score:
            row = {"split": "test", "group": "all", "metric": "gender_accuracy", "value": 0.8, "low": 0.7, "high": 0.9}
            more = {"n": 25, "subjects": 6, "baseline": 0.5, "versus_baseline": "better"}
            write_table(pd.DataFrame([row | more]), run.metrics_file)
        return run


@pytest.fixture
def trainings(monkeypatch):
    stand_in = Trainings()
    monkeypatch.setattr(fit, "train", stand_in)
    return stand_in


@pytest.fixture
def search(drawn, tmp_path, trainings):
    def call(**options):
        out = options.pop("out", tmp_path / "search")
        changes = [f"data.root={drawn}", *options.pop("changes", ())]
        return tune(RECIPE, options.pop("space", SPACE), out, changes=changes, **options)

    return call


def table(run, name="trials"):
    return pd.read_csv(run.folder.parent / f"{name}.csv")


def expected_epochs(trials, epochs=9, eta=3):
    """The asynchronous rule by hand: at a rung a trial goes on if it is in the best 1/eta of those that came there."""
    came, lengths = {}, []
    for row in trials.itertuples():
        losses = [Trainings.loss(row.lr, epoch) for epoch in range(1, epochs + 1)]
        length = epochs
        for rung in [eta**k for k in range(2 - row.bracket, 2)]:
            value = min(losses[:rung])
            others = came.setdefault((row.bracket, rung), [])
            others.append(value)
            if value > sorted(others)[max(len(others) // eta, 1) - 1]:
                length = rung
                break
        lengths.append(length)
    return lengths


def test_trials_stop_where_the_asynchronous_rule_says(search):
    trials = table(search(trials=25))
    assert trials["epochs"].tolist() == expected_epochs(trials.rename(columns={"optim.lr": "lr"}))
    assert set(trials["state"]) == {"finished", "stopped early"} and set(trials["bracket"]) == {0, 1, 2}
    assert (trials.loc[trials["bracket"] == 0, "epochs"] == 9).all()
    assert trials["optim.momentum"].notna().equals(trials["optim.name"] == "sgd")


def test_optunas_brackets_are_the_papers_and_trials_are_dealt_in_proportion():
    # Li et al. 2018, R = 81, eta = 3: s_max + 1 = 5 brackets whose Algorithm 1 starts 81, 34, 15, 8 and 5 trials.
    study = optuna.create_study(pruner=make_pruner(81, 3), study_name="proportions")
    assert study.pruner._trial_allocation_budgets == [81, 34, 15, 8, 5]
    assert [pruner._min_resource * 3**pruner._min_early_stopping_rate for pruner in study.pruner._pruners] == [
        1,
        3,
        9,
        27,
        81,
    ]
    dealt = pd.Series([bracket_of(study, number) for number in range(6000)]).value_counts(normalize=True)
    for s, configurations in zip((4, 3, 2, 1, 0), (81, 34, 15, 8, 5), strict=True):
        assert dealt[s] == pytest.approx(configurations / 143, abs=0.02)
    # A floating-point logarithm would make five of these six.
    assert make_pruner(243, 3)._n_brackets == 6


def test_the_test_part_is_used_once_on_the_chosen_recipe_which_is_a_normal_recipe_file(search, trainings, drawn):
    run = search(trials=8)
    trials, folder = table(run), run.folder.parent
    judged = [(name, recipe) for name, recipe, score in trainings.calls if score]
    assert [name for name, _ in judged] == ["best"] and trainings.calls[-1][0] == "best"
    best = trials[trials["state"] == "finished"].sort_values("value").iloc[0]
    chosen = load_recipe(folder / "best.yaml")
    assert chosen.optim.lr == best["optim.lr"] and chosen == judged[0][1]
    assert chosen.split.method == "folds" and chosen.data.root == str(drawn) and chosen.data.faces is None
    head = (folder / "best.yaml").read_text().split("\n")[:4]
    assert f"trial {best['trial']} of 8" in head[0] and "used for selection" in head[0]
    assert head[1].startswith("# command: mien train") and head[2].startswith("# time:    18 seconds")
    assert head[3] == "# score:   gender accuracy 80.0% [70.0, 90.0] (n 25): test part, one run"
    trial = next(recipe for name, recipe, score in trainings.calls if not score)
    assert trial.split.method == "partition" and trial.data.faces.endswith("faces.parquet")


def test_the_default_number_of_trials_is_one_round_of_hyperband_as_published(search):
    run = search()
    assert len(table(run)) == 9 + 5 + 3
    ledger = table(run, "ledger").set_index("bracket")
    trials, curves = table(run), table(run, "curves")
    assert ledger.loc["all", "epochs"] == trials["epochs"].sum() == len(curves)
    assert ledger.loc["all", "epochs_full"] == 17 * 9 and ledger.loc["all", "seconds_full"] == 17 * 9 * 2
    report = (run.folder.parent / "report.html").read_text()
    assert "Asynchronous Hyperband" in report and "as published" in report and "gender accuracy" in report


def test_a_killed_search_goes_on_with_the_same_trial_from_its_last_epoch(search, trainings, tmp_path):
    whole = table(search(trials=12))
    trainings.calls.clear()
    begun = []

    def kill(recipe, epoch):
        if epoch in (2, 5) and (recipe.optim.lr, epoch) not in begun:
            begun.append((recipe.optim.lr, epoch))
            raise Killed

    trainings.before_epoch = kill
    for _ in range(60):
        try:
            run = search(trials=12, out=tmp_path / "again")
            break
        except Killed:
            continue
    broken = table(run)
    columns = ["trial", "bracket", "state", "epochs", "value", "optim.lr", "optim.name", "model.hidden"]
    pd.testing.assert_frame_equal(broken[columns], whole[columns])
    curves = table(run, "curves")
    assert not curves.duplicated(["trial", "epoch"]).any()


def test_a_trial_that_always_takes_its_process_with_it_is_given_up(search, trainings):
    def kill(recipe, epoch):
        raise Killed

    trainings.before_epoch = kill
    for _ in range(3):
        with pytest.raises(Killed):
            search(trials=3)
    trainings.before_epoch = lambda recipe, epoch: None
    trials = table(search(trials=3))
    assert trials["state"].tolist()[0] == "failed" and "died 3 times" in trials["error"][0]


def test_interruptions_by_the_user_do_not_count_as_lost_processes(search, trainings):
    def interrupt(recipe, epoch):
        raise KeyboardInterrupt

    trainings.before_epoch = interrupt
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            search(trials=2)
    trainings.before_epoch = lambda recipe, epoch: None
    assert (table(search(trials=2))["state"] != "failed").all()


def test_failed_trials_are_recorded_and_do_not_stop_the_search(search, trainings):
    numbers = iter(range(10**6))

    def break_some(recipe, epoch):
        if epoch == 2 and next(numbers) == 1:
            raise RuntimeError("out of memory\nwith a long tail")

    trainings.before_epoch = break_some
    space = SPACE | {"optim.warmup": {"low": 0.0, "high": 5.0}, "optim.schedule": {"choices": ["cosine", "plateau"]}}
    run = search(trials=12, space=space)
    trials = table(run)
    failed = trials[trials["state"] == "failed"]
    assert "RuntimeError: out of memory" in set(failed["error"])
    # The recipe refuses this combination.
    impossible = trials[(trials["optim.schedule"] == "plateau") & (trials["optim.warmup"] > 0)]
    assert len(impossible) and set(impossible["trial"]) <= set(failed["trial"])
    assert (trials["state"] == "finished").any() and run.finished


def test_a_loss_that_is_not_finite_fails_its_trial(search, monkeypatch):
    monkeypatch.setattr(Trainings, "loss", staticmethod(lambda lr, epoch: math.nan if lr > 1e-3 else 0.5))
    trials = table(search(trials=8))
    diverged = trials["optim.lr"] > 1e-3
    assert diverged.any() and (trials.loc[diverged, "state"] == "failed").all()
    assert trials.loc[diverged, "error"].str.contains("validation loss of epoch 1 is nan").all()
    assert (trials.loc[~diverged, "state"] == "finished").any()


def test_a_search_in_which_nothing_finished_says_why(search, trainings):
    def fail(recipe, epoch):
        raise RuntimeError("no luck")

    trainings.before_epoch = fail
    with pytest.raises(MienError, match="none of 2 trials finished training; trial 0: RuntimeError: no luck"):
        search(trials=2)


def test_scores_are_maximised_and_belong_to_the_weights_that_are_kept(search):
    run = search(trials=6, metric="val_gender_accuracy", changes=["trainer.keep=best"])
    trials, curves = table(run), table(run, "curves")
    for row in trials.itertuples():
        own = curves[curves["trial"] == row.trial]
        assert row.value == pytest.approx(own.loc[own["val_loss"].idxmin(), "val_gender_accuracy"])
    over = trials[trials["state"] == "finished"]
    best = over.loc[over["value"].idxmax(), "optim.lr"]
    assert load_recipe(run.folder.parent / "best.yaml").optim.lr == best


def test_more_trials_go_on_where_fewer_stopped_unless_the_test_part_was_used(search, trainings, tmp_path):
    def interrupt(recipe, epoch):
        if len(trainings.calls) > 4:
            raise KeyboardInterrupt

    trainings.before_epoch = interrupt
    with pytest.raises(KeyboardInterrupt):
        search(trials=6)
    trainings.before_epoch = lambda recipe, epoch: None
    more = table(search(trials=8))
    whole = table(search(trials=8, out=tmp_path / "whole"))
    pd.testing.assert_frame_equal(more.drop(columns="seconds"), whole.drop(columns="seconds"))
    with pytest.raises(MienError, match="8 trials.*test part.*another --out"):
        search(trials=10)
    count = len(trainings.calls)
    assert search(trials=8).finished and len(trainings.calls) == count


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_samplers_are_reproducible_and_never_suggest_the_same_again(search, tmp_path, sampler):
    first = table(search(trials=14, sampler=sampler, out=tmp_path / "a"))
    again = table(search(trials=14, sampler=sampler, out=tmp_path / "b"))
    other = table(search(trials=14, sampler=sampler, seed=1, out=tmp_path / "c"))
    assert first["optim.lr"].tolist() == again["optim.lr"].tolist() != other["optim.lr"].tolist()
    assert first["optim.lr"].is_unique


def test_tpe_learns_from_trials_of_the_same_bracket(monkeypatch):
    study = optuna.create_study(pruner=make_pruner(9), study_name="brackets")
    seen = []

    class Spy(optuna.samplers.TPESampler):
        def infer_relative_search_space(self, study, trial):
            seen.append([(other.number, trial.number) for other in study.trials])
            return super().infer_relative_search_space(study, trial)

    study.sampler = Spy()
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=20)
    pairs = [pair for pairs in seen for pair in pairs]
    assert pairs and all(bracket_of(study, one) == bracket_of(study, other) for one, other in pairs)


def test_the_verb_says_what_kind_of_hyperband_it_is_and_shows_the_ledger(drawn, tmp_path, trainings, capsys):
    with pytest.raises(SystemExit):
        main(["tune", "--help"])
    assert "asynchronous" in capsys.readouterr().out
    recipe, space = tmp_path / "mine.yaml", tmp_path / "space.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    space.write_text(yaml.safe_dump(SPACE, sort_keys=False))
    out = ["--out", str(tmp_path / "search"), "--set", f"data.root={drawn}"]
    with pytest.raises(SystemExit) as end:
        main(["tune", str(recipe), "--space", str(space), "--trials", "4", *out])
    told, wrong = capsys.readouterr()
    assert not end.value.code, wrong
    assert "trial 3 (bracket " in told and "4 of 4 trials" in told and "epochs full" in " ".join(told.split())
    assert "gender accuracy" in told and "report: " in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "accuracy"}, "unknown metric 'accuracy'.*val_loss, val_gender_accuracy"),
        ({"trials": 0}, "trials is 0"),
        ({"sampler": "grid"}, "unknown sampler"),
        ({"eta": 1}, "eta is 1"),
        ({"changes": ["trainer.epochs=2"]}, r"trainer\.epochs is 2 and eta 3"),
        ({"changes": ["trainer.devices=2"]}, r"trainer\.devices is 2"),
        ({"space": {"tasks.gender.label_smoothing": {"low": 0.0, "high": 0.2}}}, "changes what val_loss measures"),
        ({"space": {"nope": {"low": 0.0, "high": 0.2}}}, "nope"),
        ({"storage": "nonsense"}, "storage .*nonsense.*valid: sqlite"),
        ({"storage": "sqlite:////nowhere/at/all.db"}, "cannot be reached"),
        ({"storage": "postgresql+none://me:secret@here/x"}, "storage 'postgresql.none://here/x'"),
    ],
)
def test_wrong_settings_are_named(search, options, message):
    with pytest.raises(MienError, match=message) as caught:
        search(**options)
    assert "secret" not in str(caught.value)


def test_a_folder_belongs_to_one_search(search, tmp_path, trainings):
    run = search(trials=3)
    with pytest.raises(MienError, match="started with another seed"):
        search(trials=3, seed=5)
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    with pytest.raises(MienError, match="is not a search folder"):
        search(trials=3, out=other)
    assert run.finished


def test_a_database_belongs_to_one_folder(search, tmp_path):
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    assert search(trials=3, storage=storage).finished
    with pytest.raises(MienError, match="this search for another folder"):
        search(trials=3, storage=storage, out=tmp_path / "second")
    assert search(trials=3, storage=storage, out=tmp_path / "second", seed=1).finished


def test_a_storage_that_is_lost_leaves_what_was_finished_and_comes_back(search, tmp_path, monkeypatch):
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    real, count = optuna.storages.RDBStorage.set_trial_intermediate_value, iter(range(100))

    def fail(*arguments):
        if next(count) == 20:
            raise optuna.exceptions.StorageInternalError("the server is gone")
        return real(*arguments)

    monkeypatch.setattr(optuna.storages.RDBStorage, "set_trial_intermediate_value", fail)
    with pytest.raises(MienError, match="cannot be reached.*server is gone.*rerun the same command to resume"):
        search(trials=8, storage=storage)
    assert len(pd.read_csv(tmp_path / "search" / "trials.csv"))
    trials = table(search(trials=8, storage=storage))
    assert len(trials) == 8 and (trials["state"] != "failed").all()


SCRIPT = """
import sys
from mien.training.search import tune
recipe, space, out, root, storage = eval(sys.argv[1])
tune(recipe, space, out, changes=[f"data.root={root}", "trainer.epochs=3"], trials=4, storage=storage)
"""


def test_two_processes_share_a_real_search_and_one_is_killed(drawn, tmp_path):
    out, storage = tmp_path / "search", f"sqlite:///{tmp_path / 'shared.db'}"
    argument = repr((RECIPE, SPACE, str(out), str(drawn), storage))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, argument]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    one, two = (subprocess.Popen(command, env=environment, **quiet) for _ in range(2))
    until = time.monotonic() + 120
    while not list(out.glob("trials/*/log.csv")) and time.monotonic() < until:
        time.sleep(0.05)
    one.send_signal(signal.SIGKILL)
    one.communicate()
    _, told = two.communicate(timeout=240)
    assert two.returncode == 0, told
    trials, curves = pd.read_csv(out / "trials.csv"), pd.read_csv(out / "curves.csv")
    assert trials["trial"].tolist() == [0, 1, 2, 3] and set(trials["state"]) <= {"finished", "stopped early"}
    assert not curves.duplicated(["trial", "epoch"]).any()
    best = open_run(out / "best")
    faces = pd.read_parquet(out / "faces.parquet").set_index("face")["split"].astype(str)
    # What chose and what judges are the parts that the trials had.
    pd.testing.assert_series_equal(best.faces.set_index("face")["split"].astype(str), faces)
    for trial in trials["trial"]:
        folder = out / "trials" / str(trial)
        names = {file.name for file in folder.iterdir()}
        assert not names & {"predictions.parquet", "metrics.csv", "model.onnx", "resume.ckpt", "best.ckpt"}


@pytest.mark.parametrize(("sampler", "seed"), [("random", 0), ("random", 1), ("tpe", 2)])
def test_a_search_that_dies_after_any_note_in_its_journal_draws_and_judges_the_same(search, tmp_path, sampler, seed):
    options = {"trials": 14, "sampler": sampler}
    whole = search(out=tmp_path / "whole", **options)
    rng, backend = np.random.default_rng(seed), optuna.storages.journal.JournalFileBackend
    real, deaths = backend.append_logs, 0
    for _ in range(200):
        left = int(rng.integers(1, 14))

        def append(self, logs):
            nonlocal left
            real(self, logs)
            left -= 1
            if left == 0:
                raise Killed

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(backend, "append_logs", append)
            patch.setattr(trials_module, "_MAX_ATTEMPTS", 1000)
            try:
                run = search(**options)
            except Killed:
                deaths += 1
            else:
                break
    assert deaths > 10
    for name in ("trials", "curves", "ledger"):
        pd.testing.assert_frame_equal(table(run, name), table(whole, name))


def test_a_line_that_a_full_disk_cut_short_is_no_part_of_the_journal(search, tmp_path):
    whole = search(out=tmp_path / "whole", trials=4)
    search(trials=2)
    shutil.rmtree(tmp_path / "search" / "best")
    with (tmp_path / "search" / "search.log").open("a") as file:
        file.write('{"op_code":5,"work')
    pd.testing.assert_frame_equal(table(search(trials=4)), table(whole))


def test_a_trial_that_comes_further_between_deaths_is_not_given_up(search, trainings, tmp_path):
    def die(recipe, epoch):
        run = Run(tmp_path / "search" / "trials" / "0")
        if trainings.calls[-1][0] == "0":
            attempts = sum(name == "0" for name, _, _ in trainings.calls)
            if saving or attempts < 2:
                run.resume_file.write_text("a checkpoint")
                os.utime(run.resume_file, (attempts, attempts))
            if attempts < 7:
                raise Killed

    for saving, state in ((True, "finished"), (False, "failed")):
        trainings.calls.clear()
        trainings.before_epoch = die
        for _ in range(6):
            with contextlib.suppress(Killed):
                run = search(trials=3, eta=9)
        trials = table(search(trials=3, eta=9)) if saving else table(run)
        assert trials.loc[0, "state"] in (("finished", "stopped early") if saving else (state,))
        shutil.rmtree(tmp_path / "search")
