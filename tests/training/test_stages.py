"""Two stages, further columns, learnt loss weights and penalties: whole runs on drawn faces with tiny networks."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from mien.base.errors import MienError
from mien.data.leaks import LeakError
from mien.demo.dataset import draw_faces
from mien.prediction.predict import Predictor
from mien.recipe.load import load_recipe
from mien.recipe.settings import Init, Model, Optim
from mien.runs.run import Run
from mien.training.fit import stage_folder, train
from mien.training.model import FaceNet, FaceTraining, make_optimizer

SMALL = {
    "data": {"source": "adience", "labels": "masked"},
    "split": {"method": "folds"},
    "model": {"backbone": "test_byobnet", "image_size": 32},
    "init": {"weights": "none"},
    "tasks": ["gender", "age_group"],
    "trainer": {"epochs": 1, "batch_size": 16, "workers": 0},
}


@pytest.fixture(scope="module")
def celeba(tmp_path_factory):
    root = tmp_path_factory.mktemp("celeba") / "celeba"
    draw_faces(root, "celeba", subjects=30)
    return root


@pytest.fixture
def two_stages(drawn, celeba):
    stage = ["init.data.source=celeba", "init.split.method=partition", "init.tasks=[gender]"]
    return load_recipe(SMALL, [f"data.root={drawn}", *stage, f"init.data.root={celeba}"])


def test_the_second_stage_starts_from_the_body_of_the_first(two_stages, tmp_path):
    still = load_recipe(two_stages, ["model.freeze=none", "optim.lr=1e-12", "optim.weight_decay=0"])
    run = train(still, out=tmp_path / "run")
    first = Run(run.folder / "first")
    assert first.finished and first.recipe.data.source == "celeba"
    before, after = load_file(first.weights_file), load_file(run.weights_file)
    body = [name for name in before if name.startswith("backbone.") and name.endswith("weight")]
    assert body and all(torch.allclose(before[name], after[name], atol=1e-6) for name in body)
    lineage = run.info["lineage"]
    assert lineage["dataset"] == "celeba" and lineage["tasks"] == ["gender"]
    assert lineage["faces"] == first.info["faces"] and lineage["from"] == {"weights": "none"}
    assert Predictor(run.model_file).metadata["lineage"]["init"]["dataset"] == "celeba"


def test_runs_that_begin_alike_share_their_first_stage(two_stages, tmp_path):
    stages = tmp_path / "stages"
    one = train(two_stages, out=tmp_path / "one", stages=stages)
    (folder,) = stages.iterdir()
    made = (folder / "model.safetensors").stat().st_mtime_ns
    train(two_stages, ["split.test_fold=1"], tmp_path / "two", stages=stages)
    assert [path.name for path in stages.iterdir()] == [folder.name] == [stage_folder(_first(one), stages).name]
    assert (folder / "model.safetensors").stat().st_mtime_ns == made


def _first(run):
    from mien.recipe.settings import first_stage

    return first_stage(run.recipe)


def test_each_stage_asks_for_its_own_root(two_stages, tmp_path):
    with pytest.raises(MienError, match=r"init\.data\.root is not set.*--set init\.data\.root="):
        train(two_stages, ["init.data.root=null"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_input_or_an_absent_run_is_refused(two_stages, drawn, tmp_path):
    first = train(SMALL, [f"data.root={drawn}"], tmp_path / "first")
    again = [f"data.root={drawn}", f"init.weights={first.folder}"]
    for change, words in [
        ("model.normalize=unit", "normalisation"),
        ("model.image_size=48", "model.image_size was 32, is 48"),
        ("model.margin=0.3", "model.margin"),
        ("model.backbone=test_resnet", "model.backbone"),
    ]:
        with pytest.raises(MienError, match=f"another input: .*{words}"):
            train(SMALL, [*again, change], tmp_path / change.partition("=")[2])
    with pytest.raises(MienError, match=r"init\.weights: .*gone"):
        train(SMALL, [f"data.root={drawn}", "init.weights=gone"], tmp_path / "gone-run")
    # The same folds again: what the first run learnt from is in no test part.
    assert train(SMALL, [*again, "init.heads=true"], tmp_path / "on").info["lineage"]["run"] == "first"
    with pytest.raises(LeakError, match="train"):
        train(SMALL, [*again, "split.test_fold=1"], tmp_path / "leak")


def test_a_leak_from_an_earlier_run_stops_the_second_attempt_too(drawn, tmp_path):
    first = train(SMALL, [f"data.root={drawn}"], tmp_path / "first")
    again = [f"data.root={drawn}", f"init.weights={first.folder}", "split.test_fold=1"]
    for _ in range(2):
        with pytest.raises(LeakError, match="train"):
            train(SMALL, again, tmp_path / "leak")


def test_a_run_goes_on_after_an_interruption_in_its_first_stage(two_stages, tmp_path, monkeypatch):
    from mien.training.callbacks import Log

    class Killed(BaseException):
        pass

    def stop(self, trainer, *rest):
        if trainer.global_step == 2:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Log, "on_train_batch_start", stop)
        train(two_stages, out=tmp_path / "run")
    assert not (tmp_path / "run" / "faces.parquet").exists() and (tmp_path / "run" / "first").is_dir()
    assert train(two_stages, out=tmp_path / "run").finished


def test_heads_are_kept_where_they_are_asked_for(drawn, tmp_path):
    first = train(SMALL, [f"data.root={drawn}", "tasks=[gender]"], tmp_path / "first")
    recipe = load_recipe(SMALL)
    kept = FaceNet(recipe.model_copy(update={"init": Init(weights=str(first.folder), heads=True)}))
    theirs = load_file(first.weights_file)
    mine = kept.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    with pytest.raises(MienError, match=r"init\.heads: .*no mien heads"):
        FaceNet(recipe.model_copy(update={"init": Init(weights="none", heads=True)}))


@pytest.fixture
def labelled(drawn, tmp_path):
    """A faces table with a further column, missing in places, and with one value in the test part alone."""
    from mien.base.table import write_table
    from mien.data.sources import read_faces

    faces = read_faces("adience", drawn, "masked")
    kind = pd.Series(np.where(np.arange(len(faces)) % 3, "round", "long"), dtype="object")
    kind[::7] = None
    kind[(faces["fold"] == 0) & (np.arange(len(faces)) % 5 == 0)] = "seen once"
    return write_table(faces.assign(shape=kind), tmp_path / "labelled.parquet")


def test_a_further_column_is_learnt_and_never_predicted(drawn, labelled, tmp_path):
    changes = [f"data.root={drawn}", f"data.faces={labelled}", "tasks.columns={shape: {weight: 0.5}}"]
    run = train(SMALL, changes, tmp_path / "run")
    assert "val_loss_shape" in run.log and run.log["val_loss_shape"].notna().all()
    assert not [name for name in run.predictions if "shape" in name]
    assert Predictor(run.model_file).metadata["tasks"] == ["gender", "age_group"]
    assert load_file(run.weights_file)["head.shape.layer.1.weight"].shape[0] == 2  # round and long
    with pytest.raises(MienError, match=r"tasks\.columns: .*'shap'.*shape"):
        train(SMALL, [*changes, "tasks.columns={shap: {}}"], tmp_path / "typo")
    with pytest.raises(MienError, match="classes in the training part"):
        write = pd.read_parquet(labelled).assign(shape=lambda faces: faces["face"])
        write.to_parquet(tmp_path / "many.parquet")
        train(SMALL, [*changes, f"data.faces={tmp_path / 'many.parquet'}"], tmp_path / "many")


def test_learnt_loss_weights_follow_the_gradient_of_kendalls_loss(drawn, tmp_path):
    recipe = load_recipe(SMALL, ["tasks.weighting=uncertainty"])
    module = FaceTraining(FaceNet(recipe), recipe)
    losses = {"gender": torch.tensor(0.7), "age_group": torch.tensor(3.0)}
    with torch.no_grad():
        module.log_variance["age_group"].fill_(0.4)
    total = module._learning_loss(losses)
    assert torch.isclose(total, torch.tensor(0.7 + 3.0 * np.exp(-0.4) + 0.2, dtype=torch.float), atol=1e-6)
    total.backward()
    assert module.log_variance["gender"].grad == pytest.approx(-0.7 + 0.5)
    run = train(recipe, [f"data.root={drawn}", "trainer.epochs=2"], tmp_path / "run")
    assert (run.log["weight_age_group"] != 1).all()
    assert not [name for name in load_file(run.weights_file) if "variance" in name]


def test_keras_l2_is_the_sum_of_squared_weights_of_the_layers_on_top():
    recipe = load_recipe(SMALL, ["model.l2=0.01", "model.hidden=[8]", "tasks=[gender]"])
    net = FaceNet(recipe)
    expected = sum((w.detach() ** 2).sum() for w in (net.shared[1].weight, net.head["gender"].layer[1].weight))
    assert torch.isclose(net.squared_weights(), expected)
    plain = torch.tensor(0.5)
    got = FaceTraining(net, recipe)._learning_loss({"gender": plain})
    assert torch.isclose(got, plain + 0.01 * expected)


def test_layer_wise_rates_fall_from_the_head_to_the_first_layer():
    net = FaceNet(load_recipe({"model": {"backbone": "test_vit", "image_size": 32}, "init": {"weights": "none"}}))
    optimizer = make_optimizer(net, Optim(lr=1.0, layer_decay=0.5, backbone_lr=0.1))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    by_name = {name: rates[id(p)] for name, p in net.named_parameters()}
    blocks = [by_name[f"backbone.blocks.{k}.attn.qkv.weight"] for k in range(len(net.backbone.blocks))]
    assert all(np.isclose(low * 2, high) for low, high in zip(blocks, blocks[1:], strict=False))
    assert by_name["backbone.norm.weight"] == pytest.approx(0.1)
    assert by_name["head.gender.layer.1.weight"] == 1.0
    assert by_name["backbone.patch_embed.proj.weight"] < blocks[0]
    assert len(rates) == len(list(net.parameters()))


def test_rmsprop_is_that_of_keras():
    torch.manual_seed(0)
    net = FaceNet(load_recipe(SMALL, ["tasks=[gender]"]))
    optimizer = make_optimizer(net, Optim(name="rmsprop", lr=0.001, weight_decay=0.0))
    weight = net.head["gender"].layer[1].weight
    before, mean_square = weight.detach().double().numpy().copy(), 0.0
    for step in range(3):
        gradient = np.full(weight.shape, 0.3 * (step + 1))
        mean_square = 0.9 * mean_square + 0.1 * gradient**2
        before = before - 0.001 * gradient / (np.sqrt(mean_square) + 1e-7)
        weight.grad = torch.tensor(gradient, dtype=torch.float)
        optimizer.step()
    assert np.allclose(weight.detach().numpy(), before, atol=1e-6)


def test_augmented_test_images_are_a_mistake_that_changes_the_score(drawn, tmp_path):
    changes = [f"data.root={drawn}", "augment.erase=1.0", "augment.randaugment={magnitude: 20}"]
    plain, mistaken = (
        train(SMALL, [*changes, f"augment.evaluation={judged}"], tmp_path / judged) for judged in ("false", "true")
    )
    assert not np.allclose(plain.predictions["p_female"], mistaken.predictions["p_female"])
    first, second = load_file(plain.weights_file), load_file(mistaken.weights_file)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_sample_of_the_faces(drawn, tmp_path):
    run = train(SMALL, [f"data.root={drawn}", "data.sample=150"], tmp_path / "run")
    assert len(run.faces) == 150
    with pytest.raises(MienError, match=r"data\.sample is 100000; valid: up to \d+"):
        train(SMALL, [f"data.root={drawn}", "data.sample=100000"], tmp_path / "more")


def test_a_tag_of_timm_names_weights_and_the_same_network():
    assert load_recipe("report-resnet50").model.backbone == "resnet50.tv_in1k"
    recipe = load_recipe({"model": Model(backbone="test_resnet.r160_in1k").model_dump(), "init": {"weights": "none"}})
    assert FaceNet(recipe).backbone.pretrained_cfg["tag"] == "r160_in1k"
