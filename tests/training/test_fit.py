"""Whole runs on demonstration faces with timm's tiny test networks."""

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from mien.base.errors import MienError
from mien.base.table import write_table
from mien.data.leaks import LeakError
from mien.data.sources import read_faces
from mien.evaluation.evaluate import evaluate, evaluate_on
from mien.prediction.predict import Predictor
from mien.recipe.load import load_recipe
from mien.runs.run import Run, open_run
from mien.training.callbacks import Log
from mien.training.data import EpochSampler, FaceSamples, ResumableLoader
from mien.training.fit import train

SMALL = {
    "data": {"source": "adience", "labels": "masked"},
    "split": {"method": "folds"},
    "model": {"backbone": "test_byobnet", "image_size": 32, "dropout": 0.2},
    "init": {"weights": "none"},
    "tasks": ["gender", "age_group"],
    "augment": {"rotate": 5},
    "trainer": {"epochs": 2, "batch_size": 16, "workers": 0, "checkpoint_every": 1},
}


@pytest.fixture
def recipe(drawn):
    return load_recipe(SMALL, [f"data.root={drawn}"])


@pytest.fixture(scope="module")
def finished(drawn, tmp_path_factory):
    changes = [f"data.root={drawn}", "tasks=[gender, age_group, age]", "data.labels=masked"]
    return train(SMALL, changes, tmp_path_factory.mktemp("runs") / "finished")


def test_two_commands_cannot_train_in_one_folder(recipe, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    held = (
        "import sys; from pathlib import Path; from mien.base.lock import Lock; lock = Lock(Path(sys.argv[1]));"
        "print(lock.take(), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", held, folder / ".lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "True\n"
        with pytest.raises(MienError, match="in use: another process trains there.* --out"):
            train(recipe, out=folder)
        assert {path.name for path in folder.iterdir()} == {".lock"}
        other.communicate()
    with pytest.raises(Killed), pytest.MonkeyPatch.context() as patch:  # the lock is free now
        patch.setitem(train.__globals__, "_train", lambda *rest: _raise(Killed))
        train(recipe, out=folder)
    assert list(folder.iterdir()) == []


def _raise(error):
    raise error


class Killed(BaseException):
    """Nothing in the program catches this, as nothing can catch SIGKILL."""


def killed_at(step, monkeypatch):
    real = Log.on_train_batch_start

    def stop(self, trainer, *rest):
        if trainer.global_step == step:
            raise Killed
        real(self, trainer, *rest)

    monkeypatch.setattr(Log, "on_train_batch_start", stop)


def same_weights(one, other):
    a, b = load_file(one.weights_file), load_file(other.weights_file)
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "changes", [(), ("trainer.averaging=0.9", "trainer.keep=last", "trainer.workers=2", "data.cache=false")]
)
def test_interrupted_runs_end_in_the_same_weights(recipe, tmp_path, changes):
    recipe = load_recipe(recipe, changes)
    whole = train(recipe, out=tmp_path / "whole")
    steps = int(whole.log["step"].max())
    per_epoch = steps // 2
    broken = tmp_path / "broken"
    for step in (1, per_epoch - 1, per_epoch, per_epoch + 2):  # in, at the end of and after the first epoch
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            killed_at(step, patch)
            train(recipe, out=broken)
        assert (broken / "resume.ckpt").exists() and not Run(broken).finished
    resumed = train(recipe, out=broken)
    assert same_weights(whole, resumed)
    timing = ["seconds", "images_per_second", "waiting_for_data"]
    pd.testing.assert_frame_equal(whole.log.drop(columns=timing), resumed.log.drop(columns=timing))
    assert not (broken / "resume.ckpt").exists()


def test_the_best_epoch_is_not_forgotten_when_a_run_is_stopped_right_after_it(recipe, tmp_path):
    def stop(row):
        raise Killed

    recipe = load_recipe(recipe, ["tasks=[gender]", "augment={}", "model.dropout=0"])
    whole = train(recipe, out=tmp_path / "whole")
    assert whole.log["val_loss"].idxmin() == 0, "the recipe must get worse after the first epoch"
    with pytest.raises(Killed):
        train(recipe, out=tmp_path / "broken", on_epoch=stop)
    assert same_weights(whole, train(recipe, out=tmp_path / "broken"))


def test_the_same_seed_gives_the_same_run_and_another_another(recipe, tmp_path):
    one, other = (train(recipe, ["trainer.epochs=1"], tmp_path / name) for name in ("one", "other"))
    different = train(recipe, ["trainer.epochs=1", "trainer.seed=1"], tmp_path / "different")
    assert same_weights(one, other) and not same_weights(one, different)


def test_a_run_folder_holds_all_that_it_promises(finished, drawn):
    files = {path.name for path in finished.folder.iterdir()}
    promised = {
        "recipe.yaml",
        "faces.parquet",
        "unreadable.csv",
        "log.csv",
        "tensorboard",
        "model.safetensors",
        "model.onnx",
        "predictions.parquet",
        "metrics.csv",
        "report.html",
        "run.json",
    }
    assert files == promised
    faces, predictions = finished.faces, finished.predictions
    assert set(predictions["face"]) == set(faces["face"])  # of training faces a sample, here all of them
    assert finished.info["status"] == "finished" and "torch" in finished.info["versions"]
    assert finished.info["faces"] == faces["split"].value_counts().to_dict()
    assert {"gender_accuracy", "age_group_exact"} <= set(finished.metrics["metric"])
    folds = read_faces("adience", drawn, "masked").set_index("face")["fold"]
    assert (folds[faces.loc[faces["split"] == "test", "face"]] == 0).all()


def test_metrics_are_recomputed_from_the_folder_alone(finished):
    before = finished.metrics
    pd.testing.assert_frame_equal(evaluate(finished), before)


def test_onnx_says_all_about_itself_and_agrees_with_torch_at_any_batch_size(finished, drawn):
    session = onnxruntime.InferenceSession(finished.model_file)
    (images,) = session.get_inputs()
    assert images.name == "images" and images.type == "tensor(uint8)" and images.shape[1:] == [32, 32, 3]
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["mien"])
    assert metadata["image_size"] == 32 and metadata["tasks"] == ["gender", "age_group", "age"]
    assert str(drawn) not in json.dumps(metadata)
    predictor = Predictor(finished.model_file)
    faces = finished.faces
    test = faces[faces["split"] == "test"].reset_index(drop=True)
    together = predictor.predict_faces(test, drawn)
    single = pd.concat([predictor.predict_faces(test.iloc[[row]], drawn) for row in range(3)], ignore_index=True)
    pd.testing.assert_frame_equal(single, together.head(3), atol=1e-4)
    stored = finished.predictions.set_index("face").loc[test["face"]]
    assert np.allclose(together["p_female"], stored["p_female"], atol=1e-5)
    assert ((together["age_low"] <= together["age"]) & (together["age"] <= together["age_high"])).all()


def test_taken_folders_are_refused_and_nothing_is_lost(finished, recipe, tmp_path):
    with pytest.raises(MienError, match="is finished"):
        train(finished.recipe, out=finished.folder)
    with pytest.raises(MienError, match=r"optim\.lr was 0\.001 and is 0\.5"):
        train(finished.recipe, ["optim.lr=0.5"], finished.folder)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(MienError, match="holds other files"):
        train(recipe, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failed_start_does_not_block_its_folder(recipe, tmp_path):
    with pytest.raises(MienError, match="fold"):
        train(recipe, ["split.test_fold=9"], tmp_path / "run")
    assert train(recipe, ["trainer.epochs=1"], tmp_path / "run").finished


def as_table(drawn, count=None):
    faces = read_faces("adience", drawn, "exact")
    return faces if count is None else faces.head(count)


@pytest.mark.parametrize("cache", ["true", "false"])
def test_bad_images_are_counted_and_left_out_up_to_a_bound(drawn, tmp_path, cache):
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(drawn, root)
    faces = as_table(root)
    victims = faces[faces["fold"] == 1]["path"].head(3)
    for path in victims:
        (root / path).write_bytes((root / path).read_bytes()[:1200])
    changes = [
        f"data.root={root}",
        f"data.cache={cache}",
        "data.labels=exact",
        "split.near_duplicates=false",
        "trainer.epochs=1",
    ]
    run = train(SMALL, [*changes, "data.max_unreadable=0.5"], tmp_path / "run")
    bad = pd.read_csv(run.unreadable_file)
    assert sorted(bad["path"]) == sorted(victims) and bad["reason"].str.startswith("truncated").all()
    with pytest.raises(MienError, match=r"(3 of .*truncated 3|2 images could not be read|1 images could not be read)"):
        train(SMALL, [*changes, "data.max_unreadable=0"], tmp_path / "strict")


def test_an_unreadable_test_face_stays_in_the_denominator(finished, drawn, tmp_path):
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(drawn, root)
    test = finished.faces[finished.faces["split"] == "test"].reset_index(drop=True)
    (root / test["path"][0]).write_bytes(b"")
    metrics = evaluate_on(finished, test, root, "damaged")
    line = metrics[(metrics["group"] == "all") & (metrics["metric"] == "gender_accuracy")].iloc[0]
    assert line["n"] == test["gender"].notna().sum()
    predictions = pd.read_parquet(finished.folder / "on-damaged" / "predictions.parquet")
    assert predictions["status"].tolist()[0] == "empty" and pd.isna(predictions["p_female"][0])


def test_other_data_with_training_faces_is_a_leak(finished, drawn):
    with pytest.raises(LeakError, match="train"):
        evaluate_on(finished, finished.faces, drawn, "everything")
    metrics = evaluate_on(finished, finished.faces, drawn, "everything", allow_leaks=True)
    assert metrics["leaks"].str.contains("train").all()


def test_a_random_split_leaks_and_every_report_says_so(recipe, tmp_path):
    with pytest.raises(LeakError, match=r"\d+ test images .*subject"):
        train(recipe, ["split.method=random"], tmp_path / "run")
    run = train(recipe, ["split.method=random", "split.allow_leaks=true", "trainer.epochs=1"], tmp_path / "allowed")
    assert run.info["leaks"] and "leak" in run.report_file.read_text().lower()


def test_a_class_missing_from_training_and_a_label_nobody_has(drawn, tmp_path):
    faces = as_table(drawn)
    group = faces.loc[faces["fold"] == 0, "age_group"].iloc[0]
    table = write_table(faces[(faces["age_group"] != group) | (faces["fold"] == 0)], tmp_path / "few.csv")
    with pytest.raises(MienError, match=f"training part lacks the class '{group}'"):
        train(SMALL, [f"data.root={drawn}", f"data.faces={table}"], tmp_path / "run")
    table = write_table(faces.assign(age=None, age_from=None, age_to=None, age_group=None), tmp_path / "none.csv")
    with pytest.raises(MienError, match="task 'age': no face"):
        train(SMALL, [f"data.root={drawn}", f"data.faces={table}", "tasks=[age]"], tmp_path / "run")


def test_open_run_refuses_what_is_no_finished_run(tmp_path, recipe):
    with pytest.raises(MienError, match="is not a mien run"):
        open_run(tmp_path)
    Run(tmp_path / "begun").begin(recipe)
    with pytest.raises(MienError, match="not finished"):
        open_run(tmp_path / "begun")


def test_data_root_is_asked_for(tmp_path):
    with pytest.raises(MienError, match=r"data\.root is not set.*--set data\.root="):
        train(SMALL, out=tmp_path / "run")


def test_early_stopping_and_plateau(recipe, tmp_path):
    changes = [
        "trainer.patience=1",
        "trainer.epochs=6",
        "optim.schedule=plateau",
        "optim.lr=0.5",
        "optim.clip=1.0",
    ]
    run = train(recipe, changes, tmp_path / "run")
    best = run.log["val_loss"].idxmin()
    assert len(run.log) == min(6, best + 2)


def loader(workers):
    class Numbers:
        size = 4

        def __len__(self):
            return 20

        def __getitem__(self, index):
            return np.full((4, 4, 3), index, np.uint8)

    from torchvision.transforms import v2

    samples = FaceSamples(Numbers(), {"gender": torch.arange(20.0)}, v2.RandomErasing(0.5), seed=3)
    sampler = EpochSampler(np.arange(20), shuffle=True, seed=3)
    return ResumableLoader(samples, 4, sampler=sampler, num_workers=workers, collate_fn=samples.collate), sampler


def test_batches_do_not_depend_on_workers_or_on_what_ran_before():
    alone, sampler = loader(0)
    with_workers, other = loader(2)
    sampler.set_epoch(5)
    other.set_epoch(5)
    expected = list(alone)
    torch.rand(7)
    for got, batch in zip(with_workers, expected, strict=True):
        assert torch.equal(got["images"], batch["images"]) and torch.equal(got["index"], batch["index"])
        assert torch.equal(got["targets"]["gender"], batch["index"].float())
    assert sorted(torch.cat([batch["index"] for batch in expected]).tolist()) == list(range(20))
    sampler.set_epoch(6)
    assert not torch.equal(next(iter(alone))["index"], expected[0]["index"])


def test_processes_share_an_epoch_without_overlap():
    keys = [list(EpochSampler(np.arange(10), True, 0, rank, 2)) for rank in range(2)]
    assert sorted(index for part in keys for _, index in part) == list(range(10))
