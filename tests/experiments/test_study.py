"""Studies whose runs are made by hand: what is asked for, what is run, and what is found."""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from mien.base.errors import MienError
from mien.base.table import check_faces, write_table
from mien.experiments import study as study_module
from mien.experiments.results import collect, holm, run_warnings, set_warnings
from mien.experiments.study import StudyFolder, load_study, make_cells, study_names
from mien.metrics.joining import join
from mien.metrics.scoring import mean_over_runs, paired_difference, score
from mien.recipe.load import load_recipe
from mien.runs.run import Run
from mien.training import study_cells as runner
from mien.training.study_cells import TrainingJob, make_jobs, run_study

BASE = {
    "base": "demo-gender",
    "axes": {
        "network": {"small": {}, "wide": {"set": ["model.hidden=[64]"]}},
        "start": {"random": {}, "warm": {"set": ["optim.warmup=2.0"]}},
    },
    "folds": [0, 1],
    "compare": ["network"],
}
TWO_BASES = {"x": {"base": "demo-gender"}, "y": {"base": "demo-gender-age"}}
STAGED = {"set": ["init.data.source=celeba", "init.data.root=.", "init.split.method=partition"]}
WITH_STAGE = {"network": BASE["axes"]["network"], "start": {"random": {}, "CelebA": STAGED}}


def study(**changes):
    return load_study(BASE | changes)


def made_faces(rows=240, seed=0):
    """Faces of subjects with a gender each, in two folds."""
    rng = np.random.default_rng(seed)
    subject = np.sort(rng.integers(0, rows // 4, rows))
    ids = [f"f{row:04d}" for row in range(rows)]
    return check_faces(
        pd.DataFrame(
            {
                "face": ids,
                "path": [f"{name}.jpg" for name in ids],
                "subject": [f"s{number}" for number in subject],
                "gender": np.where(subject % 3 == 0, "male", "female"),
                "fold": subject % 2,
            }
        )
    )


def make_run(folder, recipe, right=0.8, seed=0, status="finished"):
    """A run whose predictions are right with a probability."""
    rng = np.random.default_rng([seed, recipe.split.test_fold, recipe.trainer.seed])
    faces = made_faces()
    others = np.where(rng.random(len(faces)) < 0.2, "val", "train")
    parts = np.where(faces["fold"] == recipe.split.test_fold, "test", others)
    faces = check_faces(faces.assign(split=parts))
    female = (faces["gender"] == "female").to_numpy() == (rng.random(len(faces)) < right)
    predictions = pd.DataFrame({"face": faces["face"], "status": "ok", "p_female": np.where(female, 0.9, 0.1)})
    run = Run(folder)
    run.begin(recipe)
    write_table(faces, run.faces_file)
    write_table(predictions, run.predictions_file)
    scored = []
    for split in ("train", "val", "test"):
        part = faces[faces["split"] == split]
        joined = join(part, predictions[predictions["face"].isin(part["face"])])
        scored.append(
            score(joined, train_faces=faces[faces["split"] == "train"], n_boot=50, by=()).assign(run="x", split=split)
        )
    write_table(pd.concat(scored), run.metrics_file)
    log = {"epoch": [1, 2], "train_loss": [0.7, 0.5], "val_loss": [0.6, 0.6], "images": [9, 9], "seconds": [1, 1]}
    write_table(pd.DataFrame(log), run.log_file)
    run.note(status=status, leaks=[], epochs=2, seconds_training=2.0, images_trained=18, parameters=7, device="cpu")
    return run


def fake_work(job: TrainingJob, send):
    """Stands for training: what it does is in the file `orders` beside the cells."""
    orders = yaml.safe_load((job.log_file.parent.parent / "orders").read_text())
    with (job.log_file.parent.parent / "done").open("a") as file:
        file.write(job.name + "\n")
    job.log_file.with_suffix(".failed").unlink(missing_ok=True)
    order = orders.get(job.name)
    if order == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if order is not None:
        return order
    send({"epoch": 1.0, "val_loss": 0.5})
    if job.folder is not None:
        make_run(job.folder, job.recipe, 0.9 if job.recipe.model.hidden else 0.6)
    return None


@pytest.fixture
def faked(monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "work", fake_work)
    folder = tmp_path / "out"
    folder.mkdir()

    def run(orders=None, asked=None, **options):
        (folder / "orders").write_text(yaml.safe_dump(orders or {}))
        (folder / "done").write_text("")
        results = run_study(asked or study(), [f"data.root={tmp_path}"], folder, **options)
        return results, (folder / "done").read_text().split()

    return run


class TestStudyFiles:
    @pytest.mark.parametrize("name", study_names())
    def test_those_that_ship_resolve_and_have_a_header(self, name, tmp_path):
        file = Path(study_module.__file__).parent / "studies" / f"{name}.yaml"
        text = file.read_text()
        assert [line.split(":")[0] for line in text.splitlines()[1:4]] == ["# command", "# time", "# score"]
        for quick in (False, True) if "quick" in yaml.safe_load(text) else (False,):
            asked = load_study(name, quick)
            cells = make_cells(asked, (), tmp_path if quick else None)
            assert len({cell.slug for cell in cells}) == len(cells) > 1
            assert asked.demonstration == quick

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"axes": {}}, ["no axis"]),
            ({"axes": {"a": {}}}, ["axis 'a' has no level"]),
            ({"axes": {"fold": {"x": {}}}}, ["'fold'", "taken"]),
            ({"axes": {"a": {"X y": {}, "x-y": {}}}}, ["share a folder"]),
            ({"axes": {"a": {"x": {"sett": []}}}}, ["axes.a.x.sett", "did you mean 'set'"]),
            ({"sedes": [1]}, ["sedes", "did you mean 'seeds'"]),
            ({"seeds": []}, ["seeds"]),
            ({"seeds": [1, 1]}, ["seeds", "twice"]),
            ({"folds": ["one"]}, ["folds.0", "'one'"]),
            ({"compare": ["netwrok"]}, ["netwrok", "did you mean 'network'"]),
            ({"axes": {"network": {"x": {}}}}, ["one level"]),
            ({"reference": {"network": "tiny"}}, ["'tiny'", "small, wide"]),
            ({"reference": {"start": "random"}}, ["reference", "'start'"]),
            ({"metrics": ["gender_acuracy"]}, ["did you mean 'gender_accuracy'"]),
            ({"alpha": 2.0}, ["alpha = 2.0"]),
            ({"axes": {"x": {"a": {}, "b": {}}}, "data_sets": "fold"}, ["data_sets", "'fold'", "taken"]),
            ({"data_sets": "network"}, ["data_sets", "'network'", "in axes too"]),
        ],
    )
    def test_mistakes_in_a_file_are_named(self, changes, words):
        with pytest.raises(MienError) as error:
            study(**changes)
        assert all(word in str(error.value) for word in words), error.value

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"axes": {"network": {"x": {}, "y": {"set": ["split.method=folds"]}}}}, ["contradicts", "x, fold 0", "y"]),
            ({"axes": {"network": TWO_BASES, "b": TWO_BASES}}, ["'network'", "'b'", "both give"]),
            ({"base": None}, ["no recipe", "'base'"]),
            ({"set": ["optim.lrr=1"]}, ["optim.lrr", "'lr'"]),
            ({"set": ["split.method=subjects"]}, ["folds are given", "'subjects'", "subject_folds"]),
            ({"metrics": ["age_mae"]}, ["no cell has a task", "'age_mae'", "gender"]),
            ({"metrics": ["gender_ece"], "seeds": [0, 1]}, ["gender_ece", "one seed"]),
            ({"set": ["trainer.devices=2"]}, ["trainer.devices", "--jobs"]),
            ({"data_sets": "trained on"}, ["names 1 data set", "data.sets"]),
        ],
    )  # fmt: skip
    def test_contradictions_are_found_before_anything_is_trained(self, changes, words, tmp_path):
        with pytest.raises(MienError) as error:
            run_study(BASE | changes, [f"data.root={tmp_path}"], tmp_path / "out")
        assert all(word in str(error.value) for word in words), error.value
        assert not (tmp_path / "out").exists()

    def test_files_and_recipes_beside_them_are_found(self, tmp_path):
        (tmp_path / "mine.yaml").write_text("base: demo-gender\noptim: {lr: 0.5}\n")
        (tmp_path / "asks.yaml").write_text(yaml.safe_dump(BASE | {"base": "mine.yaml"}))
        cells = make_cells(load_study(tmp_path / "asks.yaml"))
        assert {cell.recipe.optim.lr for cell in cells} == {0.5}
        with pytest.raises(MienError, match="no quick variant"):
            load_study(tmp_path / "asks.yaml", quick=True)
        with pytest.raises(MienError, match="absent.yaml"):
            load_study(tmp_path / "absent.yaml")
        with pytest.raises(MienError, match="did you mean 'transfer'"):
            load_study("transfr")


class TestCells:
    def test_every_combination_comes_before_the_next_fold_and_seed(self):
        cells = make_cells(study(seeds=[3, 4]))
        combinations = list(itertools.product(["small", "wide"], ["random", "warm"]))
        expected = [(seed, fold, pair) for seed in (3, 4) for fold in (0, 1) for pair in combinations]
        assert [(cell.seed, cell.fold, cell.combination) for cell in cells] == expected
        for cell in cells:
            recipe = cell.recipe
            assert (recipe.trainer.seed, recipe.split.test_fold) == (cell.seed, cell.fold)
            assert recipe.model.hidden == ((64,) if cell.levels["network"] == "wide" else ())
            assert recipe.optim.warmup == (2.0 if cell.levels["start"] == "warm" else 1.0)

    def test_changes_of_the_caller_come_last(self):
        cells = make_cells(study(set=["optim.lr=1"]), ["optim.lr=2"])
        assert {cell.recipe.optim.lr for cell in cells} == {2.0}

    def test_a_first_stage_that_cells_share_is_one_job_before_them(self, tmp_path):
        asked = study(axes=WITH_STAGE, seeds=[0, 1])
        jobs = make_jobs(StudyFolder(tmp_path), make_cells(asked))
        stages = [job for job in jobs if job.folder is None]
        # The seed of the second stage is that of the first, so that two networks and two seeds make four.
        assert len(stages) == 4 and len(jobs) == 4 + 16
        for job in jobs:
            if job.needs:
                assert jobs.index(job) > next(at for at, other in enumerate(jobs) if other.name == job.needs)
        assert len({job.needs for job in jobs if job.needs}) == 4


class TestRunning:
    def test_a_failed_and_a_killed_cell_are_recorded_and_only_they_run_again(self, faked, capsys):
        orders = {"small_random_fold-0_seed-0": "no memory", "wide_warm_fold-1_seed-0": "die"}
        results, done = faked(orders, jobs=2)
        status = {found.cell.slug: (found.status, found.reason) for found in results.cells}
        assert status["small_random_fold-0_seed-0"] == ("failed", "no memory")
        assert status["wide_warm_fold-1_seed-0"][0] == "failed" and "SIGKILL" in status["wide_warm_fold-1_seed-0"][1]
        assert sum(kind == "finished" for kind, _ in status.values()) == 6 and len(done) == 8
        folder = results.cells[0].run.folder.parent.parent
        report = (folder / "report.html").read_text()
        assert "no memory" in report and "6 of 8 runs are finished, 2 failed" in report
        runs = pd.read_parquet(folder / "runs.parquet")
        assert runs["status"].value_counts().to_dict() == {"finished": 6, "failed": 2}
        results, done = faked()
        assert sorted(done) == sorted(orders) and all(found.finished for found in results.cells)
        capsys.readouterr()
        _, done = faked()
        assert done == [] and "failed:" not in capsys.readouterr().out

    def test_cells_whose_first_stage_fails_say_so_and_the_others_go_on(self, faked):
        asked = study(axes=WITH_STAGE, folds=[0])
        results, done = faked({"first-stage-1_celeba": "no faces"}, asked)
        reasons = {found.cell.slug: found.reason for found in results.cells}
        assert reasons["small_celeba_fold-0_seed-0"] == "its first stage failed: no faces"
        assert [found.status for found in results.cells] == ["finished", "failed", "finished", "finished"]
        assert "small_celeba_fold-0_seed-0" not in done

    def test_another_recipe_in_the_same_folder_is_refused(self, faked):
        faked()
        with pytest.raises(MienError, match=r"optim\.lr was 0\.0015 and is 0\.5.*give another --out"):
            faked(asked=study(set=["optim.lr=0.5"]))

    def test_moved_data_do_not_make_finished_runs_others(self, faked, tmp_path):
        results, _ = faked()
        folder = results.cells[0].run.folder.parent.parent
        again = run_study(study(), ["data.root=elsewhere"], folder)
        assert all(found.finished for found in again.cells)

    def test_data_are_asked_for_before_anything_is_trained(self, tmp_path):
        with pytest.raises(MienError, match=r"data\.root is not set.*adience.*--set data\.root=FOLDER"):
            run_study(study(), out=tmp_path / "out")
        with pytest.raises(MienError, match="'absent'.*does not exist"):
            run_study(study(), ["data.root=absent"], tmp_path / "out")
        with pytest.raises(MienError, match="jobs 0"):
            run_study(study(), ["data.root=."], tmp_path / "out", jobs=0)
        assert not (tmp_path / "out").exists()

    def test_a_study_is_run_by_one_process_at_a_time(self, faked, tmp_path):
        (tmp_path / "out").mkdir(exist_ok=True)
        code = "import sys, time, pathlib; from mien.base.lock import Lock; "
        code += "print(Lock(pathlib.Path(sys.argv[1])).take(), flush=True); time.sleep(600)"
        command = [sys.executable, "-c", code, str(tmp_path / "out" / ".lock")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
            try:
                assert other.stdout.readline() == "True\n"
                with pytest.raises(MienError, match="in use"):
                    faked()
            finally:
                other.kill()
        faked()

    def test_an_interruption_leaves_tables_of_what_is_finished(self, faked, monkeypatch, tmp_path):
        real = runner.StudyProgress.finished

        def stop(self, name):
            real(self, name)
            if self._done == 3:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(runner.StudyProgress, "finished", stop)
            faked()
        runs = pd.read_parquet(tmp_path / "out" / "runs.parquet")
        assert (runs["status"] == "finished").sum() == 3
        _, done = faked()
        assert len(done) == 5


def found_cells(tmp_path, asked, quality):
    """The finished cells of a study, each right as often as `quality(cell)` says."""
    folder = StudyFolder(tmp_path)
    cells = make_cells(asked)
    for number, cell in enumerate(cells):
        make_run(folder.run(cell).folder, cell.recipe, quality(cell), number)
    return folder, cells


class TestResults:
    def test_folds_are_pooled_and_seeds_averaged(self, tmp_path):
        asked = study(seeds=[0, 1, 2], axes={"network": BASE["axes"]["network"]})
        folder, cells = found_cells(tmp_path, asked, lambda cell: 0.9 if cell.levels["network"] == "wide" else 0.6)
        table = collect(asked, folder, cells).table.set_index("network")
        for network in ("small", "wide"):
            mine = [cell for cell in cells if cell.levels["network"] == network]
            right = {}
            for cell in mine:
                run = folder.run(cell)
                test = run.faces[run.faces["split"] == "test"].merge(run.predictions, on="face")
                right[cell.seed, cell.fold] = (test["gender"] == "female") == (test["p_female"] >= 0.5)
            seeds = [pd.concat([right[seed, fold] for fold in (0, 1)]).mean() for seed in (0, 1, 2)]
            folds = [np.mean([right[seed, fold].mean() for seed in (0, 1, 2)]) for fold in (0, 1)]
            row = table.loc[network]
            assert row["value"] == pytest.approx(np.mean(seeds))
            assert row["seeds_sd"] == pytest.approx(np.std(seeds, ddof=1))
            assert row["folds_sd"] == pytest.approx(np.std(folds, ddof=1))
            assert row["n"] == 240 and row["subjects"] == made_faces()["subject"].nunique()
            assert row["low"] < row["value"] < row["high"] and row["runs_finished"] == 6

    def test_a_difference_is_told_with_its_faces_and_its_correction(self, tmp_path):
        asked = study(seeds=[0, 1], compare=["network", "start"])
        folder, cells = found_cells(tmp_path, asked, lambda cell: 0.95 if cell.levels["network"] == "wide" else 0.6)
        results = collect(asked, folder, cells)
        assert len(results.comparisons) == 4  # two networks for each start, two starts for each network
        networks = results.comparisons[results.comparisons["axis"] == "network"]
        assert (networks["verdict"] == "different").all() and (networks["value"] < 0).all()
        words = networks["in words"].iloc[0]
        for part in ("random: wide is better than small in gender accuracy by", "n 240 faces", "2 folds, 2 seeds"):
            assert part in words
        assert "after Holm's correction of 4 comparisons" in words
        starts = results.comparisons[results.comparisons["axis"] == "start"]
        assert starts["in words"].str.contains("not distinguishable").all()

    def test_only_pairs_with_the_reference_are_compared(self, tmp_path):
        axes = {"network": BASE["axes"]["network"] | {"wider": {"set": ["model.hidden=[65]"]}}}
        asked = study(axes=axes, reference={"network": "wide"}, folds=[0])
        folder, cells = found_cells(tmp_path, asked, lambda cell: 0.8)
        pairs = collect(asked, folder, cells).comparisons[["first", "second"]]
        assert pairs.to_numpy().tolist() == [["small", "wide"], ["wide", "wider"]]

    def test_missing_folds_are_left_out_of_both_sides(self, tmp_path):
        asked = study(axes={"network": BASE["axes"]["network"]})
        folder = StudyFolder(tmp_path)
        cells = make_cells(asked)
        for number, cell in enumerate(cells[:3]):  # of fold 1 only the first network is finished
            make_run(folder.run(cell).folder, cell.recipe, 0.8, number)
        results = collect(asked, folder, cells)
        fold = (made_faces()["fold"] == 0).sum()
        assert results.comparisons["n"].tolist() == [fold]
        assert results.table["n"].tolist() == [240, fold] and results.table["runs_finished"].tolist() == [2, 1]

    def test_nothing_finished_makes_empty_tables(self, tmp_path):
        asked = study()
        results = collect(asked, StudyFolder(tmp_path), make_cells(asked))
        assert results.comparisons.empty and (results.table["n"] == 0).all() and not results.warnings

    def test_holm_by_hand(self):
        p = np.array([0.01, np.nan, 0.04, 0.03])
        assert holm(p)[[0, 2, 3]] == pytest.approx([0.03, 0.06, 0.06]) and np.isnan(holm(p)[1])
        assert holm(np.array([0.9, 0.8])) == pytest.approx([1.0, 1.0]) and holm(np.array([])).size == 0


def two_tables(rows=300, seed=0):
    faces = made_faces(rows)
    rng = np.random.default_rng(seed)
    tables = []
    for right in (0.8, 0.7):
        female = (faces["gender"] == "female").to_numpy() == (rng.random(rows) < right)
        p = np.clip(np.where(female, 0.7, 0.3) + rng.normal(0, 0.1, rows), 0, 1)
        tables.append(join(faces, pd.DataFrame({"face": faces["face"], "p_female": p})))
    return tables


class TestMeanOverRuns:
    @pytest.mark.parametrize("metric", ["gender_accuracy", "gender_balanced_accuracy", "gender_auc"])
    def test_the_mean_is_that_of_the_runs(self, metric):
        tables = two_tables()
        single = [score(table).set_index(["group", "metric"]).loc[("all", metric)] for table in tables]
        found = mean_over_runs(tables, metric)
        assert found.value == pytest.approx(np.mean([row["value"] for row in single]))
        alone = mean_over_runs(tables[:1], metric)
        assert alone[:4] == pytest.approx(tuple(single[0][["value", "low", "high", "n"]]))

    def test_the_interval_is_that_of_a_bootstrap_of_subjects(self):
        tables = two_tables()
        right = np.mean([table["gender"].astype(str) == table["true_gender"].astype(str) for table in tables], axis=0)
        groups = [right[index] for index in tables[0].groupby("subject").indices.values()]
        rng = np.random.default_rng(1)
        draws = rng.integers(0, len(groups), (4000, len(groups)))
        means = [np.concatenate([groups[at] for at in draw]).mean() for draw in draws]
        found = mean_over_runs(tables, "gender_accuracy")
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.006)

    def test_a_difference_of_means_is_that_of_the_single_differences(self):
        a, b = two_tables(seed=0), two_tables(seed=1)
        found = paired_difference(a, b, "gender_accuracy")
        singles = [paired_difference(*pair, "gender_accuracy") for pair in zip(a, b, strict=True)]
        assert found.value == pytest.approx(np.mean([one.value for one in singles]))
        assert found.high - found.low < np.mean([one.high - one.low for one in singles])
        assert paired_difference(a[0], b[0], "gender_accuracy") == singles[0]

    def test_wrong_tables_are_refused(self):
        one, other = two_tables()
        with pytest.raises(MienError, match="same faces only"):
            mean_over_runs([one, other.iloc[1:]], "gender_accuracy")
        with pytest.raises(MienError, match="no table"):
            mean_over_runs([], "gender_accuracy")
        with pytest.raises(MienError, match="not averaged"):
            mean_over_runs([one, other], "gender_ece")


def quiet(**changes):
    """What a run without anything wrong has; `changes` are score rows (split -> value)."""
    values = {"train": 0.9, "val": 0.88, "test": 0.88} | changes
    rows = pd.DataFrame({"split": list(values), "value": list(values.values()), "n": 500})
    rows = rows.assign(low=rows["value"] - 0.02, high=rows["value"] + 0.02, metric="gender_accuracy", group="all")
    return rows.assign(baseline=0.54, versus_baseline="better")


JOINED = pd.DataFrame({"true_gender": ["female", "male"] * 5, "gender": ["female", "male"] * 5})
LOG = pd.DataFrame({"epoch": [1, 2, 3], "train_loss": [0.69, 0.5, 0.4]})
INPUT = {"low": [0.0] * 3, "high": [1.0] * 3, "expected_low": [-1.0] * 3, "expected_high": [1.0] * 3}


class TestAlarms:
    def found(self, scores=None, joined=JOINED, log=LOG, info=None, changes=()):
        recipe = load_recipe("demo-gender", ["init.weights=imagenet", *changes])
        return run_warnings(recipe, quiet() if scores is None else scores, joined, log, info or {})

    def test_a_good_run_raises_none(self):
        same = {**INPUT, "low": INPUT["expected_low"]}
        assert self.found(info={"input": same, "leaks": []}) == {}

    def test_no_better_than_the_majority(self):
        scores = quiet(train=0.55, val=0.55, test=0.54).assign(versus_baseline="unclear")
        assert "not better than always predicting the majority class (54.0, n 500)" in str(self.found(scores))

    @pytest.mark.parametrize("answer", ["female", "male"])
    def test_one_class_predicted_whichever(self, answer):
        assert f"the same gender, '{answer}'" in self.found(joined=JOINED.assign(gender=answer))["one gender"]

    @pytest.mark.parametrize(
        ("losses", "words"),
        [
            ([0.693, 0.693, 0.692], "stays flat"),
            ([0.7, np.nan, 0.6], "not finite from epoch 2"),
            ([0.7, 0.6, np.inf], "not finite from epoch 3"),
        ],
    )
    def test_losses_that_do_not_fall(self, losses, words):
        assert words in self.found(log=LOG.assign(train_loss=losses))["loss"]

    def test_a_data_set_that_the_calibration_does_not_fit(self):
        def row(group, metric, value, low, high, split="test"):
            return {"group": group, "metric": metric, "value": value, "low": low, "high": high, "n": 90, "split": split}

        scores = pd.DataFrame(
            [
                row("all", "age_interval_coverage", 0.5, 0.45, 0.55),
                row("dataset=a", "age_interval_coverage", 0.61, 0.5, 0.7),
                row("dataset=b", "age_interval_coverage", 0.61, 0.5, 0.76),
                row("dataset=b", "gender_ece", 0.06, 0.041, 0.08),
                row("dataset=b", "gender_ece", 0.2, 0.1, 0.3, "train"),
                row("gender=female", "gender_ece", 0.2, 0.1, 0.3),
            ]
        )
        assert list(set_warnings(scores).values()) == [
            "a: the 80% age interval contains 61.0% [50.0, 70.0] of the true ages (n 90)",
            "b: the calibration error of gender is 6.0% [4.1, 8.0] (n 90)",
        ]

    def test_test_above_validation_by_more_than_chance(self):
        assert "better than that of the validation part" in str(self.found(quiet(val=0.83, test=0.95, train=0.95)))
        assert self.found(quiet(val=0.87, test=0.89)) == {}

    def test_training_far_above_test(self):
        assert "overfits its training faces" in str(self.found(quiet(train=0.99, val=0.86, test=0.86)))
        assert self.found(quiet(train=0.94, val=0.86, test=0.86)) == {}  # beyond chance, but not far
        errors = quiet(train=3.0, val=5.9, test=6.0).assign(metric="age_mae")
        assert "mean absolute error of age of training faces, 3.00" in self.found(errors)["overfitting age_mae"]
        assert self.found(quiet(train=5.0, val=5.9, test=6.0).assign(metric="age_mae")) == {}

    def test_leaks_odd_pixels_and_augmented_tests(self):
        found = self.found(info={"leaks": ["9 test images show a subject of the train part"], "input": INPUT})
        assert (
            "9 test images" in found["leak"]
            and "0 to 1 are the input" in found["input"]
            and "-1 to 1" in found["input"]
        )
        assert "augmented too" in self.found(changes=["augment.evaluation=true"])["evaluation"]
        assert self.found(info={"input": INPUT}, changes=["init.weights=none"]) == {}
