"""The preview shows what the network gets in training, not something like it."""

import numpy as np
import pytest
import torch

from mien.base.errors import MienError
from mien.cli import main
from mien.data import splits
from mien.data.face_pixels import FilePixels
from mien.data.sources import read_faces
from mien.recipe.load import load_recipe
from mien.reports.preview import BatchTrace
from mien.training.data import FaceData
from mien.training.model import FaceNet
from mien.training.preview import find_warnings, preview, trace_batch

SMALL = {
    "data": {"source": "adience", "labels": "masked"},
    "split": {"method": "folds"},
    "model": {"backbone": "test_resnet", "image_size": 32},
    "init": {"weights": "none"},
    "tasks": ["gender", "age_group"],
    "augment": {"rotate": 20, "brightness": 0.4, "erase": 0.5, "randaugment": {"layers": 2}},
    "trainer": {"batch_size": 16, "workers": 0},
}


@pytest.fixture(scope="module")
def faces(drawn):
    return splits.assign(read_faces("adience", drawn, "masked"), "folds", val=0.15)


def channels_last(images):
    return images.permute(0, 2, 3, 1).numpy()


def made(faces, drawn, *changes, part="train"):
    recipe = load_recipe(SMALL, changes)
    pixels = FilePixels(faces, drawn, recipe.model.image_size)
    return recipe, pixels, trace_batch(recipe, faces, pixels, part)


@pytest.mark.parametrize("mixing", [(), ("augment.mixup=0.4",), ("augment.cutmix=1.0",)])
def test_the_last_stage_is_the_first_batch_of_training(faces, drawn, mixing):
    recipe, pixels, trace = made(faces, drawn, "trainer.workers=1", *mixing)
    loader = FaceData(faces, pixels, {}, recipe).train_dataloader()
    batch = next(iter(loader))
    assert np.array_equal(trace.images, channels_last(batch["images"]))
    names = [name for name, _ in trace.stages]
    assert names == ["original", "flip", "affine", "colour", "RandAugment", "erase", *(["mixed"] if mixing else [])]
    for at, index in enumerate(batch["index"].tolist()):
        assert np.array_equal(trace.stages[0][1][at], pixels[index])


def test_stages_differ_by_one_step(faces, drawn):
    _, _, trace = made(faces, drawn, "augment.flip=1.0", "augment.randaugment=null", "augment.rotate=0")
    stages = dict(trace.stages)
    assert list(stages) == ["original", "flip", "colour", "erase"]
    assert np.array_equal(stages["flip"], stages["original"][:, :, ::-1])
    changed = (stages["erase"] != stages["colour"]).any(-1)
    assert (stages["erase"][changed] == 0).all() and 0 < changed.mean() < 0.5


def test_mixed_labels_name_both_faces_and_their_shares(faces, drawn):
    recipe, pixels, trace = made(faces, drawn, "augment.mixup=0.4")
    batch = next(iter(FaceData(faces, pixels, {}, recipe).train_dataloader()))
    share, partner = float(batch["share"]), batch["partner"].numpy()
    before = trace.stages[-2][1].astype(float)
    expected = share * before + (1 - share) * before[partner]
    assert np.abs(trace.images.astype(float) - expected).max() <= 0.5 + 1e-3
    own = faces.iloc[int(batch["index"][0])]
    other = faces.iloc[int(batch["index"][partner[0]])]
    first, second = trace.labels[0].split(" + ")
    assert first.startswith(f"{share:.2f} ") and second.startswith(f"{1 - share:.2f} ")
    for words, face in ((first, own), (second, other)):
        assert (face["gender"] if isinstance(face["gender"], str) else "no gender") in words


def test_validation_faces_are_as_they_are_unless_the_recipe_augments_evaluation(faces, drawn):
    recipe, pixels, plain = made(faces, drawn, part="val")
    assert [name for name, _ in plain.stages] == ["original"]
    assert find_warnings(recipe, {"val": plain})["val"] == []
    recipe, pixels, augmented = made(faces, drawn, "augment.evaluation=true", part="val")
    batch = next(iter(FaceData(faces, pixels, {}, recipe).val_dataloader()))
    assert np.array_equal(augmented.images, channels_last(batch["images"])) and len(augmented.stages) == 6
    assert "augmented too" in find_warnings(recipe, {"val": augmented})["val"][0]


@pytest.mark.parametrize("normalize", ["backbone", "imagenet", "unit"])
def test_ranges_are_those_that_the_backbone_gets(faces, drawn, normalize):
    recipe, _, trace = made(faces, drawn, f"model.normalize={normalize}")
    net, got = FaceNet(recipe).eval(), []
    net.backbone.register_forward_pre_hook(lambda module, given: got.append(given[0]))
    with torch.inference_mode():
        net(torch.from_numpy(trace.images).permute(0, 3, 1, 2))
    table = trace.ranges.set_index("stage")
    for channel, name in enumerate(("red", "green", "blue")):
        row, values = table.loc[f"normalized, {name}"], got[0][:, channel]
        assert row["lowest"] == pytest.approx(values.min().item(), abs=0.006)
        assert row["highest"] == pytest.approx(values.max().item(), abs=0.006)
        assert row["mean"] == pytest.approx(values.mean().item(), abs=0.006)
    original = trace.stages[0][1]
    assert table.loc["original, 0 to 255", "highest"] == original.max()
    warned = find_warnings(recipe, {"train": trace})["train"]
    assert bool(warned) == (normalize != "backbone")
    assert not warned or f"model.normalize is '{normalize}'" in warned[0]


def test_images_of_one_colour_are_noticed(faces, drawn):
    recipe, _, trace = made(faces, drawn)
    black = BatchTrace([("original", np.zeros_like(trace.images))], trace.labels, trace.ranges)
    assert find_warnings(recipe, {"train": black})["train"] == ["16 of 16 images of the batch are of one colour."]


def test_missing_labels_are_said_to_be_missing(faces, drawn):
    bare = faces.assign(gender=None, age=np.nan, age_from=np.nan, age_to=np.nan, age_group=None)
    _, _, trace = made(bare, drawn)
    assert set(trace.labels) == {"no gender, no age"}


def test_a_batch_that_cannot_be_read(faces, drawn, tmp_path):
    with pytest.raises(MienError, match="no image of the first train batch can be read; the first: missing"):
        made(faces, tmp_path)


def test_without_a_root_the_faces_are_drawn_and_the_page_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["preview", "demo-gender", "--set", "model.normalize=unit", "--out", "pages/p.html"])
    assert not stop.value.code and "preview: pages/p.html" in capsys.readouterr().out
    text = (tmp_path / "pages" / "p.html").read_text()
    assert "The faces are drawn and show nobody: data.root is not set." in text and "<script" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["pages"]


def test_with_a_root_the_faces_are_those(drawn, tmp_path):
    warnings = preview(SMALL, tmp_path / "p.html", [f"data.root={drawn}", "augment.evaluation=true"])
    text = (tmp_path / "p.html").read_text()
    assert len(warnings) == 1 and warnings[0] in text and "are drawn" not in text
    assert text.count("<img") == (10 + 7) * 6  # 7 faces are all that the validation part has
    assert str(drawn) not in text and [path.name for path in tmp_path.iterdir()] == ["p.html"]


def test_wrong_endings_and_settings(tmp_path):
    with pytest.raises(MienError, match=r"must end in \.html"):
        preview(SMALL, tmp_path / "p.png")
    with pytest.raises(MienError, match=r"augment\.mixupp"):
        preview(SMALL, tmp_path / "p.html", ["augment.mixupp=1"])
    with pytest.raises(MienError, match="does not exist"):
        preview(SMALL, tmp_path / "p.html", [f"data.root={tmp_path / 'nowhere'}"])
    assert not list(tmp_path.iterdir())
