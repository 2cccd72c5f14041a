"""Heads: each has a label column, a layer, a masked loss, and a decoder of logits to prediction columns.

To add a task: its settings in `recipe.Tasks`, its head here and a line in `HEADS`.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.base.errors import MienError, choices
from mien.base.labels import AGE_GROUPS, GENDERS
from mien.base.table import FACES_COLUMNS, age_ranges, age_to_group
from mien.recipe.settings import Age, Model, Tasks

LEVELS = (0.1, 0.9)
"""Levels of the ends of the 80% age interval, before calibration."""


def mlp(features: int, hidden: Sequence[int], model: Model) -> tuple[nn.Sequential, int]:
    """Returns hidden layers (dropout, linear, optional batch normalization, ReLU) and the number of their outputs."""
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Dropout(model.dropout), nn.Linear(features, units)]
        layers += [nn.BatchNorm1d(units)] if model.batch_norm else []
        layers.append(nn.ReLU())
        features = units
    return nn.Sequential(*layers), features


class Head(nn.Module):
    """The head of one task.

    Targets are float tensors with a row for each face, (n,) or, of ages, (n, 2), NaN where the label is missing; logits
    are (n, `units`).
    """

    column: str
    units: int
    temperature: Tensor

    def __init__(self, settings: Any, features: int, model: Model) -> None:
        super().__init__()
        self.settings = settings
        body, features = mlp(features, settings.hidden, model)
        self.layer = nn.Sequential(*body, nn.Dropout(model.dropout), nn.Linear(features, self.units))
        # Calibration is stored in the ONNX file, not in the weights.
        self.register_buffer("temperature", torch.ones(()), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (n, units) of features (n, f)."""
        return self.layer(features)

    def loss(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Returns the mean loss over the labelled faces; zero with a zero gradient if none is labelled.

        Args:
            logits: (n, units).
            target: (n, ...).
            weight: (n,) weight of each face; None: equal weights. Mixed images occur twice, with the label and share of
                each of their parts.
        """
        known = is_known(target)
        if not known.any():
            return logits.sum() * 0.0
        losses = self._losses(logits[known].float(), target[known])
        if weight is None:
            return losses.mean()
        return (losses * weight[known]).sum() / weight[known].sum().clamp(min=1e-6)

    def fit(self, faces: pd.DataFrame) -> None:  # noqa: B027 - most heads need nothing from the table
        """Computes what the loss needs from the training faces (class weights)."""

    @abstractmethod
    def target(self, faces: pd.DataFrame) -> Tensor:
        """Returns the labels of a faces table, float (n, ...), NaN if missing."""

    @abstractmethod
    def _losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the loss (n,) of each face; no target is missing."""

    def proper_score(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the score (n,) that calibration minimizes: the negative log-likelihood; no target is missing."""
        return F.cross_entropy(logits, target.long(), reduction="none")

    @abstractmethod
    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """Columns of the predictions table, each (n,)."""

    def probability(self, logits: Tensor) -> Tensor:
        """Returns the probabilities (n, units) of the logits: the soft targets of a teacher."""
        return logits.softmax(1)

    def distillation_loss(self, logits: Tensor, soft_targets: Tensor) -> Tensor:
        """Returns the mean loss against the soft targets (n, units) of teachers."""
        return F.cross_entropy(logits.float(), soft_targets)


def is_known(target: Tensor) -> Tensor:
    """Which rows (n,) of a target (n, ...) have a label."""
    return ~torch.isnan(target.flatten(1).sum(1) if target.ndim > 1 else target)


def _codes(column: pd.Series) -> Tensor:
    codes = column.cat.codes.to_numpy().astype(np.float32)
    return torch.from_numpy(np.where(codes < 0, np.nan, codes).astype(np.float32))


class _ClassHead(Head):
    """A head over classes, optionally weighted by their inverse frequency in the training part."""

    class_weight: Tensor
    classes: int

    def __init__(self, settings: Any, features: int, model: Model) -> None:
        super().__init__(settings, features, model)
        self.register_buffer("class_weight", torch.ones(self.classes), persistent=False)

    def fit(self, faces: pd.DataFrame) -> None:
        """Sets the class weights, whose mean over the labelled training faces is 1."""
        if self.settings.class_weights:
            target = self.target(faces)
            counts = torch.bincount(target[~torch.isnan(target)].long(), minlength=self.classes)
            self.class_weight.copy_(counts.sum() / (self.classes * counts.clamp(min=1)))

    def target(self, faces: pd.DataFrame) -> Tensor:
        """The code of each class."""
        return _codes(faces[self.column])


class ColumnHead(_ClassHead):
    """An auxiliary categorical column, which trains the backbone and is never predicted.

    Its classes are those of the training part; another value elsewhere counts as missing.
    """

    def __init__(self, settings: Any, features: int, model: Model, column: str, classes: Sequence[str]) -> None:
        self.column, self.names = column, tuple(classes)
        self.classes = self.units = len(self.names)
        super().__init__(settings, features, model)

    def target(self, faces: pd.DataFrame) -> Tensor:
        """The code of each class."""
        text = _as_text(faces[self.column])
        return _codes(text.where(text.isin(self.names)).astype(pd.CategoricalDtype(list(self.names))))

    def _losses(self, logits: Tensor, target: Tensor) -> Tensor:
        index = target.long()
        return F.cross_entropy(logits, index, reduction="none") * self.class_weight[index]

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """Returns no columns: the head is for training only."""
        return {}


class GenderHead(_ClassHead):
    """Perceived gender: one logit, positive for female."""

    column = "gender"
    units = 1
    classes = len(GENDERS)

    def _losses(self, logits: Tensor, target: Tensor) -> Tensor:
        smooth = self.settings.label_smoothing
        female = (target == GENDERS.index("female")).float() * (1 - smooth) + smooth / 2
        loss = F.binary_cross_entropy_with_logits(logits[:, 0], female, reduction="none")
        return loss * self.class_weight[target.long()]

    def probability(self, logits: Tensor) -> Tensor:
        """Of female (n, 1)."""
        return torch.sigmoid(logits)

    def distillation_loss(self, logits: Tensor, soft_targets: Tensor) -> Tensor:
        """The mean binary cross entropy."""
        return F.binary_cross_entropy_with_logits(logits.float(), soft_targets)

    def proper_score(self, logits: Tensor, target: Tensor) -> Tensor:
        """The negative log-likelihood (n,)."""
        female = (target == GENDERS.index("female")).float()
        return F.binary_cross_entropy_with_logits(logits[:, 0], female, reduction="none")

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """`p_female`."""
        return {"p_female": torch.sigmoid(logits[:, 0] / self.temperature)}


class AgeGroupHead(_ClassHead):
    """Age group: a logit each; the ordinal loss also counts how far off the probabilities are.

    Ordinal: cross entropy plus the ranked probability score (Epstein 1969; as a loss: the squared earth mover's
    distance of Hou, Yu and Samaras 2016), which is a proper scoring rule, so that probabilities stay calibrated.
    """

    column = "age_group"
    units = len(AGE_GROUPS)
    classes = len(AGE_GROUPS)

    def _losses(self, logits: Tensor, target: Tensor) -> Tensor:
        index = target.long()
        loss = F.cross_entropy(logits, index, reduction="none")
        if self.settings.loss == "ordinal":
            loss = loss + _ranked_probability_score(logits.softmax(1), F.one_hot(index, self.classes).float())
        return loss * self.class_weight[index]

    def distillation_loss(self, logits: Tensor, soft_targets: Tensor) -> Tensor:
        """The mean of the same loss as of labels."""
        loss = super().distillation_loss(logits, soft_targets)
        if self.settings.loss == "ordinal":
            loss = loss + _ranked_probability_score(logits.float().softmax(1), soft_targets).mean()
        return loss

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """`p_<age group>` for each group."""
        probability = (logits / self.temperature).softmax(1)
        return {f"p_{group}": probability[:, code] for code, group in enumerate(AGE_GROUPS)}


class AgeHead(Head):
    """Age in years: a logit for each whole year from 0 to the oldest, read as a distribution.

    A target is the first and the last year that the age is known to lie in, so that faces with a year, with a range and
    with an age group train one head.

    Loss of a range: the negative logarithm of the probability that the distribution puts into it, which is the
    likelihood of an interval-censored age. It says nothing about where in the range the age lies.

    Loss of a year: cross entropy with a label that is spread over the neighbouring years (Gao et al. 2017, deep label
    distribution learning), plus the continuous ranked probability score (Matheson and Winkler 1976), in units of ten
    years; the latter generalises the absolute error to distributions. A year is a range of one, but the loss of a range
    would count an answer that is one year off like one that is forty years off, and years as people estimate or state
    them are not that exact. The score needs the year itself: for a range it has no proper form.
    """

    column = "age"

    def __init__(self, settings: Age, features: int, model: Model) -> None:
        self.units = settings.oldest + 1
        super().__init__(settings, features, model)
        years = np.arange(self.units)
        self.register_buffer("years", torch.tensor(years).float(), persistent=False)
        groups = torch.tensor(age_to_group(years).codes.astype(np.int64))
        self.register_buffer("group", F.one_hot(groups, len(AGE_GROUPS)).float(), persistent=False)
        for name, level in zip(("low", "high"), LEVELS, strict=True):
            self.register_buffer(name, torch.full((len(AGE_GROUPS),), level), persistent=False)

    years: Tensor
    group: Tensor
    low: Tensor
    high: Tensor

    def target(self, faces: pd.DataFrame) -> Tensor:
        """The first and the last year (n, 2) of each age, at most the oldest; equal where the year is known."""
        return torch.from_numpy(age_ranges(faces).astype(np.float32)).clamp(max=float(self.settings.oldest))

    def _losses(self, logits: Tensor, target: Tensor) -> Tensor:
        return torch.where(is_year(target), self._year_losses(logits, target[:, 0]), self._surprise(logits, target))

    def _year_losses(self, logits: Tensor, year: Tensor) -> Tensor:
        """The losses (n,) if the ages are these years (n,)."""
        spread = -0.5 * ((self.years - year[:, None]) / self.settings.sigma) ** 2
        loss = F.cross_entropy(logits, spread.softmax(1), reduction="none")
        if self.settings.crps:
            loss = loss + self.settings.crps * self._ranked_score(logits, year) / 10
        return loss

    def _surprise(self, logits: Tensor, target: Tensor) -> Tensor:
        """The negative logarithm (n,) of the probability of the years from first to last (n, 2)."""
        # Years begin half a year earlier, as in `_quantile`; so a range is never empty, one of 30.5 to 30.5 neither.
        inside = (self.years > target[:, :1] - 0.5) & (self.years <= target[:, 1:] + 0.5)
        return logits.logsumexp(1) - logits.masked_fill(~inside, -torch.inf).logsumexp(1)

    def _ranked_score(self, logits: Tensor, year: Tensor) -> Tensor:
        """The continuous ranked probability score (n,) of the years (n,), in years."""
        return _ranked_probability_score(logits.softmax(1), F.one_hot(year.round().long(), self.units).float())

    def distillation_loss(self, logits: Tensor, soft_targets: Tensor) -> Tensor:
        """The mean of the same loss as of labels."""
        loss = super().distillation_loss(logits, soft_targets)
        if self.settings.crps:
            score = _ranked_probability_score(logits.float().softmax(1), soft_targets).mean()
            loss = loss + self.settings.crps * score / 10
        return loss

    def decode(self, logits: Tensor) -> dict[str, Tensor]:
        """`age` (median), `age_low` and `age_high` (80%), and `p_<age group>`, which the age group head overrides."""
        probability = (logits / self.temperature).softmax(1)
        groups = probability @ self.group
        columns = {
            "age": self._quantile(probability, 0.5),
            "age_low": self._quantile(probability, (groups @ self.low)[:, None]),
            "age_high": self._quantile(probability, (groups @ self.high)[:, None]),
        }
        return columns | {f"p_{group}": groups[:, code] for code, group in enumerate(AGE_GROUPS)}

    def proper_score(self, logits: Tensor, target: Tensor) -> Tensor:
        """For years the continuous ranked probability score (n,), for ranges the negative log-likelihood."""
        year = is_year(target)
        return torch.where(year, self._ranked_score(logits, target[:, 0]), self._surprise(logits, target))

    def _quantile(self, probability: Tensor, share: float | Tensor) -> Tensor:
        """The age (n,) below which `share` (one, or (n, 1)) of the probability (n, years) lies, linear within a year.

        Each year holds its probability evenly from half a year before to half a year after it. So it adds a whole
        year where all of it lies below the quantile, a part where the quantile is inside, and nothing above.
        """
        below = probability.cumsum(1) - probability
        part = ((share - below) / probability.clamp(min=1e-12)).clamp(0, 1)
        return (part.sum(1) - 0.5).clamp(0, self.units - 1)


def is_year(target: Tensor) -> Tensor:
    """Which ages (n,), each from a first to a last year (n, 2), are known to the year."""
    return target[:, 0] == target[:, 1]


def _ranked_probability_score(probability: Tensor, truth: Tensor) -> Tensor:
    """The squared differences (n,) of cumulated probabilities (n, k) and those of the truth (n, k)."""
    return ((probability.cumsum(1) - truth.cumsum(1)) ** 2).sum(1)


HEADS: dict[str, type[Head]] = {"gender": GenderHead, "age": AgeHead, "age_group": AgeGroupHead}
"""Task -> head; if two heads give the same column, the later one is used."""


def make_heads(tasks: Tasks, features: int, model: Model, classes: Mapping[str, Sequence[str]]) -> dict[str, Head]:
    """Returns the heads of a network, in the order of `HEADS`, then those of auxiliary columns with their `classes`."""
    named = tasks.predicted()
    heads: dict[str, Head] = {name: kind(named[name], features, model) for name, kind in HEADS.items() if name in named}
    for column, settings in tasks.columns.items():
        heads[column] = ColumnHead(settings, features, model, column, classes[column])
    return heads


def label_column(task: str) -> str:
    """Returns the label column of a task in the faces table."""
    return HEADS[task].column if task in HEADS else task


def column_classes(tasks: Tasks, faces: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Returns the classes of each auxiliary column in the training faces, in alphabetical order.

    Raises:
        MienError: The table has no such column, or it has fewer than 2 or more than `MOST_CLASSES` classes.
    """
    found = {}
    for column in tasks.columns:
        if column not in faces.columns:
            further = [name for name in faces.columns if name not in FACES_COLUMNS]
            raise MienError(f"tasks.columns: {choices('column of the faces table', column, further)}")
        classes = sorted(_as_text(faces[column]).dropna().unique())
        if not 2 <= len(classes) <= MOST_CLASSES:
            raise MienError(
                f"tasks.columns: {column!r} has {len(classes)} classes in the training part; valid: 2 to {MOST_CLASSES}"
            )
        found[column] = tuple(classes)
    return found


MOST_CLASSES = 100
"""A column with more classes is not treated as categorical (names, numbers)."""


def _as_text(column: pd.Series) -> pd.Series:
    return column.astype("object").map(str, na_action="ignore")
