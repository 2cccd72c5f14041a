"""Recipes: frozen, typed settings that say all about one training run; strict YAML; `--set a.b=c`.

The classes below are the defaults. A recipe file holds only what differs from them, or from the recipe that its key
`base` names (mappings are merged, all else is replaced).
"""

import os
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

Share = float
"""A number from 0 to 1."""

FilePath = Annotated[str, AfterValidator(os.path.expanduser)]
"""A path; no shell expands the ~ of `--set data.root=~/faces`."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Data(_Settings):
    """Which faces."""

    source: str = Field("csv", description="adience, celeba, utkface, fairface or csv")
    root: FilePath | None = Field(None, description="folder of the data set (csv: a table or a folder per class)")
    labels: str | None = Field(None, description="label policy of the source; null: its default")
    map: dict[str, str] = Field({}, description="csv only: their column -> our column")
    faces: FilePath | None = Field(None, description="a faces table in place of the source; its paths are under root")
    sample: int | None = Field(None, ge=10, description="only so many of the faces, drawn at random with seed 0")
    cache: bool = Field(True, description="keep decoded pixels on disk; false: decode in every epoch")
    max_unreadable: Share = Field(0.01, ge=0, le=1, description="a larger share of unreadable images stops the run")


class Split(_Settings):
    """Which faces teach, which choose, which judge."""

    method: Literal["folds", "partition", "subjects", "random", "subject_folds", "random_folds"] = "subjects"
    folds: int = Field(5, ge=2, description="subject_folds and random_folds only: how many folds to make")
    test_fold: int = Field(0, ge=0, description="the three kinds of folds only: the fold that judges")
    val: Share = Field(0.1, gt=0, lt=1, description="share of the faces that are not in the test part")
    test: Share = Field(0.2, gt=0, lt=1, description="subjects and random only: share of all faces")
    seed: int = 0
    near_duplicates: bool = Field(True, description="look for near-duplicate pictures (reads every image once)")
    allow_leaks: bool = Field(False, description="go on in spite of a leak; every report of the run then says so")


class Model(_Settings):
    """The network, and what it sees."""

    backbone: str = Field("resnet18", description="any timm name")
    image_size: int = Field(224, ge=16, le=1024)
    normalize: Literal["backbone", "imagenet", "unit", "signed"] = Field(
        "backbone",
        description="backbone: timm's own mean and std; imagenet: ImageNet's; unit: [0, 1]; signed: [-1, 1]",
    )
    margin: float = Field(0.0, ge=0, le=2, description="added around a face's box, as a share of its side")
    freeze: Literal["none", "backbone"] | tuple[str, ...] = Field(
        "none", description="or a list of the backbone's module or parameter names, as prefixes"
    )
    hidden: tuple[int, ...] = Field((), description="units of each layer that all tasks share")
    batch_norm: bool = Field(False, description="batch normalisation in hidden layers")
    dropout: Share = Field(0.0, ge=0, lt=1, description="before each hidden and output layer")
    drop_path: Share = Field(0.0, ge=0, lt=1, description="stochastic depth, for backbones that have it")
    l2: float = Field(0.0, ge=0, description="Keras' L2: so much times the squared weights of hidden and output layers")


class _Task(_Settings):
    weight: float = Field(1.0, gt=0, description="of this task's loss in the sum")
    hidden: tuple[int, ...] = Field((), description="units of each layer of this task alone")


class Column(_Task):
    """A categorical column that only helps to train the body: it is never predicted."""

    class_weights: bool = Field(False, description="weigh classes by their inverse frequency in the training part")


class Gender(_Task):
    """Perceived gender: one logit."""

    class_weights: bool = Field(False, description="weigh classes by their inverse frequency in the training part")
    label_smoothing: Share = Field(0.0, ge=0, lt=1)
    unsure: Share = Field(
        0.0, ge=0, lt=1, description="share of the validation faces, the least certain, whose gender is to be unsure"
    )


class AgeGroup(_Task):
    """Adience's eight age groups."""

    class_weights: bool = Field(False, description="weigh classes by their inverse frequency in the training part")
    loss: Literal["cross_entropy", "ordinal"] = Field(
        "ordinal", description="ordinal: cross entropy plus the ranked probability score"
    )


class Age(_Task):
    """Age in years, as probabilities over whole years."""

    oldest: int = Field(100, ge=10, le=130, description="older faces count as this old")
    sigma: float = Field(2.0, gt=0, le=20, description="years; spread of the label in the cross entropy")
    crps: float = Field(1.0, ge=0, description="weight of the continuous ranked probability score")


class Tasks(_Settings):
    """What is learnt; a task that is absent is not. In a recipe `[gender, age]` stands for both with their defaults."""

    gender: Gender | None = None
    age_group: AgeGroup | None = None
    age: Age | None = None
    columns: dict[str, Column] = Field({}, description="further columns, as race or Smiling, learnt in training only")
    weighting: Literal["fixed", "uncertainty"] = Field(
        "fixed", description="uncertainty: loss weights are learnt (Kendall, Gal and Cipolla 2018)"
    )

    @model_validator(mode="after")
    def _any(self) -> "Tasks":
        if not self.predicted():
            raise ValueError(f"no task; valid: any of {', '.join(PREDICTED)}")
        taken = [name for name in self.columns if name in (*PREDICTED, *_NO_LABELS)]
        if taken:
            raise ValueError(f"columns: {taken[0]!r} is no further column of the faces table; valid: as race, Smiling")
        return self

    def predicted(self) -> dict[str, Gender | AgeGroup | Age]:
        """The tasks that are learnt and predicted, by name."""
        return {name: getattr(self, name) for name in PREDICTED if getattr(self, name) is not None}

    def named(self) -> dict[str, Gender | AgeGroup | Age | Column]:
        """All that is learnt, by name; a further column goes by its own."""
        return {**self.predicted(), **self.columns}


PREDICTED = ("gender", "age_group", "age")
"""The tasks that a model predicts."""

_NO_LABELS = ("face", "dataset", "path", "x", "y", "w", "h", "subject", "photo", "fold", "split")


class RandAugment(_Settings):
    """RandAugment (Cubuk et al. 2020)."""

    layers: int = Field(2, ge=1, le=10, description="operations one after the other")
    magnitude: int = Field(9, ge=0, le=30, description="of 31 steps")


class Augment(_Settings):
    """What is done to training images in this order; each from the range around no change."""

    flip: Share = Field(0.5, ge=0, le=1, description="probability of a mirror image")
    rotate: float = Field(0.0, ge=0, le=180, description="degrees to either side")
    shift: Share = Field(0.0, ge=0, le=1, description="share of the side, in both directions")
    zoom: tuple[float, float] = Field((1.0, 1.0), description="range of scales; below 1 shows more around the face")
    shear: float = Field(0.0, ge=0, le=60, description="degrees to either side")
    brightness: Share = Field(0.0, ge=0, le=1)
    contrast: Share = Field(0.0, ge=0, le=1)
    saturation: Share = Field(0.0, ge=0, le=1)
    gray: Share = Field(0.0, ge=0, le=1, description="probability of a grey image")
    blur: Share = Field(0.0, ge=0, le=1, description="probability of a blurred image")
    jpeg: Share = Field(0.0, ge=0, le=1, description="probability of the traces of JPEG at a quality of 15 to 75")
    randaugment: RandAugment | None = None
    erase: Share = Field(0.0, ge=0, le=1, description="probability of an erased rectangle")
    mixup: float = Field(0.0, ge=0, le=10, description="alpha of MixUp (Zhang et al. 2018); 0: none")
    cutmix: float = Field(0.0, ge=0, le=10, description="alpha of CutMix (Yun et al. 2019); with MixUp: either")
    judged: bool = Field(
        False,
        description="validation and test images too: a mistake of published work, kept to show what it costs",
    )

    @model_validator(mode="after")
    def _ordered(self) -> "Augment":
        low, high = self.zoom
        if not 0.1 <= low <= high <= 10:
            raise ValueError(f"zoom is [{low}, {high}]; valid: 0.1 <= low <= high <= 10")
        return self


class Optim(_Settings):
    """How the weights move."""

    name: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    momentum: Share = Field(0.9, ge=0, lt=1, description="sgd only; rmsprop is as Keras has it")
    backbone_lr: float = Field(1.0, ge=0, description="factor of the learning rate in the backbone")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="factor of the learning rate from each of the backbone's layers to the one below"
    )
    schedule: Literal["cosine", "constant", "plateau"] = "cosine"
    warmup: float = Field(0.0, ge=0, description="epochs of linear warm-up")
    clip: float = Field(0.0, ge=0, description="bound of the gradient's norm; 0: none")


class Trainer(_Settings):
    """How long, on what, and with which seed."""

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(64, ge=1, description="faces of a step, which the processes share")
    seed: int = 0
    precision: Literal["32", "16-mixed", "bf16-mixed"] = "32"
    devices: int | Literal["auto"] = Field(
        1, description="GPUs of each machine, or processes on its CPU; auto: all GPUs"
    )
    nodes: int = Field(1, ge=1, description="machines; torchrun or Slurm starts mien on each")
    workers: int = Field(1, ge=0, description="processes that load images; 0: the training process itself")
    keep: Literal["best", "last"] = Field("best", description="weights of which epoch; best: lowest validation loss")
    patience: int | None = Field(None, ge=1, description="stop after this many epochs without a lower validation loss")
    averaging: Share = Field(
        0.0, ge=0, lt=1, description="decay of an exponential moving average of the weights; 0: none"
    )
    checkpoint_every: int = Field(200, ge=1, description="steps between checkpoints to resume from")


class Init(_Settings):
    """Where the weights come from; with `data`, the network is first trained on that (a first stage)."""

    weights: FilePath = Field(
        "imagenet",
        description="imagenet, none, package (from the package registry), a run's folder or a .safetensors",
    )
    heads: bool = Field(False, description="keep shared layers and the heads of common tasks too, not the body alone")
    data: Data | None = Field(None, description="faces of a first stage, from whose run this one starts")
    split: Split | None = Field(None, description="of the first stage; null: as the second's")
    tasks: Tasks | None = Field(None, description="of the first stage; null: as the second's")
    augment: Augment | None = Field(None, description="of the first stage; null: as the second's")
    optim: Optim | None = Field(None, description="of the first stage; null: as the second's")
    trainer: Trainer | None = Field(None, description="of the first stage; null: as the second's")

    @model_validator(mode="after")
    def _first_stage(self) -> "Init":
        given = [name for name in STAGE if name != "data" and getattr(self, name) is not None]
        if given and self.data is None:
            raise ValueError(f"{given[0]} is for a first stage, which needs init.data (source and root)")
        return self


STAGE = ("data", "split", "tasks", "augment", "optim", "trainer")
"""The sections that a first stage may have of its own."""


class Teach(_Settings):
    """Earlier runs as teachers: their averaged answers about the training faces are learnt beside the labels.

    Knowledge distillation (Hinton, Vinyals and Dean 2015), from answers that are asked for once, about each face as it
    is and its mirror image.
    """

    runs: tuple[FilePath, ...] = Field(min_length=1, description="folders of runs that predict the same tasks")
    share: Share = Field(0.7, gt=0, le=1, description="of the teachers' answers in the loss; the rest is the labels'")


class Recipe(_Settings):
    """One training run."""

    name: str = "recipe"
    data: Data = Data()
    split: Split = Split()
    model: Model = Model()
    init: Init = Init()
    tasks: Tasks = Tasks(gender=Gender())
    teach: Teach | None = None
    augment: Augment = Augment()
    optim: Optim = Optim()
    trainer: Trainer = Trainer()

    @model_validator(mode="after")
    def _possible(self) -> "Recipe":
        if self.data.map and self.data.source != "csv":
            raise ValueError(f"data.map is for data.source 'csv' only; data.source is {self.data.source!r}")
        if self.optim.warmup >= self.trainer.epochs:
            raise ValueError(
                f"optim.warmup is {self.optim.warmup:g} epochs of trainer.epochs {self.trainer.epochs}; valid: fewer"
            )
        if self.optim.schedule == "plateau" and self.optim.warmup:
            raise ValueError("optim.warmup with optim.schedule 'plateau'; valid: optim.warmup 0, or another schedule")
        if self.init.weights == "none" and self.model.freeze != "none":
            raise ValueError(
                f"model.freeze is {self.model.freeze!r} and init.weights 'none': random weights would stay"
            )
        if self.teach is not None and (self.augment.mixup or self.augment.cutmix):
            raise ValueError("teach with augment.mixup or augment.cutmix: teachers are asked about whole faces")
        try:
            first_stage(self)
        except ValidationError as error:
            raise ValueError(f"first stage: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
        return self

    def to_yaml(self) -> str:
        """Every setting, defaults included, as YAML that `load_recipe` reads again."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def without_paths(recipe: Recipe) -> Recipe:
    """The recipe without what is true of one machine alone: folders of data are left out, of weights the name stays."""
    where = {"root": None, "faces": None}
    start, weights = recipe.init, recipe.init.weights
    own = {
        "weights": weights if weights.startswith("hub:") else Path(weights).name,
        "data": start.data and start.data.model_copy(update=where),
    }
    data = recipe.data.model_copy(update=where)
    teach = recipe.teach
    if teach is not None:
        names = tuple(run if run.startswith("hub:") else Path(run).name for run in teach.runs)
        teach = teach.model_copy(update={"runs": names})
    return recipe.model_copy(update={"data": data, "init": start.model_copy(update=own), "teach": teach})


def first_stage(recipe: Recipe) -> Recipe | None:
    """The recipe of the first stage, or None where there is only one."""
    if recipe.init.data is None:
        return None
    own = {name: getattr(recipe.init, name) or getattr(recipe, name) for name in STAGE}
    where = {"devices": recipe.trainer.devices, "nodes": recipe.trainer.nodes}
    own["trainer"] = own["trainer"].model_copy(update=where)  # the same processes train both
    return Recipe(name=f"{recipe.name}-first", model=recipe.model, init=Init(weights=recipe.init.weights), **own)
