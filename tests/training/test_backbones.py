import pytest
import torch
from safetensors.torch import save_file

from mien.base.errors import MienError
from mien.recipe.load import load_recipe
from mien.training import backbones
from mien.training.backbones import PACKAGES, freeze, make_backbone
from mien.training.model import FaceNet, make_optimizer


def recipe(*changes, backbone="test_resnet"):
    base = {"model": {"backbone": backbone, "image_size": 64}, "init": {"weights": "none"}}
    return load_recipe(base, changes)


def make(*changes, **options):
    made = recipe(*changes, **options)
    return make_backbone(made.model, made.init)


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_load_entry_by_entry(name):
    pytest.importorskip(PACKAGES[name])
    backbone = make("init.weights=package", backbone=name)
    random = make(backbone=name)
    weights, noise = backbone.state_dict(), random.state_dict()
    assert len(weights) == len(noise) and not torch.equal(weights["conv_stem.weight"], noise["conv_stem.weight"])
    # Trained batch statistics are far from the 0 and 1 of a new network.
    assert (weights["bn1.running_var"] - 1).abs().mean() > 0.1


def test_package_is_only_for_its_networks():
    with pytest.raises(MienError, match="'package'.*tf_efficientnet_lite0"):
        make("init.weights=package")


def test_no_network_is_said_at_once_with_what_to_do_instead(monkeypatch):
    def offline(*_, **options):
        assert options["pretrained"]
        raise OSError("no route to host")

    monkeypatch.setattr(backbones.timm, "create_model", offline)
    with pytest.raises(MienError, match=r"could not be downloaded.*--set init\.weights=package"):
        make("init.weights=imagenet")


def test_imagenet_weights_come_from_timm(monkeypatch):
    real = backbones.timm.create_model
    asked = {}
    monkeypatch.setattr(
        backbones.timm,
        "create_model",
        lambda name, pretrained=False, **options: (
            asked.update(name=name, pretrained=pretrained) or real(name, **options)
        ),
    )
    make("init.weights=imagenet")
    assert asked == {"name": "test_resnet", "pretrained": True}


def test_weights_from_a_safetensors_file_and_a_run(tmp_path):
    net = FaceNet(recipe())
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, tmp_path / "model.safetensors")
    for source in (tmp_path, tmp_path / "model.safetensors"):
        loaded = make(f"init.weights={source}")
        assert all(
            torch.equal(a, b)
            for a, b in zip(loaded.state_dict().values(), net.backbone.state_dict().values(), strict=True)
        )


def test_weights_that_do_not_fit_or_are_no_weights(tmp_path):
    save_file({"conv1.weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"1234567890")
    for source, words in (
        (tmp_path / "other.safetensors", "does not fit"),
        (tmp_path / "broken.safetensors", "is not a safetensors file"),
        (tmp_path / "absent.safetensors", "does not exist"),
        (tmp_path / "model.pth", "pickled"),
        ("imagenett", "is not a source of weights.*imagenet, none, package"),
    ):
        with pytest.raises(MienError, match=words):
            make(f"init.weights={source}")


def test_unknown_names_and_sizes():
    with pytest.raises(MienError, match=r"'resnet5'.*resnet50"):
        make(backbone="resnet5")
    with pytest.raises(MienError, match=r"model\.image_size 20 does not fit"):
        FaceNet(recipe("model.image_size=20", backbone="inception_v3"))


def test_only_unfrozen_parameters_move_and_frozen_statistics_stay():
    made = recipe()
    net = FaceNet(made)
    frozen_modules = freeze(net.backbone, ("conv1", "bn1", "layer1"))
    net._frozen = tuple(frozen_modules)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.train()
    optimizer = make_optimizer(net, made.optim)
    for _ in range(2):
        loss = net(torch.randint(0, 255, (4, 3, 64, 64), dtype=torch.uint8))["gender"].square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = net.state_dict()
    for name, parameter in net.named_parameters():
        assert torch.equal(before[name], after[name]) != parameter.requires_grad, name
    cold = {
        f"backbone.{name}" for module in frozen_modules for name, one in net.backbone.named_modules() if one is module
    }
    for name in after:
        if "running" in name:
            frozen = any(name.startswith(prefix + ".") for prefix in cold)
            assert torch.equal(before[name], after[name]) == frozen, name
    assert any(parameter.requires_grad for parameter in net.backbone.parameters())


def test_freezing_all_of_the_backbone_and_something_unknown():
    net = make()
    assert freeze(net, "backbone") == [net] and not any(p.requires_grad for p in net.parameters())
    with pytest.raises(MienError, match="model.freeze.*'layer9'.*layer1"):
        freeze(make(), ("layer9",))
    assert freeze(make(), "none") == []


def test_any_normalisation_gives_what_it_says():
    white = torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)
    for name, expected in (("unit", 1.0), ("signed", 1.0)):
        net = FaceNet(recipe(f"model.normalize={name}"))
        assert torch.allclose((white.float() - net.mean) / net.std, torch.tensor(expected))
    net = FaceNet(recipe("model.normalize=imagenet"))
    assert torch.allclose(((white.float() - net.mean) / net.std)[0, 0, 0, 0], torch.tensor((1 - 0.485) / 0.229))


def test_an_unknown_network_is_named_with_those_that_resemble_it():
    with pytest.raises(MienError, match=r"model\.backbone: .*'resnet5o'.*resnet50"):
        FaceNet(recipe("model.backbone=resnet5o"))
