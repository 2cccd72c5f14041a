"""The network (uint8 pixels to logits) and its Lightning module."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from mien.base.labels import AGE_GROUPS
from mien.recipe.settings import Optim, Recipe
from mien.training.backbones import count_features, freeze, load_heads, make_backbone, normalization
from mien.training.heads import Head, is_known, is_year, make_heads, mlp

LossInputs = dict[str, Any]
"""Inputs of the losses for n faces: `index` (n,), by task `logits` (n, units) and `targets` (n, ...); with teachers
`soft_targets` (n, units) by task; for mixed images `partners`, the labels of the other image (n,), and `own`, the share
of the own image (n,).
"""


class FaceNet(nn.Module):
    """Preprocessing, backbone, shared layers and heads.

    Args:
        recipe: The recipe.
        classes: The classes of each auxiliary column of the recipe (`heads.column_classes`).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, recipe: Recipe, classes: Mapping[str, Sequence[str]] | None = None) -> None:
        super().__init__()
        mean, std = normalization(recipe.model)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)
        self.backbone = make_backbone(recipe.model, recipe.init)
        # A tuple, so that the modules of the backbone are not registered a second time.
        self._frozen: Sequence[nn.Module] = tuple(freeze(self.backbone, recipe.model.freeze))
        features = count_features(self.backbone, recipe.model.image_size)
        self.shared, features = mlp(features, recipe.model.hidden, recipe.model)
        self.head = nn.ModuleDict(make_heads(recipe.tasks, features, recipe.model, classes or {}))
        if recipe.init.heads:
            load_heads(self, recipe.init.weights)
        # In this layout depthwise convolutions are five times as fast on a CPU; other convolutions are faster on a GPU.
        self.to(memory_format=torch.channels_last)
        # Lightning keeps the modes of modules: without this call, frozen batch statistics would change in training.
        self.train()

    @property
    def heads(self) -> dict[str, Head]:
        """The head of each task."""
        return cast(dict[str, Head], dict(self.head.items()))

    def train(self, mode: bool = True) -> "FaceNet":
        """Sets the mode; frozen modules stay in inference mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of each task from uint8 images (n, 3, size, size)."""
        pixels = (images.to(self.mean.dtype, memory_format=torch.channels_last) - self.mean) / self.std
        features = self.shared(self.backbone(pixels))
        return {task: head(features) for task, head in self.heads.items()}

    def squared_weights(self) -> Tensor:
        """The sum of the squared weights of hidden and output layers, which Keras' L2 adds to the loss."""
        layers = [module for part in (self.shared, self.head) for module in part.modules()]
        return torch.stack([layer.weight.square().sum() for layer in layers if isinstance(layer, nn.Linear)]).sum()

    def decode(self, logits: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns columns of the predictions table, each (n,)."""
        columns: dict[str, Tensor] = {}
        for task, head in self.heads.items():
            columns |= head.decode(logits[task].float())
        return columns


class FaceTraining(pl.LightningModule):
    """Trains a `FaceNet`.

    A batch is a mapping: `images` uint8 (n, 3, size, size), `targets` of each task (n,), `index` (n,) of the
    faces, and `unreadable`, the (index, reason) of faces that could not be read; with teachers also `soft_targets`,
    their probabilities (n, units) for each task.
    """

    def __init__(self, net: FaceNet, recipe: Recipe) -> None:
        super().__init__()
        self.net = net
        self.recipe = recipe
        self.unreadable: dict[int, str] = {}
        self._weights = {task: settings.weight for task, settings in recipe.tasks.named().items()}
        learnt = self._weights if recipe.tasks.weighting == "uncertainty" else ()
        # Logarithms of the tasks' variances; not part of the network, whose weights are saved.
        self.log_variance = nn.ParameterDict({task: nn.Parameter(torch.zeros(())) for task in learnt})
        self._validation: list[LossInputs] = []

    def training_step(self, batch: dict[str, Any], batch_index: int) -> dict[str, Any] | None:
        """Returns the weighted sum of the masked losses of the tasks, plus the L2 penalty."""
        rows = self._rows(batch)
        if rows is None:
            return None
        # The weight of a label depends on the number of labelled faces in the batch, so a mean over processes differs
        # from the loss of the batch. Each process computes the loss of the whole batch; DDP averages gradients.
        rows = gathered(rows, self.all_gather) if self.trainer.world_size > 1 else rows
        loss = self._learning_loss(self._losses(rows))
        self.log("train_loss", loss.detach(), on_step=True, on_epoch=False, batch_size=len(rows["index"]))
        return {"loss": loss, "images": len(rows["index"])}

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """Keeps logits and targets: the validation loss is that of the whole table, not a mean over batches."""
        rows = self._rows(batch)
        if rows is not None:
            self._validation.append(gathered(rows, self.all_gather) if self.trainer.world_size > 1 else rows)

    def on_validation_epoch_end(self) -> None:
        """Logs the loss of each task over the validation part, and their weighted sum."""
        self._share_unreadable()
        index = torch.cat([rows["index"] for rows in self._validation])
        once = first_places(index)  # with an uneven share of faces, some are in two processes
        logits, targets = (
            {task: torch.cat([rows[what][task] for rows in self._validation])[once] for task in self._weights}
            for what in ("logits", "targets")
        )
        self._validation.clear()
        losses = self._losses({"logits": logits, "targets": targets})
        # With the weights of the recipe even if weights are learnt: epochs need a loss on a fixed scale.
        total = torch.stack([self._weights[task] * loss for task, loss in losses.items()]).sum()
        self.log("val_loss", total, sync_dist=True)
        self.log_dict({f"weight_{task}": torch.exp(-value) for task, value in self.log_variance.items()})
        self.log_dict({f"val_loss_{task}": loss for task, loss in losses.items()}, sync_dist=True)
        self.log_dict(_quick_scores(self.net.decode(logits), targets), sync_dist=True)

    def _rows(self, batch: Mapping[str, Any]) -> LossInputs | None:
        """Returns the inputs of the losses for a batch; None if no image could be read."""
        self.unreadable.update(dict(batch["unreadable"]))
        images, count = batch["images"], len(batch["index"])
        alone = self.trainer.world_size == 1
        if not count:
            if alone:
                return None
            # Other processes wait for the gradients of this one: those of a blank image that has no rows.
            size = self.recipe.model.image_size
            images = torch.zeros(2, 3, size, size, dtype=torch.uint8, device=self.device)
        logits = {task: values[:count] for task, values in self.net(images).items()}
        rows = {name: batch[name] for name in ("index", "targets", "soft_targets") if name in batch} | {
            "logits": logits
        }
        if "partner" in batch:
            rows["partners"] = {task: target[batch["partner"]] for task, target in batch["targets"].items()}
            rows["own"] = torch.full_like(batch["partner"], 1, dtype=torch.float) * batch["share"]
        return rows if alone else _padded(rows, count + len(batch["unreadable"]))

    def _share_unreadable(self) -> None:
        if self.trainer.world_size > 1:
            known: list[dict[int, str]] = [{}] * self.trainer.world_size
            torch.distributed.all_gather_object(known, self.unreadable)
            for part in known:
                self.unreadable.update(part)

    def _losses(self, rows: LossInputs) -> dict[str, Tensor]:
        """Returns the loss of each task; for mixed images that of both labels, weighted by their shares."""
        logits, targets = rows["logits"], rows["targets"]
        if "own" not in rows:
            losses = {task: head.loss(logits[task], targets[task]) for task, head in self.net.heads.items()}
            return losses | self._distillation_losses(logits, losses, rows.get("soft_targets", {}))
        weight = torch.cat([rows["own"], 1 - rows["own"]])
        return {
            task: head.loss(torch.cat([logits[task]] * 2), torch.cat([targets[task], rows["partners"][task]]), weight)
            for task, head in self.net.heads.items()
        }

    def _distillation_losses(
        self, logits: dict[str, Tensor], losses: dict[str, Tensor], soft_targets: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Returns the losses of tasks with soft targets, mixed with those of the labels."""
        weight = self.recipe.distillation.weight if self.recipe.distillation else 0.0
        return {
            task: (1 - weight) * losses[task] + weight * self.net.heads[task].distillation_loss(logits[task], targets)
            for task, targets in soft_targets.items()
        }

    def _learning_loss(self, losses: dict[str, Tensor]) -> Tensor:
        terms = {task: self._weights[task] * loss for task, loss in losses.items()}
        for task, value in self.log_variance.items():
            terms[task] = torch.exp(-value) * terms[task] + value / 2
        total = torch.stack(list(terms.values())).sum()
        l2 = self.recipe.model.l2
        return total + l2 * self.net.squared_weights() if l2 else total

    def configure_optimizers(self) -> Any:
        """Returns the optimizer and the schedule of the recipe."""
        settings = self.recipe.optim
        optimizer = make_optimizer(self.net, settings)
        if self.log_variance:
            optimizer.add_param_group({"params": list(self.log_variance.values()), "weight_decay": 0.0})
        if settings.schedule == "plateau":
            plateau = ReduceLROnPlateau(optimizer, factor=0.2, patience=2)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}
        # Not trainer.estimated_stepping_batches: it starts the loaders before a checkpoint restores their position.
        total = len(self.trainer.datamodule.train_dataloader()) * self.recipe.trainer.epochs  # type: ignore[attr-defined]
        warmup = int(settings.warmup * total / self.recipe.trainer.epochs)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            if settings.schedule == "constant":
                return 1.0
            done = (step - warmup) / max(1, total - warmup)
            return 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * min(done, 1.0)))))

        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"},
        }


def _padded(rows: LossInputs, size: int) -> LossInputs:
    """Pads to the same number of rows in each process; padding has the index -1."""
    more = size - len(rows["index"])
    padded = apply_to_collection(rows, Tensor, lambda part: functional.pad(part, (0, 0) * (part.ndim - 1) + (0, more)))
    padded["index"][size - more :] = -1
    return padded


def gathered(rows: LossInputs, gather: Callable[..., Any]) -> LossInputs:
    """Gathers the rows of all processes in the order of a single process, each face once; gradients flow back to all.

    Args:
        rows: Tensors (n, ...), with the same n in each process; an index of -1 marks padding.
        gather: Lightning's `all_gather`.
    """
    # With k processes, each has every k-th face of the batch.
    every = apply_to_collection(gather(rows, sync_grads=True), Tensor, lambda part: part.transpose(0, 1).flatten(0, 1))
    once = first_places(every["index"])
    return apply_to_collection(every, Tensor, lambda part: part[once])


def first_places(index: Tensor) -> Tensor:
    """Returns the first position of each index, in order; -1 is padding."""
    values, places = np.unique(index.cpu().numpy(), return_index=True)
    return torch.from_numpy(np.sort(places[values >= 0])).to(index.device)


def make_optimizer(net: FaceNet, settings: Optim) -> torch.optim.Optimizer:
    """Returns the optimizer, with the learning rates of the backbone, and no weight decay for biases and norms."""
    options = _parameter_groups(net, settings)
    if settings.name == "sgd":
        return torch.optim.SGD(options, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)
    if settings.name == "rmsprop":
        # Keras' rho, epsilon and momentum; torch's own are 0.99, 1e-8 and 0.
        return torch.optim.RMSprop(options, lr=settings.lr, alpha=0.9, eps=1e-7)
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind(options, lr=settings.lr)


def _parameter_groups(net: FaceNet, settings: Optim) -> list[dict[str, Any]]:
    """Groups parameters by learning rate and weight decay.

    Layer-wise rates as in Clark et al. 2020 (ELECTRA) and Bao et al. 2022 (BEiT): the last of the backbone's layers
    has the full rate, each below it `layer_decay` times that of the one above; timm defines the layers.
    """
    scale: dict[int, float] = {}
    if settings.layer_decay < 1:
        for group in param_groups_layer_decay(net.backbone, layer_decay=settings.layer_decay):
            scale |= {id(parameter): group["lr_scale"] for parameter in group["params"]}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            factor = settings.backbone_lr * scale.get(id(parameter), 1.0) if name.startswith("backbone.") else 1.0
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((settings.lr * factor, decay), []).append(parameter)
    return [{"params": parameters, "lr": lr, "weight_decay": decay} for (lr, decay), parameters in groups.items()]


def _quick_scores(columns: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns validation scores for the log; reported numbers come from `metrics`, with intervals."""
    scores = {}
    if "gender" in targets:
        known = ~torch.isnan(targets["gender"])
        right = (columns["p_female"] < 0.5).float() == targets["gender"]
        scores["val_gender_accuracy"] = right[known].float().mean()
    if "age" in targets:
        scores |= _age_scores(columns["age"], targets["age"])
    if "age_group" in targets:
        known = ~torch.isnan(targets["age_group"])
        groups = torch.stack([columns[f"p_{group}"] for group in AGE_GROUPS])
        scores["val_age_group_exact"] = (groups.argmax(0) == targets["age_group"])[known].float().mean()
    return scores


def _age_scores(age: Tensor, target: Tensor) -> dict[str, Tensor]:
    """The mean error of predicted ages (n,) where the year is known, and how far they lie outside of ranges (n, 2)."""
    off = torch.maximum(target[:, 0] - age, age - target[:, 1])
    year, known = is_year(target), is_known(target)
    ranged = known & ~year
    scores = {"val_age_range_error": (off[ranged] - 0.5).clamp(min=0).mean()} if ranged.any() else {}
    return scores if scores and not year.any() else scores | {"val_age_mae": off[year].mean()}
