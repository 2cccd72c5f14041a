"""What each built-in recipe promises of its network: size, what is frozen, the range of its input, its heads.

All expectations follow from the recipe, so that a new recipe is tested without a line here.
"""

import json

import pytest
import torch

from mien.base.labels import AGE_GROUPS
from mien.recipe.load import load_recipe, recipe_names
from mien.recipe.settings import Init
from mien.training.backbones import count_features, input_range, normalization
from mien.training.model import FaceNet, make_optimizer

# Parameters of published networks without their classifier, as their authors count them: (network, image size).
PUBLISHED = {
    ("resnet50", 192): 25_557_032 - 2_049_000,
    ("inception_v3", 192): 21_785_568,
    ("inception_resnet_v2", 192): 54_306_464,
    ("vit_large_patch32_384", 192): 305_497_088,
    ("vit_large_patch32_384", 384): 305_607_680,
    ("tf_efficientnet_lite0", 128): 3_371_000 + 8,
    ("tf_efficientnet_lite2", 128): 4_811_072,
    ("tf_efficientnet_lite2", 160): 4_811_072,
}
# The range that each of these networks was trained with, for `normalize: backbone`.
OWN_RANGE = {"resnet50": "imagenet"} | dict.fromkeys(
    ("inception_v3", "inception_resnet_v2", "vit_large_patch32_384", "tf_efficientnet_lite0", "tf_efficientnet_lite2"),
    "signed",
)
# The first 52 layers of keras.applications.InceptionV3: 527,200 weights of convolutions (counted with Keras itself)
# and a scale and a shift for each of the 1,072 channels whose normalisation is among them.
FROZEN_IN_KERAS = 527_200 + 2 * 1_072
RANGES = {"unit": (0.0, 1.0), "signed": (-1.0, 1.0), "imagenet": (-2.1179, 2.2489)}
CLASSES = ("a", "b", "c", "d", "e")  # of each further column


def dense(*sizes):
    """Parameters of linear layers, one after the other."""
    return sum(before * after + after for before, after in zip(sizes, sizes[1:], strict=False))


def logits_of(recipe):
    """The number of logits of each task."""
    units = {"gender": 1, "age_group": len(AGE_GROUPS)}
    if recipe.tasks.age is not None:
        units["age"] = recipe.tasks.age.oldest + 1
    return units | {column: len(CLASSES) for column in recipe.tasks.columns}


def network(recipe):
    return FaceNet(recipe, dict.fromkeys(recipe.tasks.columns, CLASSES))


def offline(name, size=None):
    """The recipe with random weights, whatever it freezes: no hub is needed to count."""
    recipe = load_recipe(name)
    model = recipe.model.model_copy(update={"image_size": size} if size else {})
    return recipe.model_copy(update={"init": Init(weights="none"), "model": model})


@pytest.mark.parametrize("name", recipe_names())
def test_size_input_and_heads(name):
    recipe = offline(name)
    with torch.device("meta"):  # shapes without memory
        net = network(recipe)
        features = count_features(net.backbone, recipe.model.image_size)
    body = sum(value.numel() for value in net.backbone.parameters())
    published = PUBLISHED.get((recipe.model.backbone.partition(".")[0], recipe.model.image_size))
    assert published in (None, body)
    shared = (features, *recipe.model.hidden)
    expected, shapes = body + dense(*shared), {}
    for task, settings in recipe.tasks.named().items():
        sizes = (shared[-1], *settings.hidden, logits_of(recipe)[task])
        expected += dense(*sizes)
        shapes[task] = (sizes[-1], sizes[-2])
    assert not recipe.model.batch_norm, "count the scales and shifts of hidden layers here too"
    assert sum(value.numel() for value in net.parameters()) == expected
    assert {task: tuple(head.layer[-1].weight.shape) for task, head in net.heads.items()} == shapes
    found = input_range(recipe.model)
    mean, std = normalization(recipe.model)
    kind = recipe.model.normalize
    kind = OWN_RANGE.get(recipe.model.backbone.partition(".")[0]) if kind == "backbone" else kind
    low, high = RANGES.get(kind, (-mean[0] / std[0], (1 - mean[0]) / std[0]))
    assert (found["low"][0], found["high"][0]) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@pytest.mark.parametrize("name", recipe_names())
def test_only_what_the_recipe_freezes_is_frozen(name):
    recipe = offline(name)
    with torch.device("meta"):
        net = network(recipe)
    frozen = {key for key, value in net.named_parameters() if not value.requires_grad}
    body = {key for key, _ in net.named_parameters() if key.startswith("backbone.")}
    if recipe.model.freeze in ("none", "backbone"):
        assert frozen == (body if recipe.model.freeze == "backbone" else set())
    else:
        prefixes = tuple(f"backbone.{prefix}" for prefix in recipe.model.freeze)
        assert frozen == {key for key in body if key.startswith(prefixes)} != set()


def test_the_reported_inception_freezes_52_keras_layers():
    with torch.device("meta"):
        net = network(offline("report-inception-v3"))
    assert sum(value.numel() for value in net.parameters() if not value.requires_grad) == FROZEN_IN_KERAS


def distinct():
    """One recipe of all those with the same network and optimizer; of ViT-L/32, a gigabyte each, whatever its heads."""
    groups = {}
    for name in recipe_names():
        recipe = load_recipe(name)
        heads = (recipe.model.hidden, recipe.tasks.model_dump(mode="json")) if "vit" not in name else None
        parts = [recipe.model.model_dump(mode="json", exclude={"hidden"}), heads, recipe.optim.model_dump(mode="json")]
        groups.setdefault(json.dumps(parts), []).append(name)
    return [names[0] for names in groups.values()]


@pytest.mark.parametrize("name", distinct())
def test_two_steps_move_what_is_not_frozen_and_nothing_else(name):
    # Small images: what moves does not depend on their size, and the large networks need 96 pixels.
    with torch.device("meta"):
        size = sum(value.numel() for value in network(offline(name)).parameters())
    recipe = offline(name, 32 if size < 10_000_000 else 96)
    torch.manual_seed(0)
    net = network(recipe).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = make_optimizer(net, recipe.optim)
    images = torch.randint(0, 256, (2, 3, recipe.model.image_size, recipe.model.image_size), dtype=torch.uint8)
    targets = {
        "gender": torch.tensor([0.0, 1.0]),
        "age_group": torch.tensor([2.0, 6.0]),
        "age": torch.tensor([[9.0, 9.0], [40.0, 49.0]]),
    } | dict.fromkeys(recipe.tasks.columns, torch.tensor([0.0, 4.0]))
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
