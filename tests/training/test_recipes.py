"""What each recipe that ships promises of its network: size, what is frozen, the range of its input, its heads."""

import json

import pytest
import torch

from mien.recipe.load import load_recipe, recipe_names
from mien.recipe.settings import Init
from mien.training.backbones import input_range
from mien.training.model import FaceNet, make_optimizer

# What a body has without its classifier, as its authors count it; ViT-L/32 by the size of its image.
RESNET, INCEPTION, INCEPTION_RESNET = 25_557_032 - 2_049_000, 21_785_568, 54_306_464
VIT_192, VIT_384, LITE = 305_497_088, 305_607_680, 3_371_000 + 8
# The first 52 layers of keras.applications.InceptionV3: 527,200 weights of convolutions (counted with Keras itself)
# and a scale and a shift for each of the 1,072 channels whose normalisation is among them.
FROZEN = 527_200 + 2 * 1_072
UNIT, SIGNED, IMAGENET = (0.0, 1.0), (-1.0, 1.0), (-2.1179, 2.2489)


def dense(*sizes):
    return sum(before * after + after for before, after in zip(sizes, sizes[1:], strict=False))


NETWORKS = {
    "resnet50": (RESNET, 2048, 0, RESNET, IMAGENET),
    "inception-v3": (INCEPTION, 2048, FROZEN, INCEPTION, SIGNED),
    "inception-resnet-v2": (INCEPTION_RESNET, 1536, 0, INCEPTION_RESNET, SIGNED),
    "vit-l32": (VIT_192, 1024, 0, VIT_384, SIGNED),
}
ONE = {"gender": (1, 512)}
# recipe -> parameters, of them frozen, range of the pixels fed (first channel), (logits, features) of each head
CONTRACT = {
    "demo-gender": (372_688 + dense(96, 1), 0, SIGNED, {"gender": (1, 96)}),
    "demo-gender-age": (372_688 + dense(96, 1) + dense(96, 8), 0, SIGNED, {"gender": (1, 96), "age_group": (8, 96)}),
    "utkface-lite0": (LITE + dense(1280, 1) + dense(1280, 101), 0, SIGNED, {"gender": (1, 1280), "age": (101, 1280)}),
    "utkface-small": (LITE + dense(1280, 1) + dense(1280, 101), 0, SIGNED, {"gender": (1, 1280), "age": (101, 1280)}),
}
RACES = {"race": ("asian", "black", "indian", "other", "white")}  # UTKFace's five, learnt for the body alone
MIEN = {"gender": (1, 1280), "age": (101, 1280), "race": (5, 1280)}
LITE2 = 4_811_072
for name, body in (("mien-lite0", LITE), ("mien-lite2", LITE2), ("mien-lite2-160", LITE2), ("mien-1", LITE2)):
    CONTRACT[name] = (body + dense(1280, 1) + dense(1280, 101) + dense(1280, 5), 0, SIGNED, MIEN)
for name, (body, features, frozen, own_body, own_range) in NETWORKS.items():
    reported = (body + dense(features, 1024, 512, 1), frozen, UNIT, ONE)
    good = (own_body + dense(features, 1), 0, own_range, {"gender": (1, features)})
    CONTRACT |= {f"report-{name}": reported, f"report-{name}-celeba": reported}
    CONTRACT |= {f"adience-{name}": good, f"adience-{name}-celeba": good}
    group = dense(features, 128, 8)
    CONTRACT[f"report-{name}-age"] = (body + group, frozen, UNIT, {"age_group": (8, 128)})
    both = {"gender": (1, 128), "age_group": (8, 128)}
    CONTRACT[f"report-{name}-gender-age"] = (body + dense(features, 128, 1) + group, frozen, UNIT, both)
CONTRACT["report-inception-v3-randaugment-mixup"] = CONTRACT["report-inception-v3"]


def offline(name, size=None):
    """The recipe with random weights, whatever it freezes: no hub is needed to count."""
    recipe = load_recipe(name)
    model = recipe.model.model_copy(update={"image_size": size} if size else {})
    return recipe.model_copy(update={"init": Init(weights="none"), "model": model})


def test_every_recipe_has_a_contract():
    assert set(CONTRACT) == set(recipe_names())


@pytest.mark.parametrize("name", CONTRACT)
def test_size_input_and_heads(name):
    parameters, frozen, (low, high), heads = CONTRACT[name]
    recipe = offline(name)
    with torch.device("meta"):  # shapes without memory
        net = FaceNet(recipe, RACES)
    assert sum(value.numel() for value in net.parameters()) == parameters
    assert sum(value.numel() for value in net.parameters() if not value.requires_grad) == frozen
    found = input_range(recipe.model)
    assert (found["low"][0], found["high"][0]) == (low, high)
    assert {task: tuple(head.layer[-1].weight.shape) for task, head in net.heads.items()} == heads


def distinct():
    """One recipe of all those with the same network and optimizer; of ViT-L/32, a gigabyte each, whatever its heads."""
    groups = {}
    for name in CONTRACT:
        recipe = load_recipe(name)
        heads = (recipe.model.hidden, recipe.tasks.model_dump(mode="json")) if "vit" not in name else None
        parts = [recipe.model.model_dump(mode="json", exclude={"hidden"}), heads, recipe.optim.model_dump(mode="json")]
        groups.setdefault(json.dumps(parts), []).append(name)
    return [names[0] for names in groups.values()]


@pytest.mark.parametrize("name", distinct())
def test_two_steps_move_what_is_not_frozen_and_nothing_else(name):
    # Small images: what moves does not depend on their size.
    recipe = offline(name, 32 if name.startswith(("demo", "utkface", "mien")) else 96)
    torch.manual_seed(0)
    net = FaceNet(recipe, RACES).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = make_optimizer(net, recipe.optim)
    images = torch.randint(0, 256, (2, 3, recipe.model.image_size, recipe.model.image_size), dtype=torch.uint8)
    targets = {
        "gender": torch.tensor([0.0, 1.0]),
        "age_group": torch.tensor([2.0, 6.0]),
        "age": torch.tensor([9.0, 50]),
        "race": torch.tensor([0.0, 4.0]),
    }
    for _ in range(2):
        optimizer.zero_grad()
        logits = net(images)
        torch.stack([head.loss(logits[task], targets[task]) for task, head in net.heads.items()]).sum().backward()
        optimizer.step()
    frozen = {key for key, value in net.named_parameters() if not value.requires_grad}
    still = {key for key, value in net.named_parameters() if torch.equal(value, before[key])}
    assert frozen <= still
    # A parameter behind a dead ReLU may have no gradient; most of what is free must move, and in every part.
    free = {key for key, _ in net.named_parameters()} - frozen
    assert len(free - still) > 0.9 * len(free)
    statistics = {key for key in before if key.endswith(("running_mean", "running_var"))}
    owners = {key.rpartition(".")[0] for key in frozen}
    for key in statistics:
        if key.rpartition(".")[0] in owners:
            assert torch.equal(net.state_dict()[key], before[key]), f"{key}: frozen normalisation must stay"
