"""The network (uint8 pixels in, logits out) and what Lightning needs to train it."""

from collections.abc import Sequence
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from mien.recipe import Optim, Recipe
from mien.training.backbones import count_features, freeze, make_backbone, normalization
from mien.training.heads import Head, make_heads, mlp


class FaceNet(nn.Module):
    """Preprocessing, backbone, shared layers and heads."""

    mean: Tensor
    std: Tensor

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        mean, std = normalization(recipe.model)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)
        self.backbone = make_backbone(recipe.model, recipe.init)
        # Not registered a second time: the modules belong to the backbone.
        self._frozen: Sequence[nn.Module] = tuple(freeze(self.backbone, recipe.model.freeze))
        features = count_features(self.backbone, recipe.model.image_size)
        self.shared, features = mlp(features, recipe.model.hidden, recipe.model)
        self.head = nn.ModuleDict(make_heads(recipe.tasks.named(), features, recipe.model))
        # On a CPU depthwise convolutions are five times as fast in this layout, and on a GPU others are too.
        self.to(memory_format=torch.channels_last)

    @property
    def heads(self) -> dict[str, Head]:
        """The head of each task."""
        return cast(dict[str, Head], dict(self.head.items()))

    def train(self, mode: bool = True) -> "FaceNet":
        """As always, but what is frozen stays in inference mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of each task from uint8 images (n, 3, size, size)."""
        pixels = (images.to(self.mean.dtype, memory_format=torch.channels_last) - self.mean) / self.std
        features = self.shared(self.backbone(pixels))
        return {task: head(features) for task, head in self.heads.items()}

    def decode(self, logits: dict[str, Tensor]) -> dict[str, Tensor]:
        """Columns of the predictions table, each (n,)."""
        columns: dict[str, Tensor] = {}
        for task, head in self.heads.items():
            columns |= head.decode(logits[task].float())
        return columns


class FaceTraining(pl.LightningModule):
    """Trains a `FaceNet`.

    A batch is a dictionary: `images` uint8 (n, 3, size, size), `targets` of each task (n,), `index` (n,) of the
    faces, and `unreadable`, the (index, reason) of faces that should have been in it.
    """

    def __init__(self, net: FaceNet, recipe: Recipe) -> None:
        super().__init__()
        self.net = net
        self.recipe = recipe
        self.unreadable: dict[int, str] = {}
        self._weights = {task: settings.weight for task, settings in recipe.tasks.named().items()}
        self._validation: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor | None:
        """The weighted sum of the tasks' masked losses."""
        self.unreadable.update(dict(batch["unreadable"]))
        if not len(batch["images"]):
            return None
        losses = self._losses(self.net(batch["images"]), batch["targets"])
        loss = self._total(losses)
        self.log("train_loss", loss.detach(), on_step=True, on_epoch=False, batch_size=len(batch["images"]))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """Keeps logits and targets: the validation loss is that of the whole table, not a mean over batches."""
        self.unreadable.update(dict(batch["unreadable"]))
        if len(batch["images"]):
            self._validation.append((self.net(batch["images"]), batch["targets"]))

    def on_validation_epoch_end(self) -> None:
        """Logs the loss of each task over the validation part, and their weighted sum."""
        logits = {task: torch.cat([step[0][task] for step in self._validation]) for task in self._weights}
        targets = {task: torch.cat([step[1][task] for step in self._validation]) for task in self._weights}
        self._validation.clear()
        losses = self._losses(logits, targets)
        self.log("val_loss", self._total(losses), sync_dist=True)
        self.log_dict({f"val_loss_{task}": loss for task, loss in losses.items()}, sync_dist=True)
        self.log_dict(_quick_scores(self.net.decode(logits), targets), sync_dist=True)

    def _losses(self, logits: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        return {task: head.loss(logits[task], targets[task]) for task, head in self.net.heads.items()}

    def _total(self, losses: dict[str, Tensor]) -> Tensor:
        return torch.stack([self._weights[task] * loss for task, loss in losses.items()]).sum()

    def configure_optimizers(self) -> Any:
        """The recipe's optimizer and schedule."""
        settings = self.recipe.optim
        optimizer = make_optimizer(self.net, settings)
        if settings.schedule == "plateau":
            plateau = ReduceLROnPlateau(optimizer, factor=0.2, patience=2)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}
        # Not trainer.estimated_stepping_batches: it would start the loaders before a checkpoint tells them where.
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


def make_optimizer(net: FaceNet, settings: Optim) -> torch.optim.Optimizer:
    """The optimizer, with the backbone's own learning rate and without weight decay of biases and norms."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            lr = settings.lr * (settings.backbone_lr if name.startswith("backbone.") else 1)
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((lr, decay), []).append(parameter)
    options: list[dict[str, Any]] = [
        {"params": parameters, "lr": lr, "weight_decay": decay} for (lr, decay), parameters in groups.items()
    ]
    if settings.name == "sgd":
        return torch.optim.SGD(options, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)
    if settings.name == "rmsprop":
        # Keras' rho and epsilon; torch's own are 0.99 and 1e-8.
        return torch.optim.RMSprop(options, lr=settings.lr, alpha=0.9, eps=1e-7, momentum=settings.momentum)
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind(options, lr=settings.lr)


def _quick_scores(columns: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the log shows of the validation part; the numbers to report come from `metrics`, with intervals."""
    scores = {}
    if "gender" in targets:
        known = ~torch.isnan(targets["gender"])
        right = (columns["p_female"] < 0.5).float() == targets["gender"]
        scores["val_gender_accuracy"] = right[known].float().mean()
    if "age" in targets:
        scores["val_age_mae"] = (columns["age"] - targets["age"]).abs().nanmean()
    if "age_group" in targets:
        known = ~torch.isnan(targets["age_group"])
        groups = torch.stack([value for name, value in columns.items() if name.startswith("p_") and name != "p_female"])
        scores["val_age_group_exact"] = (groups.argmax(0) == targets["age_group"])[known].float().mean()
    return scores
